//! `fcvm volume`.

use crate::volume::VolumeName;

/// Subcommands of `fcvm volume`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Create(Create),
    Inspect(Inspect),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Prune(Prune),
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

/// Make a volume, and print its name.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Name of the volume [default: generated]
    pub name: Option<VolumeName>,
    /// A label of the volume
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub label: Vec<String>,
}

/// Show all that is known of volumes, as JSON.
///
/// Fields are named as Podman names them; `InUse` is fcvm's own.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// Names of volumes
    #[arg(required = true, value_name = "VOLUME")]
    pub volumes: Vec<VolumeName>,
    /// Print a line for each, such as '{{.Mountpoint}}'
    #[arg(short, long, value_name = "TEMPLATE")]
    pub format: Option<String>,
}

/// List volumes.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Remove all volumes that no VM has, with what is in them.
#[derive(Debug, clap::Args)]
pub struct Prune {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

/// Remove volumes, with what is in them.
///
/// A volume that a running VM has stays.
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// Names of volumes
    #[arg(required = true, value_name = "VOLUME")]
    pub volumes: Vec<VolumeName>,
    /// Ignore volumes that are not there
    #[arg(short, long)]
    pub force: bool,
}
