//! Mounts, with a server at the other end of a socket pair.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use fuse_pipe::{
    Spin,
    client::{Access, Audience, Client, ClientError, Ended, Mounted, Options, Permissions},
    hello::{Hello, HelloError, Status, Welcome},
    stream::Stream,
};
use rustix::mount::{UnmountFlags, unmount};

mod support;

use support::{
    Answer, CONTENT, INIT, LOOKUP, READ, directory, directory_of_root, frame, is_mounted, plain, serve,
};

fn mount(path: &Path, streams: Vec<Stream>) -> Mounted {
    Client::mount(path, streams, &Options::default()).unwrap()
}

/// A mount of a server that answers all reads with this.
fn reads_get(path: &Path, answer: Answer) -> Mounted {
    mount(path, vec![serve(move |request| (request.opcode == READ).then(|| answer.clone()))])
}

#[test]
fn files_are_read_and_listed() {
    let Some(directory) = directory() else { return };
    let path = directory.path();
    let mounted = mount(path, vec![plain()]);
    assert_eq!(fs::read(path.join("hello")).unwrap(), CONTENT);
    let names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["hello"]);
    assert_eq!(fs::metadata(path.join("none")).unwrap_err().kind(), ErrorKind::NotFound);

    let lanes = mounted.statistics();
    assert_eq!(lanes.len(), 1);
    assert!(lanes[0].requests >= 6 && lanes[0].request_bytes >= lanes[0].requests * 40, "{lanes:?}");
    assert!(lanes[0].replies >= 6 && lanes[0].reply_bytes >= lanes[0].replies * 16, "{lanes:?}");
    mounted.unmount().unwrap();
    assert!(!is_mounted(path));
    assert_eq!(fs::read_dir(path).unwrap().count(), 0);
}

#[test]
fn two_lanes_share_the_work() {
    let Some(directory) = directory() else { return };
    let path = directory.path();
    let mounted = mount(path, vec![plain(), plain()]);
    thread::scope(|scope| {
        for _ in 0..8 {
            // Which lane takes a request is the kernel's choice; each gets some sooner or later.
            scope.spawn(|| {
                while mounted.statistics().iter().any(|lane| lane.replies < 10) {
                    assert_eq!(fs::read(path.join("hello")).unwrap(), CONTENT);
                }
            });
        }
    });
    mounted.unmount().unwrap();
}

#[test]
fn options_reach_the_kernel() {
    let Some(directory) = directory_of_root() else { return };
    let path = directory.path();
    let options = Options {
        source: "a,b".into(),
        subtype: "test".into(),
        access: Access::ReadOnly,
        audience: Audience::Everyone,
        permissions: Permissions::Kernel,
        max_read: Some(8192),
        spin: Spin::Never,
        ..Options::default()
    };
    let mounted = Client::mount(path, vec![plain()], &options).unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.contains(path.to_str().unwrap())).unwrap();
    assert!(line.starts_with("a,b ") && line.contains(" fuse.test ro,nosuid,nodev,"), "{line}");
    assert!(line.contains("default_permissions,allow_other,max_read=8192"), "{line}");
    assert_eq!(File::create(path.join("x")).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    let lane = mounted.statistics()[0];
    assert_eq!((lane.spins_hit, lane.spins_missed), (0, 0));
}

#[test]
fn who_waits_for_a_server_that_dies_gets_an_error() {
    let Some(directory) = directory() else { return };
    let path = directory.path();
    let mounted = reads_get(path, Answer::HangUp);
    let start = Instant::now();
    fs::read(path.join("hello")).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(mounted.wait(), Ended::Closed { lane: 0 });
    // It stays, and fails, until it is taken away.
    assert!(is_mounted(path));
    assert!(fs::read_dir(path).is_err());
    mounted.unmount().unwrap();
    assert!(!is_mounted(path));
}

#[test]
fn one_dead_lane_ends_all() {
    let Some(directory) = directory() else { return };
    let path = directory.path();
    let (said, heard) = mpsc::channel::<()>();
    // The second lane hangs up when it is told to, whatever the first does.
    let (near, mut far) = UnixStream::pair().unwrap();
    let second = thread::spawn(move || {
        Hello::receive(&mut far).unwrap();
        Welcome::accepted(1 << 20).send(&mut far).unwrap();
        heard.recv().unwrap();
    });
    let mounted = mount(path, vec![plain(), Stream::new(near).unwrap()]);
    said.send(()).unwrap();
    second.join().unwrap();
    assert_eq!(mounted.wait(), Ended::Closed { lane: 1 });
    assert!(fs::metadata(path.join("hello")).is_err());
}

#[test]
fn a_reply_with_an_impossible_length_ends_the_mount() {
    let Some(directory) = directory() else { return };
    let path = directory.path();
    for length in [5_u32, 0, u32::MAX] {
        let mounted = reads_get(path, Answer::Raw(length.to_ne_bytes().to_vec()));
        fs::read(path.join("hello")).unwrap_err();
        assert_eq!(mounted.wait(), Ended::Length { lane: 0, length });
        mounted.unmount().unwrap();
    }
}

