use std::{
    fs::{File, read_link},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
};

use fcvm_testkit::needs_root;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open},
};

use super::{
    testing::{Maker, USERS},
    *,
};
use crate::process::die_with_parent;

/// What a program in these namespaces sees of its own: of users, and the network.
fn seen_in(namespaces: &Arc<Namespaces>) -> Vec<PathBuf> {
    let mut command = Command::new("readlink");
    command.args(["/proc/self/ns/user", "/proc/self/ns/net"]);
    die_with_parent(&mut command, Signal::KILL);
    namespaces.join(&mut command);
    let output = command.output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect()
}

#[test]
fn root_a_command_starts_in_a_network_namespace() {
    if !needs_root() {
        return;
    }
    let Some(maker) = Maker::start(&["--net"], "") else { return };
    let network = read_link(maker.path("net")).unwrap();
    assert_ne!(network, read_link("/proc/self/ns/net").unwrap());
    let seen = seen_in(&maker.namespaces());
    assert_eq!(seen, [read_link("/proc/self/ns/user").unwrap(), network]);
}

#[test]
fn a_command_starts_in_a_user_namespace_and_its_network() {
    let Some(maker) = Maker::start(USERS, "") else { return };
    let expected = ["user", "net"].map(|kind| read_link(maker.path(kind)).unwrap());
    assert_ne!(expected[0], read_link("/proc/self/ns/user").unwrap());
    let seen = seen_in(&maker.namespaces());
    assert_eq!(seen, expected);
}

#[test]
fn what_is_no_namespace_keeps_a_command_from_starting() {
    let mut command = Command::new("true");
    let network = File::open("/proc/self/status").unwrap().into();
    Arc::new(Namespaces { user: None, network }).join(&mut command);
    assert_eq!(command.spawn().unwrap_err().raw_os_error(), Some(Errno::INVAL.raw_os_error()));
}

/// The kernel ties a child to the thread that starts it.
#[test]
fn a_command_in_a_user_namespace_dies_with_its_parent() {
    let Some(maker) = Maker::start(USERS, "") else { return };
    let namespaces = maker.namespaces();
    let starting = std::thread::spawn(move || {
        let mut command = Command::new("sleep");
        command.arg("infinity");
        die_with_parent(&mut command, Signal::KILL);
        namespaces.join(&mut command);
        command.spawn().unwrap()
    });
    let mut child = starting.join().unwrap();
    let end = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    let deadline = Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&deadline)).unwrap(), 1, "it lives on");
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
}
