//! `fcvm top`.

use std::process::ExitCode;

use fcvm_proto::{CONTAINER_ID, ExecRequest, ExecTarget};

use super::block_on;
use crate::{
    cli::top::Args,
    state::{Registry, RuntimeDir},
    storage::DataDir,
    vm::{self, Ends},
};

/// The guest's Podman, for the one container that it has.
const SCRIPT: &str = r#"exec podman top "$(cat "$0")" "$@""#;

/// Runs `fcvm top`.
///
/// # Errors
/// Where the VM does not run.
pub fn run(args: Args, data: &DataDir) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let vm = registry.find(&args.vm)?;
    let command =
        ["sh", "-c", SCRIPT, CONTAINER_ID].map(String::from).into_iter().chain(args.columns).collect();
    let request = ExecRequest::new(vm::exec_id()?, ExecTarget::Machine, command);
    let ends = Ends::inherited(&request)?;
    Ok(ExitCode::from(block_on(vm::exec(&vm, &registry, &request, ends))??))
}
