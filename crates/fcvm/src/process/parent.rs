//! The process that started a supervisor, and waits until its container runs.
//!
//! ```text
//!  parent: fcvm podman run -d         supervisor: the same, in a session of its own
//!     |------------- spawn, one end of a socket as standard input ------------->|
//!     |                                                     image, boot, ...    |
//!     |<------------------- id and line break: the container runs --------------|
//!     |------------------------------- one byte: heard ------------------------>| alone from now on
//!     |<------------------------------------------------ end: that is on record |
//! ```
//! A socket that ends before the byte came means that nobody wants the VM any more, whatever
//! became of the parent. A supervisor that ends before the id came has said why on the standard
//! error that both share until then, and its status is the parent's.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::process::{Signal, getpid, kill_process, setsid};
use tokio::sync::watch;

/// What the parent answers to the id.
pub const ACKNOWLEDGED: u8 = b'.';

/// A supervisor's parent.
#[derive(Debug)]
pub struct Parent {
    stream: UnixStream,
    announced: Arc<AtomicBool>,
    answer: watch::Receiver<Option<bool>>,
}

impl Parent {
    /// Leaves the parent's session, and takes the socket that it gave as standard input. From
    /// now on this process gets SIGTERM if the parent ends before it heard of the container.
    ///
    /// # Errors
    /// Where the kernel refuses any of it.
    pub fn adopt() -> io::Result<Self> {
        setsid()?;
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdin(null()?)?;
        // Where the program's file was replaced its name is `exe`.
        if let Err(error) = rustix::thread::set_name(c"fcvm") {
            tracing::debug!(%error, "the process keeps its name");
        }
        let announced = Arc::new(AtomicBool::new(false));
        let (report, answer) = watch::channel(None);
        let (mut reader, announcement) = (stream.try_clone()?, Arc::clone(&announced));
        thread::Builder::new().name("parent".into()).spawn(move || {
            let heard = loop {
                let mut byte = [0];
                match reader.read(&mut byte) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read.is_ok_and(|read| read == 1) && byte == [ACKNOWLEDGED],
                }
            };
            report.send_replace(Some(heard));
            // After the announcement whoever made it looks at the answer.
            if !heard
                && !announcement.load(Ordering::SeqCst)
                && let Err(error) = kill_process(getpid(), Signal::TERM)
            {
                tracing::warn!(%error, "nobody wants this VM, and it cannot end itself");
            }
        })?;
        Ok(Self { stream, announced, answer })
    }

    /// Tells that the container runs.
    pub fn announce(&self, id: &str) {
        self.announced.store(true, Ordering::SeqCst);
        if let Err(error) = (&self.stream).write_all(format!("{id}\n").as_bytes()) {
            tracing::debug!(%error, "the parent is gone");
        }
    }

    /// Whether the parent heard it, as soon as that is known. Cancel-safe.
    pub async fn heard(&self) -> bool {
        let mut answer = self.answer.clone();
        answer.wait_for(Option::is_some).await.is_ok_and(|heard| *heard == Some(true))
    }

    /// Gives back what was the parent's: standard error and the directory.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn release(&self) -> io::Result<()> {
        rustix::stdio::dup2_stderr(null()?)?;
        std::env::set_current_dir("/")
    }

    /// Lets it go: whoever asks from now on finds on record what it has been told.
    pub fn dismiss(&self) {
        if let Err(error) = self.stream.shutdown(Shutdown::Both) {
            tracing::debug!(%error, "the parent is gone");
        }
    }
}

fn null() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/null")
}
