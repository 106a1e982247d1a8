//! How long `fcvm exec` takes, and how much of that is the host's own.
//!
//! Run with `make bench` (100 runs of each) or `make bench-quick` (20). All times are on this program's
//! clock, from the start of the command to its end.
//!
//! *Round trip*: `fcvm exec VM true` in one VM that runs, in its container and with `--vm`. It has the guest's
//! part in it: to make the process, to run it, to tell its end.
//!
//! *Host overhead*: the same program, with a guest that takes no time. This process is the VM's owner, with
//! the record, the control socket and the link that every owner has; at the link's other end, in this process
//! too, a guest that says at once that the command has run. What is measured is all that the host does: to
//! start and end the process, to find the VM, to open its streams by way of the owner. `fcvm --version`,
//! which does nothing, is shown beside it: that much is the system's, to start any program like it.
//!
//! The aim is 2 ms at the median. The first run of each only warms caches. Round trips need what `fcvm setup`
//! makes and a static `/bin/busybox`; `--no-vm` leaves them out.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

#[path = "report/percentiles.rs"]
mod report;
#[path = "report/rootfs.rs"]
mod rootfs;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use fcvm::{
    state::{Claim, Life, NewVm, Registry, RestartPolicy, RuntimeDir, Status},
    storage::DataDir,
    vm::control::Server,
};
use fcvm_link::{
    Link, Role, Stream,
    channel::{Receiver, Sender},
    multiplex,
};
use fcvm_proto::{ExecEvent, ExecRequest, Port, exec::EXEC_ID_LEN};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, split},
    net::UnixStream,
    sync::mpsc,
};

const FCVM: &str = env!("CARGO_BIN_EXE_fcvm");
const IMAGE: &str = "localhost/fcvm-bench-exec";
const NAME: &str = "fcvm-bench-exec";

fn main() -> anyhow::Result<()> {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    let runs = if has("--quick") { 20 } else { 100 };
    println!("{runs} runs of each");
    overhead(runs)?;
    if has("--no-vm") { Ok(()) } else { round_trips(runs) }
}

/// `fcvm` with a guest that takes no time.
fn overhead(runs: usize) -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let (data, runtime) = (root.path().join("data"), root.path().join("run"));
    let registry = Registry::new(&DataDir::open(Some(data.clone()))?, RuntimeDir::at(runtime.clone()));
    let claim = claim(&registry)?;
    let work = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let _server = work.block_on(own(claim.runtime_dir()))?;
    let fcvm = |arguments: &[&str]| {
        let mut command = Command::new(FCVM);
        command.args(arguments).env("FCVM_DATA_DIR", &data).env("FCVM_RUNTIME_DIR", &runtime);
        time(&mut command)
    };
    report::heading("host overhead");
    // In turns, so that whatever else the machine does falls on both.
    let (mut nothing, mut exec) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        nothing.extend(measure(1, || fcvm(&["--version"]))?);
        exec.extend(measure(1, || fcvm(&["exec", NAME, "true"]))?);
    }
    let more = report::print("exec, ideal guest", exec) - report::print("fcvm --version", nothing);
    println!("exec beyond --version: {more:.2} ms at the median");
    Ok(())
}

/// A VM of this process, on record as one that runs.
fn claim(registry: &Registry) -> anyhow::Result<Claim> {
    let mut claim = registry.claim(NewVm {
        name: Some(NAME.parse()?),
        hypervisor: "none".into(),
        image: IMAGE.into(),
        command: Vec::new(),
        cpus: 1,
        memory_mib: 256,
        life: Life::Foreground,
        mounts: Vec::new(),
        labels: BTreeMap::new(),
        restart_policy: RestartPolicy::No,
        process_type: fcvm::state::ProcessType::Vm,
        snapshot: None,
        serve_pid: None,
    })?;
    claim.update(|vm| vm.status = Status::Running)?;
    Ok(claim)
}

