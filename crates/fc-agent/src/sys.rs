//! The system calls that no safe wrapper offers.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::process::Pid;
use tokio::io::unix::AsyncFd;

/// Puts a descriptor under the runtime's watch.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, always names the same
    // descriptor, and the `AsyncFd` owns it.
    let watched = unsafe { AsyncFd::register(fd) };
    Ok(watched?)
}

/// Adds random bytes to the kernel's pool and credits them in full.
///
/// # Errors
/// Where `random` is not `/dev/random`, or the caller is not root.
pub(crate) fn add_entropy(random: &File, bytes: &[u8; 64]) -> io::Result<()> {
    /// `struct rand_pool_info` of `linux/random.h` with its buffer.
    #[repr(C)]
    struct RandPoolInfo {
        entropy_count: libc::c_int,
        buf_size: libc::c_int,
        buf: [u8; 64],
    }
    /// `_IOW('R', 0x03, int[2])`
    const RNDADDENTROPY: u32 = 0x4008_5203;
    let info = RandPoolInfo { entropy_count: 64 * 8, buf_size: 64, buf: *bytes };
    // SAFETY: the request reads a `rand_pool_info` of `buf_size` bytes behind
    // the pointer; `info` is one, lives across the call and is not written to.
    let result = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, &raw const info) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the kernel's random generators anew of its pool.
