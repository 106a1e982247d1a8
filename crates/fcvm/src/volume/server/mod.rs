//! The process that serves one volume.
//!
//! ```text
//!  owner                                     server: the same program, named `fcvm-volume`
//!    | -- Order: what to do, as JSON ---------> |
//!    | <------------------------ Answer::Made --|  a user namespace, where that is ordered
//!    | -- it has ids -------------------------> |  root of it
//!    | <---- Answer::Ready, or Failed and why --|  opens what it serves, shuts itself in
//!    | -- a lane's descriptor (SCM_RIGHTS) ---> |  serves it
//!    | -- another ----------------------------> |
//!    | -- a file's descriptor ----------------> |  writes what it knows of its client: for a snapshot
//!    | <----------------- Answer::Ready --------|
//!    | -- end of the socket ------------------> |  exits
//! ```
//! The socket keeps messages apart, and is the server's standard input. With an order to serve may come a file of
//! what a server of another VM knew, in whose place this one goes on. What is in it the owner never looks at.

mod child;
mod namespace;

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{Signal, geteuid},
};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

pub use child::{is_server, serve};

use self::namespace::Ranges;
use super::{Map, VolumeError, spec::Ids, spec::Options};
use crate::process::{die_with_parent, messages};

/// The server's name for itself, by which it is known in lists of processes.
const NAME: &str = "fcvm-volume";
/// A message with a descriptor: what to do with that.
const LANE: u8 = 0;
const SAVE: u8 = 1;
/// The longest message with more to say, in bytes.
const LONGEST: usize = 16 << 10;

/// What the process is for.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    path: PathBuf,
    task: Task,
    /// Whether it is to be root of a user namespace.
    namespace: bool,
    /// Whether it goes on in another one's place: the descriptor of what that knew comes with the order.
    resumes: bool,
}

/// What is to be done with the path.
#[derive(Debug, Serialize, Deserialize)]
enum Task {
    /// Serve it to lanes. The ids are none that are still to be decided.
    Serve(Options),
    /// Remove it, with all that is in it.
    Remove,
}

/// What the server says.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// It has made a namespace, which has no ids yet.
    Made,
    /// It serves, or has done its work.
    Ready,
    /// It cannot.
    Failed(String),
}

/// A process that serves a volume, for as long as this lives.
#[derive(Debug)]
pub struct Server {
    volume: String,
    socket: Arc<OwnedFd>,
    /// Answers to come that nobody waits for any more.
    late: Arc<Mutex<usize>>,
    process: Child,
    messages: Option<OwnedFd>,
    ranges: Option<Ranges>,
}

impl Server {
    /// Starts a server; it dies with this thread, at the latest. It is to be [ready](Self::ready) before
    /// it gets lanes.
    ///
    /// # Errors
    /// Where there is no process to be had, or this user cannot have the ids that are wanted.
    pub fn start(map: &Map) -> Result<Self, VolumeError> {
        let (ids, ranges) = decide(map.options.ids, geteuid().is_root(), Ranges::of_this_user)
            .map_err(|what| VolumeError::Server { volume: map.name.clone(), what: what.into() })?;
        let options = Options { ids, ..map.options.clone() };
        let state = map.state.as_ref().map(File::open).transpose();
        let state = state.map_err(|error| VolumeError::Server {
            volume: map.name.clone(),
            what: format!("the snapshot has nothing of it: {error}"),
        })?;
        Self::begin(map.name.clone(), &map.path, Task::Serve(options), ranges, state.as_ref())
    }

    /// Removes a directory of which parts belong to subordinate ids of this user.
    ///
    /// # Errors
    /// Where that cannot be done either.
    pub(super) fn remove(path: &Path) -> Result<(), VolumeError> {
        let volume = path.display().to_string();
        let Some(ranges) = Ranges::of_this_user() else {
            return Err(VolumeError::store("remove", path)(io::ErrorKind::PermissionDenied.into()));
        };
        Self::begin(volume, path, Task::Remove, Some(ranges), None)?.ready()
    }

