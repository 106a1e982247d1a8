//! `fcvm snapshot serve`: a process with which clones of a snapshot live and end, and which fills their memory
//! where the hypervisor lets it.

use std::{collections::BTreeMap, os::unix::net::UnixListener, process::ExitCode, thread};

use anyhow::Context as _;
use fcvm_uffd::{Memory, Options, Peer, RecordingOptions, Report, Server};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::clone::Serve,
    commands::{
        block_on,
        stop::{self, Ending},
    },
    output::Printer,
    snapshot::{Contents, MEMORY, Snapshot, Store},
    state::{
        Claim, HealthStatus, Life, NewVm, ProcessType, Registry, RestartPolicy, RuntimeDir, Status, VmState,
    },
    storage::DataDir,
};

/// The page server's socket, in the directory of the process's sockets.
pub(super) const SOCKET: &str = "pages.sock";
/// Where working sets are, in the data directory's cache.
const WORKING_SETS: &str = "working-sets";

/// Serves a snapshot until a signal; then its clones end first.
pub(super) fn run(
    arguments: &Serve,
    store: &Store,
    data: &DataDir,
    printer: &Printer,
) -> anyhow::Result<ExitCode> {
    let snapshot = store.get(&arguments.tag)?;
    snapshot.check_files()?;
    let registry = Registry::new(data, RuntimeDir::from_env());
    let mut claim = claim(&snapshot, &registry)?;
    let server = match snapshot.manifest().contents {
        Contents::Machine => Some(page_server(arguments, &snapshot, &claim, data)?),
        Contents::Disk => None,
    };
    crate::failpoint::reach("serving");
    let number = block_on(async {
        let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        claim.update(|state| {
            state.status = Status::Running;
            state.health_status = HealthStatus::Healthy;
        })?;
        printer.data(std::process::id())?;
        let [interrupt, terminate, hangup] = &mut ends;
        let number = tokio::select! {
            _ = next(interrupt) => SignalKind::interrupt(),
            _ = next(terminate) => SignalKind::terminate(),
            _ = next(hangup) => SignalKind::hangup(),
        };
        // From now on nobody goes on from it by this process.
        claim.update(|state| state.status = Status::Stopping)?;
        anyhow::Ok(number)
    })??;
    tracing::debug!(signal = number.as_raw_value(), "the server ends, and its clones with it");
    end_clones(&registry)?;
    if let Some(server) = server {
        for released in server.stop(end_peer) {
            tracing::debug!(statistics = ?released.statistics, "served");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What one of the signals does; one that cannot be listened to never comes.
async fn next(signal: &mut std::io::Result<tokio::signal::unix::Signal>) -> Option<()> {
    match signal {
        Ok(signal) => signal.recv().await,
        Err(_) => std::future::pending().await,
    }
}

fn claim(snapshot: &Snapshot, registry: &Registry) -> anyhow::Result<Claim> {
    let manifest = snapshot.manifest();
    Ok(registry.claim(NewVm {
        name: None,
        hypervisor: manifest.hypervisor.name.clone(),
        image: manifest.image.reference.clone(),
        command: manifest.container.command.clone(),
        cpus: manifest.machine.cpus,
        memory_mib: manifest.machine.memory_mib,
        life: Life::Foreground,
        mounts: Vec::new(),
        labels: BTreeMap::new(),
        restart_policy: RestartPolicy::No,
        process_type: ProcessType::Serve,
        snapshot: Some(snapshot.tag().clone()),
        serve_pid: None,
    })?)
}

fn page_server(
    arguments: &Serve,
    snapshot: &Snapshot,
    claim: &Claim,
    data: &DataDir,
) -> anyhow::Result<Server> {
    let path = snapshot.path(MEMORY);
    let memory = Memory::open(&path).with_context(|| format!("failed to serve `{}`", path.display()))?;
    let recording = if arguments.no_prefetch {
        None
    } else {
        let directory = data.cache().join(WORKING_SETS);
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("failed to make `{}`", directory.display()))?;
        Some(RecordingOptions::new(directory.join(&snapshot.manifest().id)))
    };
    let server = Server::new(memory, Options { recording, ..Options::default() }, told);
    let socket = claim.runtime_dir().join(SOCKET);
    let listener =
        UnixListener::bind(&socket).with_context(|| format!("failed to listen at `{}`", socket.display()))?;
    server.listen(listener).with_context(|| format!("failed to listen at `{}`", socket.display()))?;
    Ok(server)
}

/// What the server says of a machine. One that it refuses it has killed: its owner tells of that.
fn told(report: Report) {
    match report {
        Report::Joined { vm, pid } => tracing::debug!(?vm, pid, "a machine has come"),
        Report::Refused { pid, error } => tracing::warn!(pid, %error, "a machine was refused"),
        Report::Left { statistics, ending } => tracing::debug!(?statistics, ?ending, "a machine has gone"),
        other => tracing::debug!(?other, "the page server"),
    }
}

/// Ends all clones of this process, each by its owner, as `fcvm kill` does.
fn end_clones(registry: &Registry) -> anyhow::Result<()> {
    let own = std::process::id().cast_signed();
    let is_ours = |vm: &VmState| vm.serve_pid == Some(own);
    let clones: Vec<_> = registry.list()?.into_iter().filter(is_ours).collect();
    thread::scope(|scope| {
        for clone in &clones {
            scope.spawn(move || {
                if let Err(error) = stop::end(clone, Ending::Kill, registry) {
                    tracing::warn!(vm = %clone.name, error = format!("{error:#}"), "a clone was not ended");
                }
            });
        }
    });
    Ok(())
}

fn end_peer(peer: &Peer) {
    if let Err(error) = peer.kill() {
        tracing::warn!(pid = peer.pid(), %error, "a machine was not ended");
    }
}
