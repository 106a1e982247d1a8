//! What commands leave behind.

use std::{
    fs,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

use crate::running::{wait_for_end, wait_for_exit};

/// Longest time for a killed process to be gone. A safety net.
const DEADLINE: Duration = Duration::from_secs(60);

/// Everything that should not be there once no command runs.
pub(crate) fn find(data: &Path, sockets: &Path) -> Vec<String> {
    let data = fs::canonicalize(data).unwrap_or_else(|_| data.to_owned());
    let places = [data.display().to_string(), sockets.display().to_string()];
    let below = |text: &str| places.iter().any(|place| text.contains(&format!("{place}/")));
    let mut left = Vec::new();
    left.extend(processes(sockets).iter().map(|(pid, name)| format!("process {pid} ({name})")));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    left.extend(mounts.lines().filter(|line| below(line)).map(|line| format!("mount {line}")));
    for device in children("/sys/block".as_ref()) {
        let file = fs::read_to_string(device.join("loop/backing_file")).unwrap_or_default();
        if below(&file) {
            left.push(format!("loop device {}: {}", device.display(), file.trim_end()));
        }
    }
    let listening = fs::read_to_string("/proc/net/unix").unwrap();
    left.extend(listening.lines().filter(|line| below(line)).map(|line| format!("socket {line}")));
    left.extend(files(&data, sockets).iter().map(|path| format!("file {}", path.display())));
    left
}

/// Files of VMs, and those that were not finished.
fn files(data: &Path, sockets: &Path) -> Vec<PathBuf> {
    let mut left = children(&data.join("vms"));
    left.extend(children(&sockets.join("run")));
    let states = children(&data.join("state"));
    left.extend(
        states.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "json")),
    );
    let mut directories = vec![data.to_owned()];
    while let Some(directory) = directories.pop() {
        for path in children(&directory) {
            if path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".tmp-")) {
                left.push(path);
            } else if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                directories.push(path);
            }
        }
    }
    left
}

fn children(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// Processes that have the directory of sockets in their environment, as `fcvm` and most that it starts,
/// or work in it, or in a part of it that is mounted elsewhere, as Firecracker in its sandbox.
pub(crate) fn processes(sockets: &Path) -> Vec<(i32, String)> {
    let marker = [b"FCVM_RUNTIME_DIR=", sockets.as_os_str().as_bytes(), b"/"].concat();
    let mounted = format!("{}/", sockets.display());
    let known = |path: &Path| {
        fs::read_link(path.join("cwd")).is_ok_and(|directory| directory.starts_with(sockets))
            || fs::read_to_string(path.join("mountinfo")).is_ok_and(|mounts| mounts.contains(&mounted))
            || fs::read(path.join("environ")).is_ok_and(|bytes| {
                bytes.split(|byte| *byte == 0).any(|variable| variable.starts_with(&marker))
            })
    };
    children("/proc".as_ref())
        .into_iter()
        .filter_map(|path| Some((path.file_name()?.to_str()?.parse().ok()?, path)))
        .filter(|(_, path)| known(path))
        .map(|(pid, path)| {
            (pid, fs::read_to_string(path.join("comm")).unwrap_or_default().trim_end().to_owned())
        })
        .collect()
}

/// All processes that are about to end, or have.
fn exiting() -> Vec<(i32, String)> {
    /// `PF_EXITING` of the kernel's `include/linux/sched.h`.
    const EXITING: u64 = 4;
    let of = |path: PathBuf| {
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        let (start, rest) = stat.rsplit_once(") ")?;
        let (pid, name) = start.split_once(" (")?;
        let flags: u64 = rest.split(' ').nth(6)?.parse().ok()?;
        (flags & EXITING != 0).then_some((pid.parse().ok()?, name.to_owned()))
    };
    children("/proc".as_ref()).into_iter().filter_map(of).collect()
}

/// A process to wait for, if it is there still.
pub(crate) fn open(pid: i32) -> Option<OwnedFd> {
    match pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) {
        Err(Errno::SRCH) => None,
        pidfd => Some(pidfd.unwrap()),
    }
}

/// Waits until it is gone with all it had.
pub(crate) fn wait_until_gone(process: &OwnedFd) {
    assert!(wait_for_end(process, Instant::now() + DEADLINE), "a killed process lives on");
}

/// Waits until none of them is left.
pub(crate) fn wait_for_processes(sockets: &Path) {
    let deadline = Instant::now() + DEADLINE;
    // One that ends may have started another.
    loop {
        let processes = processes(sockets);
        if processes.is_empty() {
            // One that is about to end cannot be told from others any more, and has its sockets still.
            for (pid, name) in exiting() {
                assert!(wait_for_exit(Pid::from_raw(pid).unwrap(), deadline), "process {pid} ({name}) hangs");
            }
            return;
        }
        for (pid, name) in processes {
            assert!(wait_for_exit(Pid::from_raw(pid).unwrap(), deadline), "process {pid} ({name}) lives on");
        }
    }
}

pub(crate) fn kill(pid: i32) {
    if let Err(error) = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL) {
        assert_eq!(error, Errno::SRCH, "it may have ended since");
    }
}

pub(crate) fn kill_processes(sockets: &Path) {
    processes(sockets).into_iter().for_each(|(pid, _)| kill(pid));
    wait_for_processes(sockets);
}
