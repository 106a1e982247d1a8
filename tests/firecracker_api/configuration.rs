//! What a machine is told before its start.

use fcvm::hypervisor::firecracker::api::{
    Action, Balloon, BalloonStatisticsUpdate, BalloonUpdate, BootSource, CacheType, Drive, Entropy,
    HugePages, InstanceState, IoEngine, LogLevel, Logger, MachineConfig, MachineConfigUpdate, Metrics,
    MmdsConfig, RateLimiter, Serial, TokenBucket, VmConfig, VmState, Vsock,
};
use fcvm_testkit::FirecrackerEnv;
use serde_json::{Value, json};

use super::{assert_refused, assert_refused_with, connect};

const AFTER_ONLY: &str = "The requested operation is not supported before starting the microVM.";

#[tokio::test]
async fn vm_firecracker_api_has_defaults() {
    let Some(env) = FirecrackerEnv::new() else { return };
    let vm = env.start();
    let client = connect(&vm).await;
    let info = client.get_instance_info().await.unwrap();
    assert_eq!(
        (&*info.id, info.state, &*info.app_name),
        ("anonymous-instance", InstanceState::NotStarted, "Firecracker")
    );
    let machine = MachineConfig::new(1, 128);
    assert_eq!(client.get_machine_config().await.unwrap(), machine);
    let nothing = VmConfig {
        balloon: None,
        drives: Vec::new(),
        boot_source: BootSource::new(""),
        machine_config: Some(machine),
        mmds_config: None,
        network_interfaces: Vec::new(),
        vsock: None,
        entropy: None,
    };
    assert_eq!(client.get_vm_config().await.unwrap(), nothing);
    assert_eq!(client.get_mmds::<Value>().await.unwrap(), json!({}));
    assert_refused(client.get_balloon().await, "Balloon config error: No balloon device found.");
}

/// All but what needs taps: see `network.rs`.
#[tokio::test]
async fn vm_firecracker_api_shows_what_it_was_told() {
    let Some(env) = FirecrackerEnv::new() else { return };
    let vm = env.start();
    let client = connect(&vm).await;
    let bandwidth = TokenBucket { size: 1 << 20, one_time_burst: Some(1 << 21), refill_time: 100 };
    let ops = TokenBucket { size: 1000, one_time_burst: None, refill_time: 1000 };
    let limiter = RateLimiter { bandwidth: Some(bandwidth), ops: Some(ops) };
    let file = |name: &str| {
        let path = env.file(name, "");
        std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
        path
    };

    let machine = MachineConfig { smt: true, track_dirty_pages: true, ..MachineConfig::new(2, 256) };
    client.put_machine_config(&machine).await.unwrap();
    assert_eq!(client.get_machine_config().await.unwrap(), machine);
    let update = MachineConfigUpdate { mem_size_mib: Some(512), ..MachineConfigUpdate::default() };
    client.patch_machine_config(&update).await.unwrap();
    let machine = MachineConfig { mem_size_mib: 512, ..machine };
    assert_eq!(client.get_machine_config().await.unwrap(), machine);
    let huge = MachineConfig { huge_pages: HugePages::TwoMib, ..MachineConfig::new(4, 512) };
    client.put_machine_config(&huge).await.unwrap();
    assert_eq!(client.get_machine_config().await.unwrap(), huge);

    let boot_source = BootSource {
        kernel_image_path: file("kernel"),
        initrd_path: Some(file("initrd")),
        boot_args: Some("console=ttyS0 quiet".into()),
    };
    client.put_boot_source(&boot_source).await.unwrap();

    let data = Drive::new("data".parse().unwrap(), file("data"));
    client.put_drive(&data).await.unwrap();
    let root = Drive {
        partuuid: Some("0eaa91a0-01".into()),
        is_root_device: true,
        cache_type: CacheType::Writeback,
        is_read_only: Some(true),
        rate_limiter: Some(limiter),
        io_engine: Some(IoEngine::Async),
        ..Drive::new("root_1".parse().unwrap(), file("root"))
    };
    client.put_drive(&root).await.unwrap();
    // Another one of the same name takes its place.
    let data = Drive { io_engine: Some(IoEngine::Sync), ..Drive::new(data.drive_id, file("other")) };
    client.put_drive(&data).await.unwrap();

    let vsock = Vsock { guest_cid: 3, uds_path: env.path("v.sock") };
    client.put_vsock(&Vsock { guest_cid: 4, ..vsock.clone() }).await.unwrap();
    assert!(vsock.uds_path.exists());
    client.put_vsock(&vsock).await.unwrap();
    let entropy = Entropy { rate_limiter: Some(limiter) };
    client.put_entropy(&entropy).await.unwrap();
    let balloon = Balloon {
        amount_mib: 16,
        deflate_on_oom: true,
        stats_polling_interval_s: 5,
        free_page_hinting: true,
        free_page_reporting: true,
    };
    client.put_balloon(&balloon).await.unwrap();
    assert_eq!(client.get_balloon().await.unwrap(), balloon);
    let template = json!({ "kvm_capabilities": ["!56"], "cpuid_modifiers": [], "msr_modifiers": [] });
    client.put_cpu_config(template.as_object().unwrap()).await.unwrap();

    let told = VmConfig {
        balloon: Some(balloon),
        drives: vec![root, data],
        boot_source,
        machine_config: Some(huge),
        mmds_config: None,
        network_interfaces: Vec::new(),
        vsock: Some(vsock),
        entropy: Some(entropy),
    };
    assert_eq!(client.get_vm_config().await.unwrap(), told);
}

