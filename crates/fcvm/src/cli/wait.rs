//! `fcvm wait`.

/// Wait for the end of VMs, and print their exit codes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,
    /// What to wait for; only `exited` prints anything
    #[arg(long, value_enum, default_value_t)]
    pub condition: Condition,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Condition {
    /// The container has ended
    #[default]
    Exited,
    /// The container runs
    Running,
    /// The container runs and is well: without a health check, it runs
    Healthy,
    /// The container's health check fails
    Unhealthy,
}
