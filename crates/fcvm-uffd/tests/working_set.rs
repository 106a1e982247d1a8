//! What the first VM wanted, later ones get in advance; and no VM waits for another's.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(clippy::cast_possible_truncation, reason = "small numbers")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use fcvm_uffd::{Ending, Options, RecordingOptions, Report, Statistics};

mod support;

use support::{Guest, PAGE, World};

const PAGES: u64 = 2048;

fn recording(directory: &Path) -> Options {
    let mut recording = RecordingOptions::new(directory.join("memory.ws"));
    // Ends when it is told to, or with the VM.
    recording.quiet = Duration::from_secs(3600);
    Options { recording: Some(recording), least_window: 1, most_window: 1, ..Options::default() }
}

/// A VM that wants some pages, runs to its end.
fn run(world: &World, pages: &[u64]) -> Statistics {
    world.vmm(|guest| pages.iter().for_each(|page| guest.assert_page(*page))).succeed();
    let Report::Left { statistics, ending: Ending::Died } = world.report() else { panic!() };
    statistics
}

/// A VM that waits until all of the working set is there, and then wants pages.
fn run_late(world: &World, bytes: u64, pages: &[u64]) -> Statistics {
    let gate = world.directory.path().join("gate");
    let (path, pages) = (gate.clone(), pages.to_vec());
    let vmm = world.vmm(move |guest| {
        while !path.exists() {
            thread::yield_now();
        }
        pages.iter().for_each(|page| guest.assert_page(*page));
    });
    while world.server().statistics().first().is_none_or(|statistics| statistics.bytes_prefetched < bytes) {
        thread::yield_now();
    }
    fs::write(&gate, "").unwrap();
    vmm.succeed();
    fs::remove_file(gate).unwrap();
    let Report::Left { statistics, ending: Ending::Died } = world.report() else { panic!() };
    statistics
}

#[test]
fn root_what_the_first_wanted_is_given_to_the_next_and_kept() {
    let wanted = [7, 8, 9, 1000, 1001, 3, 66];
    let bytes = wanted.len() as u64 * PAGE;
    let Some(mut world) = World::with(PAGES, recording) else { return };
    let file = world.directory.path().join("memory.ws");
    let first = run(&world, &wanted);
    assert_eq!(first.bytes_prefetched, 0);
    let set = world.server().working_set().unwrap();
    // In its order; pages in holes come with those around them.
    assert_eq!(set.ranges()[..3], [7 * PAGE..10 * PAGE, 1000 * PAGE..1002 * PAGE, 3 * PAGE..4 * PAGE]);
    let bytes = bytes.max(set.bytes());
    let second = run_late(&world, bytes, &wanted);
    assert_eq!((second.faults, second.bytes_prefetched, second.prefetch_late), (0, bytes, 0));

    // Another server reads it.
    let options = recording(world.directory.path());
    let written = fs::read(&file).unwrap();
    world.serve(options);
    let third = run_late(&world, bytes, &[7, 8, 9, 1000, 1001, 3, 66, 500]);
    assert_eq!((third.faults, third.bytes_prefetched), (1, bytes));
    assert_eq!(fs::read(&file).unwrap(), written);
}

#[test]
fn root_a_damaged_working_set_is_recorded_anew() {
    let Some(mut world) = World::with(PAGES, recording) else { return };
    let file = world.directory.path().join("memory.ws");
    run(&world, &[1]);
    let mut bytes = fs::read(&file).unwrap();
    bytes[50] ^= 1;
    fs::write(&file, bytes).unwrap();
    world.serve(recording(world.directory.path()));
    assert!(world.server().working_set().is_none());
    assert_eq!(run(&world, &[2]).bytes_prefetched, 0);
    assert_eq!(world.server().working_set().unwrap().ranges(), std::slice::from_ref(&(2 * PAGE..3 * PAGE)));
}

#[test]
fn root_recording_ends_when_told_or_when_it_is_quiet_or_not_at_all() {
    let Some(mut world) = World::with(PAGES, recording) else { return };
    let forever = |guest: &Guest| {
        guest.assert_page(9);
        loop {
            thread::park();
        }
    };
    let until_recorded = |world: &World| {
        while world.server().working_set().is_none() {
            thread::yield_now();
        }
    };
    let until_faulted = |world: &World| {
        while world.server().statistics().first().is_none_or(|statistics| statistics.faults == 0) {
            thread::yield_now();
        }
    };
    let vmm = world.vmm(forever);
    until_faulted(&world);
    world.server().finish_recording();
    until_recorded(&world);
    drop(vmm);

    fs::remove_file(world.directory.path().join("memory.ws")).unwrap();
    let mut options = recording(world.directory.path());
    options.recording.as_mut().unwrap().quiet = Duration::from_millis(20);
    world.serve(options);
    let vmm = world.vmm(forever);
    until_recorded(&world);
    drop(vmm);

    fs::remove_file(world.directory.path().join("memory.ws")).unwrap();
    world.serve(Options::default());
    run(&world, &[1]);
    assert!(world.server().working_set().is_none());
    assert!(!world.directory.path().join("memory.ws").exists());
}

/// A demand is served before what is given in advance.
#[test]
fn root_measured_alone_who_wants_a_page_does_not_wait_for_the_working_set() {
    const PAGES: u64 = 64 << 10;
    let Some(world) =
        World::with(PAGES, |directory| Options { least_window: 8, most_window: 64, ..recording(directory) })
    else {
        return;
    };
    let all: Vec<_> = (0..PAGES).collect();
    run(&world, &all);
    assert_eq!(world.server().working_set().unwrap().bytes(), PAGES * PAGE);
    // The last page of the set, at once.
    let statistics = run(&world, &[PAGES - 1]);
    assert!(statistics.prefetch_late <= 1);
    assert!(statistics.bytes_prefetched < PAGES * PAGE / 2, "{statistics:?}");
}

/// One that faults all the time does not keep another's single faults waiting.
#[test]
fn root_measured_alone_a_storm_in_one_vm_is_not_felt_by_another() {
    let Some(world) =
        World::with(PAGES, |_| Options { least_window: 1, most_window: 1, ..Options::default() })
    else {
        return;
    };
    let median = || {
        let path = world.directory.path().join("median");
        let written = path.clone();
        let vmm = world.vmm(move |guest| {
            let mut times: Vec<_> = (0..500)
                .map(|at| {
                    let begun = Instant::now();
                    guest.load(at * 7 % PAGES, 0);
                    let took = begun.elapsed();
                    thread::yield_now();
                    took
                })
                .collect();
            times.sort_unstable();
            fs::write(&written, times[times.len() / 2].as_nanos().to_string()).unwrap();
        });
        vmm.succeed();
        loop {
            if let Report::Left { .. } = world.report() {
                break;
            }
        }
        Duration::from_nanos(fs::read_to_string(path).unwrap().parse().unwrap())
    };
    let alone = median();
    let storm = world.vmm(|guest| {
        thread::scope(|scope| {
            for first in 0..4 {
                scope.spawn(move || {
                    loop {
                        for page in (first * 512..first * 512 + 512).step_by(2) {
                            guest.load(page, 0);
                        }
                        guest.give_back(first * 512..first * 512 + 512);
                    }
                });
            }
        });
    });
    while world.server().statistics().first().is_none_or(|statistics| statistics.faults < 1000) {
        thread::yield_now();
    }
    let beside = median();
    drop(storm);
    // Two threads of it share the CPUs with the storm's: not a thousand faults come first.
    let bound = alone * 20 + Duration::from_millis(8);
    assert!(beside < bound, "{beside:?} beside a storm, {alone:?} alone");
}
