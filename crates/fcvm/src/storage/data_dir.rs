//! The layout of the data directory.
//!
//! ```text
//! kernels/ rootfs/ initrd/   what `fcvm setup` makes, named by content
//! firecracker/               the same, where it is asked for it
//! images/ blobs/             images, their disks and layers, named by digest
//! volumes/NAME/              a named volume: what is in it, and its record
//! snapshots/TAG/             a snapshot of a VM: memory, devices, disk
//! vms/ID/                    a VM's own files, gone with it; of an exited one its log
//! state/                     a JSON file per VM, and locks
//! cache/                     may be deleted at any time
//! ```

use std::{
    env, io,
    path::{Path, PathBuf},
};

/// The data directory: where each kind of file lives.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
}

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Neither a data directory nor a home is known.
    #[error("no data directory: neither FCVM_DATA_DIR, XDG_DATA_HOME nor HOME is set")]
    Unknown,
    /// It cannot be created.
    #[error("failed to create data directory `{path}`")]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl DataDir {
    /// The directory given, or the default: `/var/lib/fcvm` as root, else
    /// `$XDG_DATA_HOME/fcvm` or `~/.local/share/fcvm`. Created where missing.
    ///
    /// # Errors
    /// Where there is no default, or the directory cannot be created.
    pub fn open(given: Option<PathBuf>) -> Result<Self, DataDirError> {
        let root = given.or_else(default_root).ok_or(DataDirError::Unknown)?;
        let create = || {
            fs_err::create_dir_all(&root)?;
            fs_err::canonicalize(&root)
        };
        match create() {
            Ok(root) => Ok(Self { root }),
            Err(source) => Err(DataDirError::Create { path: root, source }),
        }
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Kernels and their modules.
    #[must_use]
    pub fn kernels(&self) -> PathBuf {
        self.root.join("kernels")
    }

    /// Base disks and the scratch template.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.root.join("rootfs")
    }

    /// Named volumes.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// Initial RAM file systems.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.root.join("initrd")
    }

    /// Firecracker's programs, where `fcvm setup` downloaded them.
    #[must_use]
    pub fn firecracker(&self) -> PathBuf {
        self.root.join("firecracker")
    }

    /// Images: a directory per manifest digest.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Blobs by digest.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Snapshots: a directory each.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Directories of VMs.
    #[must_use]
    pub fn vms(&self) -> PathBuf {
        self.root.join("vms")
    }

    /// What may be deleted at any time.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Whether this is asked for the first time since the host's boot: for what
    /// is worth saying once. In doubt it is.
    #[must_use]
    pub fn first_time_since_boot(&self, topic: &str) -> bool {
        let boot = fs_err::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let marker = self.cache().join(topic);
        if fs_err::read(&marker).is_ok_and(|seen| seen == boot) {
            return false;
        }
        if let Err(error) = super::AtomicFile::write_volatile(&marker, &boot) {
            tracing::debug!(%error, "not remembered");
        }
        true
    }

    /// State files and locks.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }
}

fn default_root() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/var/lib/fcvm".into());
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("fcvm"))
}

impl DataDirError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some("name a directory you can write to with --data-dir or FCVM_DATA_DIR".into())
    }
}
