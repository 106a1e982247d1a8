//! A process that has entered a container ahead of the command it will start. To enter is most of what a command
//! takes where the kernel's code is translated first: in a guest that goes on from a snapshot, which has one from before.
//!
//! ```text
//!  agent --fork--> zygote: the container's groups, namespaces, limits, filter, user
//!    |--- program, arguments, environment, descriptors --->|
//!    |                                  command <--vfork---|   a child of the agent's, in the container's PID namespace
//!    |<------------- its number, or why not ---------------|
//!    |------------------- closed ------------------------->| ends
//! ```
//! It is not in the container's PID namespace, so nobody there sees it. It is no program of its own, but the agent's
//! memory at the fork: another thread may have held any lock then, so that it makes system calls only.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::{ioctl_fionbio, read, write},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, send,
        sendmsg, socketpair,
    },
    process::Pid,
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use tokio::io::unix::AsyncFd;

use super::{entrance::Entry, launch::Given, process::Process};
use crate::sys::{self, Parent, Pointers};

/// Longest message to it, in bytes, and most strings in it: a larger command goes the usual way.
const LONGEST: usize = 64 << 10;
const MOST_STRINGS: usize = 2048;
/// Of a message: which descriptors come with it, and how many programs and arguments the strings begin with.
const HEADER: usize = 12;
/// Of an answer: the process, and the error in its place.
const ANSWER: usize = 8;

/// One that waits. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Zygote {
    socket: AsyncFd<OwnedFd>,
    /// What its command has, but for program, arguments and environment.
    process: Process,
}

impl Zygote {
    /// Forks one.
    ///
    /// # Errors
    /// Where it cannot be made; whether it can enter shows when it is used.
    pub(super) fn fork(entry: Entry, process: Process) -> io::Result<Self> {
        let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        ioctl_fionbio(&ours, true)?;
        let nothing = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let mut life = Life { entry, nothing, birth: Birth::new(its, Parent::Ours) };
        sys::fork(&mut || life.live())?;
        Ok(Self { socket: sys::watch(ours)?, process: only_what_is_entered(process) })
    }

    /// Whether the command of a process could be its.
    pub(super) fn is_for(&self, process: &Process) -> bool {
        self.process == only_what_is_entered(process.clone())
    }

    /// Has it start the command; `None` where it cannot, and somebody else has to.
    ///
    /// # Errors
    /// The command's.
    pub(super) async fn start(&self, process: &Process, given: &Given) -> io::Result<Option<Pid>> {
        let Some((message, descriptors)) = message(process, given) else { return Ok(None) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        if let Err(error) =
            sendmsg(&self.socket, &[IoSlice::new(&message)], &mut ancillary, SendFlags::NOSIGNAL)
        {
            tracing::debug!(%error, "a command's start takes longer");
            return Ok(None);
        }
        let mut answer = [0; ANSWER];
        let length = loop {
            let mut ready = self.socket.readable().await?;
            if let Ok(length) = ready.try_io(|socket| Ok(read(socket, &mut answer)?)) {
                break length?;
            }
        };
        let [pid, error] = [0, 4].map(|at| {
            let bytes = answer[at..].first_chunk();
            i32::from_ne_bytes(*bytes.unwrap_or(&[0; 4]))
        });
        match (length, Pid::from_raw(pid.max(0)), error) {
            (ANSWER, Some(pid), _) => Ok(Some(pid)),
            (ANSWER, None, 0) => Ok(None),
            (ANSWER, None, error) => Err(io::Error::from_raw_os_error(error)),
            // It may have started it.
            _ => Err(io::Error::other("what was to start it is gone")),
        }
    }
}

/// A process that starts a program which does nothing, once it is told to: so that the kernel's code for that is
/// translated by the time a command comes, by a CPU that has nothing to do meanwhile. It enters nothing.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    socket: OwnedFd,
}

/// This program, where it does nothing.
const REHEARSED: &str = "fcvm-rehearsal";
/// It as a file, from any root that has this.
const OURSELVES: &str = "/proc/1/exe";

impl Rehearsal {
    /// Forks it.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub(crate) fn fork() -> io::Result<Self> {
        let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut birth = Birth::new(its, Parent::ItsStarter);
        sys::fork(&mut || {
            sys::forget_signals();
            if sys::close_all_but(&birth.socket).is_ok() {
                birth.give();
            }
        })?;
        Ok(Self { socket: ours })
    }

    /// Has it begin; who waits for it waits for nothing.
    pub(crate) fn begin(&self) {
        let process = Process { args: vec![OURSELVES.into()], ..Process::default() };
        let Some((mut message, _)) = message(&process, &Given::default()) else { return };
        // Its name is the argument.
        message.truncate(HEADER + OURSELVES.len() + 1);
        message.extend(REHEARSED.as_bytes());
        message.push(0);
        if let Err(error) = send(&self.socket, &message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            tracing::debug!(%error, "nothing is rehearsed");
        }
    }
}

/// Whether this process is what is started then.
pub(crate) fn is_rehearsal() -> bool {
    std::env::args_os().next().is_some_and(|name| name == REHEARSED)
}

/// A process without what a message has.
fn only_what_is_entered(mut process: Process) -> Process {
    process.args.clear();
    process.env.clear();
    process
}

