//! VMs get their memory, whatever they do with it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(clippy::cast_possible_truncation, reason = "small numbers")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::thread;

use fcvm_uffd::{Ending, Failure, Options, Peer, Region, Report};

mod support;

use support::{Guest, PAGE, Vmm, World, pattern, sys};

#[test]
fn root_many_threads_find_what_is_in_the_file_and_zeros_in_its_holes() {
    let Some(world) = World::new(1024) else { return };
    let vmm = world.vmm(|guest| {
        thread::scope(|scope| {
            for step in [1, 3, 5, 7, 11, 13, 1021, 1023] {
                scope.spawn(move || {
                    for at in 0..guest.pages {
                        guest.assert_page(at * step % guest.pages);
                    }
                });
            }
        });
    });
    vmm.succeed();
    let Report::Left { statistics, ending: Ending::Died } = world.report() else { panic!() };
    assert_eq!(statistics.pages_copied, (0..1024).filter(|page| !support::is_hole(*page)).count() as u64);
    assert_eq!(statistics.pages_zeroed, 1024 - statistics.pages_copied);
    assert!(statistics.faults > 0 && statistics.latency.p99_ns >= statistics.latency.p50_ns);
    assert!(world.server().statistics().is_empty());
}

#[test]
fn root_twenty_at_once() {
    let Some(world) = World::new(2048) else { return };
    let vmms: Vec<_> = (0..20).map(|_| world.vmm(Guest::assert_whole)).collect();
    for vmm in vmms {
        vmm.succeed();
    }
    for _ in 0..20 {
        assert!(matches!(world.report(), Report::Left { ending: Ending::Died, .. }));
    }
}

#[test]
fn root_windows_of_one_page_and_of_many_are_as_good() {
    for (least_window, most_window) in [(1, 1), (3, 5), (1024, 1 << 40)] {
        let options = |_: &_| Options { least_window, most_window, ..Options::default() };
        let Some(world) = World::with(600, options) else { return };
        world.assert_serves();
    }
}

#[test]
fn root_strides_are_foreseen() {
    let Some(world) = World::new(4096) else { return };
    // Of each of both ways, and what comes after them, which nothing has spoilt.
    let vmm = world.vmm(|guest| {
        (0..4096).step_by(32).for_each(|page| guest.assert_page(page));
        (0..128).rev().for_each(|at| guest.assert_page(at * 32 + 16));
    });
    vmm.succeed();
    let Report::Left { statistics, .. } = world.report() else { panic!() };
    // 256 pages are touched: a few before it is clear, then one of 17.
    assert!(statistics.faults < 50, "{statistics:?}");
    assert!(statistics.pages_copied + statistics.pages_zeroed < 2 * 256, "{statistics:?}");
    let vmm = world.vmm(|guest| {
        (0..4096).step_by(32).for_each(|page| guest.assert_page(page));
        guest.assert_whole();
    });
    vmm.succeed();
}

#[test]
fn root_what_is_given_back_reads_as_zeros() {
    let Some(world) = World::new(256) else { return };
    let vmm = world.vmm(|guest| {
        // Some it has had, some not.
        (0..64).for_each(|page| guest.assert_page(page));
        guest.give_back(32..128);
        for page in 32..128 {
            assert_eq!(guest.load(page, 3), 0, "page {page}");
        }
        (0..32).chain(128..256).for_each(|page| guest.assert_page(page));
        // It is its own again.
        sys::store(guest.address + 40 * PAGE, 7);
        assert_eq!(guest.load(40, 0), 7);
        guest.give_back(40..41);
        assert_eq!(guest.load(40, 0), 0);
    });
    vmm.succeed();
    let Report::Left { statistics, ending: Ending::Died } = world.report() else { panic!() };
    assert_eq!(statistics.pages_removed, 96);
}

