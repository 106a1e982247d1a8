//! From files to an archive for a guest.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use tar::Builder;

use super::CopyError;

/// The name of a thing that has none: the root directory.
const NAMELESS: &str = "root";

/// What is to be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    path: PathBuf,
    /// What it is called in the archive.
    pub name: String,
    /// Not it but what is in it is meant.
    pub contents: bool,
}

impl Packed {
    /// A thing of this machine, by the name that the user gave it.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn find(path: &Path) -> Result<Self, CopyError> {
        let read = |source| CopyError::Read { path: path.to_owned(), source };
        let contents = ends_with_dot(path);
        // A link that is named is what it leads to; links within are links.
        let real = fs::canonicalize(path).map_err(read)?;
        let given = path.file_name().filter(|_| !contents);
        let name = given.or_else(|| real.file_name()).unwrap_or(OsStr::new(NAMELESS));
        Ok(Self { name: name.to_string_lossy().into_owned(), path: real, contents })
    }
}

/// Whether a path ends with `/.`, or is `.`: what is in the directory is meant.
pub(super) fn ends_with_dot(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes == b"." || bytes.ends_with(b"/.")
}

/// Writes the archive. One that is cut short has no end: nobody takes it for whole.
///
/// # Errors
/// Where something cannot be read, or the archive not be written.
pub fn pack(what: &Packed, archive: impl io::Write) -> Result<(), CopyError> {
    let read = |source| CopyError::Read { path: what.path.clone(), source };
    let mut builder = Builder::new(archive);
    builder.follow_symlinks(false);
    if fs::metadata(&what.path).map_err(read)?.is_dir() {
        builder.append_dir_all(&what.name, &what.path).map_err(read)?;
    } else {
        builder.append_path_with_name(&what.path, &what.name).map_err(read)?;
    }
    builder.into_inner().and_then(|mut archive| archive.flush()).map_err(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_packed_by_the_names_they_are_given() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("d/sub")).unwrap();
        fs::write(at("d/sub/f"), "F").unwrap();
        std::os::unix::fs::symlink("d", at("link")).unwrap();
        std::os::unix::fs::symlink("/nowhere", at("d/dead")).unwrap();
        let names = |path: &str| {
            let what = Packed::find(&at(path)).unwrap();
            let mut bytes = Vec::new();
            pack(&what, &mut bytes).unwrap();
            let mut archive = tar::Archive::new(&*bytes);
            let entries = archive.entries().unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
            names.sort();
            (names, what.contents)
        };
        let all = |root: &str| ["", "/dead", "/sub", "/sub/f"].map(|path| format!("{root}{path}"));
        let trimmed = |(names, contents): (Vec<String>, bool)| {
            (names.iter().map(|name| name.trim_end_matches('/').to_owned()).collect::<Vec<_>>(), contents)
        };
        assert_eq!(trimmed(names("d")), (all("d").to_vec(), false));
        assert_eq!(trimmed(names("d/")), (all("d").to_vec(), false));
        assert_eq!(trimmed(names("link")), (all("link").to_vec(), false));
        assert_eq!(trimmed(names("d/.")), (all("d").to_vec(), true));
        assert_eq!(names("d/sub/f"), (vec!["f".to_owned()], false));
        assert!(Packed::find(&at("none")).is_err());
    }
}
