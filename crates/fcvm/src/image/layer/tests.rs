//! Layers as other archivers write them, as the specification has them, and as nobody should.

mod archives;
mod hostile;
mod whiteouts;

use std::collections::BTreeMap;

use crate::storage::ext4::{
    SizePolicy,
    testing::{Image, Listed, Mount, build, list},
};

/// An archive put together entry by entry.
pub(super) struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub(super) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(super) fn add(mut self, kind: tar::EntryType, path: &str, target: &str, content: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        // Set by hand: the crate refuses names that tests need.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.append(&header, content.as_bytes()).unwrap();
        self
    }

    pub(super) fn file(self, path: &str, content: &str) -> Self {
        self.add(tar::EntryType::Regular, path, "", content)
    }

    pub(super) fn dir(self, path: &str) -> Self {
        self.add(tar::EntryType::Directory, path, "", "")
    }

    pub(super) fn symlink(self, path: &str, target: &str) -> Self {
        self.add(tar::EntryType::Symlink, path, target, "")
    }

    pub(super) fn hardlink(self, path: &str, target: &str) -> Self {
        self.add(tar::EntryType::Link, path, target, "")
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// Applies layers to an image beneath a directory, as disks have them.
pub(super) fn image(layers: Vec<Layer>) -> Image {
    let (image, _) = build(SizePolicy::Fit, |writer| {
        writer.enter(b"store/diff").unwrap();
        for layer in layers {
            super::apply_layer(writer, &layer.bytes()[..]).unwrap();
        }
        writer.leave();
    });
    image
}

pub(super) fn listed(image: &Image) -> Option<BTreeMap<String, Listed>> {
    let mount = Mount::new(&image.path)?;
    let listed = list(&mount.path.join("store/diff")).into_iter();
    Some(listed.map(|(path, file)| (path.escape_ascii().to_string(), file)).collect())
}

/// The paths an image of these layers has; directories with a slash behind.
#[track_caller]
pub(super) fn expect(layers: Vec<Layer>, paths: &[&str]) {
    let Some(listed) = listed(&image(layers)) else { return };
    let shown = listed.iter().skip(1).map(|(path, file)| {
        if file.mode & 0o170_000 == 0o040_000 { format!("{path}/") } else { path.clone() }
    });
    assert_eq!(shown.collect::<Vec<_>>(), paths);
}
