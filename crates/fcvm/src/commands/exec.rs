//! `fcvm exec`: one more command in a VM that runs.

use std::process::ExitCode;

use fcvm_proto::{ExecRequest, ExecTarget, FailureKind};

use super::environment;
use crate::{
    cli::exec::Args,
    output::{Printer, USUAL_SIZE, terminal_size},
    state::{Registry, RuntimeDir, StateError, VmState},
    storage::DataDir,
    vm::{self, Ends, ExecError},
};

/// Runs `fcvm exec`.
///
/// # Errors
/// Where the VM does not run, or the command cannot be run in it.
pub fn run(args: Args, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let (vm, command) = addressed(&args, &registry)?;
    anyhow::ensure!(!command.is_empty(), "no command was given for VM `{}`", vm.name);
    // Podman finds no program of that name.
    if command[0].is_empty() {
        let message = "executable file `` not found".to_owned();
        return Err(ExecError::Refused { kind: FailureKind::NotFound, message }.into());
    }
    if let Some(workdir) = args.workdir.as_deref().filter(|workdir| !workdir.starts_with('/')) {
        anyhow::bail!("working directory `{workdir}` is not absolute");
    }
    if args.tty && args.interactive && !printer.stdin_is_terminal() {
        printer.warn("standard input is no terminal: the command's terminal takes it as it comes");
    }
    let target = if args.machine { ExecTarget::Machine } else { ExecTarget::Container };
    let request = ExecRequest {
        id: vm::exec_id()?,
        target,
        command,
        env: environment::collect(&args.env_file, &args.env, &environment::host())?,
        workdir: args.workdir,
        // An empty one is none, as with Podman.
        user: args.user.filter(|user| !user.is_empty()),
        privileged: args.privileged,
        terminal: args.tty.then(|| terminal_size().unwrap_or(USUAL_SIZE)),
        interactive: args.interactive,
        detach: args.detach,
    };
    let mut ends = Ends::inherited(&request)?;
    ends.detach_keys = Some(args.detach_keys);
    Ok(ExitCode::from(super::block_on(vm::exec(&vm, &registry, &request, ends))??))
}

/// The VM and the command. With a PID there is no name: all words are the command's.
fn addressed(args: &Args, registry: &Registry) -> Result<(VmState, Vec<String>), StateError> {
    match (args.pid, &args.vm) {
        (Some(pid), first) => {
            let vm = registry.find_process(pid)?;
            Ok((vm, first.iter().chain(&args.command).cloned().collect()))
        }
        (None, Some(name)) => Ok((registry.find(name)?, args.command.clone())),
        // The command line demands one of them.
        (None, None) => Err(StateError::Unknown { name: String::new() }),
    }
}
