//! Where VMs come in: a thread that hears many connections at once, none of which can hold up another.

use std::{
    io,
    os::unix::net::{UnixListener, UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    net::sockopt::socket_peercred,
};
use tracing::{error, warn};

use crate::{
    HandshakeError, Peer, Report,
    handshake::{Caller, Said},
    server::Inner,
    time::timespec,
    vm::Bell,
};

/// Connections that are heard at once. Those beyond wait in the socket's queue.
const MAX_CALLERS: usize = 64;
/// How long nobody is let in where the host has no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Door {
    closing: Arc<Closing>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Closing {
    flag: AtomicBool,
    bell: Bell,
}

impl Door {
    pub(crate) fn open(server: Arc<Inner>, listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let closing = Arc::new(Closing { flag: AtomicBool::new(false), bell: Bell::new()? });
        let mut porter =
            Porter { server, listener, closing: closing.clone(), callers: Vec::new(), pause: None };
        let thread = thread::Builder::new().name("uffd-door".into()).spawn(move || porter.work())?;
        Ok(Self { closing, thread: Some(thread) })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closing.flag.store(true, Relaxed);
        self.closing.bell.ring();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the thread that listens panicked");
        }
    }
}

struct Porter {
    server: Arc<Inner>,
    listener: UnixListener,
    closing: Arc<Closing>,
    callers: Vec<Caller>,
    /// Until when nobody is let in.
    pause: Option<Instant>,
}

impl Porter {
    fn work(&mut self) {
        while !self.closing.flag.load(Relaxed) {
            self.wait();
            let now = Instant::now();
            self.pause = self.pause.filter(|until| *until > now);
            self.let_in();
            for mut caller in std::mem::take(&mut self.callers) {
                match caller.hear() {
                    Ok(None) if caller.deadline > now => self.callers.push(caller),
                    Ok(None) => self.refuse(&caller.stream, HandshakeError::Timeout),
                    Ok(Some(said)) => self.admit(said, caller.stream),
                    Err(error) => self.refuse(&caller.stream, error),
                }
            }
        }
    }

    fn wait(&self) {
        let mut descriptors = vec![PollFd::new(self.closing.bell.descriptor(), PollFlags::IN)];
        let open = self.pause.is_none() && self.callers.len() < MAX_CALLERS;
        if open {
            descriptors.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        descriptors.extend(self.callers.iter().map(|caller| PollFd::new(&caller.stream, PollFlags::IN)));
        let soonest = self.callers.iter().map(|caller| caller.deadline).chain(self.pause).min();
        let timeout = soonest.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        // Where it fails, what it would have told is found out by looking.
        poll(&mut descriptors, timeout.as_ref()).ok();
    }

    fn let_in(&mut self) {
        while self.pause.is_none() && self.callers.len() < MAX_CALLERS {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let deadline = Instant::now() + self.server.options().handshake_timeout;
                    self.callers.push(Caller::new(stream, deadline));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    warn!(%error, "no connection can be accepted");
                    self.pause = Some(Instant::now() + PAUSE);
                }
            }
        }
    }

    fn admit(&self, said: Said, stream: UnixStream) {
        let peers = Peer::of_socket(&stream).and_then(|peer| Ok((peer, Peer::of_socket(&stream)?)));
        let (peer, same) = match peers {
            Ok(peers) => peers,
            Err(source) => {
                return self.refuse(&stream, HandshakeError::Io { what: "find the process", source });
            }
        };
        let pid = peer.pid();
        if let Err(error) = self.server.admit(peer, said.uffd, &said.regions, Some(stream)) {
            // Its guest waits for a page by now, or will, and nobody would ever bring it.
            if let Err(error) = same.kill() {
                warn!(pid, %error, "a VM that is not served was not ended");
            }
            self.tell_refused(pid, error);
        }
    }

    fn refuse(&self, stream: &UnixStream, error: HandshakeError) {
        let pid = socket_peercred(stream).ok().map(|peer| peer.pid.as_raw_nonzero().get());
        self.tell_refused(pid, error);
    }

    fn tell_refused(&self, pid: Option<i32>, error: HandshakeError) {
        warn!(pid, error = &error as &dyn std::error::Error, "a connection is refused");
        self.server.report(Report::Refused { pid, error });
    }
}
