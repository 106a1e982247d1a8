//! Makes the template of scratch disks: an empty, sparse ext4.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Signal;

use super::{SetupError, manifest::Manifest};
use crate::{process::die_with_parent, storage::AtomicFile};

/// Version of the template; part of its name.
pub(super) const FORMAT: u32 = 1;

pub(super) const PROGRAM: &str = "mkfs.ext4";

/// Named one by one, so that the host's `mke2fs.conf` has no say. No journal:
/// a scratch disk does not outlive a crash. No checksums: they cost time where
/// the CPU is emulated.
const FEATURES: &str = "none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,\
                        huge_file,dir_nlink,extra_isize";

/// Makes a template of `size` bytes.
pub(super) fn make(target: &Path, size: u64) -> Result<(), SetupError> {
    let io_error = |source| SetupError::io("write scratch template", target, source);
    let prepare = || -> io::Result<AtomicFile> {
        Manifest::forget(target)?;
        let file = AtomicFile::create(target)?;
        file.file().set_len(size)?;
        Ok(file)
    };
    let file = prepare().map_err(io_error)?;
    let program = program();
    let mut command = Command::new(&program);
    // `discard` on a file makes holes, which read as zeros: mkfs then marks the inode
    // tables as zeroed, and no guest spends its time (and the host's disk) zeroing them.
    command.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-O", FEATURES]);
    command.args(["-E", "lazy_itable_init=1,discard,root_owner=0:0"]).arg(file.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).env("LC_ALL", "C.UTF-8");
    let no_start = |source| SetupError::Start { program: PROGRAM.into(), source };
    die_with_parent(&mut command, Signal::KILL);
    let output = command.spawn().and_then(std::process::Child::wait_with_output).map_err(no_start)?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        return Err(SetupError::Tool {
            program: PROGRAM.into(),
            status: output.status,
            messages: messages.lines().take(12).map(str::to_owned).collect(),
        });
    }
    let finish = || -> io::Result<()> {
        file.commit()?;
        Manifest::record(target, None)
    };
    finish().map_err(io_error)
}

/// An ordinary user's `PATH` often lacks the directory of mkfs.
fn program() -> PathBuf {
    super::preflight::find_program(PROGRAM).unwrap_or_else(|| PROGRAM.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_template_is_sparse() {
        if super::super::preflight::find_program(PROGRAM).is_none() {
            eprintln!("skipped: no {PROGRAM}");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rootfs/scratch.ext4");
        make(&path, 10 << 30).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), 10 << 30);
        assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
        Manifest::verify(&path).unwrap();
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
    }

    #[test]
    fn what_mkfs_says_is_in_the_error() {
        if super::super::preflight::find_program(PROGRAM).is_none() {
            eprintln!("skipped: no {PROGRAM}");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("scratch.ext4");
        let error = make(&path, 4096).unwrap_err();
        assert!(matches!(&error, SetupError::Tool { messages, .. } if !messages.is_empty()), "{error}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
