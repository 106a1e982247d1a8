//! What a machine is told and asked while it runs.

use std::{fs, time::Duration};

use fcvm::hypervisor::firecracker::api::{
    Action, Balloon, BalloonStatistics, BalloonStatisticsUpdate, BalloonUpdate, BootSource, Drive,
    DriveUpdate, Entropy, InstanceState, Logger, MachineConfig, MachineConfigUpdate, MemoryBackend, Metrics,
    MmdsConfig, NetworkInterfaceUpdate, RateLimiter, Serial, SnapshotLoad, TokenBucket, VmState, Vsock,
};
use fcvm_testkit::FirecrackerEnv;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::unix::pipe,
    time::timeout,
};

use super::{assert_refused, boot, configure_guest, connect, start_guest};

const BEFORE_ONLY: &str = "The requested operation is not supported after starting the microVM.";

#[tokio::test]
async fn vm_firecracker_api_runs_pauses_and_resumes_a_guest() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let (mut vm, client) = boot(&env).await;
    let state = async || client.get_instance_info().await.unwrap().state;
    assert_eq!(state().await, InstanceState::Running);
    assert!(vm.ask("p").starts_with("pong n=1 "));
    // Already so: no error.
    client.patch_vm(VmState::Resumed).await.unwrap();
    for _ in 0..2 {
        client.patch_vm(VmState::Paused).await.unwrap();
        assert_eq!(state().await, InstanceState::Paused);
    }
    let lines = vm.lines_so_far();
    vm.say("p");
    assert_eq!(state().await, InstanceState::Paused);
    assert_eq!(vm.lines_so_far(), lines);
    client.patch_vm(VmState::Resumed).await.unwrap();
    assert!(vm.line().starts_with("pong n=2 "));
    assert_eq!(state().await, InstanceState::Running);
    // The guest does not listen to its keyboard.
    client.put_action(Action::SendCtrlAltDel).await.unwrap();
    assert!(vm.ask("p").starts_with("pong n=3 "));
}

#[tokio::test]
async fn vm_firecracker_api_refuses_configuration_after_the_start() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let (_vm, client) = boot(&env).await;
    let file = env.file("file", "");
    assert_refused(client.put_action(Action::InstanceStart).await, BEFORE_ONLY);
    assert_refused(client.put_machine_config(&MachineConfig::new(1, 128)).await, BEFORE_ONLY);
    let update = MachineConfigUpdate { smt: Some(false), ..MachineConfigUpdate::default() };
    assert_refused(client.patch_machine_config(&update).await, BEFORE_ONLY);
    assert_refused(client.put_boot_source(&BootSource::new(&file)).await, BEFORE_ONLY);
    assert_refused(client.put_cpu_config(&Map::new()).await, BEFORE_ONLY);
    assert_refused(client.put_vsock(&Vsock { guest_cid: 3, uds_path: env.path("v") }).await, BEFORE_ONLY);
    assert_refused(client.put_entropy(&Entropy::default()).await, BEFORE_ONLY);
    assert_refused(client.put_balloon(&Balloon::default()).await, BEFORE_ONLY);
    let config = MmdsConfig::new(vec!["eth0".parse().unwrap()]);
    assert_refused(client.put_mmds_config(&config).await, BEFORE_ONLY);
    assert_refused(client.put_logger(&Logger::default()).await, BEFORE_ONLY);
    assert_refused(client.put_metrics(&Metrics { metrics_path: env.path("m") }).await, BEFORE_ONLY);
    assert_refused(client.put_serial(&Serial::default()).await, BEFORE_ONLY);
    let load = SnapshotLoad::new(&file, MemoryBackend::file(&file));
    assert_refused(client.put_snapshot_load(&load).await, BEFORE_ONLY);
    // A drive would be plugged in, to a machine that has PCI.
    let drive = client.put_drive(&Drive::new("a".parse().unwrap(), &file)).await;
    assert_refused(drive, "PCI is not enabled");
    // What was never there.
    let no_data = "MMDS error: The MMDS data store is not initialized.";
    assert_refused(client.put_mmds(&json!({})).await, no_data);
    assert_refused(client.patch_mmds(&json!({})).await, no_data);
    assert_refused(client.get_mmds::<Value>().await, no_data);
    let no_balloon = "Device not found";
    assert_refused(client.get_balloon().await, no_balloon);
    assert_refused(client.get_balloon_statistics().await, no_balloon);
    assert_refused(client.patch_balloon(BalloonUpdate { amount_mib: 1 }).await, no_balloon);
    let interval = BalloonStatisticsUpdate { stats_polling_interval_s: 1 };
    assert_refused(client.patch_balloon_statistics(interval).await, no_balloon);
    let update = NetworkInterfaceUpdate {
        iface_id: "eth0".parse().unwrap(),
        rx_rate_limiter: None,
        tx_rate_limiter: None,
    };
    assert_refused(client.patch_network_interface(&update).await, "Device not found");
}

