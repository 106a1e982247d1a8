//! Copies of disk images that cost as little as the file system allows.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use rustix::{
    fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek},
    io::Errno,
};

/// Copies `source` to the new file `target`: a reflink where the file system
/// has them, else its data only; holes stay holes.
///
/// # Errors
/// Where either file fails; a `target` half made is removed.
pub fn copy(source: &Path, target: &Path) -> io::Result<()> {
    let from = fs_err::File::open(source)?;
    let to = fs_err::OpenOptions::new().write(true).create_new(true).open(target)?;
    let copied = match ioctl_ficlone(&to, &from) {
        Ok(()) => Ok(()),
        Err(_) => sparse(from.file(), to.file()),
    };
    copied.inspect_err(|_| {
        if let Err(error) = fs_err::remove_file(target) {
            tracing::warn!(%error, "an unfinished copy is left behind");
        }
    })
}

fn sparse(from: &File, to: &File) -> io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut at = 0;
    while at < length {
        let data = match seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(from, SeekFrom::Hole(data))?;
        extent(from, to, data, end)?;
        at = end;
    }
    Ok(())
}

/// Copies the bytes from `start` to `end`, in the kernel where it can.
fn extent(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut at, mut target_at) = (start, start);
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut at), to, Some(&mut target_at), length) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                let mut buffer = vec![0; length.min(1 << 20)];
                from.read_exact_at(&mut buffer, at)?;
                to.write_all_at(&buffer, at)?;
                at += buffer.len() as u64;
                target_at = at;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn holes_stay_holes_and_data_is_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let (source, target) = (directory.path().join("a"), directory.path().join("b"));
        let file = File::create(&source).unwrap();
        file.set_len(1 << 30).unwrap();
        for at in [0, 5 << 20, (1 << 30) - 3] {
            file.write_all_at(b"xyz", at).unwrap();
        }
        sparse(&File::open(&source).unwrap(), &File::create(&target).unwrap()).unwrap();
        let copy_of = std::fs::metadata(&target).unwrap();
        assert_eq!(copy_of.len(), 1 << 30);
        assert!(copy_of.blocks() * 512 < 1 << 20, "{} blocks", copy_of.blocks());
        let copied = File::open(&target).unwrap();
        let mut bytes = [0; 6];
        copied.read_exact_at(&mut bytes, (5 << 20) - 3).unwrap();
        assert_eq!(&bytes, b"\0\0\0xyz");
        copied.read_exact_at(&mut bytes, (1 << 30) - 6).unwrap();
        assert_eq!(&bytes, b"\0\0\0xyz");
        assert_eq!(copy(&source, &target).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
