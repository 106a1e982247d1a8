//! Machines as fcvm makes them: what they have beyond the usual reaches Firecracker.

use std::{
    fs::Permissions,
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use fcvm::{
    hypervisor::{
        Access, Connecting, CpuTemplate, Disk, DiskLimits, GuestMemory, Hypervisor as _, HypervisorError,
        Jail, MachineConfig, MachineOptions, Pages, Traffic,
        firecracker::{
            api::{Client, RateLimiter, TokenBucket},
            find,
        },
        guest_memory, traffic,
    },
    process::cgroup::{self, Hierarchy},
    storage::DataDir,
};
use fcvm_proto::session::LinkKey;
use fcvm_testkit::{FirecrackerEnv, needs_root, skip};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::unix::pipe,
};

use super::MEMORY_MIB;

pub(super) const ID: &str = "0123456789abcdef0123456789abcdef";
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A machine with the tiny guest, a disk of its own and one that it shares.
pub(super) fn machine(env: &FirecrackerEnv, runtime_dir: PathBuf, options: MachineOptions) -> MachineConfig {
    let limits = DiskLimits { bytes: Some(10 << 20), operations: Some(100) };
    let disk = |name: &str, access, limits| {
        let path = env.file(name, vec![0; 1 << 20]);
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        Disk { serial: name.into(), path, access, limits }
    };
    std::fs::create_dir(&runtime_dir).unwrap();
    MachineConfig {
        name: "machine".into(),
        id: ID.into(),
        kernel: env.guest(),
        initrd: env.file("initrd", "none"),
        kernel_arguments: None,
        link_key: LinkKey([0; 16]),
        cpus: 1,
        memory_mib: MEMORY_MIB,
        disks: vec![
            disk("limited", Access::Ephemeral, limits),
            disk("free", Access::ReadOnly, DiskLimits::default()),
        ],
        network: None,
        options,
        metadata: Some(json!({ "name": "machine" })),
        save_dir: runtime_dir.clone(),
        saved: None,
        runtime_dir,
    }
}

/// Waits for the guest's first line. There is no agent in it: nobody knocks.
pub(super) async fn boot(console: OwnedFd, link: Connecting) -> impl Future {
    let mut lines = BufReader::new(pipe::Receiver::from_owned_fd(console).unwrap()).lines();
    let mut link = Box::pin(link.pipe());
    let line = tokio::select! {
        line = lines.next_line() => line.unwrap().unwrap(),
        ended = &mut link => panic!("{ended:?}"),
    };
    assert_eq!(line, "TINY BOOT");
    link
}

