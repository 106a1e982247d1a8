//! From an archive of a guest to files.

use std::{
    ffi::OsString,
    fs,
    io::Read,
    path::{Component, Path, PathBuf},
};

use tar::{Archive, EntryType};

use super::{
    CopyError, Overwrite,
    place::{settle, target},
};

/// No file of another machine gets more than the rights of owner, group and others.
const NO_RIGHTS: u32 = 0o7000;

/// Unpacks an archive that has one thing, under whatever name, as what the user calls `name` and wants
/// at `wanted`. `contents`: not it but what is in it. Owners are ours; there are no devices.
///
/// # Errors
/// Where the archive is none, or it cannot be written. Then nothing, or not all, is at `wanted`.
pub fn unpack(
    archive: impl Read,
    name: &Path,
    wanted: &Path,
    contents: bool,
    overwrite: Overwrite,
) -> Result<(), CopyError> {
    let to = target(wanted, name, contents)?;
    let beside = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = if to.is_dir() { to.as_path() } else { beside };
    let temporary = tempfile::Builder::new()
        .prefix(".fcvm-cp-")
        .tempdir_in(beside)
        .map_err(|source| CopyError::Write { path: beside.to_owned(), source })?;
    let root = unpack_into(archive, temporary.path())?;
    if wanted.as_os_str().as_encoded_bytes().ends_with(b"/") && !root.is_dir() && !to.exists() && to == wanted
    {
        let source = std::io::ErrorKind::NotADirectory.into();
        return Err(CopyError::Write { path: wanted.to_owned(), source });
    }
    // The user's own link is followed, as one names a thing by it; one within is not.
    let to = if to == wanted { fs::canonicalize(&to).unwrap_or(to) } else { to };
    settle(&root, &to, overwrite)
}

