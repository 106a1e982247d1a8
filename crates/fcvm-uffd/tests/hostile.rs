//! Who connects is not trusted.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(clippy::cast_possible_truncation, reason = "small numbers")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    fs::File,
    io::Read as _,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use fcvm_uffd::{HandshakeError as E, LayoutError, Options, Report};

mod support;

use support::{PAGE, World, message, send, sys};

/// Says that to the server, and hears what it makes of it.
fn refused(world: &World, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> E {
    let stream = UnixStream::connect(world.socket()).unwrap();
    send(&stream, bytes, descriptors);
    let Report::Refused { error, pid } = world.report() else { panic!("it was taken") };
    assert_eq!(pid, Some(std::process::id().cast_signed()));
    // The server has hung up.
    assert_eq!((&stream).read(&mut [0]).unwrap_or(0), 0);
    error
}

#[test]
fn root_what_is_no_handshake_is_refused_with_a_reason() {
    let Some(world) = World::new(64) else { return };
    let uffd = sys::uffd().unwrap();
    let other = File::open("/dev/null").unwrap();
    let good = message(&[(PAGE, 64 * PAGE, 0)], PAGE);
    let good = good.as_bytes();
    let uffd = uffd.as_fd();
    assert!(matches!(refused(&world, b"\xff\0garbage", &[uffd]), E::Json(_)));
    assert!(matches!(refused(&world, b"{}", &[uffd]), E::Json(_)));
    assert!(matches!(refused(&world, good, &[]), E::Descriptors(0)));
    assert!(matches!(refused(&world, good, &[uffd, uffd]), E::Descriptors(2)));
    assert!(matches!(refused(&world, good, &[uffd; 8]), E::Descriptors(_)));
    assert!(matches!(refused(&world, good, &[other.as_fd()]), E::NotUffd));
    assert!(matches!(refused(&world, &vec![b' '; 100 << 10], &[uffd]), E::TooLong));
    world.assert_serves();
}

#[test]
fn root_regions_that_do_not_fit_are_refused() {
    let Some(world) = World::new(64) else { return };
    let uffd = sys::uffd().unwrap();
    let layout = |regions: &[(u64, u64, u64)], page_size| match refused(
        &world,
        message(regions, page_size).as_bytes(),
        &[uffd.as_fd()],
    ) {
        E::Layout(error) => error,
        other => panic!("{other:?}"),
    };
    let len = 64 * PAGE;
    assert_eq!(layout(&[], PAGE), LayoutError::Count(0));
    let many: Vec<_> = (1..=65).map(|at| (at * PAGE, PAGE, 0)).collect();
    assert_eq!(layout(&many, PAGE), LayoutError::Count(65));
    assert_eq!(layout(&[(PAGE, len, 0)], 1 << 30), LayoutError::PageSize(1 << 30));
    assert_eq!(layout(&[(PAGE + 1, len, 0)], PAGE), LayoutError::Unaligned(0));
    assert_eq!(layout(&[(0u64.wrapping_sub(PAGE), len, 0)], PAGE), LayoutError::Overflow(0));
    assert_eq!(layout(&[(PAGE, len + PAGE, 0)], PAGE), LayoutError::Outside(0));
    assert_eq!(layout(&[(PAGE, len, 0u64.wrapping_sub(PAGE))], PAGE), LayoutError::Outside(0));
    assert_eq!(layout(&[(PAGE, len, 0), (len, PAGE, 0)], PAGE), LayoutError::Overlap);
    world.assert_serves();
}

#[test]
fn root_who_dawdles_is_refused_in_time_and_holds_up_nobody() {
    let timeout = Duration::from_millis(300);
    let options = |_: &_| Options { handshake_timeout: timeout, ..Options::default() };
    let Some(world) = World::with(64, options) else { return };
    let begun = Instant::now();
    let silent: Vec<_> = (0..40).map(|_| UnixStream::connect(world.socket()).unwrap()).collect();
    let halfway = UnixStream::connect(world.socket()).unwrap();
    send(&halfway, b"[{\"base_host", &[]);
    let vmm = world.vmm(support::Guest::assert_whole);
    vmm.succeed();
    let mut left = 0;
    for _ in 0..silent.len() + 2 {
        match world.report() {
            Report::Left { .. } => left += 1,
            Report::Refused { error: E::Timeout, .. } => assert!(begun.elapsed() >= timeout),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(left, 1);
    world.assert_serves();
}

#[test]
fn root_who_ends_within_the_message_is_refused() {
    let Some(world) = World::new(64) else { return };
    let stream = UnixStream::connect(world.socket()).unwrap();
    let uffd = sys::uffd().unwrap();
    send(&stream, b"[{\"base_host", &[uffd.as_fd()]);
    drop(stream);
    let Report::Refused { error, .. } = world.report() else { panic!() };
    assert!(matches!(error, E::Ended), "{error:?}");
    world.assert_serves();
}

#[test]
fn root_there_is_a_most_of_vms() {
    let options = |_: &_| Options { max_vms: 1, ..Options::default() };
    let Some(world) = World::with(64, options) else { return };
    let first = world.vmm(|guest| {
        guest.assert_whole();
        loop {
            std::thread::park();
        }
    });
    while world.server().statistics().first().is_none_or(|statistics| statistics.faults == 0) {
        std::thread::yield_now();
    }
    let second = world.vmm(support::Guest::assert_whole);
    let Report::Refused { error, pid } = world.report() else { panic!() };
    assert!(matches!(error, E::TooMany(1)), "{error:?}");
    assert_eq!(pid, Some(second.pid()));
    second.be_killed();
    drop(first);
    assert!(matches!(world.report(), Report::Left { .. }));
    world.assert_serves();
}