#[tokio::test]
async fn vm_firecracker_api_updates_drives() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let mut vm = env.start();
    let client = connect(&vm).await;
    configure_guest(&env, &client).await;
    let drive = Drive::new("a".parse().unwrap(), env.file("first", [0; 4096]));
    client.put_drive(&drive).await.unwrap();
    start_guest(&mut vm, &client).await;

    let same = DriveUpdate { drive_id: drive.drive_id.clone(), path_on_host: None, rate_limiter: None };
    let second = env.file("second", [0; 8192]);
    let update = DriveUpdate { path_on_host: Some(second.clone()), ..same.clone() };
    client.patch_drive(&update).await.unwrap();
    let ops = TokenBucket { size: 5, one_time_burst: None, refill_time: 100 };
    let limiter = RateLimiter { bandwidth: None, ops: Some(ops) };
    client.patch_drive(&DriveUpdate { rate_limiter: Some(limiter), ..same.clone() }).await.unwrap();
    let shown = client.get_vm_config().await.unwrap().drives;
    assert_eq!((&shown[0].path_on_host, shown[0].rate_limiter), (&Some(second), Some(limiter)));
    // A bucket of nothing lifts the limit.
    let ops = TokenBucket::default();
    let none = RateLimiter { bandwidth: None, ops: Some(ops) };
    client.patch_drive(&DriveUpdate { rate_limiter: Some(none), ..same.clone() }).await.unwrap();
    assert_eq!(client.get_vm_config().await.unwrap().drives[0].rate_limiter, None);

    assert_refused(client.patch_drive(&same).await, "Running method expected different backend.");
    let nowhere = DriveUpdate { path_on_host: Some(env.path("none")), ..same.clone() };
    assert_refused(client.patch_drive(&nowhere).await, "No such file or directory");
    let other = DriveUpdate { drive_id: "other".parse().unwrap(), ..update };
    assert_refused(client.patch_drive(&other).await, "Device not found");
}

/// The guest has no driver: what needs one is refused.
#[tokio::test]
async fn vm_firecracker_api_tells_of_the_balloon() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let mut vm = env.start();
    let client = connect(&vm).await;
    configure_guest(&env, &client).await;
    let balloon = Balloon { deflate_on_oom: true, stats_polling_interval_s: 1, ..Balloon::default() };
    client.put_balloon(&balloon).await.unwrap();
    start_guest(&mut vm, &client).await;
    assert_eq!(client.get_balloon().await.unwrap(), balloon);
    assert_eq!(client.get_balloon_statistics().await.unwrap(), BalloonStatistics::default());
    let interval = |seconds| BalloonStatisticsUpdate { stats_polling_interval_s: seconds };
    client.patch_balloon_statistics(interval(2)).await.unwrap();
    assert_eq!(client.get_balloon().await.unwrap().stats_polling_interval_s, 2);
    let off = client.patch_balloon_statistics(interval(0)).await;
    assert_refused(off, "Statistics cannot be enabled/disabled after activation.");
    let inflated = client.patch_balloon(BalloonUpdate { amount_mib: 4 }).await;
    assert_refused(inflated, "Balloon update error: Balloon: Device not activated yet.");
}

#[tokio::test]
async fn vm_firecracker_api_writes_counters() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let mut vm = env.start();
    let client = connect(&vm).await;
    configure_guest(&env, &client).await;
    let metrics = env.path("metrics");
    client.put_metrics(&Metrics { metrics_path: metrics.clone() }).await.unwrap();
    start_guest(&mut vm, &client).await;
    client.put_action(Action::FlushMetrics).await.unwrap();
    let written = fs::read_to_string(&metrics).unwrap();
    // The start writes a line, too; counters begin anew with each.
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 2, "{written}");
    let requests =
        |noun: &str| lines.iter().map(|line| line["put_api_requests"][noun].as_u64().unwrap()).sum::<u64>();
    assert_eq!((requests("actions_count"), requests("boot_source_count")), (2, 1));
}

#[tokio::test]
async fn vm_firecracker_api_sends_the_console_elsewhere() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let vm = env.start();
    let client = connect(&vm).await;
    configure_guest(&env, &client).await;
    let console = env.path("console");
    mknodat(CWD, &console, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let reader = pipe::OpenOptions::new().read_write(true).open_receiver(&console).unwrap();
    client.put_serial(&Serial { serial_out_path: Some(console), rate_limiter: None }).await.unwrap();
    client.put_action(Action::InstanceStart).await.unwrap();
    let mut lines = BufReader::new(reader).lines();
    let line = timeout(Duration::from_secs(60), lines.next_line()).await;
    assert_eq!(line.unwrap().unwrap().as_deref(), Some("TINY BOOT"));
    assert_eq!(vm.lines_so_far(), 0);
}

#[tokio::test]
async fn vm_firecracker_api_drops_what_is_too_much_for_the_console() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let mut vm = env.start();
    let client = connect(&vm).await;
    configure_guest(&env, &client).await;
    // For the first line, and for a day nothing else.
    let bucket = TokenBucket { size: 10, one_time_burst: None, refill_time: 86_400_000 };
    client.put_serial(&Serial { serial_out_path: None, rate_limiter: Some(bucket) }).await.unwrap();
    client.put_action(Action::InstanceStart).await.unwrap();
    assert_eq!(vm.line(), "TINY BOOT");
    vm.say("q");
    assert_eq!(vm.wait().stdout(), "TINY BOOT\n");
}