/// What it is sent; `None` where that is too much for it.
fn message<'a>(process: &Process, given: &'a Given) -> Option<(Vec<u8>, Vec<BorrowedFd<'a>>)> {
    let words = process.words()?;
    let ends = given.ends();
    let which = ends.iter().enumerate().fold(0_u32, |all, (at, end)| all | u32::from(end.is_some()) << at);
    let mut message = which.to_ne_bytes().to_vec();
    for count in words.counts {
        message.extend(u32::try_from(count).ok()?.to_ne_bytes());
    }
    message.extend(&words.bytes);
    let fits = message.len() <= LONGEST && words.number <= MOST_STRINGS;
    fits.then(|| (message, ends.into_iter().flatten().map(OwnedFd::as_fd).collect()))
}

/// What it has; all of it there before the fork.
struct Life {
    entry: Entry,
    nothing: OwnedFd,
    birth: Birth,
}

impl Life {
    fn live(&mut self) {
        if self.enter().is_ok() {
            self.birth.give();
        }
    }

    fn enter(&self) -> rustix::io::Result<()> {
        sys::forget_signals();
        self.entry.enter()?;
        dup2_stdin(&self.nothing)?;
        dup2_stdout(&self.nothing)?;
        dup2_stderr(&self.nothing)?;
        sys::close_all_but(&self.birth.socket)
    }
}

/// What it takes to start one command.
struct Birth {
    parent: Parent,
    socket: OwnedFd,
    message: Vec<u8>,
    pointers: Pointers,
    stack: Vec<u8>,
}

impl Birth {
    fn new(socket: OwnedFd, parent: Parent) -> Self {
        let (message, stack) = (vec![0; LONGEST], vec![0; sys::SHORT_STACK]);
        Self { parent, socket, message, pointers: Pointers::new(MOST_STRINGS), stack }
    }

    /// Waits for a command, starts it, and tells of it.
    fn give(&mut self) {
        let (pid, error) = match self.start() {
            Ok(pid) => (pid.map_or(0, Pid::as_raw_pid), 0),
            Err(error) => (0, error.raw_os_error()),
        };
        let mut answer = [0; ANSWER];
        answer[..4].copy_from_slice(&pid.to_ne_bytes());
        answer[4..].copy_from_slice(&error.to_ne_bytes());
        // Where nobody hears it, nobody waits for it.
        write(&self.socket, &answer).ok();
        // Its end would be as much work as the command's start, and before the command has come to anything.
        read(&self.socket, &mut answer).ok();
    }

    /// `None` where the command cannot be taken.
    fn start(&mut self) -> rustix::io::Result<Option<Pid>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut self.message)];
        let received = recvmsg(&self.socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        let Some((header, strings)) = self.message[..received.bytes].split_at_checked(HEADER) else {
            return Ok(None);
        };
        let number = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        let which = number(0);
        let rights = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let mut descriptors = rights.flatten();
        for bit in (0..3).filter(|bit| which & 1 << bit != 0) {
            let Some(descriptor) = descriptors.next().filter(|_| !cut) else { return Ok(None) };
            match bit {
                0 => dup2_stdin(descriptor)?,
                1 => dup2_stdout(descriptor)?,
                _ => dup2_stderr(descriptor)?,
            }
        }
        let counts = [number(4), number(8)].map(|count| count as usize);
        sys::start(strings, counts, self.parent, &mut self.pointers, &mut self.stack).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{WaitOptions, waitpid};

    use super::*;

    fn process(args: &[&str], env: &[&str]) -> Process {
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Process { args: own(args), env: own(env), cwd: "/".into(), ..Process::default() }
    }

    #[test]
    fn it_takes_what_differs_in_program_arguments_and_environment_alone() {
        let one = only_what_is_entered(process(&["a"], &["B=1"]));
        assert!(one == only_what_is_entered(process(&["c", "d"], &[])));
        let elsewhere = Process { cwd: "/srv".into(), ..process(&["a"], &[]) };
        assert!(one != only_what_is_entered(elsewhere));
    }

    #[test]
    fn what_is_too_much_for_a_message_is_not_sent() {
        let given = Given::default();
        let fits = |args: &[&str]| message(&process(args, &["A=b"]), &given).is_some();
        assert!(fits(&["true", ""]));
        assert!(!fits(&["true", &"x".repeat(LONGEST)]));
        assert!(!fits(&vec!["true"; MOST_STRINGS]));
        assert!(!fits(&["a\0b"]), "no string of the kernel's");
        assert!(!fits(&[]));
    }

    /// All but the entry itself, which takes a container.
    #[test]
    fn a_command_is_told_and_started_with_its_strings() {
        let given = Given::default();
        let env = ["PATH=/nowhere:/bin:/usr/bin"];
        let (message, _) = message(&process(&["sh", "-c", "exit 7"], &env), &given).unwrap();
        let (ours, its) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        write(&ours, &message).unwrap();
        let mut birth = Birth::new(its, Parent::Ours);
        sys::fork(&mut || {
            // Also its copy of our end.
            sys::close_all_but(&birth.socket).ok();
            birth.give();
        })
        .unwrap();
        let mut answer = [0; ANSWER];
        assert_eq!(read(&ours, &mut answer).unwrap(), ANSWER);
        let pid = Pid::from_raw(i32::from_ne_bytes(*answer.first_chunk().unwrap())).unwrap();
        let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(7));
        drop(ours);
    }
}
