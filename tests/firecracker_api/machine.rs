//! Machines as fcvm makes them: what they have beyond the usual reaches Firecracker.

use std::pin::pin;

use fcvm::{
    hypervisor::{
        Access, CpuTemplate, Disk, DiskLimits, GuestMemory, Hypervisor as _, MachineConfig, MachineOptions,
        Pages,
        firecracker::{
            api::{Client, RateLimiter, TokenBucket},
            find,
        },
        guest_memory,
    },
    storage::DataDir,
};
use fcvm_proto::session::LinkKey;
use fcvm_testkit::FirecrackerEnv;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::unix::pipe,
};

use super::MEMORY_MIB;

#[tokio::test]
async fn vm_firecracker_machine_has_what_was_asked_for() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let data = DataDir::open(Some(env.path("data"))).unwrap();
    let firecracker = find(Some(env.program()), &data).unwrap();
    let runtime_dir = env.path("run");
    std::fs::create_dir(&runtime_dir).unwrap();
    let template = CpuTemplate::read(&env.file("template", r#"{"cpuid_modifiers": []}"#)).unwrap();
    let limits = DiskLimits { bytes: Some(10 << 20), operations: Some(100) };
    let disk = |name: &str, limits| {
        let path = env.file(name, vec![0; 1 << 20]);
        Disk { serial: name.into(), path, access: Access::Ephemeral, limits }
    };
    let machine = firecracker.launch(&MachineConfig {
        name: "machine".into(),
        kernel: env.guest(),
        initrd: env.file("initrd", "none"),
        kernel_arguments: None,
        link_key: LinkKey([0; 16]),
        cpus: 1,
        memory_mib: MEMORY_MIB,
        disks: vec![disk("limited", limits), disk("free", DiskLimits::default())],
        options: MachineOptions { balloon_mib: Some(8), pages: Pages::Usual, cpu_template: Some(template) },
        runtime_dir: runtime_dir.clone(),
    });
    let machine = machine.unwrap();
    let mut lines = BufReader::new(pipe::Receiver::from_owned_fd(machine.console).unwrap()).lines();
    let mut link = pin!(machine.link.pipe());
    // There is no agent in this guest: nobody knocks.
    let line = tokio::select! {
        line = lines.next_line() => line.unwrap().unwrap(),
        ended = &mut link => panic!("{ended:?}"),
    };
    assert_eq!(line, "TINY BOOT");

    // Its kernel has no driver for it.
    let expected = GuestMemory { balloon_target: 8 << 20, ..GuestMemory::default() };
    assert_eq!(guest_memory("firecracker", &runtime_dir).await, Some(expected));
    let told = Client::connect(&runtime_dir.join("api.sock")).await.unwrap().get_vm_config().await.unwrap();
    let balloon = told.balloon.unwrap();
    assert!(balloon.amount_mib == 8 && balloon.deflate_on_oom && balloon.stats_polling_interval_s > 0);
    let bucket = |size| Some(TokenBucket { size, one_time_burst: None, refill_time: 1000 });
    let limiter = RateLimiter { bandwidth: bucket(10 << 20), ops: bucket(100) };
    assert_eq!(told.drives.len(), 2);
    // Of a machine that runs they come in no order.
    for drive in &told.drives {
        let expected = (drive.drive_id.as_str() == "disk0").then_some(limiter);
        assert_eq!(drive.rate_limiter, expected, "{}", drive.drive_id);
    }
}