#[tokio::test]
async fn vm_firecracker_api_takes_metadata_before_the_start() {
    let Some(env) = FirecrackerEnv::new() else { return };
    let vm = env.start();
    let client = connect(&vm).await;
    let not_there = "MMDS error: The MMDS data store is not initialized.";
    assert_refused(client.patch_mmds(&json!({ "a": 1 })).await, not_there);
    client.put_mmds(&json!({ "a": { "b": 1, "c": "é" } })).await.unwrap();
    client.patch_mmds(&json!({ "a": { "b": null }, "d": [1] })).await.unwrap();
    assert_eq!(client.get_mmds::<Value>().await.unwrap(), json!({ "a": { "c": "é" }, "d": [1] }));
    // As long as Firecracker takes it, and as long as its own store takes it.
    let longest = json!({ "a": "x".repeat(51192) });
    assert_eq!(longest.to_string().len(), 51200);
    client.put_mmds(&longest).await.unwrap();
    assert_eq!(client.get_mmds::<Value>().await.unwrap(), longest);
    let more = client.patch_mmds(&json!({ "b": 1 })).await;
    assert_refused_with(413, more, "The MMDS patch request doesn't fit.");
    client.put_mmds(&json!({})).await.unwrap();
    assert_eq!(client.get_mmds::<Value>().await.unwrap(), json!({}));
}

#[tokio::test]
async fn vm_firecracker_api_refuses_machines_that_cannot_be() {
    let Some(env) = FirecrackerEnv::new() else { return };
    let vm = env.start();
    let client = connect(&vm).await;
    let cpus = "The number of vCPUs must be greater than 0, less than 32";
    for count in [0, 33, 255] {
        assert_refused(client.put_machine_config(&MachineConfig::new(count, 128)).await, cpus);
    }
    let odd = MachineConfig { smt: true, ..MachineConfig::new(3, 128) };
    assert_refused(client.put_machine_config(&odd).await, cpus);
    client.put_machine_config(&MachineConfig::new(32, 128)).await.unwrap();
    let memory = "The memory size (MiB) is either 0, or not a multiple of the configured page size.";
    assert_refused(client.put_machine_config(&MachineConfig::new(1, 0)).await, memory);
    let huge = MachineConfig { huge_pages: HugePages::TwoMib, ..MachineConfig::new(1, 3) };
    assert_refused(client.put_machine_config(&huge).await, memory);
    let nothing = client.patch_machine_config(&MachineConfigUpdate::default()).await;
    assert_refused(nothing, "Empty PATCH request.");

    let template = json!({ "no_such_modifiers": [] });
    let refused = client.put_cpu_config(template.as_object().unwrap()).await;
    assert_refused(refused, "unknown field `no_such_modifiers`");
    let balloon = Balloon { amount_mib: 1000, ..Balloon::default() };
    assert_refused(client.put_balloon(&balloon).await, "Amount of pages requested is too large.");
    client.put_balloon(&Balloon { amount_mib: 100, ..balloon }).await.unwrap();
    let smaller = client.put_machine_config(&MachineConfig::new(1, 64)).await;
    assert_refused(
        smaller,
        "The memory size (MiB) is smaller than the previously set balloon device target size.",
    );

    let elsewhere = client.put_vsock(&Vsock { guest_cid: 3, uds_path: "/nonexistent/v.sock".into() }).await;
    assert_refused(elsewhere, "No such file or directory");
    let taken = env.file("taken.sock", "");
    assert_refused(
        client.put_vsock(&Vsock { guest_cid: 3, uds_path: taken }).await,
        "Address already in use",
    );
}

