//! Waiting for a socket that another process makes.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::{io::unix::AsyncFd, net::UnixStream, time::sleep};

/// Between a socket's `bind` and its `listen`, which nothing tells.
const MOMENT: Duration = Duration::from_micros(200);

/// A socket that is to appear in a directory.
#[derive(Debug)]
pub(super) struct Socket {
    changes: OwnedFd,
    path: PathBuf,
}

impl Socket {
    /// Watches the directory from now on.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub(super) fn expect(path: &Path) -> io::Result<Self> {
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let changes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&changes, directory, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
        Ok(Self { changes, path: path.to_owned() })
    }

    /// Waits until somebody listens there: as long as it takes, so wait beside the process's end.
    ///
    /// # Errors
    /// Where it cannot be watched or connected to.
    pub(super) async fn appeared(self) -> io::Result<()> {
        let changes = crate::process::watch(self.changes)?;
        let appeared = Self::connected(&changes, &self.path).await;
        // The kernel takes 10 ms to forget a watch, for which nobody is to wait.
        tokio::task::spawn_blocking(move || drop(changes));
        appeared
    }

    async fn connected(changes: &AsyncFd<OwnedFd>, path: &Path) -> io::Result<()> {
        loop {
            match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let mut ready = changes.readable().await?;
                    let mut events = [0; 4096];
                    while rustix::io::read(changes.get_ref(), &mut events).is_ok_and(|read| read > 0) {}
                    ready.clear_ready();
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => sleep(MOMENT).await,
                connected => return connected.map(drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_seen_when_it_comes_and_when_it_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let waiting = tokio::spawn(Socket::expect(&path).unwrap().appeared());
        tokio::task::yield_now().await;
        std::fs::write(directory.path().join("another"), "").unwrap();
        tokio::task::yield_now().await;
        let _listener = UnixListener::bind(&path).unwrap();
        waiting.await.unwrap().unwrap();
        Socket::expect(&path).unwrap().appeared().await.unwrap();
    }
}
