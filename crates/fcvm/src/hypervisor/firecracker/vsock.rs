//! The way to the agent over Firecracker's vsock device, which is Unix sockets on the host.
//!
//! ```text
//!  agent listens --connects to host port P--> Firecracker --connects to--> SOCKET_P      (the knock)
//!  fcvm --connects to SOCKET, "CONNECT P\n"--> Firecracker --> agent accepts --> "OK N\n"  (the pipe)
//! ```
//! The knock only says that there is somebody to connect to: without a listener in the guest Firecracker
//! closes the connection, and without a driver it says nothing at all. The protocol of the sockets is in
//! Firecracker's `docs/vsock.md`.

use std::{
    io,
    os::unix::net::UnixListener as StdListener,
    path::{Path, PathBuf},
    time::Duration,
};

use fcvm_proto::transport::VSOCK_PORT;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    time::sleep,
};

/// The device's socket, in the machine's directory of sockets.
pub(super) const SOCKET: &str = "vsock.sock";
/// Between two attempts of a host that nobody accepts: doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// `OK ` and a number of 32 bits.
const LONGEST_ANSWER: usize = 16;

/// Where the agent knocks. Must listen before the machine starts: Firecracker connects to it from the
/// thread that all devices share.
#[derive(Debug)]
pub(super) struct Doorbell {
    listener: UnixListener,
    path: PathBuf,
}

impl Doorbell {
    /// Listens beside the device's socket.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub(super) fn hang(device: &Path) -> io::Result<Self> {
        let path = doorbell(device);
        forget(&path)?;
        // The standard library's backlog is the largest that the kernel has: a connect never waits.
        let listener = StdListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, path })
    }

    /// Waits for the agent. Nobody is let in, and nobody can knock any more.
    ///
    /// # Errors
    /// Where the socket fails.
    pub(super) async fn rung(self) -> io::Result<()> {
        self.listener.accept().await?;
        Ok(())
    }
}

impl Drop for Doorbell {
    fn drop(&mut self) {
        if let Err(error) = forget(&self.path) {
            tracing::debug!(%error, "a socket stays behind");
        }
    }
}

/// Where the agent knocks at a device.
fn doorbell(device: &Path) -> PathBuf {
    let mut path = device.as_os_str().to_owned();
    path.push(format!("_{VSOCK_PORT}"));
    path.into()
}

/// Removes a socket that a machine before left: neither it nor the kernel does.
pub(super) fn forget(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Connects to a port of the agent; tries again while nobody listens in the guest. To be given up by the caller,
/// as when the machine ends.
///
/// # Errors
/// Where the device's socket cannot be connected to, or what is behind it is no Firecracker.
pub(super) async fn connect(device: &Path, port: u32) -> io::Result<UnixStream> {
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt(device, port).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                tracing::trace!(target: "firecracker", "nobody listens in the guest");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            connected => return connected,
        }
    }
}

async fn attempt(device: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(device).await?;
    // In one write: Firecracker reads the command once.
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut answer = Vec::with_capacity(LONGEST_ANSWER);
    // What comes behind the line is the guest's.
    while answer.last() != Some(&b'\n') && answer.len() < LONGEST_ANSWER {
        answer.push(stream.read_u8().await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionReset => io::ErrorKind::UnexpectedEof.into(),
            _ => error,
        })?);
    }
    if answer.starts_with(b"OK ") && answer.ends_with(b"\n") {
        Ok(stream)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the vsock device did not answer `OK`"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt as _;

    use super::*;

    /// A device's socket behind which each connection gets the next of the answers.
    fn device(answers: &'static [&'static [u8]]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SOCKET);
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut command = [0; 64];
                let read = stream.read(&mut command).await.unwrap();
                assert_eq!(&command[..read], b"CONNECT 1024\n", "in one write");
                stream.write_all(answer).await.unwrap();
            }
        });
        (directory, path)
    }

    #[tokio::test]
    async fn it_tries_again_until_the_agent_listens() {
        let (_directory, path) = device(&[b"", b"", b"OK 1073741824\nearly"]);
        let mut stream = connect(&path, VSOCK_PORT).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "early", "nothing of the guest's is lost");
    }

    #[tokio::test]
    async fn an_answer_is_bounded_and_must_be_one() {
        for answer in [b"HTTP/1.1 400\n".as_slice(), b"OK 11111111111111111111111111111\n"] {
            let answers: &'static [&'static [u8]] = Box::leak(Box::new([answer]));
            let (_directory, path) = device(answers);
            assert_eq!(connect(&path, VSOCK_PORT).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        let missing = connect(Path::new("/nonexistent/vsock.sock"), VSOCK_PORT).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn the_doorbell_takes_the_place_of_a_stale_one_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join(SOCKET);
        let path = directory.path().join("vsock.sock_1024");
        drop(StdListener::bind(&path).unwrap());
        let doorbell = Doorbell::hang(&device).unwrap();
        assert!(path.metadata().unwrap().file_type().is_socket());
        let _knock = UnixStream::connect(&path).await.unwrap();
        doorbell.rung().await.unwrap();
        assert!(!path.exists());
    }
}
