//! `fcvm inspect`.

/// Print all that is known of VMs, as a JSON array.
///
/// With --format, one field of each in a line: texts as they are, all else as JSON.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
    /// Print one field of each, such as .exit_code or .owner.pid
    #[arg(short, long, value_name = "PATH")]
    pub format: Option<String>,
}
