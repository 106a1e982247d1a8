//! The processes of rootless networks.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// The process of this name that a VM's owner has as its uplink, where there is one now.
fn uplink(owner: &str, driver: &str) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{owner}/task/{owner}/children")).unwrap();
    // By the name that it was called by: pasta runs on as another program.
    let is_driver = |pid: &&str| {
        fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|words| words.split('\0').next() == Some(driver))
    };
    children.split_whitespace().find(is_driver).and_then(|pid| Pid::from_raw(pid.parse().unwrap()))
}

/// Kills the uplink of the VM with that owner, and waits until there is another.
pub fn kill_uplink(owner: &str, driver: &str) {
    let before = uplink(owner, driver).unwrap();
    kill_process(before, Signal::KILL).unwrap();
    while uplink(owner, driver).is_none_or(|after| after == before) {}
}