#[tokio::test]
async fn vm_firecracker_api_refuses_files_that_are_not_there() {
    let Some(env) = FirecrackerEnv::new() else { return };
    let vm = env.start();
    let client = connect(&vm).await;
    let none = env.path("none");
    let kernel = env.file("kernel", "no kernel");

    let refused = client.put_boot_source(&BootSource::new(&none)).await;
    assert_refused(refused, "The kernel file cannot be opened: No such file or directory");
    let source = BootSource { initrd_path: Some(none.clone()), ..BootSource::new(&kernel) };
    assert_refused(client.put_boot_source(&source).await, "The initrd file cannot be opened");
    let refused = client.put_drive(&Drive::new("a".parse().unwrap(), &none)).await;
    assert_refused(refused, &format!("No such file or directory (os error 2) {}", none.display()));
    let directory = client.put_drive(&Drive::new("a".parse().unwrap(), "/")).await;
    assert_refused(directory, "Is a directory");
    let nowhere = Drive { path_on_host: None, ..Drive::new("a".parse().unwrap(), "") };
    assert_refused(client.put_drive(&nowhere).await, "Invalid block config.");

    let logger = Logger { log_path: Some("/nonexistent/log".into()), ..Logger::default() };
    assert_refused(client.put_logger(&logger).await, "Failed to open target file: No such file or directory");
    let metrics = Metrics { metrics_path: "/nonexistent/metrics".into() };
    assert_refused(client.put_metrics(&metrics).await, "No such file or directory");
    let metrics = Metrics { metrics_path: env.path("metrics") };
    client.put_metrics(&metrics).await.unwrap();
    assert_refused(client.put_metrics(&metrics).await, "Reinitialization of metrics not allowed.");
    // This one is opened at the start.
    let serial = Serial { serial_out_path: Some("/nonexistent/serial".into()), rate_limiter: None };
    client.put_serial(&serial).await.unwrap();
}

#[tokio::test]
async fn vm_firecracker_api_refuses_bodies_that_it_does_not_know() {
    let Some(env) = FirecrackerEnv::new() else { return };
    let vm = env.start();
    let client = connect(&vm).await;
    for (path, body, words) in [
        ("/boot-source", json!({}), "missing field `kernel_image_path`"),
        ("/boot-source", json!({ "kernel_image_path": "/k", "new": 1 }), "unknown field `new`"),
        ("/machine-config", json!({ "vcpu_count": 1 }), "missing field `mem_size_mib`"),
        ("/machine-config", json!({ "vcpu_count": 256, "mem_size_mib": 1 }), "invalid value: integer `256`"),
        ("/drives/a", json!({ "drive_id": "a" }), "missing field `is_root_device`"),
        (
            "/drives/a",
            json!({ "drive_id": "b", "is_root_device": false }),
            "does not match the id from the body",
        ),
        ("/drives", json!({ "drive_id": "a" }), "The ID cannot be empty."),
        (
            "/drives/a-b",
            json!({}),
            "API Resource IDs can only contain alphanumeric characters and underscores.",
        ),
        ("/vsock", json!({ "guest_cid": 3 }), "missing field `uds_path`"),
        ("/balloon", json!({ "amount_mib": 1 }), "missing field `deflate_on_oom`"),
        ("/metrics", json!({}), "missing field `metrics_path`"),
        ("/mmds/config", json!({}), "missing field `network_interfaces`"),
        ("/mmds/config", json!({ "version": "V3", "network_interfaces": [] }), "unknown variant `V3`"),
        ("/snapshot/create", json!({ "snapshot_path": "/s" }), "missing field `mem_file_path`"),
        (
            "/snapshot/load",
            json!({ "snapshot_path": "/s" }),
            "either `mem_backend` or `mem_file_path` is required",
        ),
        ("/actions", json!({ "action_type": "Dance" }), "unknown variant `Dance`"),
        ("/no-such-noun", json!({}), "Invalid request method and/or path: PUT no-such-noun."),
    ] {
        assert_refused(client.put(path, &body).await, words);
    }
    assert_refused(client.patch("/vm", &json!({ "state": "Asleep" })).await, "unknown variant `Asleep`");
    assert_refused(client.get::<Value>("/no-such-noun").await, "Invalid request method and/or path");
}

