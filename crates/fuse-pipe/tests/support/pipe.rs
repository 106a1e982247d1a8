//! A directory of this host, and the same through the pipe: both ends in this process.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
};

use fuse_pipe::{
    client::{Audience, Client, Mounted, Options},
    passthrough::{self, Cache, Passthrough},
    server::Server,
    stream::Stream,
};
use tempfile::TempDir;

/// Both, until it is dropped.
pub(crate) struct Pipe {
    host: TempDir,
    guest: TempDir,
    pub(crate) mounted: Mounted,
}

impl Pipe {
    /// Two lanes, for all users. The caller has seen to it that this user can mount.
    pub(crate) fn new(cache: Cache) -> Self {
        let (host, guest) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mounted = mount(host.path(), guest.path(), cache);
        Self { host, guest, mounted }
    }

    pub(crate) fn guest(&self, name: impl AsRef<Path>) -> PathBuf {
        self.guest.path().join(name)
    }

    pub(crate) fn host(&self, name: impl AsRef<Path>) -> PathBuf {
        self.host.path().join(name)
    }
}

/// Mounts the directory `host` at `guest`.
pub(crate) fn mount(host: &Path, guest: &Path, cache: Cache) -> Mounted {
    let options = passthrough::Options { cache, ..Default::default() };
    let server = Server::new(Passthrough::new(host, options).unwrap());
    let streams = (0..2).map(|_| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = server.clone();
        thread::spawn(move || server.serve(Stream::new(theirs).unwrap()).unwrap());
        Stream::new(ours).unwrap()
    });
    let options = Options { audience: Audience::Everyone, ..Options::default() };
    Client::mount(guest, streams.collect(), &options).unwrap()
}
