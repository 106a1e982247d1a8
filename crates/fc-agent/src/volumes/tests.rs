use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

use fcvm_testkit::skip;
use fuse_pipe::{
    passthrough::{self, Cache, Passthrough},
    server::Server,
};

use super::*;

/// Lets bytes pass while nobody has the lock.
#[derive(Default)]
struct Barrier {
    lock: Mutex<()>,
    /// Whether some stand before it.
    waited_for: AtomicBool,
}

impl Barrier {
    fn pass(&self) {
        self.waited_for.store(true, SeqCst);
        drop(self.lock.lock().unwrap());
        self.waited_for.store(false, SeqCst);
    }
}

/// A volume whose host's answers can be held up.
struct Held {
    mounted: Mounted,
    answers: Arc<Barrier>,
    guest: tempfile::TempDir,
    _host: tempfile::TempDir,
}

impl Held {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("needs root");
            return None;
        }
        let (host, guest) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(host.path().join("file"), "content").unwrap();
        let answers = Arc::new(Barrier::default());
        let (ours, near) = UnixStream::pair().unwrap();
        let (far, theirs) = UnixStream::pair().unwrap();
        pass_on(near.try_clone().unwrap(), far.try_clone().unwrap(), Arc::default());
        pass_on(far, near, answers.clone());
        // What is asked for is always asked of the host.
        let options = passthrough::Options { cache: Cache::Never, ..Default::default() };
        let server = Server::new(Passthrough::new(host.path(), options).unwrap());
        thread::spawn(move || server.serve(stream::Stream::new(theirs).unwrap()));
        let streams = vec![stream::Stream::new(ours).unwrap()];
        let mount = Client::mount(guest.path(), streams, &Options::default()).unwrap();
        // It is not where a guest has it: nothing is written back to it.
        let volume = Volume { name: "held".into(), kind: VolumeKind::Directory, read_only: true, lanes: 1 };
        let mounted = Mounted::default();
        mounted.set(vec![One { number: 0, volume, mount }]);
        Some(Self { mounted, answers, guest, _host: host })
    }

    fn file(&self) -> PathBuf {
        self.guest.path().join("file")
    }
}

fn pass_on(mut from: UnixStream, mut to: UnixStream, barrier: Arc<Barrier>) {
    thread::spawn(move || {
        let mut bytes = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            barrier.pass();
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
    });
}

fn wait_until(mut reached: impl FnMut() -> bool) {
    while !reached() {
        thread::yield_now();
    }
}

#[test]
fn volumes_serve_again_where_the_host_gives_up_while_they_come_to_rest() {
    let Some(held) = Held::new() else { return };
    for round in 0..20 {
        let answers = held.answers.lock.lock().unwrap();
        let reading = thread::spawn({
            let file = held.file();
            move || fs::read_to_string(file)
        });
        wait_until(|| held.answers.waited_for.load(SeqCst));
        let suspending = thread::spawn({
            let mounted = held.mounted.clone();
            move || mounted.suspend()
        });
        wait_until(|| held.mounted.lock().phase == Phase::Suspended);
        held.mounted.resume();
        assert_eq!(held.mounted.lock().phase, Phase::Serving);
        drop(answers);
        let refused = suspending.join().unwrap().unwrap_err().to_string();
        assert!(refused.contains("did not wait"), "{round}: {refused}");
        assert_eq!(reading.join().unwrap().unwrap(), "content");
        assert_eq!(fs::read_to_string(held.file()).unwrap(), "content");
    }
}

#[test]
fn volumes_that_rest_answer_once_they_go_on() {
    let Some(held) = Held::new() else { return };
    held.mounted.suspend().unwrap();
    let file = held.file();
    let reading = thread::spawn(move || fs::read_to_string(file));
    assert_eq!(held.mounted.lock().phase, Phase::Suspended);
    held.mounted.resume();
    assert_eq!(reading.join().unwrap().unwrap(), "content");
    // Where their lanes are to come anew, they do not go on without.
    held.mounted.suspend().unwrap();
    held.mounted.await_lanes();
    held.mounted.resume();
    assert_eq!(held.mounted.lock().phase, Phase::Awaited(1));
    let refused = held.mounted.suspend().unwrap_err().to_string();
    assert!(refused.contains("not come back"), "{refused}");
}
