//! Where sockets live: a short path, private to the user.

use std::{
    env, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use super::StateError;

/// The directory of this user's sockets: `$FCVM_RUNTIME_DIR`, else `/run/fcvm` as root, else
/// `$XDG_RUNTIME_DIR/fcvm`, else `/tmp/fcvm-UID`.
#[derive(Debug, Clone)]
pub struct RuntimeDir {
    root: PathBuf,
}

impl RuntimeDir {
    /// The directory for this process's user; not yet created.
    #[must_use]
    pub fn from_env() -> Self {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let uid = rustix::process::geteuid();
        let root = absolute("FCVM_RUNTIME_DIR")
            .or_else(|| uid.is_root().then(|| "/run/fcvm".into()))
            .or_else(|| absolute("XDG_RUNTIME_DIR").map(|base| base.join("fcvm")))
            .unwrap_or_else(|| format!("/tmp/fcvm-{}", uid.as_raw()).into());
        Self { root }
    }

    /// A directory given.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// A VM's own directory.
    #[must_use]
    pub fn of(&self, id: &super::VmId) -> PathBuf {
        self.root.join(id.short())
    }

    /// Makes a VM's directory. The root must be this user's alone: in `/tmp`
    /// anyone may have made it before.
    ///
    /// # Errors
    /// Where it cannot be made or is someone else's.
    pub fn create(&self, id: &super::VmId) -> Result<PathBuf, StateError> {
        private(&self.root)?;
        let own = self.of(id);
        private(&own)?;
        Ok(own)
    }
}

fn private(path: &Path) -> Result<(), StateError> {
    let error = |source| StateError::Create { path: path.to_owned(), source };
    match std::fs::DirBuilder::new().recursive(false).mode(0o700).create(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            // The base, such as a runtime directory given by the user.
            fs_err::create_dir_all(path.parent().unwrap_or(path)).map_err(error)?;
            std::fs::DirBuilder::new().mode(0o700).create(path).map_err(error)?;
        }
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(error(source)),
        _ => {}
    }
    let found = fs_err::symlink_metadata(path).map_err(error)?;
    let ours =
        found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if ours { Ok(()) } else { Err(StateError::Foreign { path: path.to_owned() }) }
}
