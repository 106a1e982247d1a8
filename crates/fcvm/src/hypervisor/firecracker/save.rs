//! Saving a machine of Firecracker's.
//!
//! ```text
//!  ahead   of a machine that went on from a file, a copy of that
//!  save    Paused; its own snapshot, of all pages that it has in memory
//!  resume  Resumed
//! ```
//! Its "diff" without an account of written pages has all that are in memory. Of a machine that booted
//! everything else is zeros; of one that went on from a file everything else is the file's. So both are whole,
//! and as small as can be. What has been swapped out is not in memory: then all is written.

use std::{
    io,
    os::unix::fs::lchown,
    path::{Path, PathBuf},
};

use procfs::process::Process;

use super::{
    PROGRAM,
    api::{Client, SnapshotCreate, SnapshotType, VmState},
    jailer,
};
use crate::{
    hypervisor::{HypervisorError, MachineConfig, Save, Saving},
    snapshot::{MEMORY, STATE},
    storage::cow,
};

/// What saves one machine.
#[derive(Debug)]
pub(super) struct Saver {
    api: PathBuf,
    pid: i32,
    directory: PathBuf,
    /// What Firecracker calls the directory, where it sees it.
    place: Option<PathBuf>,
    base: Option<PathBuf>,
    /// Whom Firecracker runs as, where it is in a jail.
    user: Option<(u32, u32)>,
}

impl Saver {
    /// For a machine whose Firecracker listens there, and calls its directory so.
    pub(super) fn new(api: &Path, pid: i32, machine: &MachineConfig, place: Option<PathBuf>) -> Self {
        Self {
            api: api.to_owned(),
            pid,
            directory: machine.save_dir.clone(),
            place,
            base: machine.saved.as_ref().map(|saved| saved.memory.clone()),
            user: machine.options.jail.as_ref().map(|jail| jailer::user(jail, &machine.id)),
        }
    }

    fn place(&self) -> Result<&Path, HypervisorError> {
        let that = "outside fcvm's sandbox";
        self.place.as_deref().ok_or(HypervisorError::NotSaved { hypervisor: PROGRAM, that })
    }

    /// How much of the memory is written, and whether that is all there is.
    fn extent(&self) -> io::Result<SnapshotType> {
        let status = Process::new(self.pid).and_then(|process| process.status()).map_err(io::Error::other)?;
        // Its own few pages count as well: no harm is done.
        Ok(if status.vmswap.unwrap_or(0) == 0 { SnapshotType::Diff } else { SnapshotType::Full })
    }

    fn failed(&self, source: io::Error) -> HypervisorError {
        HypervisorError::SaveMemory { path: self.directory.join(MEMORY), source }
    }
}

impl Save for Saver {
    fn ahead(&self) -> Saving<'_> {
        Box::pin(async move {
            self.place()?;
            let Some(base) = self.base.clone() else { return Ok(()) };
            let (target, user) = (self.directory.join(MEMORY), self.user);
            let copy = move || {
                cow::copy(&base, &target)?;
                // Of Firecracker's own directory: what it may have put there instead is not followed.
                user.map_or(Ok(()), |(uid, gid)| lchown(&target, Some(uid), Some(gid)))
            };
            let copied = tokio::task::spawn_blocking(copy).await;
            copied.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| self.failed(error))
        })
    }

    fn save(&self) -> Saving<'_> {
        Box::pin(async move {
            let place = self.place()?;
            let client = Client::connect(&self.api).await?;
            client.patch_vm(VmState::Paused).await?;
            crate::failpoint::reach("machine-stopped");
            let create = SnapshotCreate {
                snapshot_type: self.extent().map_err(|error| self.failed(error))?,
                snapshot_path: place.join(STATE),
                mem_file_path: place.join(MEMORY),
            };
            client.put_snapshot_create(&create).await?;
            crate::failpoint::reach("memory-saved");
            Ok(())
        })
    }

    fn resume(&self) -> Saving<'_> {
        Box::pin(async move {
            let client = Client::connect(&self.api).await?;
            Ok(client.patch_vm(VmState::Resumed).await?)
        })
    }

    fn breaks_connections(&self) -> bool {
        true
    }
}