///
/// # Errors
/// Where `random` is not `/dev/random`, or the caller is not root.
pub(crate) fn reseed(random: &File) -> io::Result<()> {
    /// `_IO('R', 0x07)`
    const RNDRESEEDCRNG: u32 = 0x5207;
    // SAFETY: the request takes no argument; no memory is involved.
    let result = unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Syncs the file system on which a file lies, and has all that would change it wait.
///
/// # Errors
/// Where the kernel cannot, or it is frozen already.
pub(crate) fn freeze(file: &File) -> io::Result<()> {
    /// `_IOWR('X', 119, int)`
    const FIFREEZE: u32 = 0xc004_5877;
    // SAFETY: whatever its number says, the request reads and writes no argument.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FIFREEZE as _, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets a frozen file system go on.
///
/// # Errors
/// Where it is not frozen.
pub(crate) fn thaw(file: &File) -> io::Result<()> {
    /// `_IOWR('X', 120, int)`
    const FITHAW: u32 = 0xc004_5878;
    // SAFETY: as of `freeze`.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FITHAW as _, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Kills every process but this one (PID 1).
pub(crate) fn kill_all() -> io::Result<()> {
    // SAFETY: no memory is involved; -1 means all processes but PID 1 and the caller.
    let result = unsafe { libc::kill(-1, libc::SIGKILL) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal, any that the kernel knows, to a process by its pidfd.
pub(crate) fn pidfd_signal(pidfd: &impl std::os::fd::AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for the length of the borrow; a null
    // `siginfo` and no flags are allowed; no memory is read or written.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<u8>(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has a program lead a session of its own, with its standard input as the session's terminal.
pub(crate) fn lead_a_session_with_terminal(command: &mut std::process::Command) {
    let prepare = || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        Ok(())
    };
    // SAFETY: between fork and exec only two system calls are made, neither allocates or locks.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, prepare) };
}

/// Has a process enter a container, and become what the words say, whatever else the command says of that. Not as
/// the standard library would have it: the C library's `execvp` may give a file of no known format to a shell.
pub(crate) fn enter(command: &mut std::process::Command, entry: crate::exec::Entry, words: Words) {
    let mut pointers = Pointers::new(words.number);
    let prepare = move || {
        entry.enter()?;
        Err(pointers.fill(&words.bytes, words.counts)?.execute().into())
    };
    // SAFETY: between fork and exec `prepare` makes system calls only, and those by descriptors and memory that were
    // there before the fork: nothing is allocated, freed or locked.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, prepare) };
}

/// Leaves the keyring of the session for the one of this name. Where the kernel has none, there is none to leave.
pub(crate) fn join_keyring(name: &std::ffi::CStr) {
    /// Of `linux/keyctl.h`.
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the request reads a string that ends with 0, which a `CStr` does; it keeps nothing of it.
    unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
}

/// Has the kernel ask a program, compiled as `struct sock_filter`s of `linux/filter.h`, about every system call of
/// this process from now on.
///
/// # Errors
/// The kernel's: where it is no program, or the process may not.
pub(crate) fn filter_system_calls(program: &[u8]) -> rustix::io::Result<()> {
    const INSTRUCTION: usize = size_of::<libc::sock_filter>();
    let length = u16::try_from(program.len() / INSTRUCTION).map_err(|_| rustix::io::Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel copies `len` instructions of 8 bytes from the pointer, whatever its alignment: the slice has
    // as many; it writes to none.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    match result {
        0 => Ok(()),
        _ => {
            Err(rustix::io::Errno::from_io_error(&io::Error::last_os_error())
                .unwrap_or(rustix::io::Errno::INVAL))
        }
    }
}

/// Forks a process that does this and ends, without anything that a process of its own does at its end.
///
/// # Errors
/// The kernel's.
pub(crate) fn fork(child: &mut dyn FnMut()) -> io::Result<Pid> {
    // SAFETY: what the child runs makes system calls only, as its callers see to: nothing is allocated, freed or
    // locked. It does not return into code of the parent's.
    match unsafe { libc::fork() } {
        0 => {
            child();
            // SAFETY: it ends the process; no memory is involved.
            unsafe { libc::_exit(0) }
        }
        pid => Pid::from_raw(pid.max(0)).ok_or_else(io::Error::last_os_error),
    }
}

/// Has signals do what they do to a new program: those that this one handles or ignores, and those that it blocks.
pub(crate) fn forget_signals() {
    for signal in [libc::SIGPIPE, libc::SIGCHLD] {
        // SAFETY: no memory is involved; the default is no function of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: a set of signals is bits, of which none is the empty set.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set lives across the call; the old one is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// Closes all descriptors but the standard ones and this, whoever has them: for a process that was forked, and has no
/// use for what it inherited.
///
/// # Errors
/// The kernel's.
pub(crate) fn close_all_but(kept: &OwnedFd) -> rustix::io::Result<()> {
    const FIRST: libc::c_uint = 3;
    let kept = libc::c_uint::try_from(kept.as_raw_fd()).map_err(|_| rustix::io::Errno::BADF)?;
    let ranges = [(FIRST, kept.saturating_sub(1)), ((kept + 1).max(FIRST), libc::c_uint::MAX)];
    for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
        // SAFETY: no memory is involved. Who owns one of the descriptors lives in the other process; in this one
        // nothing of it is used or dropped.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if result != 0 {
            return Err(rustix::io::Errno::from_io_error(&io::Error::last_os_error())
                .unwrap_or(rustix::io::Errno::INVAL));
        }
    }
    Ok(())
}

/// Bytes of stack for a process that only becomes a program.
pub(crate) const SHORT_STACK: usize = 16 << 10;

/// What a process becomes.
#[derive(Debug)]
pub(crate) struct Words {
    /// Strings, each of which ends with a 0: where the program may be, its arguments, its environment.
    pub(crate) bytes: Vec<u8>,
    /// How many of them are where the program may be, and how many are arguments.
    pub(crate) counts: [usize; 2],
    /// How many there are.
    pub(crate) number: usize,
}

/// Room for pointers to strings, of which no more are ever made than fit.
#[derive(Debug)]
pub(crate) struct Pointers(Vec<*const libc::c_char>);

// SAFETY: what is there was made by `fill`, whose result borrows the strings; nothing reads it but through that.
unsafe impl Send for Pointers {}
// SAFETY: as above; and `fill` needs it alone.
unsafe impl Sync for Pointers {}

impl Pointers {
    /// Room for so many strings, in three lists.
    pub(crate) fn new(strings: usize) -> Self {
        Self(Vec::with_capacity(strings + 3))
    }

    fn push(&mut self, pointer: *const libc::c_char) -> rustix::io::Result<()> {
        if self.0.len() == self.0.capacity() {
            return Err(rustix::io::Errno::TOOBIG);
        }
        self.0.push(pointer);
        Ok(())
    }

    /// Points at strings that each end with a 0: see [`Words`].
    fn fill<'a>(&'a mut self, mut strings: &'a [u8], counts: [usize; 2]) -> rustix::io::Result<Program<'a>> {
        self.0.clear();
        let mut begin = [0; 2];
        for (list, count) in [counts[0], counts[1], usize::MAX].into_iter().enumerate() {
            for _ in 0..count {
                let Ok(string) = std::ffi::CStr::from_bytes_until_nul(strings) else { break };
                self.push(string.as_ptr())?;
                strings = &strings[string.count_bytes() + 1..];
            }
            self.push(std::ptr::null())?;
            if let Some(begin) = begin.get_mut(list) {
                *begin = self.0.len();
            }
        }
        let [arguments, environment] = begin;
        Ok(Program {
            // But for its null pointer.
            places: &self.0[..arguments - 1],
            arguments: &self.0[arguments..environment],
            environment: &self.0[environment..],
        })
    }
}

/// A program to become: strings that end with 0, and after arguments and environment a null pointer.
#[derive(Debug)]
struct Program<'a> {
    places: &'a [*const libc::c_char],
    arguments: &'a [*const libc::c_char],
    environment: &'a [*const libc::c_char],
}

impl Program<'_> {
    /// Becomes the first that there is, as `execvp` tries them; or why not: the error of the last try that tells
    /// something. Allocates nothing.
    fn execute(&self) -> rustix::io::Errno {
        use rustix::io::Errno;
        let mut told = Errno::NOENT;
        for place in self.places {
            // SAFETY: all are strings that end with 0, in lists that end with null.
            unsafe { libc::execve(*place, self.arguments.as_ptr(), self.environment.as_ptr()) };
            match Errno::from_io_error(&io::Error::last_os_error()) {
                Some(Errno::NOENT | Errno::NOTDIR) | None => {}
                Some(Errno::ACCESS) => told = Errno::ACCESS,
                Some(error) => return error,
            }
        }
        told
    }
}

/// Whose child a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent {
    /// The parent's of who starts it.
    Ours,
    /// Of who starts it.
    ItsStarter,
}

/// Starts a program in a process which has what this one has: see [`Words`] for the strings and their numbers. Returns
/// when it has become the program, and allocates nothing.
///
/// # Errors
/// The kernel's, of the last try that tells something; where there are more strings than there is room for.
pub(crate) fn start(
    strings: &[u8],
    counts: [usize; 2],
    parent: Parent,
    pointers: &mut Pointers,
    stack: &mut [u8],
) -> rustix::io::Result<Pid> {
    use rustix::io::Errno;
    struct Order<'a> {
        program: Program<'a>,
        error: Option<Errno>,
    }
    extern "C" fn begin(order: *mut libc::c_void) -> libc::c_int {
        // SAFETY: it is the `Order` below, which nobody else uses: whoever made it waits.
        let order = unsafe { &mut *order.cast::<Order<'_>>() };
        // System calls only: the memory is the other's too.
        rustix::process::setsid().ok();
        order.error = Some(order.program.execute());
        127
    }
    let mut order = Order { program: pointers.fill(strings, counts)?, error: None };
    // Aligned as the ABI wants it.
    let top = stack.as_mut_ptr_range().end.map_addr(|address| address & !15);
    let shared = if parent == Parent::Ours { libc::CLONE_PARENT } else { 0 };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | shared;
    // SAFETY: `begin` gets the order, which lives until the call returns: that is when the process has left this
    // memory, or ended. Until then it alone uses the stack, of which this is the end.
    let pid = unsafe { libc::clone(begin, top.cast(), flags, (&raw mut order).cast()) };
    match (Pid::from_raw(pid.max(0)), order.error) {
        (Some(pid), None) => Ok(pid),
        (_, Some(error)) => Err(error),
        (None, None) => Err(Errno::AGAIN),
    }
}

/// A process that ended: its id and its wait status; `None` where none is waiting to be reaped.
pub(crate) fn reap() -> Option<(Pid, std::process::ExitStatus)> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for an int and outlives the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let pid = Pid::from_raw(pid).filter(|_| pid > 0)?;
    Some((pid, std::os::unix::process::ExitStatusExt::from_raw(status)))
}

/// Closes a connection without a word to its other end, as of a machine that is gone. As root.
#[cfg(test)]
pub(crate) fn vanish(stream: std::net::TcpStream) {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).unwrap();
    let option = (libc::IPPROTO_TCP, libc::TCP_REPAIR);
    // SAFETY: the option is read from `length` bytes behind the pointer, which are a number that lives across the call.
    let result =
        unsafe { libc::setsockopt(stream.as_raw_fd(), option.0, option.1, (&raw const on).cast(), length) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    drop(stream);
}
