//! The unsafe part of tests.

/// Lets SIGUSR1 end calls that wait, and do nothing else.
pub(crate) fn handle_usr1() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    // SAFETY: it is plain numbers, for which zeros are good: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the action is whole, and its handler touches nothing; where the old one goes may be null.
    let done = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    assert_eq!(done, 0);
}

/// Sends SIGUSR1 to that thread of a process.
pub(crate) fn send_usr1(process: u32, thread: i32) {
    // SAFETY: it touches no memory.
    let done = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) };
    assert_eq!(done, 0);
}
