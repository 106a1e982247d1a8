//! What fcvm costs on top of Firecracker's own start.
//!
//! Run with `make bench` (50 machines each way) or `make bench-quick` (10). A machine with all the
//! devices that a container has (three disks, vsock, entropy, as root the metadata service) boots the smallest guest there is, and
//! writes its first byte to the console. Both ways are measured side by side, one after the other,
//! from the spawn of the process:
//!
//! *bare*: the process, its API's socket, the same requests as text on one connection, each after the
//! answer to the one before: what a script would do.
//!
//! *fcvm*: the backend that `fcvm podman run` has, from [`Hypervisor::launch`] on.
//!
//! The guest does not speak, so that fcvm is stopped by its first byte. Needs a Firecracker
//! (`FCVM_FIRECRACKER` or `PATH`), and the tests' guest beside the project; says so without.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

mod report;

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use fcvm::{
    hypervisor::{Access, Disk, DiskLimits, Hypervisor as _, MachineConfig, MachineOptions, firecracker},
    storage::DataDir,
};
use fcvm_proto::session::LinkKey;
use fcvm_testkit::FirecrackerEnv;
use report::{heading, print};
use serde_json::json;

const DISKS: usize = 3;

fn main() -> anyhow::Result<()> {
    let machines = if std::env::args().any(|argument| argument == "--quick") { 10 } else { 50 };
    let Some(env) = FirecrackerEnv::with_guest() else {
        println!("no Firecracker to measure");
        return Ok(());
    };
    for index in 0..DISKS {
        File::create(disk(&env, index))?.set_len(1 << 20)?;
    }
    let data = DataDir::open(Some(env.path("data")))?;
    let given = std::env::var_os("FCVM_FIRECRACKER").map(PathBuf::from);
    let backend = firecracker::find(given.as_deref(), &data)?;
    println!("Firecracker {}; {machines} machines each way", backend.version());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    // The first of each only warms caches.
    for round in 0..=machines {
        let directory = env.path(&format!("m{round}"));
        std::fs::create_dir(&directory)?;
        bare.push(by_hand(backend.program(), &env, &directory)?);
        std::fs::remove_dir_all(&directory)?;
        std::fs::create_dir(&directory)?;
        ours.push(runtime.block_on(by_fcvm(&backend, &env, &directory))?);
        std::fs::remove_dir_all(&directory)?;
    }
    let of = |all: &[Start], value: fn(&Start) -> Duration| {
        all.iter().skip(1).map(|start| value(start).as_secs_f64() * 1e3).collect::<Vec<_>>()
    };
    heading("bare");
    let asked = print("to InstanceStart", "ms", of(&bare, |start| start.asked));
    let bare = print("to the guest", "ms", of(&bare, |start| start.booted));
    heading("fcvm");
    let ours = print("to the guest", "ms", of(&ours, |start| start.booted));
    let added = ours - bare;
    println!("\n{:<24} {added:>19.2}  ms at the median", "fcvm adds");
    println!("{:<24} {:>19.2}  ms, from that", "fcvm to InstanceStart", asked + added);
    Ok(())
}

/// Since the process was spawned.
struct Start {
    /// Everything but the start had been asked for, and answered: not told by fcvm.
    asked: Duration,
    /// The guest's first byte.
    booted: Duration,
}

/// Both ways alike: only root has a tap without more ado.
fn with_metadata() -> bool {
    rustix::process::geteuid().is_root()
}

fn metadata() -> serde_json::Value {
    json!({ "name": "bench" })
}

fn disk(env: &FirecrackerEnv, index: usize) -> PathBuf {
    env.path(&format!("disk{index}"))
}

