//! Processes of a test's own: copies of it with one thread.

use rustix::process::{Pid, WaitOptions, waitpid};

pub(crate) mod confined;
pub(crate) mod sys;

/// Such a process.
pub(crate) struct Forked(Pid);

impl Forked {
    pub(crate) fn start(work: impl FnOnce()) -> Self {
        Self(sys::fork(work))
    }

    pub(crate) fn id(&self) -> i32 {
        self.0.as_raw_nonzero().get()
    }

    /// Waits until it has done its work.
    pub(crate) fn end(self) {
        let (_, status) = waitpid(Some(self.0), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0), "{status:?}");
    }
}