/// As root by the jailer: another user, a root with nothing else in it, and no way back.
#[tokio::test]
async fn root_vm_firecracker_machine_is_jailed() {
    if !needs_root() {
        return;
    }
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let data = DataDir::open(Some(env.path("data"))).unwrap();
    let firecracker = find(Some(env.program()), &data).unwrap();
    let has = |name| Hierarchy::find().is_some_and(|groups| groups.has(name));
    let mut jail = Jail::default();
    // On a host with both versions of control groups, one that version 2 may have all the same.
    if has("hugetlb") {
        jail.cgroup.push("hugetlb.2MB.max=4194304".parse().unwrap());
    }
    let limited = ["hugetlb", "memory", "pids"].map(has).contains(&true);
    let options = MachineOptions { jail: Some(jail), ..MachineOptions::default() };
    match firecracker.ready(&options) {
        Err(error @ (HypervisorError::NoJailer | HypervisorError::DynamicFirecracker { .. })) => {
            return skip(error.to_string());
        }
        ready => ready.unwrap(),
    }
    let runtime_dir = env.path("run");
    let config = machine(&env, runtime_dir.clone(), options);
    let mut machine = firecracker.launch(&config).unwrap();
    let _link = boot(machine.console, machine.link).await;
    let process = PathBuf::from(format!("/proc/{}", machine.process.pid()));
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let uid: u32 = line("Uid:")[0].parse().unwrap();
    assert!(uid > 0x7000_0000 && line("Uid:").iter().all(|id| *id == uid.to_string()), "{status}");
    assert!(line("Gid:").iter().all(|id| id == "1879048192"), "{status}");
    assert_eq!(line("CapEff:"), ["0000000000000000"]);
    assert_eq!(line("NSpid:").len(), 2, "it has a PID namespace: {status}");
    for namespace in ["mnt", "net", "pid", "ipc"] {
        let of = |process: &Path| std::fs::read_link(process.join("ns").join(namespace)).unwrap();
        assert_ne!(of(&process), of(Path::new("/proc/self")), "{namespace}");
    }
    let root = process.join("root");
    let mut names: Vec<_> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["dev", "disks", "firecracker", "firecracker.pid", "initrd", "kernel", "run"]);
    let told = Client::connect(&runtime_dir.join("vmm/api.sock")).await.unwrap();
    assert_eq!(told.get_mmds::<Value>().await.unwrap(), json!({ "name": "machine" }));
    assert!(
        std::fs::read_dir(runtime_dir.join("root")).unwrap().next().is_none(),
        "it is seen from the host"
    );
    let groups = std::fs::read_to_string(process.join("cgroup")).unwrap();
    assert_eq!(groups.contains(&format!("0::/fcvm/{ID}\n")), limited, "{groups}");
    if has("hugetlb") {
        let limit = Hierarchy::find().unwrap().of(ID).join("hugetlb.2MB.max");
        assert_eq!(std::fs::read_to_string(limit).unwrap(), "4194304\n");
    }
    let end = pidfd_open(Pid::from_raw(machine.process.pid()).unwrap(), PidfdFlags::empty()).unwrap();
    machine.process.kill().await.unwrap();
    assert_eq!(poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&NOW)).unwrap(), 1, "it lives on");
    cgroup::forget(ID).unwrap();
    assert!(Hierarchy::find().is_none_or(|groups| !groups.of(ID).exists()));
    // Which also has to go when fcvm does: its keeper dies with the thread that started it.
    std::fs::remove_dir_all(&runtime_dir).unwrap();
    let config = self::machine(&env, runtime_dir, config.options);
    let (sender, receiver) = std::sync::mpsc::channel();
    let starter = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let machine = firecracker.launch(&config).unwrap();
            let _link = boot(machine.console, machine.link).await;
            let end = pidfd_open(Pid::from_raw(machine.process.pid()).unwrap(), PidfdFlags::empty()).unwrap();
            sender.send(end).unwrap();
            // As one that is killed does not.
            std::mem::forget(machine.process);
        });
    });
    starter.join().unwrap();
    let end = receiver.recv().unwrap();
    let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&minute)).unwrap(), 1, "it lives on");
    cgroup::forget(ID).unwrap();
}

#[tokio::test]
async fn vm_firecracker_machine_has_what_was_asked_for() {
    let Some(env) = FirecrackerEnv::with_guest() else { return };
    let data = DataDir::open(Some(env.path("data"))).unwrap();
    let firecracker = find(Some(env.program()), &data).unwrap();
    let template = CpuTemplate::read(&env.file("template", r#"{"cpuid_modifiers": []}"#)).unwrap();
    let runtime_dir = env.path("run");
    let options = MachineOptions {
        balloon_mib: Some(8),
        pages: Pages::Usual,
        cpu_template: Some(template),
        jail: None,
    };
    let config = machine(&env, runtime_dir.clone(), options);
    let machine = firecracker.launch(&config).unwrap();
    let _link = boot(machine.console, machine.link).await;

    // Its kernel has no driver for it.
    let expected = GuestMemory { balloon_target: 8 << 20, ..GuestMemory::default() };
    assert_eq!(guest_memory("firecracker", &runtime_dir).await, Some(expected));
    let client = Client::connect(&runtime_dir.join("vmm/api.sock")).await.unwrap();
    let told = client.get_vm_config().await.unwrap();
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
    assert_eq!(traffic("firecracker", &runtime_dir).await, Some(Traffic::default()), "nothing has moved");
    if machine.interfaces.is_empty() {
        return skip("no namespaces, and so no tap");
    }
    assert_eq!(told.network_interfaces.len(), 1);
    assert_eq!(client.get_mmds::<Value>().await.unwrap(), json!({ "name": "machine" }));
    let paths: Vec<_> = told.drives.iter().map(|drive| drive.path_on_host.clone()).collect();
    assert!(paths.contains(&Some("/disks/limited".into())), "the host's paths are not its own: {paths:?}");
}