#[tokio::test]
async fn vm_firecracker_api_refuses_updates_before_the_start() {
    let Some(env) = FirecrackerEnv::new() else { return };
    let vm = env.start();
    let client = connect(&vm).await;
    client.put_balloon(&Balloon { stats_polling_interval_s: 1, ..Balloon::default() }).await.unwrap();
    for state in [VmState::Paused, VmState::Resumed] {
        assert_refused(client.patch_vm(state).await, AFTER_ONLY);
    }
    for action in [Action::FlushMetrics, Action::SendCtrlAltDel] {
        assert_refused(client.put_action(action).await, AFTER_ONLY);
    }
    assert_refused(client.patch_balloon(BalloonUpdate { amount_mib: 1 }).await, AFTER_ONLY);
    let interval = BalloonStatisticsUpdate { stats_polling_interval_s: 2 };
    assert_refused(client.patch_balloon_statistics(interval).await, AFTER_ONLY);
    assert_refused(client.get_balloon_statistics().await, AFTER_ONLY);
    let interfaces = "contains at least one ID that does not correspond to any existing network interface";
    let refused = client.put_mmds_config(&MmdsConfig::new(vec!["eth0".parse().unwrap()])).await;
    assert_refused(refused, interfaces);
    let refused = client.put_mmds_config(&MmdsConfig::new(Vec::new())).await;
    assert_refused(
        refused,
        "The list of network interface IDs that allow forwarding MMDS requests is empty.",
    );
}

#[tokio::test]
async fn vm_firecracker_api_refuses_starts_that_cannot_be() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let vm = env.start();
    let client = connect(&vm).await;
    let start = async || client.put_action(Action::InstanceStart).await;
    assert_refused(start().await, "Cannot start microvm without kernel configuration.");
    client.put_boot_source(&BootSource::new(env.file("kernel", "no kernel"))).await.unwrap();
    assert_refused(start().await, "invalid kernel image");
    // 2048 with the NUL: this is refused at once,
    let args = |length| BootSource { boot_args: Some("x".repeat(length)), ..BootSource::new(env.guest()) };
    assert_refused(client.put_boot_source(&args(2048)).await, "Invalid cmdline capacity provided.");
    // and what is too long only with what Firecracker adds, at the start.
    client.put_boot_source(&args(2047)).await.unwrap();
    assert_refused(start().await, "Inserting string would make command line too long.");
    client.put_boot_source(&BootSource::new(env.guest())).await.unwrap();
    client.put_machine_config(&MachineConfig::new(1, 2)).await.unwrap();
    assert_refused(start().await, "Cannot load kernel due to invalid memory configuration");
    // A start that was refused can be tried again.
    assert_eq!(client.get_instance_info().await.unwrap().state, InstanceState::NotStarted);
    client.put_machine_config(&MachineConfig::new(1, super::MEMORY_MIB)).await.unwrap();
    start().await.unwrap();
    assert_eq!(client.get_instance_info().await.unwrap().state, InstanceState::Running);
}

#[tokio::test]
async fn vm_firecracker_api_moves_the_log() {
    let Some(env) = FirecrackerEnv::new() else { return };
    let vm = env.start();
    let client = connect(&vm).await;
    let log = env.path("log");
    let logger = Logger {
        log_path: Some(log.clone()),
        level: Some(LogLevel::Info),
        show_level: Some(true),
        show_log_origin: Some(true),
        module: None,
    };
    client.put_logger(&logger).await.unwrap();
    client.get_version().await.unwrap();
    let written = std::fs::read_to_string(&log).unwrap();
    assert!(written.contains("INFO") && written.contains(r#"Get request on "/version""#), "{written}");
    for level in [LogLevel::Error, LogLevel::Warning, LogLevel::Debug, LogLevel::Trace, LogLevel::Off] {
        client.put_logger(&Logger { level: Some(level), ..Logger::default() }).await.unwrap();
    }
    let written = std::fs::metadata(&log).unwrap().len();
    client.get_version().await.unwrap();
    assert_eq!(std::fs::metadata(&log).unwrap().len(), written);
}