/// Unpacks; what all paths begin with.
fn unpack_into(archive: impl Read, directory: &Path) -> Result<PathBuf, CopyError> {
    let mut archive = Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_mask(NO_RIGHTS);
    archive.set_unpack_xattrs(false);
    let mut names: Vec<OsString> = Vec::new();
    // A directory that may not be written gets its rights when all in it is there.
    let mut directories = Vec::new();
    for entry in archive.entries().map_err(CopyError::Archive)? {
        let mut entry = entry.map_err(CopyError::Archive)?;
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link())
            && kind != EntryType::GNUSparse
            && kind != EntryType::Continuous
        {
            continue;
        }
        let path = entry.path().map_err(CopyError::Archive)?.into_owned();
        let first = path.components().find_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            _ => None,
        });
        if let Some(first) = first
            && !names.contains(&first)
            && names.len() < 2
        {
            names.push(first);
        }
        if kind.is_dir() {
            directories.push(entry);
        } else {
            entry.unpack_in(directory).map_err(CopyError::Archive)?;
        }
    }
    // Deepest first.
    directories.sort_by(|a, b| b.path_bytes().cmp(&a.path_bytes()));
    for mut entry in directories {
        entry.unpack_in(directory).map_err(CopyError::Archive)?;
    }
    match names.as_slice() {
        [] => Err(CopyError::Empty),
        [one] if directory.join(one).symlink_metadata().is_ok() => Ok(directory.join(one)),
        _ => Ok(directory.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use tar::{Builder, Header};

    use super::*;

    /// An archive of entries: path, kind, mode, content or target.
    fn archive(entries: &[(&str, EntryType, u32, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, kind, mode, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            if kind.is_symlink() || kind.is_hard_link() {
                header.set_link_name(content).unwrap();
                header.set_size(0);
                header.set_cksum();
                builder.append(&header, &[][..]).unwrap();
            } else {
                header.set_size(content.len() as u64);
                header.set_cksum();
                builder.append(&header, content.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    use EntryType as T;

    fn tree() -> Vec<u8> {
        archive(&[
            ("src/", T::Directory, 0o555, ""),
            ("src/a", T::Regular, 0o4711, "A"),
            ("src/link", T::Symlink, 0o777, "/etc"),
            ("src/sub/", T::Directory, 0o700, ""),
            ("src/sub/b", T::Regular, 0o600, "B"),
            ("src/null", T::Char, 0o666, ""),
        ])
    }

    #[test]
    fn things_go_where_podman_puts_them() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let copy =
            |to: &str, contents| unpack(&*tree(), "src".as_ref(), &at(to), contents, Overwrite::SameKind);
        copy("new", false).unwrap();
        assert_eq!(fs::read(at("new/sub/b")).unwrap(), b"B");
        assert_eq!(fs::metadata(at("new/a")).unwrap().permissions().mode() & 0o7777, 0o711, "no setuid");
        assert_eq!(fs::metadata(at("new")).unwrap().mode() & 0o777, 0o555);
        assert!(!at("new/null").exists() && at("new/link").symlink_metadata().unwrap().is_symlink());
        fs::create_dir(at("there")).unwrap();
        copy("there", false).unwrap();
        assert_eq!(fs::read(at("there/src/a")).unwrap(), b"A");
        copy("there", true).unwrap();
        assert_eq!(fs::read(at("there/sub/b")).unwrap(), b"B");
        // Again: merged.
        fs::write(at("there/a"), "old").unwrap();
        fs::write(at("there/mine"), "mine").unwrap();
        copy("there", true).unwrap();
        assert_eq!(fs::read(at("there/a")).unwrap(), b"A");
        assert_eq!(fs::read(at("there/mine")).unwrap(), b"mine");
        assert!(matches!(copy("no/where", false), Err(CopyError::Read { .. })));
        fs::write(at("file"), "").unwrap();
        assert!(matches!(copy("file", false), Err(CopyError::Kind { .. })));
        unpack(&*tree(), "src".as_ref(), &at("file"), false, Overwrite::Any).unwrap();
        assert!(at("file/sub").is_dir());
        let file = archive(&[("x", T::Regular, 0o644, "X")]);
        let one = |to: &str| unpack(&*file, "x".as_ref(), &at(to), false, Overwrite::SameKind);
        one("y").unwrap();
        one("there").unwrap();
        assert_eq!(
            (fs::read(at("y")).unwrap(), fs::read(at("there/x")).unwrap()),
            (b"X".into(), b"X".into())
        );
        assert!(one("z/").is_err());
        let left = fs::read_dir(root.path()).unwrap().flatten();
        assert!(!left.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with('.')));
    }

    #[test]
    fn a_hostile_archive_does_not_leave_its_place() {
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("victim");
        let through = format!("{}/", outside.path().display());
        let cases = [
            archive(&[("../escape", T::Regular, 0o644, "x")]),
            archive(&[("r/../../escape", T::Regular, 0o644, "x")]),
            archive(&[("r", T::Symlink, 0o777, &through), ("r/victim", T::Regular, 0o644, "x")]),
            archive(&[("r/h", T::Link, 0o644, "/etc/passwd")]),
            archive(&[("r/h", T::Link, 0o644, "../../etc/passwd")]),
        ];
        for (number, bytes) in cases.iter().enumerate() {
            let root = tempfile::tempdir().unwrap();
            let to = root.path().join("to");
            drop(unpack(&**bytes, "r".as_ref(), &to, false, Overwrite::Any));
            assert!(!victim.exists() && !root.path().join("escape").exists(), "{number}");
            let linked = fs::metadata(to.join("h")).map_or(1, |file| file.nlink());
            assert_eq!(linked, 1, "{number}");
        }
        // A link that an earlier copy left is not followed by a later one.
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("sub")).unwrap();
        let bytes = archive(&[("r/", T::Directory, 0o755, ""), ("r/sub/victim", T::Regular, 0o644, "x")]);
        let copied = unpack(&*bytes, "r".as_ref(), root.path(), true, Overwrite::SameKind);
        assert!(matches!(copied, Err(CopyError::Kind { .. })) && !victim.exists(), "{copied:?}");
        symlink(outside.path(), root.path().join("r")).unwrap();
        let bytes = archive(&[("r/", T::Directory, 0o755, ""), ("r/victim", T::Regular, 0o644, "x")]);
        let copied = unpack(&*bytes, "r".as_ref(), root.path(), false, Overwrite::SameKind);
        assert!(matches!(copied, Err(CopyError::Kind { .. })) && !victim.exists(), "{copied:?}");
        for nothing in [&b""[..], &[0; 1024], &archive(&[("n", T::Char, 0, "")])] {
            assert!(unpack(nothing, "r".as_ref(), &root.path().join("n"), false, Overwrite::Any).is_err());
        }
        assert!(unpack(&b"no archive at all"[..], "r".as_ref(), root.path(), false, Overwrite::Any).is_err());
    }
}
