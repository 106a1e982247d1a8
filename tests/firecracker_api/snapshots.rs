//! Machines on disk.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use fcvm::hypervisor::firecracker::api::{
    Action, BootSource, Client, Drive, Entropy, InstanceState, Logger, MachineConfig, MemoryBackend, Metrics,
    NetworkOverride, Serial, SnapshotCreate, SnapshotLoad, SnapshotType, VmState, Vsock, VsockOverride,
};
use fcvm_testkit::{Firecracker, FirecrackerEnv};
use serde_json::{Value, json};

use super::{MEMORY_MIB, assert_gone, assert_refused, boot, configure_guest, connect, start_guest};

/// Makes a snapshot of a guest that stands still: `NAME.state`, and the memory in `memory`.
async fn create(env: &FirecrackerEnv, client: &Client, kind: SnapshotType, name: &str, memory: &str) {
    let create = SnapshotCreate {
        snapshot_type: kind,
        snapshot_path: env.path(&format!("{name}.state")),
        mem_file_path: env.path(memory),
    };
    client.put_snapshot_create(&create).await.unwrap();
}

/// That snapshot, to run at once.
fn snapshot(env: &FirecrackerEnv, name: &str, memory: &str) -> SnapshotLoad {
    let memory = MemoryBackend::file(env.path(memory));
    SnapshotLoad { resume_vm: true, ..SnapshotLoad::new(env.path(&format!("{name}.state")), memory) }
}

/// Loads a snapshot into a fresh process.
async fn load(env: &FirecrackerEnv, load: &SnapshotLoad) -> (Firecracker, Client) {
    let vm = env.start();
    let client = connect(&vm).await;
    client.put_snapshot_load(load).await.unwrap();
    (vm, client)
}

/// Insists that the pattern is in all of the guest's pages, and that this is its `count`th command.
#[track_caller]
fn assert_intact(vm: &mut Firecracker, count: u32) {
    let line = vm.ask("r");
    assert!(line.starts_with("read pages=2000 ") && line.ends_with(&format!(" bad=0 n={count:x}")), "{line}");
}

/// Size, and bytes on disk.
fn sizes(path: &Path) -> (u64, u64) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.len(), metadata.blocks() * 512)
}

#[tokio::test]
async fn vm_firecracker_api_snapshots_keep_a_guests_memory() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let (mut vm, client) = boot(&env).await;
    let size = u64::from(MEMORY_MIB) << 20;
    assert!(vm.ask("w").ends_with(" n=1"));

    // The difference to nothing is the machine itself, and small.
    client.patch_vm(VmState::Paused).await.unwrap();
    create(&env, &client, SnapshotType::Diff, "golden", "memory").await;
    assert_eq!(client.get_instance_info().await.unwrap().state, InstanceState::Paused);
    let (length, used) = sizes(&env.path("memory"));
    assert_eq!(length, size);
    assert!((32 << 20..48 << 20).contains(&used), "{used}");
    let (mut clone, _) = load(&env, &snapshot(&env, "golden", "memory")).await;
    assert_intact(&mut clone, 2);
    clone.kill();

    // A difference is written into the file of what came before.
    client.patch_vm(VmState::Resumed).await.unwrap();
    assert!(vm.ask("p").starts_with("pong n=2 "));
    client.patch_vm(VmState::Paused).await.unwrap();
    create(&env, &client, SnapshotType::Diff, "later", "memory").await;
    let (mut clone, _) = load(&env, &snapshot(&env, "later", "memory")).await;
    assert_intact(&mut clone, 3);
    clone.kill();

    create(&env, &client, SnapshotType::Full, "full", "full.memory").await;
    assert_eq!(sizes(&env.path("full.memory")).0, size);
    // Nothing has been written since.
    create(&env, &client, SnapshotType::Diff, "none", "none.memory").await;
    assert_eq!(sizes(&env.path("none.memory")), (size, 0));
    // The machine goes on, and so do two of its clones.
    client.patch_vm(VmState::Resumed).await.unwrap();
    let (mut first, _) = load(&env, &snapshot(&env, "full", "full.memory")).await;
    let (mut second, _) = load(&env, &snapshot(&env, "full", "full.memory")).await;
    for machine in [&mut vm, &mut first, &mut second] {
        assert_intact(machine, 3);
        assert!(machine.ask("w").ends_with(" n=4"));
        assert_intact(machine, 5);
    }
}

