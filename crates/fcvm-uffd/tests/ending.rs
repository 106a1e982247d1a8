//! However it ends: no VM hangs, and none reads zeros that are not its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(clippy::cast_possible_truncation, reason = "small numbers")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{fs, fs::File, os::unix::net::UnixStream, thread};

use fcvm_testkit::skip;
use fcvm_uffd::{Ending, Failure, Peer, Report};
use rustix::io::Errno;

mod support;

use support::{Guest, PAGE, Vmm, World, pattern, sys};

const HUGE: u64 = 2 << 20;

/// Touches its pages and gives them back, for ever.
fn storm(guest: &Guest) {
    guest.assert_whole();
    loop {
        guest.give_back(0..guest.pages);
        (0..guest.pages).for_each(|page| assert_eq!(guest.load(page, 0), 0));
    }
}

fn wait_for_faults(world: &World, vms: usize) {
    loop {
        let statistics = world.server().statistics();
        if statistics.len() == vms && statistics.iter().all(|statistics| statistics.faults > 100) {
            return;
        }
        thread::yield_now();
    }
}

#[test]
fn root_a_vm_that_is_killed_amid_faults_is_dropped() {
    let Some(world) = World::new(1024) else { return };
    let vmms: Vec<_> = (0..4).map(|_| world.vmm(storm)).collect();
    wait_for_faults(&world, 4);
    vmms[0].kill();
    let Report::Left { statistics, ending: Ending::Died } = world.report() else { panic!() };
    assert_eq!(statistics.pid, Some(vmms[0].pid()));
    assert_eq!(world.server().statistics().len(), 3);
    world.assert_serves();
}

#[test]
fn root_vms_die_with_their_server_and_are_waited_for() {
    let Some(mut world) = World::new(1024) else { return };
    let busy: Vec<_> = (0..3).map(|_| world.vmm(storm)).collect();
    let idle = world.vmm(|guest| {
        (0..1024).for_each(|page| guest.assert_page(page));
        guest.give_back(0..1024);
        (0..1024).for_each(|page| assert_eq!(guest.load(page, 0), 0));
        loop {
            thread::park();
        }
    });
    wait_for_faults(&world, 4);
    let released = world.stop();
    // Not one whose uffd is to be kept: they have ended.
    assert!(released.iter().all(|released| released.uffd.is_none()));
    assert!(
        busy.iter().chain([&idle]).all(|vmm| Peer::of(vmm.pid()).unwrap().wait(std::time::Duration::ZERO))
    );
    busy.into_iter().for_each(Vmm::be_killed);
    idle.be_killed();
}

#[test]
fn root_a_server_that_is_dropped_ends_its_vms() {
    let Some(mut world) = World::new(256) else { return };
    let vmm = world.vmm(storm);
    wait_for_faults(&world, 1);
    world.drop_server();
    vmm.be_killed();
}

/// No SIGBUS for the server, no zeros for the VM that wants what is gone, nothing for the one that does not.
#[test]
fn root_a_memory_file_that_is_cut_off_ends_who_wants_the_rest() {
    let Some(world) = World::new(512) else { return };
    let until_end = |page: u64| {
        move |guest: &Guest| {
            guest.assert_page(0);
            let gate = gate_of(&guest.stream);
            while !gate.exists() {
                thread::yield_now();
            }
            guest.assert_page(page);
        }
    };
    let (unlucky, lucky) = (world.vmm(until_end(400)), world.vmm(until_end(33)));
    loop {
        let statistics = world.server().statistics();
        if statistics.len() == 2 && statistics.iter().all(|statistics| statistics.faults > 0) {
            break;
        }
        thread::yield_now();
    }
    File::options().write(true).open(world.memory()).unwrap().set_len(256 * PAGE).unwrap();
    File::create(world.directory.path().join("gate")).unwrap();
    let unlucky_pid = unlucky.pid();
    unlucky.be_killed();
    lucky.succeed();
    for _ in 0..2 {
        match world.report() {
            Report::Left { statistics, ending: Ending::Killed { failure } } => {
                assert_eq!(statistics.pid, Some(unlucky_pid));
                assert_eq!(failure, Failure::Memory { offset: 400 * PAGE });
            }
            Report::Left { ending: Ending::Died, .. } => {}
            other => panic!("{other:?}"),
        }
    }
    // And nobody is taken any more.
    let late = world.vmm(Guest::assert_whole);
    let Report::Refused { error, pid } = world.report() else { panic!() };
    assert!(matches!(error, fcvm_uffd::HandshakeError::Memory(_)), "{error:?}");
    assert_eq!(pid, Some(late.pid()));
    late.be_killed();
}

/// A file beside the server's socket.
fn gate_of(stream: &UnixStream) -> std::path::PathBuf {
    let address = stream.peer_addr().unwrap();
    address.as_pathname().unwrap().with_file_name("gate")
}

#[test]
fn root_huge_pages_are_served_as_such() {
    let pages = 3 * HUGE / PAGE;
    match sys::map(3 * HUGE as usize, true) {
        Ok(_) => {}
        Err(Errno::NOMEM) => return skip("no huge pages are free: /proc/sys/vm/nr_hugepages"),
        Err(errno) => panic!("{errno}"),
    }
    let Some(world) = World::new(pages) else { return };
    // The last one is a hole.
    let file = File::options().write(true).open(world.memory()).unwrap();
    file.set_len(2 * HUGE).unwrap();
    file.set_len(3 * HUGE).unwrap();
    let mut world = world;
    world.serve(fcvm_uffd::Options::default());
    let vmm = Vmm::start(|| {
        let guest = Guest::restore_with(&world.socket(), pages, HUGE);
        (0..1024).rev().for_each(|page| guest.assert_page(page));
        (1024..1536).for_each(|page| assert_eq!(guest.load(page, 9), 0));
        guest.give_back(512..1024);
        assert_eq!(guest.load(700, 0), 0);
        assert_eq!(guest.load(1, 1), pattern(1, 1));
    });
    vmm.succeed();
    let Report::Left { statistics, ending: Ending::Died } = world.report() else { panic!() };
    assert_eq!((statistics.faults, statistics.pages_copied, statistics.pages_zeroed), (4, 2, 2));
    assert_eq!(statistics.pages_removed, 1);
}

/// The file is told apart from what it was by its times, not only by its length.
#[test]
fn root_nobody_is_taken_for_a_memory_that_was_written() {
    let Some(world) = World::new(64) else { return };
    let bytes = fs::read(world.memory()).unwrap();
    fs::write(world.memory(), bytes).unwrap();
    let _vmm = world.vmm(Guest::assert_whole);
    assert!(matches!(world.report(), Report::Refused { error: fcvm_uffd::HandshakeError::Memory(_), .. }));
}
