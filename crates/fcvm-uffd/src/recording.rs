//! Who records the working set, and what has been recorded.
//!
//! ```text
//!   off      wanted --first VM--> running --quiet, told, or the VM's end--> done: given to the next VMs
//!               ^                    |
//!               '-- the VM failed ---'
//! ```

use std::{
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use crate::{Memory, VmId, WorkingSet, WorkingSetError};

/// The working set of a server's memory.
#[derive(Debug)]
pub(crate) struct Recording {
    memory: Arc<Memory>,
    file: PathBuf,
    quiet: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Off,
    Wanted,
    Running(VmId),
    Done(Arc<WorkingSet>),
}

/// Writes down what a VM wants.
#[derive(Debug)]
pub(crate) struct Recorder {
    set: WorkingSet,
    quiet: Duration,
    last: Option<Instant>,
}

impl Recorder {
    pub(crate) fn push(&mut self, range: Range<u64>) {
        self.set.push(range);
        self.last = Some(Instant::now());
    }

    /// When there will have been no fault for so long that the VM has started.
    pub(crate) fn over_at(&self) -> Option<Instant> {
        self.last.map(|last| last + self.quiet)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over_at().is_some_and(|at| at <= Instant::now())
    }
}

impl Recording {
    /// Uses the working set in the file; where that is none, it is to be recorded.
    pub(crate) fn new(memory: Arc<Memory>, options: Option<&crate::RecordingOptions>) -> Self {
        let (file, quiet, state) = match options {
            None => (PathBuf::new(), Duration::ZERO, State::Off),
            Some(options) => {
                let state = match WorkingSet::load(&options.file, &memory) {
                    Ok(set) => State::Done(Arc::new(set)),
                    Err(error) => without(&error),
                };
                (options.file.clone(), options.quiet, state)
            }
        };
        Self { memory, file, quiet, state: Mutex::new(state) }
    }

    /// What a new VM does about it: record, or get what was recorded.
    pub(crate) fn begin(&self, vm: VmId) -> (Option<Recorder>, Option<Arc<WorkingSet>>) {
        let mut state = self.state();
        match &*state {
            State::Off | State::Running(_) => (None, None),
            State::Done(set) => (None, Some(set.clone())),
            State::Wanted => {
                *state = State::Running(vm);
                (Some(Recorder { set: WorkingSet::default(), quiet: self.quiet, last: None }), None)
            }
        }
    }

    pub(crate) fn finish(&self, recorder: Recorder) {
        let set = recorder.set;
        if set.ranges().is_empty() {
            *self.state() = State::Wanted;
            return;
        }
        debug!(ranges = set.ranges().len(), bytes = set.bytes(), "working set recorded");
        if let Err(error) = set.save(&self.file, &self.memory) {
            warn!(error = &error as &dyn std::error::Error, "the working set is not kept");
        }
        *self.state() = State::Done(Arc::new(set));
    }

    /// A VM is not served any more. If it was still recording, the next one is to.
    pub(crate) fn forget(&self, vm: VmId) {
        let mut state = self.state();
        if matches!(*state, State::Running(running) if running == vm) {
            *state = State::Wanted;
        }
    }

    /// Which VM records now.
    pub(crate) fn running(&self) -> Option<VmId> {
        match *self.state() {
            State::Running(vm) => Some(vm),
            _ => None,
        }
    }

    /// What was recorded.
    pub(crate) fn done(&self) -> Option<Arc<WorkingSet>> {
        match &*self.state() {
            State::Done(set) => Some(set.clone()),
            _ => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to do where the file cannot be used.
fn without(error: &WorkingSetError) -> State {
    match error {
        WorkingSetError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => State::Wanted,
        // Whoever has written it would miss it.
        WorkingSetError::Version { .. } => {
            warn!(
                error = error as &dyn std::error::Error,
                "the working set is not used, and none is recorded"
            );
            State::Off
        }
        _ => {
            warn!(error = error as &dyn std::error::Error, "the working set is not used");
            State::Wanted
        }
    }
}
