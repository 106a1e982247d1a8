//! `fcvm gc`.

/// Remove what crashes left.
///
/// Every command removes what dead processes left before it begins; this one also removes
/// directories of VMs that have no record, and says what it was.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say what would go
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}
