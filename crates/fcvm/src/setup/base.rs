//! Makes the base disk: the distribution's files, as mmdebstrap gives them, and
//! the few that a guest of ours needs besides.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{
    SetupError,
    jail::Workshop,
    manifest::Manifest,
    mmdebstrap::Request,
    plan::{Plan, Variant},
};
use crate::{
    hash::Digest,
    image::layer::{LayerError, apply_tar},
    output::Progress,
    storage::{
        AtomicFile,
        ext4::{Ext4Writer, Metadata, Options, SizePolicy, Stats, Timestamp},
    },
};

/// Version of what is written besides the files below; part of the key.
const FORMAT: u32 = 1;

/// Files of ours, over whatever the packages have there.
const FILES: [(&str, &str); 9] = [
    ("etc/containers/containers.conf", include_str!("guest/containers.conf")),
    ("etc/containers/policy.json", include_str!("guest/policy.json")),
    ("etc/containers/registries.conf", include_str!("guest/registries.conf")),
    ("etc/containers/storage.conf", include_str!("guest/storage.conf")),
    ("etc/fcvm-base", "1\n"),
    ("etc/hostname", "fcvm\n"),
    ("etc/hosts", include_str!("guest/hosts")),
    // Every guest makes its own.
    ("etc/machine-id", ""),
    // mmdebstrap leaves a copy of the host's.
    ("etc/resolv.conf", ""),
];

/// Directories to mount on, with their modes.
const DIRECTORIES: [(&str, u16); 7] = [
    ("dev", 0o755),
    ("proc", 0o555),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var/lib/containers", 0o700),
    ("var/tmp", 0o1777),
];

/// Names what base disks are made of besides the plan.
pub(super) fn format_digest() -> Digest {
    Digest::of(format!("{FORMAT} {FILES:?} {DIRECTORIES:?}").as_bytes())
}

/// Directories of the archive whose content belongs to the machine that made it, or is
/// made anew by each guest.
const EMPTIED: [&str; 9] =
    ["boot", "dev", "proc", "run", "sys", "tmp", "var/cache/apt", "var/lib/apt/lists", "var/log"];

/// Makes the disk of the plan; gives its size.
pub(super) fn make(
    plan: &Plan,
    target: &Path,
    workshop: &Workshop,
    progress: &Progress,
) -> Result<u64, SetupError> {
    let request = Request {
        debian: &plan.debian,
        variant: match plan.base.variant {
            Variant::Essential => "essential",
            Variant::Minbase => "minbase",
        },
        packages: &plan.base.packages,
        exclude: &plan.base.exclude,
        workshop,
    };
    let io_error = |source| SetupError::io("write base disk", target, source);
    let start = || -> io::Result<(AtomicFile, File)> {
        Manifest::forget(target)?;
        let disk = AtomicFile::create(target)?;
        let file = disk.file().try_clone()?;
        Ok((disk, file))
    };
    let (disk, file) = start().map_err(io_error)?;
    let stats = request.run(progress, |archive| {
        write_disk(archive, file, &plan.base_key())
            .map_err(|source| SetupError::BaseDisk { path: target.to_owned(), source: Box::new(source) })
    })?;
    progress.step("storing");
    let finish = || -> io::Result<()> {
        disk.commit()?;
        let digest = Digest::of_reader(&mut fs_err::File::open(target)?)?;
        Manifest::record(target, Some(digest))
    };
    finish().map_err(io_error)?;
    Ok(stats.bytes)
}

/// Whether the archive is to blame, and with it who writes it, and not the disk.
pub(super) fn is_in_archive(error: &LayerError) -> bool {
    use crate::storage::ext4::Ext4Error;
    !matches!(error, LayerError::Apply { source, .. } if !matches!(source, Ext4Error::Read { .. }))
}

/// Writes the archive and our files into a file system. `key` becomes its UUID.
fn write_disk(archive: &mut impl Read, file: File, key: &str) -> Result<Stats, LayerError> {
    let ours = |source| LayerError::Apply { path: "(of the base disk)".into(), source };
    let options = Options {
        label: "fcvm-base".into(),
        uuid_seed: key.as_bytes().to_owned(),
        created: Timestamp::default(),
    };
    let mut disk = Ext4Writer::create(file, options).map_err(ours)?;
    apply_tar(&mut disk, archive)?;
    for path in EMPTIED {
        disk.remove_children(path.as_bytes()).map_err(ours)?;
    }
    for (path, mode) in DIRECTORIES {
        disk.mkdir(path.as_bytes(), &Metadata::root(mode)).map_err(ours)?;
    }
    for (path, content) in FILES {
        let mut bytes = content.as_bytes();
        disk.file(path.as_bytes(), &Metadata::root(0o644), content.len() as u64, &mut bytes).map_err(ours)?;
    }
    disk.finish(SizePolicy::Fit).map_err(ours)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{super::preflight::find_program, *};

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind, mode, content: &[u8], link: Option<&str>| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(content.len() as u64);
            match link {
                Some(link) => builder.append_link(&mut header, path, link).unwrap(),
                None => builder.append_data(&mut header, path, content).unwrap(),
            }
        };
        add("./", tar::EntryType::Directory, 0o755, b"", None);
        add("./usr/bin/", tar::EntryType::Directory, 0o755, b"", None);
        add("./usr/bin/su", tar::EntryType::Regular, 0o4755, b"program", None);
        add("./usr/bin/also", tar::EntryType::Link, 0o4755, b"", Some("./usr/bin/su"));
        add("./bin", tar::EntryType::Symlink, 0o777, b"", Some("usr/bin"));
        add("./etc/resolv.conf", tar::EntryType::Regular, 0o755, b"nameserver of the host", None);
        add("./var/log/apt.log", tar::EntryType::Regular, 0o644, b"log", None);
        add("./run/lock/", tar::EntryType::Directory, 0o1777, b"", None);
        builder.into_inner().unwrap()
    }

    #[test]
    fn the_disk_has_the_archive_and_our_files() {
        let Some(debugfs) = find_program("debugfs") else {
            eprintln!("skipped: no debugfs");
            return;
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        write_disk(&mut &archive()[..], file.reopen().unwrap(), "key").unwrap();
        let ask = |request: &str| {
            let output = Command::new(&debugfs).args(["-R", request]).arg(file.path()).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert_eq!(ask("cat /usr/bin/also"), "program");
        assert!(ask("stat /usr/bin/su").contains("Mode:  04755"), "{}", ask("stat /usr/bin/su"));
        assert!(ask("stat /bin").contains("symlink"));
        assert_eq!(ask("cat /etc/resolv.conf"), "");
        assert_eq!(ask("cat /etc/fcvm-base"), "1\n");
        assert!(ask("cat /etc/containers/storage.conf").contains("/run/fcvm/images"));
        assert!(ask("stat /tmp").contains("Mode:  01777"));
        assert!(!ask("ls /run").contains("lock"));
        assert_eq!(ask("cat /var/log/apt.log"), "");
        let check = Command::new(find_program("e2fsck").unwrap()).arg("-fn").arg(file.path()).output();
        assert!(check.unwrap().status.success());
    }

    #[test]
    fn a_cut_archive_is_the_archives_fault() {
        let archive = archive();
        let file = tempfile::tempfile().unwrap();
        let error = write_disk(&mut &archive[..1024 + 512 + 100], file, "key").unwrap_err();
        assert!(is_in_archive(&error), "{error:?}");
    }
}
