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

/// Has a process enter a container before it becomes its program.
pub(crate) fn enter(command: &mut std::process::Command, entry: crate::exec::Entry) {
    let prepare = move || Ok(entry.enter()?);
    // SAFETY: between fork and exec `enter` makes system calls only, and those by descriptors and memory that were
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

/// A process that ended: its id and its wait status; `None` where none is waiting to be reaped.
pub(crate) fn reap() -> Option<(Pid, std::process::ExitStatus)> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for an int and outlives the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let pid = Pid::from_raw(pid).filter(|_| pid > 0)?;
    Some((pid, std::os::unix::process::ExitStatusExt::from_raw(status)))
}
