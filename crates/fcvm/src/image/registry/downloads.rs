//! Layers on their way, and who waits for them.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use tokio::{runtime::Handle, sync::Semaphore};

use super::{
    blob::{self, Came},
    client::Client,
};
use crate::{
    hash::Digest,
    image::{
        ImageError,
        spec::Descriptor,
        store::BlobAdder,
        transport::{
            TransportError,
            files::{Files, Found, blob_name},
        },
    },
    output::Printer,
};

/// As many layers are fetched at once, like elsewhere.
const AT_ONCE: usize = 3;

/// The blobs of an image, which come while its disk is written.
pub(super) struct Downloads {
    /// The image, for messages.
    name: PathBuf,
    blobs: Arc<BlobAdder>,
    states: Mutex<HashMap<Digest, State>>,
    changed: Condvar,
    /// Why one did not come.
    failure: Mutex<Option<ImageError>>,
}

struct State {
    size: u64,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    Here(Came),
    Failed,
}

impl Downloads {
    pub(super) fn new(name: &str, blobs: Arc<BlobAdder>, wanted: &[Descriptor]) -> Self {
        let state = |blob: &Descriptor| (blob.digest, State { size: blob.size, progress: Progress::Waiting });
        Self {
            name: name.into(),
            blobs,
            states: Mutex::new(wanted.iter().map(state).collect()),
            changed: Condvar::new(),
            failure: Mutex::new(None),
        }
    }

    /// Starts to fetch all of them, the first first.
    pub(super) fn start(
        self: &Arc<Self>,
        handle: &Handle,
        clients: &Arc<[Arc<Client>]>,
        wanted: &[Descriptor],
        printer: &Printer,
    ) {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut seen = Vec::new();
        for blob in wanted {
            if seen.contains(&blob.digest) {
                continue;
            }
            seen.push(blob.digest);
            let (this, clients, turns) = (self.clone(), clients.clone(), turns.clone());
            let (blob, printer) = (blob.clone(), printer.clone());
            handle.spawn(async move {
                // Never closed.
                let _turn = turns.acquire().await;
                let name = this.name.display().to_string();
                let outcome = blob::fetch(&name, &clients, this.blobs.clone(), &blob, Some(&printer)).await;
                this.came(&blob.digest, outcome);
            });
        }
    }

    /// These are in the store.
    pub(super) fn already(&self, blobs: impl IntoIterator<Item = Digest>) {
        for digest in blobs {
            self.came(&digest, Ok(Came::Fetched));
        }
    }

    fn came(&self, digest: &Digest, outcome: Result<Came, ImageError>) {
        let progress = match outcome {
            Ok(came) => Progress::Here(came),
            Err(error) => {
                guard(&self.failure).get_or_insert(error);
                Progress::Failed
            }
        };
        if let Some(state) = guard(&self.states).get_mut(digest) {
            state.progress = progress;
        }
        self.changed.notify_all();
    }

    /// Why a blob did not come.
    pub(super) fn failure(&self) -> Option<ImageError> {
        guard(&self.failure).take()
    }

    /// Waits for all of them.
    pub(super) fn wait(&self) -> Option<ImageError> {
        let mut states = guard(&self.states);
        while states.values().any(|state| state.progress == Progress::Waiting) {
            states = self.changed.wait(states).unwrap_or_else(PoisonError::into_inner);
        }
        drop(states);
        self.failure()
    }

    /// Removes the blobs that were in the store before and are not what they should be; how many.
    pub(super) fn remove_damaged(&self) -> Result<usize, ImageError> {
        let mut removed = 0;
        for (digest, state) in guard(&self.states).iter() {
            if state.progress != Progress::Here(Came::NotNeeded) {
                continue;
            }
            let path = self.blobs.path_of(digest);
            let found = File::open(&path).and_then(|mut file| Digest::of_reader(&mut file));
            if found.map_err(|source| ImageError::Read { path: path.clone(), source })? != *digest {
                tracing::warn!(path = %path.display(), "a stored blob is damaged; fetched anew");
                std::fs::remove_file(&path).map_err(|source| ImageError::Remove { path, source })?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        let mut states = guard(&self.states);
        loop {
            match states.get(digest).map(|state| state.progress) {
                Some(Progress::Waiting) => {
                    states = self.changed.wait(states).unwrap_or_else(PoisonError::into_inner);
                }
                Some(Progress::Here(_)) => return Ok(Box::new(File::open(self.blobs.path_of(digest))?)),
                Some(Progress::Failed) | None => return Err(io::Error::other("the blob was not fetched")),
            }
        }
    }
}

/// A layer is a file once it is here; who opens it waits for that.
impl Files for Arc<Downloads> {
    fn path(&self) -> &Path {
        &self.name
    }

    fn find(&self, name: &str) -> Result<Found, TransportError> {
        let states = guard(&self.states);
        let found = states.iter().find(|(digest, _)| blob_name(digest) == name);
        if let Some((digest, state)) = found {
            let (this, digest) = (self.clone(), *digest);
            return Ok(Found { size: state.size, open: Box::new(move || this.open(&digest)) });
        }
        Err(TransportError::Missing { path: self.name.clone(), name: name.to_owned() })
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
