//! `fcvm podman`.

mod attach;
pub(super) mod detach;
mod id_files;
mod machine;
pub(super) mod network;
mod prepare;
pub(super) mod run;
mod warm;

use std::process::ExitCode;

use anyhow::Context as _;

use crate::{
    cli::podman::Command,
    output::Printer,
    process::{Front, Parent},
    storage::DataDir,
    vm::Starter,
};

/// Who started this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A user or a user's program.
    User,
    /// Another fcvm, which leaves the VM to this one.
    Supervisor,
    /// Another fcvm, which stays before this one at the terminal.
    Attached,
    /// Another fcvm that has run a container, so that the next one starts faster.
    Preparer,
}

/// What a supervisor is called, as its argument 0: no option, so that no user finds it.
const SUPERVISOR: &str = "fcvm-supervisor";
/// The same of one that is attached to a terminal.
const ATTACHED: &str = "fcvm-attached";

/// The same of one that prepares a machine for runs like the one that it was started after.
const PREPARER: &str = "fcvm-preparer";

impl Role {
    /// What this process was started as.
    #[must_use]
    pub fn of_this_process() -> Self {
        match std::env::args_os().next() {
            Some(name) if name == SUPERVISOR => Self::Supervisor,
            Some(name) if name == ATTACHED => Self::Attached,
            Some(name) if name == PREPARER => Self::Preparer,
            _ => Self::User,
        }
    }
}

/// Runs `fcvm podman`.
///
/// # Errors
/// What the command could not do.
pub fn run(command: Command, role: Role, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    match (command, role) {
        (Command::Prepare(arguments), _) => prepare::run(&arguments, data, printer),
        (Command::Run(arguments), Role::Preparer) => Ok(prepare::by_the_way(&arguments, data, printer)),
        (Command::Run(arguments), Role::User) if arguments.detach => {
            let code = detach::run(data, printer)?;
            if code == ExitCode::SUCCESS {
                warm::prepare_later(&arguments);
            }
            Ok(code)
        }
        (Command::Run(arguments), Role::User)
            if arguments.interactive && arguments.tty && printer.stdin_is_terminal() =>
        {
            attach::run()
        }
        (Command::Run(arguments), Role::User) => run::run(*arguments, Starter::User, data, printer),
        (Command::Run(arguments), Role::Attached) => {
            let front = Front::adopt().context("failed to become the process of a VM at a terminal")?;
            run::run(*arguments, Starter::Front(front), data, printer)
        }
        (Command::Run(arguments), Role::Supervisor) => {
            let parent = Parent::adopt().context("failed to become a VM's supervisor")?;
            crate::failpoint::reach("adopted");
            run::run(*arguments, Starter::Parent(parent), data, printer)
        }
    }
}