#[tokio::test]
async fn vm_firecracker_api_clones_are_snapshotted_by_differences() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let (vm, client) = boot(&env).await;
    client.patch_vm(VmState::Paused).await.unwrap();
    create(&env, &client, SnapshotType::Full, "base", "memory").await;
    vm.kill();

    let tracked =
        SnapshotLoad { track_dirty_pages: true, clock_realtime: true, ..snapshot(&env, "base", "memory") };
    let (mut clone, client) = load(&env, &tracked).await;
    assert_eq!(client.get_vm_config().await.unwrap().boot_source, BootSource::new(env.guest()));
    let machine = MachineConfig { track_dirty_pages: true, ..MachineConfig::new(1, MEMORY_MIB) };
    assert_eq!(client.get_machine_config().await.unwrap(), machine);
    assert!(clone.ask("p").starts_with("pong n=1 "));
    client.patch_vm(VmState::Paused).await.unwrap();
    create(&env, &client, SnapshotType::Diff, "changed", "changed.memory").await;
    let (_, used) = sizes(&env.path("changed.memory"));
    assert!((4096..1 << 20).contains(&used), "{used}");
    clone.kill();

    // Laid over its base by hand, as whoever keeps chains of them does.
    let (base, changed) =
        (fs::read(env.path("memory")).unwrap(), fs::read(env.path("changed.memory")).unwrap());
    let pages = base.chunks(4096).zip(changed.chunks(4096));
    let merged: Vec<u8> = pages
        .flat_map(|(old, new)| if new.iter().any(|byte| *byte != 0) { new } else { old })
        .copied()
        .collect();
    env.file("merged", merged);
    let (mut clone, _) = load(&env, &snapshot(&env, "changed", "merged")).await;
    assert_intact(&mut clone, 2);
}

#[tokio::test]
async fn vm_firecracker_api_loads_a_guest_that_stands_still() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let (vm, client) = boot(&env).await;
    client.patch_vm(VmState::Paused).await.unwrap();
    create(&env, &client, SnapshotType::Full, "s", "memory").await;
    vm.kill();

    let mut vm = env.start();
    let client = connect(&vm).await;
    // All that may be said before.
    let logger = Logger { log_path: Some(env.path("log")), ..Logger::default() };
    client.put_logger(&logger).await.unwrap();
    client.put_metrics(&Metrics { metrics_path: env.path("metrics") }).await.unwrap();
    client.put_serial(&Serial::default()).await.unwrap();
    client.put_mmds(&json!({ "a": 1 })).await.unwrap();
    client
        .put_snapshot_load(&SnapshotLoad { resume_vm: false, ..snapshot(&env, "s", "memory") })
        .await
        .unwrap();
    assert_eq!(client.get_instance_info().await.unwrap().state, InstanceState::Paused);
    // Metadata outlives the load only where the snapshot has it, too.
    assert_refused(client.get_mmds::<Value>().await, "The MMDS data store is not initialized.");
    vm.say("r");
    client.patch_vm(VmState::Resumed).await.unwrap();
    let line = vm.line();
    assert!(line.ends_with(" bad=0 n=1"), "{line}");
    client.put_action(Action::FlushMetrics).await.unwrap();
    assert!(fs::metadata(env.path("metrics")).unwrap().len() > 0);
    assert!(fs::metadata(env.path("log")).unwrap().len() > 0);
}

#[tokio::test]
async fn vm_firecracker_api_refuses_snapshots_that_cannot_be_made() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let idle = env.start();
    let create = SnapshotCreate {
        snapshot_type: SnapshotType::Full,
        snapshot_path: env.path("state"),
        mem_file_path: env.path("memory"),
    };
    let refused = connect(&idle).await.put_snapshot_create(&create).await;
    assert_refused(refused, "The requested operation is not supported before starting the microVM.");
    let (mut vm, client) = boot(&env).await;
    let running = client.put_snapshot_create(&create).await;
    assert_refused(running, "save/restore unavailable while running");
    assert!(!create.snapshot_path.exists());
    client.patch_vm(VmState::Paused).await.unwrap();
    let nowhere = SnapshotCreate { snapshot_path: env.path("none/state"), ..create.clone() };
    let refused = client.put_snapshot_create(&nowhere).await;
    assert_refused(refused, "Cannot perform open on the snapshot backing file: No such file or directory");
    let nowhere = SnapshotCreate { mem_file_path: env.path("none/memory"), ..create.clone() };
    let refused = client.put_snapshot_create(&nowhere).await;
    assert_refused(refused, "Cannot perform open on the memory backing file: No such file or directory");
    // Which leaves the other file behind.
    assert!(create.snapshot_path.exists());
    // None of that harms the guest.
    client.patch_vm(VmState::Resumed).await.unwrap();
    assert_intact(&mut vm, 1);
}

