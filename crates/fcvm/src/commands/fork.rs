//! `fcvm fork`: a snapshot without a name, and its clones.

use std::process::ExitCode;

use anyhow::Context as _;

use super::{
    block_on,
    podman::Role,
    snapshot::run::{of, several},
};
use crate::{
    cli::{clone::Run, fork::Args},
    output::Printer,
    process::Parent,
    snapshot::{Contents, Store},
    state::{Registry, RuntimeDir},
    storage::DataDir,
    vm::{
        Starter,
        control::{Client, Wanted},
    },
};

/// Runs `fcvm fork`.
///
/// # Errors
/// Where there is no snapshot; of a clone, what it could not do.
pub fn run(args: Args, role: Role, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let store = Store::open(data);
    let done = match role {
        Role::Supervisor => clone(args, &store, data, printer),
        _ => fork(&args, &store, data, printer),
    };
    // Who has it last removes it.
    if let Err(error) = store.collect_garbage() {
        tracing::warn!(%error, "a snapshot is left for the next command to remove");
    }
    done
}

/// Makes the snapshot, and has its clones started.
fn fork(args: &Args, store: &Store, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let vm = registry.find(&args.vm)?;
    let unnamed = store.reserve()?;
    let wanted = Wanted {
        tag: unnamed.tag().context("a snapshot without a name has an odd place")?,
        contents: Contents::Machine,
        base: None,
        unnamed: Some(unnamed.name().to_owned()),
    };
    block_on(async { Client::connect(&vm, &registry).await?.snapshot(wanted).await })??;
    crate::failpoint::reach("fork-saved");
    let more = [format!("--unnamed={}", unnamed.name())];
    let started = several(args.count, args.name.as_ref(), &more, data, printer);
    crate::failpoint::reach("fork-started");
    if let Err(error) = unnamed.trim() {
        tracing::debug!(%error, "a part of the snapshot stays as long as the rest");
    }
    started
}

/// Runs a clone to its end, as its owner.
fn clone(args: Args, store: &Store, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let parent = Parent::adopt().context("failed to become a VM's supervisor")?;
    crate::failpoint::reach("adopted");
    let name = args.unnamed.context("a clone has no snapshot")?;
    let snapshot = store.get_unnamed(&name)?;
    let arguments = Run {
        snapshot: None,
        pid: None,
        mem_backend: None,
        name: args.name,
        hostname: args.hostname,
        interactive: false,
        tty: false,
        detach: true,
        rm: args.rm,
        count: None,
        exec: None,
        log_max_size: args.log_max_size,
        timings: false,
        firecracker: args.firecracker,
        agent: None,
        network: args.network,
    };
    of(&snapshot, None, arguments, Starter::Parent(parent), data, printer)
}
