//! `fcvm rename`.

use crate::state::VmName;

/// Give a VM another name.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, id or beginning of an id
    #[arg(value_name = "VM")]
    pub vm: String,
    /// The new name
    #[arg(value_name = "NAME")]
    pub name: VmName,
}