/// While pages are given back nothing can be installed: all who wait must be served all the same.
#[test]
fn root_faults_amid_pages_given_back_are_all_served() {
    let Some(world) = World::new(2048) else { return };
    let vmm = world.vmm(|guest| {
        thread::scope(|scope| {
            scope.spawn(|| {
                for page in (0..1024).step_by(4) {
                    guest.give_back(page..page + 4);
                    for page in page..page + 4 {
                        assert_eq!(guest.load(page, 1), 0);
                    }
                }
            });
            for step in [3, 5, 7] {
                scope.spawn(move || {
                    for at in 0..1024 {
                        guest.assert_page(1024 + at * step % 1024);
                        // Either, as it is given back meanwhile.
                        let page = at * step % 1024;
                        assert!([0, pattern(page, 1)].contains(&guest.load(page, 1)));
                    }
                });
            }
        });
    });
    vmm.succeed();
    let Report::Left { statistics, ending: Ending::Died } = world.report() else { panic!() };
    assert_eq!(statistics.pages_removed, 1024);
}

#[test]
fn root_a_fault_outside_of_the_regions_ends_the_vm_and_no_other() {
    let Some(world) = World::new(64) else { return };
    let vmm = world.vmm(|guest| {
        let stray = sys::map(PAGE as usize, false).unwrap();
        sys::register(&guest.uffd, stray, PAGE);
        sys::load(stray);
    });
    let pid = vmm.pid();
    let Report::Left { statistics, ending: Ending::Killed { failure } } = world.report() else { panic!() };
    assert!(matches!(failure, Failure::Stray { .. }), "{failure:?}");
    assert_eq!(statistics.pid, Some(pid));
    vmm.be_killed();
    world.assert_serves();
}

#[test]
fn root_a_uffd_that_is_made_to_block_holds_up_nobody() {
    let Some(world) = World::new(64) else { return };
    let vmm = world.vmm(|guest| {
        guest.assert_page(1);
        rustix::fs::fcntl_setfl(&guest.uffd, rustix::fs::OFlags::empty()).unwrap();
        guest.assert_page(40);
        unreachable!("nobody can serve it");
    });
    let Report::Left { ending: Ending::Killed { failure }, .. } = world.report() else { panic!() };
    assert_eq!(failure, Failure::Blocking);
    vmm.be_killed();
    world.assert_serves();
}

#[test]
fn root_who_closes_its_socket_and_lives_is_ended() {
    let Some(world) = World::new(64) else { return };
    let vmm = world.vmm(|guest| {
        guest.assert_page(1);
        guest.stream.shutdown(std::net::Shutdown::Both).unwrap();
        loop {
            thread::park();
        }
    });
    let Report::Left { ending: Ending::Killed { failure }, .. } = world.report() else { panic!() };
    assert_eq!(failure, Failure::Deserted);
    vmm.be_killed();
}

#[test]
fn root_a_uffd_can_come_by_another_way() {
    let Some(world) = World::new(64) else { return };
    let address = sys::map(64 * PAGE as usize, false).unwrap();
    let uffd = sys::uffd().unwrap();
    sys::register(&uffd, address, 64 * PAGE);
    let regions = [Region { address, size: 64 * PAGE, offset: 0, page_size: PAGE }];
    let vm = world.server().register(Peer::unknown(), uffd, &regions).unwrap();
    assert_eq!(sys::load(address + 9 * PAGE), pattern(9, 0));
    assert_eq!(world.server().statistics()[0].vm, vm);
    let released = world.server().release(vm).unwrap();
    assert_eq!(released.statistics.faults, 1);
    // Its process is not known to have ended.
    assert!(released.uffd.is_some());
    assert!(world.server().release(vm).is_none());
}

/// A page that is there already when it is to be installed: who waits for it is woken.
#[test]
fn root_two_vms_with_one_uffd_are_served_as_one() {
    let Some(world) = World::new(512) else { return };
    let vmm = Vmm::start(|| {
        let guest = Guest::restore(&world.socket(), 512);
        // The same once more: two threads serve the same faults.
        let again = std::os::unix::net::UnixStream::connect(world.socket()).unwrap();
        let message = support::message(&[(guest.address, 512 * PAGE, 0)], PAGE);
        support::send(&again, message.as_bytes(), &[std::os::fd::AsFd::as_fd(&guest.uffd)]);
        guest.assert_whole();
    });
    vmm.succeed();
    for _ in 0..2 {
        assert!(matches!(world.report(), Report::Left { ending: Ending::Died, .. }));
    }
}