    fn begin(
        volume: String,
        path: &Path,
        task: Task,
        ranges: Option<Ranges>,
        state: Option<&File>,
    ) -> Result<Self, VolumeError> {
        let (namespace, resumes) = (ranges.is_some(), state.is_some());
        let order = Order { path: path.to_owned(), task, namespace, resumes };
        let start = || {
            let (ours, theirs) = messages::pair()?;
            let mut command = Command::new("/proc/self/exe");
            // Ours would stay open with it when this process leaves it.
            let (messages, messages_end) = pipe_with(PipeFlags::CLOEXEC)?;
            command.arg0(NAME).arg(path).stdin(theirs).stdout(Stdio::null()).stderr(messages_end);
            // A terminal's Ctrl-C is for the container.
            command.process_group(0);
            die_with_parent(&mut command, Signal::KILL);
            let process = command.spawn()?;
            let with: Vec<_> = state.iter().map(AsFd::as_fd).collect();
            messages::send(ours.as_fd(), &serde_json::to_vec(&order)?, &with)?;
            io::Result::Ok((ours, process, messages))
        };
        match start() {
            Ok((socket, process, messages)) => {
                let socket = Arc::new(socket);
                Ok(Self { volume, socket, late: Arc::default(), process, messages: Some(messages), ranges })
            }
            Err(error) => Err(VolumeError::Server { volume, what: error.to_string() }),
        }
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// Where it does not, and why.
    pub fn ready(&self) -> Result<(), VolumeError> {
        let failed = |what: String| VolumeError::Server { volume: self.volume.clone(), what };
        let answer = || answer(self.socket.as_fd()).map_err(|error| failed(error.to_string()));
        let mut answered = answer()?;
        if let (Answer::Made, Some(ranges)) = (&answered, &self.ranges) {
            ranges
                .map(self.process.id())
                .and_then(|()| messages::send(self.socket.as_fd(), &[0], &[]))
                .map_err(|error| failed(error.to_string()))?;
            answered = answer()?;
        }
        match answered {
            Answer::Ready => Ok(()),
            Answer::Failed(why) => Err(failed(why)),
            Answer::Made => Err(failed("it made a namespace that nobody wants".into())),
        }
    }

    /// The volume, as the user knows it.
    #[must_use]
    pub fn volume(&self) -> &str {
        &self.volume
    }

    /// What it says, as lines, for whoever asks first. It waits where nobody reads.
    pub fn messages(&mut self) -> Option<OwnedFd> {
        self.messages.take()
    }

    /// Has it serve the client at the other end of a stream.
    ///
    /// # Errors
    /// Where the process has died.
    pub fn hand(&self, lane: &OwnedFd) -> Result<(), VolumeError> {
        messages::send(self.socket.as_fd(), &[LANE], &[lane.as_fd()])
            .map_err(|source| VolumeError::Connect { volume: self.volume.clone(), source })
    }

    /// Has it write to a file what it knows of its client, which asks for nothing meanwhile: for a server that
    /// goes on in its place. It serves on, also where all lanes end and others come.
    ///
    /// # Errors
    /// Where it cannot, has died, or does not within that time.
    pub async fn save(&self, to: File, patience: Duration) -> Result<(), VolumeError> {
        let (socket, late) = (Arc::clone(&self.socket), Arc::clone(&self.late));
        let saved = spawn_blocking(move || {
            let mut late = late.lock().unwrap_or_else(PoisonError::into_inner);
            save(socket.as_fd(), &to, patience, &mut late)
        });
        let saved = saved.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        saved.map_err(|source| VolumeError::Save { volume: self.volume.clone(), source })
    }
}

/// Has a server write to a file what it knows. Answers that come too late are the next one's to pass over.
fn save(socket: BorrowedFd<'_>, to: &File, patience: Duration, late: &mut usize) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    messages::send(socket, &[SAVE], &[to.as_fd()])?;
    *late += 1;
    loop {
        if !messages::wait(socket, deadline)? {
            let text = format!("its server did not answer within {} s", patience.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        let answer = answer(socket)?;
        *late -= 1;
        if *late == 0 {
            return match answer {
                Answer::Ready => Ok(()),
                Answer::Failed(why) => Err(io::Error::other(why)),
                Answer::Made => Err(io::ErrorKind::InvalidData.into()),
            };
        }
    }
}

/// What a server says next.
fn answer(socket: BorrowedFd<'_>) -> io::Result<Answer> {
    let mut answer = vec![0; LONGEST];
    match messages::receive(socket, &mut answer)? {
        Some((length, _)) => Ok(serde_json::from_slice(&answer[..length])?),
        None => Ok(Answer::Failed("its process died".into())),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What it has begun for the guest it would have done by now: the guest is gone.
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            tracing::debug!(%error, volume = self.volume, "the server's end was not seen");
        }
    }
}

/// Which ids a server has, and the ranges of a namespace where it needs one.
fn decide(
    wanted: Ids,
    root: bool,
    ranges: impl FnOnce() -> Option<Ranges>,
) -> Result<(Ids, Option<Ranges>), &'static str> {
    let squash = Ids::Squash { uid: 0, gid: 0 };
    match wanted {
        Ids::Same | Ids::Auto if root => Ok((Ids::Same, None)),
        Ids::Auto => match ranges() {
            Some(ranges) => Ok((Ids::Same, Some(ranges))),
            None => Ok((squash, None)),
        },
        Ids::Same => Err("idmap=same takes root: an ordinary user has idmap=ranges or idmap=squash"),
        Ids::Ranges => match ranges() {
            Some(ranges) => Ok((Ids::Same, Some(ranges))),
            None => Err("this user has no ranges in /etc/subuid and /etc/subgid, as idmap=ranges needs them"),
        },
        Ids::Squash { .. } => Ok((wanted, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_comes_late_is_not_the_next_ones() {
        let (ours, theirs) = messages::pair().unwrap();
        let says = |answer: &Answer| {
            messages::send(theirs.as_fd(), &serde_json::to_vec(answer).unwrap(), &[]).unwrap();
        };
        let mut late = 0;
        let mut save = |seconds| {
            save(ours.as_fd(), &tempfile::tempfile().unwrap(), Duration::from_secs(seconds), &mut late)
        };
        assert_eq!(save(0).unwrap_err().kind(), io::ErrorKind::TimedOut);
        says(&Answer::Ready);
        says(&Answer::Failed("of the second".into()));
        assert_eq!(save(60).unwrap_err().to_string(), "of the second");
        says(&Answer::Ready);
        save(60).unwrap();
        drop(theirs);
        assert!(save(60).is_err());
    }

    #[test]
    fn ids_are_those_that_the_user_can_have() {
        let squash = Ids::Squash { uid: 0, gid: 0 };
        let none = || None;
        assert_eq!(decide(Ids::Auto, true, none), Ok((Ids::Same, None)));
        assert_eq!(decide(Ids::Auto, false, none), Ok((squash, None)));
        assert_eq!(decide(squash, true, none), Ok((squash, None)));
        assert!(decide(Ids::Same, false, none).unwrap_err().contains("root"));
        assert!(decide(Ids::Ranges, false, none).unwrap_err().contains("/etc/subuid"));
    }
}
