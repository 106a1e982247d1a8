//! `fcvm setup`.

use std::path::PathBuf;

/// Install kernel, base disk and initrd.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub sources: Sources,
    /// Only report what this machine has and lacks; exit 1 if something is missing
    #[arg(long, conflicts_with_all = ["generate_config", "prune", "force"])]
    pub check: bool,
    /// Write the default plan to edit: to --plan, or where it is looked for
    #[arg(long, conflicts_with = "prune")]
    pub generate_config: bool,
    /// Remove what neither the plan nor a snapshot needs
    #[arg(long, conflicts_with = "force")]
    pub prune: bool,
    /// Download Firecracker even where KVM cannot run it
    #[arg(long, conflicts_with_all = ["check", "generate_config", "prune"])]
    pub with_firecracker: bool,
    /// Make everything again; with --generate-config, overwrite the file
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Where kernel, base disk and agent come from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Sources {
    /// Plan file [default: rootfs-plan.toml in the data directory, $XDG_CONFIG_HOME/fcvm or /etc/fcvm; else built in]
    #[arg(long, env = "FCVM_PLAN", value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Guest agent: a static program [default: fc-agent beside fcvm or in ../libexec/fcvm]
    #[arg(long, env = "FCVM_AGENT", value_name = "FILE")]
    pub agent: Option<PathBuf>,
    /// Kernel to boot instead of the plan's: vmlinux, bzImage or Image, with all that guests need built in
    #[arg(long, env = "FCVM_KERNEL", value_name = "FILE")]
    pub kernel: Option<PathBuf>,
}