/// Each in a process of its own, which ends by it.
#[tokio::test]
async fn vm_firecracker_api_refuses_snapshots_that_cannot_be_loaded() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let mut vm = env.start();
    let client = connect(&vm).await;
    configure_guest(&env, &client).await;
    let disk = env.file("disk", [0; 4096]);
    client.put_drive(&Drive::new("a".parse().unwrap(), &disk)).await.unwrap();
    let socket = env.path("v.sock");
    client.put_vsock(&Vsock { guest_cid: 3, uds_path: socket.clone() }).await.unwrap();
    start_guest(&mut vm, &client).await;
    client.patch_vm(VmState::Paused).await.unwrap();
    create(&env, &client, SnapshotType::Full, "s", "memory").await;
    vm.kill();
    let good = snapshot(&env, "s", "memory");

    // It does not remove what the other one left.
    let stale = "Error binding to the host-side Unix socket: Address already in use";
    refuses_and_ends(&env, &good, stale).await;
    fs::remove_file(&socket).unwrap();

    let none = MemoryBackend::file(env.path("none"));
    let missing =
        "Error creating guest memory from file: Failed to load guest memory: No such file or directory";
    refuses_and_ends(&env, &SnapshotLoad { mem_backend: none, ..good.clone() }, missing).await;
    let nobody = MemoryBackend::uffd(env.path("none"));
    let missing = "Error creating guest memory from uffd: Failed to connect to UDS Unix stream: No such file or directory";
    refuses_and_ends(&env, &SnapshotLoad { mem_backend: nobody, ..good.clone() }, missing).await;

    let state = fs::read(env.path("s.state")).unwrap();
    let damaged =
        |name: &str, bytes: &[u8]| SnapshotLoad { snapshot_path: env.file(name, bytes), ..good.clone() };
    let missing = SnapshotLoad { snapshot_path: env.path("none"), ..good.clone() };
    refuses_and_ends(&env, &missing, "Failed to open snapshot file: No such file or directory").await;
    refuses_and_ends(&env, &damaged("cut", &state[..state.len() - 100]), "bitcode error").await;
    refuses_and_ends(&env, &damaged("short", &state[..4]), "File too short to contain CRC").await;
    let mut flipped = state;
    flipped[200] ^= 1;
    refuses_and_ends(&env, &damaged("flipped", &flipped), "CRC64 validation failed").await;

    let memory = fs::read(env.path("memory")).unwrap();
    let short = MemoryBackend::file(env.file("short.memory", &memory[..memory.len() / 2]));
    let sum = "Total sum of memory regions exceeds largest possible file offset";
    refuses_and_ends(&env, &SnapshotLoad { mem_backend: short, ..good.clone() }, sum).await;

    let unknown = NetworkOverride { iface_id: "eth9".parse().unwrap(), host_dev_name: "tap0".into() };
    let unknown = SnapshotLoad { network_overrides: vec![unknown], ..good.clone() };
    refuses_and_ends(&env, &unknown, "Unknown Network Device.").await;

    fs::rename(&disk, env.path("moved")).unwrap();
    refuses_and_ends(&env, &good, "Error manipulating the backing file: No such file or directory").await;
    fs::rename(env.path("moved"), &disk).unwrap();

    // All of that was not the snapshot's fault.
    let other = VsockOverride { uds_path: env.path("other.sock") };
    let (mut vm, client) = load(&env, &SnapshotLoad { vsock_override: Some(other.clone()), ..good }).await;
    assert_intact(&mut vm, 1);
    assert!(other.uds_path.exists() && !socket.exists());
    assert_eq!(client.get_vm_config().await.unwrap().vsock.unwrap().uds_path, other.uds_path);
}

async fn refuses_and_ends(env: &FirecrackerEnv, load: &SnapshotLoad, words: &str) {
    let vm = env.start();
    let client = connect(&vm).await;
    assert_refused(client.put_snapshot_load(load).await, words);
    vm.wait().assert_code(1);
    assert_gone(&client).await;
}

#[tokio::test]
async fn vm_firecracker_api_loads_nothing_into_a_configured_machine() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let mut vm = env.start();
    let client = connect(&vm).await;
    client.put_entropy(&Entropy::default()).await.unwrap();
    let refused = client.put_snapshot_load(&snapshot(&env, "none", "none")).await;
    assert_refused(
        refused,
        "Loading a microVM snapshot not allowed after configuring boot-specific resources.",
    );
    // That one does not end it.
    configure_guest(&env, &client).await;
    start_guest(&mut vm, &client).await;
}