fn by_hand(program: &Path, env: &FirecrackerEnv, directory: &Path) -> anyhow::Result<Start> {
    let begun = Instant::now();
    let mut child = Command::new(program)
        .args(["--api-sock", "api.sock", "--log-path", "/dev/null"])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let socket = directory.join("api.sock");
    let mut api = loop {
        match UnixStream::connect(&socket) {
            Ok(api) => break api,
            Err(_) => std::thread::sleep(Duration::from_micros(100)),
        }
    };
    let mut requests = vec![
        ("/machine-config".to_owned(), json!({ "vcpu_count": 1, "mem_size_mib": 128 })),
        ("/boot-source".to_owned(), json!({ "kernel_image_path": env.guest(), "boot_args": "quiet" })),
    ];
    for index in 0..DISKS {
        let body = json!({ "drive_id": format!("disk{index}"), "path_on_host": disk(env, index), "is_root_device": false });
        requests.push((format!("/drives/disk{index}"), body));
    }
    if with_metadata() {
        // A tap that is not there is made, for root.
        let interface = json!({ "iface_id": "eth0", "host_dev_name": "fcvm-bench" });
        let service = json!({ "version": "V2", "network_interfaces": ["eth0"] });
        requests.push(("/network-interfaces/eth0".to_owned(), interface));
        requests.push(("/mmds/config".to_owned(), service));
        requests.push(("/mmds".to_owned(), metadata()));
    }
    requests.push(("/metrics".to_owned(), json!({ "metrics_path": "metrics" })));
    requests.push(("/vsock".to_owned(), json!({ "guest_cid": 3, "uds_path": "vsock.sock" })));
    requests.push(("/entropy".to_owned(), json!({})));
    for (path, body) in &requests {
        put(&mut api, path, body)?;
    }
    let asked = begun.elapsed();
    put(&mut api, "/actions", &json!({ "action_type": "InstanceStart" }))?;
    let mut console = child.stdout.take().context("the console was piped")?;
    console.read_exact(&mut [0])?;
    let booted = begun.elapsed();
    child.kill()?;
    child.wait()?;
    Ok(Start { asked, booted })
}

fn put(api: &mut UnixStream, path: &str, body: &serde_json::Value) -> anyhow::Result<()> {
    let body = body.to_string();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    api.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut chunk = [0; 1024];
        let read = api.read(&mut chunk)?;
        ensure!(read > 0, "Firecracker went away at {path}");
        answer.extend_from_slice(&chunk[..read]);
    }
    ensure!(answer.starts_with(b"HTTP/1.1 204"), "{path}: {}", String::from_utf8_lossy(&answer));
    Ok(())
}

async fn by_fcvm(
    backend: &firecracker::Firecracker,
    env: &FirecrackerEnv,
    directory: &Path,
) -> anyhow::Result<Start> {
    let empty = env.file("initrd", [0; 4096]);
    let machine = MachineConfig {
        name: "bench".into(),
        id: "0123456789abcdef".into(),
        kernel: env.guest(),
        initrd: empty,
        kernel_arguments: None,
        link_key: LinkKey([0; 16]),
        cpus: 1,
        memory_mib: 128,
        disks: (0..DISKS)
            .map(|index| Disk {
                serial: format!("other{index}"),
                path: disk(env, index),
                access: Access::Ephemeral,
                limits: DiskLimits::default(),
            })
            .collect(),
        network: None,
        options: MachineOptions::default(),
        metadata: with_metadata().then(metadata),
        runtime_dir: directory.to_owned(),
        save_dir: directory.to_owned(),
        saved: None,
    };
    let begun = Instant::now();
    let machine = backend.launch(&machine)?;
    let console = tokio::net::unix::pipe::Receiver::from_owned_fd(machine.console)?;
    let pipe = machine.link.pipe();
    tokio::pin!(pipe);
    tokio::select! {
        ended = &mut pipe => anyhow::bail!("the guest does not speak: {ended:?}"),
        ready = console.readable() => ready?,
    }
    let booted = begun.elapsed();
    let mut process = machine.process;
    process.kill().await?;
    Ok(Start { asked: Duration::ZERO, booted })
}
