//! Mounts leave nothing. In a process of its own, whose threads are counted.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use fuse_pipe::client::{Client, Options};

mod support;

use support::{Answer, READ, directory, is_mounted, plain, serve};

fn threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name.starts_with("fuse"))
        .count()
}

fn descriptors() -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap();
    links
        .filter_map(|link| fs::read_link(link.unwrap().path()).ok())
        .filter(|target| {
            target.to_str().is_some_and(|target| target.contains("fuse") || target.contains("event"))
        })
        .count()
}

#[test]
fn fifty_mounts_leave_no_mount_no_thread_and_no_descriptor() {
    let Some(directory) = directory() else { return };
    let path = directory.path();
    for round in 0..50 {
        let dying = || serve(|request| (request.opcode == READ).then_some(Answer::HangUp));
        let streams = if round % 2 == 0 { vec![plain(), plain()] } else { vec![dying(), dying()] };
        let mounted = Client::mount(path, streams, &Options::default()).unwrap();
        assert_eq!(fs::read(path.join("hello")).is_ok(), round % 2 == 0);
        assert!(is_mounted(path));
        assert!(round % 2 == 1 || threads() > 1 && descriptors() > 4);
        // Both ways to end it.
        if round % 3 == 0 {
            drop(mounted)
        } else {
            mounted.unmount().unwrap()
        }
        assert!(!is_mounted(path));
        assert_eq!(descriptors(), 0, "round {round}");
        // The kernel wakes who joins a thread a moment before it takes the thread off its list.
        let start = Instant::now();
        while threads() > 0 {
            assert!(start.elapsed() < Duration::from_secs(5), "round {round}");
            thread::yield_now();
        }
    }
}