#[test]
fn a_reply_that_the_kernel_refuses_ends_the_mount() {
    let Some(directory) = directory() else { return };
    let path = directory.path();
    // More than was asked for, and an error number that there is none of.
    for special in [Answer::Body(vec![0; 1 << 18]), Answer::Error(-7)] {
        let mounted = reads_get(path, special);
        fs::read(path.join("hello")).unwrap_err();
        assert!(matches!(mounted.wait(), Ended::Reply { lane: 0, .. }), "{:?}", mounted.wait());
        mounted.unmount().unwrap();
    }
}

#[test]
fn a_reply_to_nobody_is_ignored() {
    let Some(directory) = directory() else { return };
    let path = directory.path();
    let stray = Answer::Before(frame(u64::MAX - 1, 0, &[]));
    let mounted = reads_get(path, stray);
    assert_eq!(fs::read(path.join("hello")).unwrap(), CONTENT);
    mounted.unmount().unwrap();
}

/// The kernel takes the notification only when the lookup is over, whose reply comes after it.
#[test]
fn a_notification_does_not_hold_up_the_reply_behind_it() {
    let Some(directory) = directory() else { return };
    let path = directory.path();
    let invalidated = b"hello\0";
    let body = [&1_u64.to_ne_bytes()[..], &5_u32.to_ne_bytes(), &[0; 4], invalidated].concat();
    let notification = frame(0, 3, &body);
    let special = move |request: &support::Request| {
        (request.opcode == LOOKUP).then(|| Answer::Before(notification.clone()))
    };
    let mounted = mount(path, vec![serve(special)]);
    for _ in 0..20 {
        assert_eq!(fs::read(path.join("hello")).unwrap(), CONTENT);
    }
    mounted.unmount().unwrap();
}

#[test]
fn a_mount_in_use_is_taken_from_its_users() {
    let Some(directory) = directory() else { return };
    let path = directory.path();
    let mounted = mount(path, vec![plain()]);
    let user = File::open(path.join("hello")).unwrap();
    mounted.unmount().unwrap();
    assert!(!is_mounted(path));
    assert!(user.metadata().is_err());
}

#[test]
fn a_mount_that_others_unmount_has_ended() {
    let Some(directory) = directory_of_root() else { return };
    let path = directory.path();
    let mounted = mount(path, vec![plain(), plain()]);
    unmount(path, UnmountFlags::NOFOLLOW).unwrap();
    assert_eq!(mounted.wait(), Ended::Unmounted);
    mounted.unmount().unwrap();
}

#[test]
fn a_server_that_refuses_to_start_leaves_no_mount() {
    let Some(directory) = directory() else { return };
    let path = directory.path();
    let refusing = serve(|request| (request.opcode == INIT).then_some(Answer::Error(libc::EPROTO)));
    let error = Client::mount(path, vec![refusing], &Options::default()).unwrap_err();
    assert!(matches!(error, ClientError::Start(Ended::Refused { .. })), "{error:?}");
    assert!(!is_mounted(path));

    let silent = serve(|request| (request.opcode == INIT).then_some(Answer::Silence));
    let options = Options { patience: Duration::from_millis(100), ..Options::default() };
    let error = Client::mount(path, vec![silent], &options).unwrap_err();
    assert!(matches!(error, ClientError::Silent), "{error:?}");
    assert!(!is_mounted(path));
}

#[test]
fn a_greeting_that_fails_is_an_error_and_mounts_nothing() {
    type Expected = fn(&HelloError) -> bool;
    let answers: [(&[u8], Expected); 5] = [
        (&Welcome { protocol: 2, ..Welcome::refused(Status::UnknownProtocol) }.encode(), |error| {
            matches!(error, HelloError::Protocol { found: 2 })
        }),
        (&Welcome::refused(Status::Refused).encode(), |error| matches!(error, HelloError::Refused)),
        (&Welcome::accepted(100).encode(), |error| matches!(error, HelloError::Small { largest: 100 })),
        (b"SSH-2.0-OpenSSH_9", |error| matches!(error, HelloError::Magic)),
        (b"FUSE", |error| matches!(error, HelloError::Io(_))),
    ];
    for (answer, is_expected) in answers {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(answer).unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        let streams = vec![Stream::new(near).unwrap()];
        let error = Client::mount(Path::new("/none"), streams, &Options::default()).unwrap_err();
        assert!(matches!(&error, ClientError::Hello { lane: 0, source } if is_expected(source)), "{error:?}");
    }
}

#[test]
fn a_server_that_does_not_greet_is_an_error() {
    let (near, _far) = UnixStream::pair().unwrap();
    let options = Options { patience: Duration::from_millis(50), ..Options::default() };
    let error = Client::mount(Path::new("/none"), vec![Stream::new(near).unwrap()], &options).unwrap_err();
    let ClientError::Hello { source: HelloError::Io(source), .. } = error else { panic!("{error:?}") };
    assert_eq!(source.kind(), ErrorKind::TimedOut);
}

#[test]
fn there_is_a_lane_and_a_place() {
    let error = Client::mount(Path::new("/"), Vec::new(), &Options::default()).unwrap_err();
    assert!(matches!(error, ClientError::Lanes { lanes: 0 }));
    let error = Client::mount(Path::new("/no/such/place"), vec![plain()], &Options::default()).unwrap_err();
    assert!(matches!(error, ClientError::Mount(_)), "{error:?}");
}
