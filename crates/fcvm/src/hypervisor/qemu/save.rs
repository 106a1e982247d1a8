//! Saving a machine of QEMU's.
//!
//! ```text
//!  ahead   its memory is written to the file, while it runs
//!  save    stop; the devices' state; what of the memory is not in the file as it is now
//!  resume  cont
//! ```
//! Why so, and not by a migration: see `docs/design/0011-snapshots.md`.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::json;

use super::{memory::Memory, qmp::Qmp};
use crate::{
    hypervisor::{HypervisorError, MachineConfig, Save, Saving},
    snapshot::{MEMORY, STATE},
};

/// What saves one machine.
#[derive(Debug)]
pub(super) struct Saver {
    qmp: Arc<Qmp>,
    memory: Arc<Memory>,
    directory: PathBuf,
    /// Whether the machine stands still.
    stopped: Mutex<bool>,
}

impl Saver {
    /// For a machine that this process runs.
    pub(super) fn new(qmp: Arc<Qmp>, pid: i32, machine: &MachineConfig) -> Self {
        let base = machine.saved.as_ref().map(|saved| saved.memory.clone());
        let memory = Memory::of(pid, u64::from(machine.memory_mib) << 20, base);
        Self {
            qmp,
            memory: Arc::new(memory),
            directory: machine.save_dir.clone(),
            stopped: Mutex::new(false),
        }
    }

    /// Brings the file with the memory up to date.
    async fn write_memory(&self) -> Result<(), HypervisorError> {
        let (memory, path) = (Arc::clone(&self.memory), self.directory.join(MEMORY));
        let written = tokio::task::spawn_blocking(move || {
            memory.update(&path).map_err(|source| HypervisorError::SaveMemory { path, source })
        });
        written.await.map_err(|error| HypervisorError::SaveMemory {
            path: self.directory.join(MEMORY),
            source: std::io::Error::other(error),
        })?
    }

    fn set_stopped(&self, stopped: bool) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = stopped;
    }
}

impl Save for Saver {
    fn ahead(&self) -> Saving<'_> {
        Box::pin(self.write_memory())
    }

    fn save(&self) -> Saving<'_> {
        Box::pin(async move {
            self.set_stopped(true);
            self.qmp.execute("stop", json!({})).await?;
            crate::failpoint::reach("machine-stopped");
            let state = self.directory.join(STATE);
            // Told so, it goes on with its disks afterwards.
            let arguments = json!({ "filename": state, "live": false });
            self.qmp.execute("xen-save-devices-state", arguments).await?;
            crate::failpoint::reach("state-saved");
            self.write_memory().await?;
            crate::failpoint::reach("memory-saved");
            Ok(())
        })
    }

    fn resume(&self) -> Saving<'_> {
        Box::pin(async move {
            if *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) {
                self.qmp.execute("cont", json!({})).await?;
                self.set_stopped(false);
            }
            Ok(())
        })
    }

    fn breaks_connections(&self) -> bool {
        false
    }
}
