//! `fcvm top`.

/// Show the processes of a container.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, id or beginning of an id
    #[arg(value_name = "VM")]
    pub vm: String,
    /// Columns, as of `podman top`: pid, user, args, ...; or options of ps
    #[arg(value_name = "COLUMN", trailing_var_arg = true, allow_hyphen_values = true)]
    pub columns: Vec<String>,
}
