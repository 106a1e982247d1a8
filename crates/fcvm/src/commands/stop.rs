//! `fcvm stop`, and how VMs are ended for others.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use rustix::process::Signal;

use super::{block_on, targets};
use crate::{
    cli::stop::Args,
    output::Printer,
    state::{Registry, RuntimeDir, Status, VmState},
    storage::DataDir,
    vm::control::{Client, ControlError},
};

/// How long an owner may take beyond the container's time: it gives its guest ten seconds itself,
/// and writes what is left of the output.
const OWNER: Duration = Duration::from_secs(20);
/// How long a killed process may take.
const DEATH: Duration = Duration::from_secs(10);

/// Runs `fcvm stop`.
///
/// # Errors
/// Where the VMs cannot be listed or the result not be written.
pub fn run(args: &Args, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let running = registry.list()?;
    let vms = targets::named_or(&args.vms, args.all, || running);
    // All of them first, so that they end at the same time.
    if vms.len() > 1 {
        for vm in vms.iter().filter_map(|vm| registry.find(vm).ok()).filter(VmState::is_alive) {
            if let Err(error) = ask(&vm, Ending::Stop { seconds: args.time.0 }, &registry) {
                tracing::debug!(%error, vm = %vm.name, "it is asked again below");
            }
        }
    }
    targets::each(&vms, printer, |vm| {
        end(&registry.find(vm)?, Ending::Stop { seconds: args.time.0 }, &registry)
    })
}

/// How a VM is to end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    /// Asked, and killed after that time.
    Stop { seconds: u32 },
    /// Killed with all that is in it.
    Kill,
}

/// Ends a VM and waits for that. One that has ended already is fine.
pub(super) fn end(vm: &VmState, how: Ending, registry: &Registry) -> anyhow::Result<()> {
    let watch = registry.watch(vm)?;
    if !vm.is_alive() {
        return Ok(());
    }
    crate::failpoint::reach("stop-watches");
    ask(vm, how, registry)?;
    crate::failpoint::reach("stop-asked");
    let grace = match how {
        Ending::Stop { seconds } => Duration::from_secs(seconds.into()),
        Ending::Kill => Duration::ZERO,
    };
    if watch.wait_for_end(Some(grace + OWNER))? {
        return Ok(());
    }
    // An owner that does not do its part is ended as what it is: the hypervisor first, so that it
    // may still write down how that was.
    if let Some(hypervisor) = registry.get(&vm.id).and_then(|vm| vm.hypervisor_process) {
        hypervisor.kill(DEATH).with_context(|| format!("failed to kill the hypervisor of `{}`", vm.name))?;
    }
    if !watch.wait_for_end(Some(DEATH))? {
        vm.owner.kill(DEATH).with_context(|| format!("failed to kill the fcvm of `{}`", vm.name))?;
        registry.collect_garbage()?;
    }
    Ok(())
}

/// Asks the owner to end the VM.
fn ask(vm: &VmState, how: Ending, registry: &Registry) -> anyhow::Result<()> {
    let asked = block_on(async {
        let client = Client::connect(vm, registry).await?;
        match how {
            Ending::Stop { seconds } => client.stop(seconds).await,
            Ending::Kill => client.end().await,
        }
    })?;
    match asked {
        // Before its container runs a VM ends by a signal to its owner. One that ends needs none.
        Err(ControlError::NotReady { .. } | ControlError::Refused { .. }) => {
            let now = registry.get(&vm.id).map(|vm| vm.status);
            if matches!(now, Some(Status::Created | Status::Starting)) {
                vm.owner.signal(Signal::TERM).with_context(|| format!("failed to end `{}`", vm.name))?;
            }
            Ok(())
        }
        Err(ControlError::NotRunning { .. } | ControlError::Gone { .. }) => Ok(()),
        asked => Ok(asked?),
    }
}
