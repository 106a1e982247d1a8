//! `fcvm snapshot`.

use std::path::PathBuf;

use jiff::Timestamp;

use super::{
    clone::{Create, Run, Serve},
    image::moment,
};
use crate::snapshot::SnapshotTag;

/// Subcommands of `fcvm snapshot`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Create(Create),
    Export(Export),
    Import(Import),
    Inspect(Inspect),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Prune(Prune),
    #[command(visible_aliases = ["remove", "delete"])]
    Rm(Rm),
    Run(Box<Run>),
    Serve(Serve),
    Verify(Verify),
}

/// Write a snapshot to a file, to take it to another host.
///
/// It is a tar archive, compressed with zstd. The image, and what `fcvm setup` made, are not in it: the
/// other host needs the same.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// The snapshot
    pub tag: SnapshotTag,
    /// File to write, or `-` for standard output [default: standard output, where it is no terminal]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Take a snapshot in from a file that `fcvm snapshot export` wrote, and print its tag.
///
/// All of it is checked before there is a snapshot of that name.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// The file, or `-` for standard input
    pub file: PathBuf,
    /// What it is to be called [default: as it was]
    #[arg(short, long)]
    pub tag: Option<SnapshotTag>,
}

/// Show all that is known of snapshots, as JSON.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// Snapshots
    #[arg(required = true, value_name = "TAG")]
    pub tags: Vec<SnapshotTag>,
    /// Print a line for each, such as '{{.contents}} {{.image.reference}}'
    #[arg(short, long, value_name = "TEMPLATE")]
    pub format: Option<String>,
}

/// List snapshots.
///
/// The size is what a snapshot takes of the host's disk.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Print tags only
    #[arg(short, long)]
    pub quiet: bool,
    /// Instead those that fcvm prepared for later runs; their tags are keys
    #[arg(long)]
    pub prepared: bool,
}

/// Remove all snapshots that nobody uses.
#[derive(Debug, clap::Args)]
pub struct Prune {
    /// Only those made before: an age (90m, 24h, 7days) or a time (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "AGE", value_parser = until)]
    pub until: Option<Timestamp>,
    /// Instead those that fcvm prepared for later runs; with --until those that were not used since
    #[arg(long)]
    pub prepared: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

/// Remove snapshots.
///
/// A snapshot that a VM uses stays.
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// Snapshots
    #[arg(required = true, value_name = "TAG")]
    pub tags: Vec<SnapshotTag>,
    /// Ignore snapshots that are not there
    #[arg(short, long)]
    pub force: bool,
}

/// Read snapshots again, and compare them with their digests.
///
/// Prints a line for each file that is not what it was; exits with 1 where there is one.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// Snapshots [default: all]
    #[arg(value_name = "TAG")]
    pub tags: Vec<SnapshotTag>,
}

fn until(text: &str) -> Result<Timestamp, &'static str> {
    moment(text).and_then(|seconds| Timestamp::from_second(i64::try_from(seconds).ok()?).ok()).ok_or(
        "not a duration (90m, 24h, 7days), a time (2026-01-31T12:00:00Z), a date or seconds since 1970",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_times() {
        assert_eq!(until("1970-01-02T00:00:00Z").unwrap().as_second(), 86400);
        let before = Timestamp::now().as_second() - until("24h").unwrap().as_second();
        assert!((86400..86410).contains(&before), "{before}");
        assert!(until("soon").is_err() && until("").is_err());
    }
}
