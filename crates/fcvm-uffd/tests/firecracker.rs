//! A real Firecracker's clones.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{os::unix::net::UnixListener, sync::mpsc, time::Duration};

use fcvm_testkit::{Firecracker, needs_root};
use fcvm_uffd::{Ending, Memory, Options, Peer, RecordingOptions, Report, Server};

#[path = "support/clone.rs"]
mod clone;

use clone::{Backend, Snapshot};

const DEADLINE: Duration = Duration::from_secs(60);

struct World {
    snapshot: Snapshot,
    server: Option<Server>,
    reports: mpsc::Receiver<Report>,
}

impl World {
    fn new() -> Option<Self> {
        // Else Firecracker may make no uffd.
        if !needs_root() {
            return None;
        }
        let snapshot = Snapshot::take(72)?;
        let (sender, reports) = mpsc::channel();
        let recording = Some(RecordingOptions::new(snapshot.env.path("memory.ws")));
        let options = Options { recording, ..Options::default() };
        let memory = Memory::open(&snapshot.memory).unwrap();
        let server = Server::new(memory, options, move |report| sender.send(report).unwrap_or_default());
        server.listen(UnixListener::bind(snapshot.env.path("uffd")).unwrap()).unwrap();
        Some(Self { snapshot, server: Some(server), reports })
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn start(&self) -> Firecracker {
        self.snapshot.clone_by(Backend::Uffd(&self.snapshot.env.path("uffd")))
    }

    fn left(&self) -> (fcvm_uffd::Statistics, Ending) {
        loop {
            match self.reports.recv_timeout(DEADLINE).unwrap() {
                Report::Left { statistics, ending } => return (statistics, ending),
                Report::Joined { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[track_caller]
fn assert_whole(vm: &mut Firecracker) {
    let line = vm.ask("r");
    assert!(line.starts_with("read pages=2000 ") && line.contains(" bad=0 "), "{line}");
}

#[test]
fn root_slow_vm_twenty_clones_at_once_have_all_their_memory() {
    let Some(mut world) = World::new() else { return };
    let mut clones: Vec<_> = (0..20).map(|_| world.start()).collect();
    clones.iter_mut().for_each(|vm| vm.say("r"));
    for vm in &mut clones {
        let line = vm.line();
        assert!(line.contains(" bad=0 "), "{line}");
    }
    // What one writes no other sees.
    assert!(clones[3].ask("i").starts_with("inc "));
    clones.iter_mut().for_each(assert_whole);
    let statistics = world.server().statistics();
    assert_eq!(statistics.len(), 20);
    for vm in &clones {
        let of_vm = statistics.iter().find(|statistics| statistics.pid == Some(vm.pid())).unwrap();
        assert!(of_vm.pages_copied >= 0x2000, "{of_vm:?}");
    }
    let file = world.snapshot.clone_by(Backend::File);
    clones.push(file);
    assert_whole(&mut clones[20]);

    // One dies, and the others are served on.
    let pid = clones[0].pid();
    clones.remove(0).kill();
    let (statistics, ending) = world.left();
    assert!(matches!(ending, Ending::Died), "{ending:?}");
    assert_eq!(statistics.pid, Some(pid));
    let mut late = world.start();
    assert_whole(&mut late);

    let released = world.server.take().unwrap().stop(|vmm: &Peer| vmm.kill().unwrap());
    assert_eq!(released.len(), 20);
    assert!(released.iter().all(|vm| vm.uffd.is_none()));
}

#[test]
fn root_vm_a_second_clone_has_what_the_first_wanted() {
    let Some(world) = World::new() else { return };
    let mut first = world.start();
    assert_whole(&mut first);
    first.kill();
    assert!(matches!(world.left(), (_, Ending::Died)));
    let set = world.server().working_set().unwrap();
    assert!(set.bytes() >= 0x2000 * 4096);
    let mut second = world.start();
    while world.server().statistics()[0].bytes_prefetched < set.bytes() / 2 {
        std::thread::yield_now();
    }
    assert_whole(&mut second);
    second.kill();
    let (statistics, _) = world.left();
    assert!(statistics.faults < 1000, "{statistics:?}");
}
