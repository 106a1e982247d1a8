//! Seccomp: the system calls of a server.

use std::{collections::BTreeMap, env::consts::ARCH, io};

use libc::c_long;
use rustix::process::getpid;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::{Applied, ConfineError};

/// Allowed whatever their arguments.
const ALLOWED: &[c_long] = &[
    // Files.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_copy_file_range,
    libc::SYS_splice,
    libc::SYS_sendfile,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_readlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_getxattr,
    libc::SYS_setxattr,
    libc::SYS_listxattr,
    libc::SYS_removexattr,
    libc::SYS_fgetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fremovexattr,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_umask,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    // Lanes, of which the process is given descriptors, and waiting for them.
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    // Threads and memory.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    // Who makes a file.
    libc::SYS_geteuid,
    libc::SYS_getegid,
    libc::SYS_getuid,
    libc::SYS_getgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    // What is measured of itself.
    libc::SYS_getrusage,
];

/// The same under the names that only this architecture has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] =
    &[libc::SYS_poll, libc::SYS_epoll_wait, libc::SYS_readlink, libc::SYS_rename, libc::SYS_dup2];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Requests of ioctl(2) about a file's flags and shared extents, as `linux/fs.h` has them.
const REQUESTS: [u32; 6] = [
    0x8008_6601, // FS_IOC_GETFLAGS
    0x4008_6602, // FS_IOC_SETFLAGS
    0x801c_581f, // FS_IOC_FSGETXATTR
    0x401c_5820, // FS_IOC_FSSETXATTR
    0x4004_9409, // FICLONE
    0x4020_940d, // FICLONERANGE
];

const NEW_NAMESPACES: u32 = 0x7e02_0080;

/// Limits this thread, and those that it starts, to these calls.
pub(super) fn limit() -> Result<Applied, ConfineError> {
    let failed = |error: BackendError| ConfineError::Seccomp(io::Error::other(error));
    // Both count, and the stricter answer of the two.
    for filter in [without_clone3().map_err(failed)?, allowed().map_err(failed)?] {
        apply_filter(&filter).map_err(|error| ConfineError::Seccomp(io::Error::other(error)))?;
    }
    Ok(Applied::Whole)
}

/// What it is asked for is in memory, where no filter looks; without it libraries use clone(2).
fn without_clone3() -> Result<BpfProgram, BackendError> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, absent, arch()?)?.try_into()
}

fn allowed() -> Result<BpfProgram, BackendError> {
    let always = ALLOWED.iter().chain(OLDER).map(|call| (*call, Vec::new()));
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = always.collect();
    // Threads, but neither processes nor namespaces, except for a mask of a thread's own.
    let thread = libc::CLONE_THREAD.cast_unsigned();
    rules.insert(libc::SYS_clone, vec![masked(0, thread | NEW_NAMESPACES, thread)?]);
    rules.insert(libc::SYS_clone3, Vec::new());
    rules.insert(libc::SYS_unshare, vec![equal(0, libc::CLONE_FS.cast_unsigned())?]);
    // No new code.
    let executable = libc::PROT_EXEC.cast_unsigned();
    rules.insert(libc::SYS_mmap, vec![masked(2, executable, 0)?]);
    rules.insert(libc::SYS_mprotect, vec![masked(2, executable, 0)?]);
    // Signals to its own threads.
    let own = getpid().as_raw_nonzero().get().cast_unsigned();
    rules.insert(libc::SYS_tgkill, vec![equal(0, own)?]);
    // Its own limits.
    rules.insert(libc::SYS_prlimit64, vec![equal(0, 0)?]);
    // Names of threads and of memory.
    let names = [libc::PR_SET_NAME, libc::PR_SET_VMA];
    rules.insert(libc::SYS_prctl, any(names.map(i32::cast_unsigned))?);
    rules.insert(
        libc::SYS_ioctl,
        REQUESTS.iter().map(|request| equal(1, *request)).collect::<Result<_, _>>()?,
    );
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, refused, SeccompAction::Allow, arch()?)?.try_into()
}

fn arch() -> Result<TargetArch, BackendError> {
    ARCH.try_into()
}

fn equal(argument: u8, value: u32) -> Result<SeccompRule, BackendError> {
    condition(argument, SeccompCmpOp::Eq, value)
}

/// Of these bits exactly those.
fn masked(argument: u8, mask: u32, bits: u32) -> Result<SeccompRule, BackendError> {
    condition(argument, SeccompCmpOp::MaskedEq(mask.into()), bits)
}

fn any<const N: usize>(values: [u32; N]) -> Result<Vec<SeccompRule>, BackendError> {
    values.into_iter().map(|value| equal(0, value)).collect()
}

fn condition(argument: u8, op: SeccompCmpOp, value: u32) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value.into())?])
}
