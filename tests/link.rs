//! The link to a real guest, driven by hand: what the host may do to it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::PathBuf;

use fcvm::{
    hypervisor::{Access, Choice, Disk, DiskLimits, MachineConfig, MachineOptions, Wanted, select},
    setup::{Assets, Overrides},
    storage::{DataDir, cow},
};
use fcvm_link::{Role, channel::Receiver, multiplex, session};
use fcvm_proto::{
    Hello, PROTOCOL, Port,
    session::{LinkKey, SessionId},
};
use fcvm_testkit::TestEnv;
use tokio::net::UnixStream;

const KEY: LinkKey = LinkKey(*b"not quite random");

/// Opens a session and hears the agent's greeting. The link dies with what is returned.
async fn greet(pipe: UnixStream, id: SessionId) -> (Hello, impl Sized) {
    let pipe = session::connect(pipe, KEY, id).await.unwrap();
    let (link, driver) = multiplex(pipe, Role::Host);
    let driver = tokio::spawn(driver);
    let control = link.opener.open(Port::Control).await.unwrap();
    let (read, write) = tokio::io::split(control);
    let mut receiver = Receiver::<Hello, _>::new(read);
    let hello = receiver.receive().await.unwrap().unwrap();
    (hello, (link, receiver, write, Aborted(driver)))
}

struct Aborted<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Aborted<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A host that goes away and comes back, in the middle of whatever it was saying, finds the same
/// guest in a session of its own: on the virtio-serial port of a real kernel, whose device keeps
/// stale bytes and reports "readable" for ever while no host is there, and over vsock.
#[test]
fn vm_a_host_that_reconnects_finds_the_guest_again() {
    let Some(env) = TestEnv::set_up(env!("CARGO_BIN_EXE_fcvm")) else { return };
    let data = DataDir::open(Some(env.data().to_owned())).unwrap();
    let kernel = env.variable("FCVM_KERNEL").map(PathBuf::from);
    let overrides = Overrides { agent: agent(env.program()), kernel, ..Overrides::default() };
    let assets = Assets::locate(&data, &overrides).unwrap();
    let scratch = env.root().join("scratch.raw");
    cow::copy(&assets.scratch_template, &scratch).unwrap();
    std::fs::create_dir_all(env.sockets()).unwrap();
    let limits = DiskLimits::default();
    let config = MachineConfig {
        name: "reconnect".into(),
        id: "0123456789abcdef".into(),
        kernel: assets.kernel,
        initrd: assets.initrd,
        kernel_arguments: env.kernel_parameters().map(str::to_owned),
        link_key: KEY,
        cpus: 1,
        memory_mib: 256,
        disks: vec![
            Disk { serial: "base".into(), path: assets.base, access: Access::ReadOnly, limits },
            Disk { serial: "scratch".into(), path: scratch, access: Access::Ephemeral, limits },
        ],
        network: None,
        options: MachineOptions::default(),
        metadata: None,
        runtime_dir: env.sockets().to_owned(),
        save_dir: env.root().to_owned(),
        saved: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let firecracker = env.variable("FCVM_FIRECRACKER").map(PathBuf::from);
        let choice = if firecracker.is_some() { Choice::Firecracker } else { Choice::Qemu };
        let wanted =
            Wanted { choice, firecracker: firecracker.as_deref(), own_kernel: overrides.kernel.is_some() };
        let hypervisor = select(&wanted, &data).unwrap().hypervisor;
        let mut machine = hypervisor.launch(&config).unwrap();
        let console = std::fs::File::from(machine.console);
        std::thread::spawn(move || std::io::copy(&mut &console, &mut std::io::sink()));
        let (first, alive) = greet(machine.link.pipe().await.unwrap(), SessionId([0; 16])).await;
        assert_eq!(first.protocol, PROTOCOL);
        let mut last = Some(alive);
        for round in 1..=20 {
            // Not before the old connection is gone: the device has room for one.
            drop(last.take());
            let pipe = hypervisor.reconnect(env.sockets()).pipe().await.unwrap();
            let id = SessionId([round; 16]);
            let (hello, alive) = greet(pipe, id).await;
            assert_eq!(hello.session, id.0);
            assert_eq!(hello.boot_id, first.boot_id);
            last = Some(alive);
        }
        machine.process.kill().await.unwrap();
    });
}

fn agent(fcvm: &std::path::Path) -> Option<std::path::PathBuf> {
    Some(fcvm.parent()?.parent()?.join("libexec/fcvm/fc-agent"))
}
