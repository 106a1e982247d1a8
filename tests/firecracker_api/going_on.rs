//! Machines in jails, and in huge pages, are saved, and others go on from them.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use fcvm::{
    hypervisor::{
        HostMemory, Hypervisor as _, HypervisorError, Jail, Machine, MachineConfig, MachineOptions, Pages,
        Save, Saved,
        firecracker::{
            Firecracker,
            api::{Client, InstanceState},
            find,
        },
    },
    process::cgroup,
    snapshot::{MEMORY, STATE},
    storage::DataDir,
};
use fcvm_testkit::{FirecrackerEnv, needs_root, skip};
use fcvm_uffd::{Memory, Options, Peer, Report, Server};

use super::{
    MEMORY_MIB,
    machine::{ID, boot, machine},
};

const DEADLINE: Duration = Duration::from_secs(60);

/// The user of a process.
fn user(pid: i32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

/// A machine like that one, of another id, which goes on from what was saved of it.
fn clone_of(first: &MachineConfig, digit: char, pages: Option<PathBuf>) -> MachineConfig {
    let beside =
        |path: &Path| path.with_file_name(format!("{}-{digit}", path.file_name().unwrap().display()));
    let (save_dir, runtime_dir) = (beside(&first.save_dir), beside(&first.runtime_dir));
    for directory in [&runtime_dir, &save_dir] {
        fs::create_dir(directory).unwrap();
    }
    let [state, memory] = [STATE, MEMORY].map(|name| first.save_dir.join(name));
    MachineConfig {
        id: String::from(digit).repeat(32),
        saved: Some(Saved { state, memory, pages }),
        save_dir,
        runtime_dir,
        ..first.clone()
    }
}

/// Saves a machine that runs; as whom it runs.
async fn save(saver: &dyn Save, pid: i32, config: &MachineConfig) -> u32 {
    saver.ahead().await.unwrap();
    saver.save().await.unwrap();
    saver.resume().await.unwrap();
    let own = user(pid);
    let memory = fs::metadata(config.save_dir.join(MEMORY)).unwrap();
    assert_eq!((memory.uid(), memory.len()), (own, u64::from(config.memory_mib) << 20));
    assert_eq!(fs::metadata(config.save_dir.join(STATE)).unwrap().uid(), own);
    own
}

/// Has a machine go on, and be saved in its turn; as whom it ran.
async fn go_on(firecracker: &Firecracker, config: &MachineConfig) -> u32 {
    let Machine { mut process, link, save: saver, .. } = firecracker.launch(config).unwrap();
    let api = config.runtime_dir.join("vmm/api.sock");
    // No agent is in it: the link never stands.
    let mut link = Box::pin(link.pipe());
    let running = async {
        loop {
            if let Ok(client) = Client::connect(&api).await
                && let Ok(info) = client.get_instance_info().await
                && info.state == InstanceState::Running
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = running => {}
        ended = &mut link => panic!("{:?}", ended.map(drop)),
    }
    let own = save(&*saver, process.pid(), config).await;
    process.kill().await.unwrap();
    cgroup::forget(&config.id).unwrap();
    own
}

/// A machine with these options is saved, and others go on from that: from a page server, and from the file
/// where they can. As whom they ran.
async fn saved_and_gone_on(options: MachineOptions, by_file: bool) -> Option<Vec<u32>> {
    if !needs_root() {
        return None;
    }
    let env = FirecrackerEnv::with_guest()?;
    let data = DataDir::open(Some(env.path("data"))).unwrap();
    let firecracker = find(Some(env.program()), &data).unwrap();
    match firecracker.ready(&options) {
        Err(error @ (HypervisorError::NoJailer | HypervisorError::DynamicFirecracker { .. })) => {
            skip(error.to_string());
            return None;
        }
        ready => ready.unwrap(),
    }
    let first = MachineConfig { save_dir: env.path("save"), ..machine(&env, env.path("run"), options) };
    fs::create_dir(&first.save_dir).unwrap();
    let Machine { mut process, link, console, save: saver, .. } = firecracker.launch(&first).unwrap();
    let _link = boot(console, link).await;
    let mut users = vec![save(&*saver, process.pid(), &first).await];
    // They are fcvm's from now on.
    for name in [STATE, MEMORY] {
        chown(first.save_dir.join(name), Some(0), Some(0)).unwrap();
        fs::set_permissions(first.save_dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    if by_file {
        users.push(go_on(&firecracker, &clone_of(&first, 'a', None)).await);
    }
    let (sender, reports) = mpsc::channel();
    let memory = Memory::open(first.save_dir.join(MEMORY)).unwrap();
    let told = move |report| sender.send(report).unwrap_or_default();
    let server = Server::new(memory, Options::default(), told);
    let socket = env.path("pages");
    server.listen(UnixListener::bind(&socket).unwrap()).unwrap();
    users.push(go_on(&firecracker, &clone_of(&first, 'b', Some(socket))).await);
    assert!(matches!(reports.recv_timeout(DEADLINE).unwrap(), Report::Joined { .. }));
    drop(server.stop(|vmm: &Peer| vmm.kill().unwrap()));
    process.kill().await.unwrap();
    cgroup::forget(ID).unwrap();
    Some(users)
}

#[tokio::test]
async fn root_vm_firecracker_jailed_machine_goes_on_in_other_jails() {
    let options = MachineOptions { jail: Some(Jail::default()), ..MachineOptions::default() };
    let Some(users) = saved_and_gone_on(options, true).await else { return };
    let different: BTreeSet<_> = users.iter().filter(|user| **user > 0x7000_0000).collect();
    assert_eq!(different.len(), 3, "{users:?}");
}

/// Which only a page server fills.
#[tokio::test]
async fn root_vm_firecracker_machine_goes_on_in_huge_pages() {
    let needed = u64::from(MEMORY_MIB) / 2 * 2;
    if HostMemory::now().huge_pages.is_none_or(|pages| pages.free < needed) {
        return skip(format!("{needed} huge pages are not set aside: sysctl vm.nr_hugepages={needed}"));
    }
    let options = MachineOptions { pages: Pages::Huge, ..MachineOptions::default() };
    let Some(users) = saved_and_gone_on(options, false).await else { return };
    assert_eq!(users, [0, 0]);
}