/// Owns a VM whose guest is in this process too.
async fn own(directory: &Path) -> anyhow::Result<Server> {
    let (near, far) = UnixStream::pair()?;
    let (host, host_driver) = multiplex(near, Role::Host);
    let (guest, guest_driver) = multiplex(far, Role::Guest);
    tokio::spawn(host_driver);
    tokio::spawn(guest_driver);
    tokio::spawn(ideal(guest));
    let (server, mut orders) = Server::listen(directory, host.opener)?;
    tokio::spawn(async move { while orders.recv().await.is_some() {} });
    Ok(server)
}

type Id = [u8; EXEC_ID_LEN];

/// A guest whose commands end as soon as they are there, with nothing written.
async fn ideal(mut link: Link) {
    let mut waiting: HashMap<Id, mpsc::Sender<Stream>> = HashMap::new();
    let (named, mut arrived) = mpsc::channel::<(Id, Stream)>(16);
    let (begun, mut begins) = mpsc::channel::<(Id, mpsc::Sender<Stream>)>(16);
    loop {
        tokio::select! {
            biased;
            Some((id, outputs)) = begins.recv() => drop(waiting.insert(id, outputs)),
            Some((id, stream)) = arrived.recv() => {
                if let Some(outputs) = waiting.get(&id) {
                    drop(outputs.send(stream).await);
                }
            }
            stream = link.incoming.accept() => match stream {
                Some((Port::Exec, stream)) => drop(tokio::spawn(serve(stream, begun.clone()))),
                Some((_, stream)) => drop(tokio::spawn(name(stream, named.clone()))),
                None => return,
            },
        }
    }
}

/// Reads whose stream it is.
async fn name(mut stream: Stream, named: mpsc::Sender<(Id, Stream)>) {
    let mut id = [0; EXEC_ID_LEN];
    if stream.read_exact(&mut id).await.is_ok() {
        drop(named.send((id, stream)).await);
    }
}

async fn serve(stream: Stream, begun: mpsc::Sender<(Id, mpsc::Sender<Stream>)>) -> Option<()> {
    let (read, write) = split(stream);
    let request = Receiver::<ExecRequest, _>::new(read).receive().await.ok()??;
    let (outputs, mut opened) = mpsc::channel(2);
    begun.send((request.id, outputs)).await.ok()?;
    let mut events = Sender::<ExecEvent, _>::new(write);
    events.send(&ExecEvent::Accepted).await.ok()?;
    events.send(&ExecEvent::Started).await.ok()?;
    for _ in 0..2 {
        opened.recv().await?.shutdown().await.ok()?;
    }
    events.send(&ExecEvent::Ended(0)).await.ok()
}

/// `fcvm` with a real VM.
fn round_trips(runs: usize) -> anyhow::Result<()> {
    rootfs::import(FCVM, IMAGE)?;
    let quiet = |arguments: &[&str]| -> anyhow::Result<()> {
        let status =
            Command::new(FCVM).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "`fcvm {}` failed", arguments.join(" "));
        Ok(())
    };
    let sleep = ["/bin/busybox", "sleep", "100000"];
    quiet(&[&["podman", "run", "-d", "--rm", "--name", NAME, IMAGE, "--"][..], &sleep].concat())?;
    let measured = || -> anyhow::Result<()> {
        report::heading("round trip");
        let exec = |options: &'static [&'static str], command: &'static [&'static str]| {
            measure(runs, || time(Command::new(FCVM).arg("exec").args(options).arg(NAME).args(command)))
        };
        report::print("exec, in the container", exec(&[], &["/bin/busybox", "true"])?);
        report::print("exec --vm", exec(&["--vm"], &["/bin/true"])?);
        Ok(())
    };
    let measured = measured();
    quiet(&["rm", "--force", NAME])?;
    quiet(&["image", "rm", IMAGE])?;
    measured
}

/// Milliseconds of so many runs, after one that is not counted.
fn measure(runs: usize, mut once: impl FnMut() -> anyhow::Result<Duration>) -> anyhow::Result<Vec<f64>> {
    once()?;
    (0..runs).map(|_| Ok(once()?.as_secs_f64() * 1000.0)).collect()
}

fn time(command: &mut Command) -> anyhow::Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status().context("failed to start fcvm")?;
    let took = begun.elapsed();
    ensure!(status.success(), "{command:?}: {status}");
    Ok(took)
}
