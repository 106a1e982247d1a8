//! Which block device is what.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// The guest's disks. The hypervisor's serial numbers name them; where it gives
/// them numbers of its own, or none, they come in this order.
#[derive(Debug, Clone)]
pub(crate) struct Disks {
    /// Read-only: the distribution with Podman.
    pub(crate) base: PathBuf,
    /// Writable: this VM's own.
    pub(crate) scratch: PathBuf,
    /// The others, in order: image disk, or archive and output of a build.
    pub(crate) others: Vec<PathBuf>,
}

impl Disks {
    /// Finds the disks in `/sys/block`.
    ///
    /// # Errors
    /// Where there are fewer than two.
    pub(super) fn find() -> anyhow::Result<Self> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/sys/block").context("failed to list block devices")? {
            let name = entry?.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with("vd")) else { continue };
            let serial = fs::read_to_string(Path::new("/sys/block").join(name).join("serial"));
            found.push((name.to_owned(), serial.unwrap_or_default().trim().to_owned()));
        }
        Self::assign(found).context("the machine lacks a base or a scratch disk")
    }

    fn assign(mut found: Vec<(String, String)>) -> Option<Self> {
        let ours = |serial: &str| {
            let number = serial.strip_prefix("other").unwrap_or_default();
            matches!(serial, "base" | "scratch") || number.parse::<u8>().is_ok()
        };
        if !found.iter().all(|(_, serial)| ours(serial)) {
            found.iter_mut().for_each(|(_, serial)| serial.clear());
        }
        // `vda` to `vdz`, then `vdaa`: by length first. Numbered serials sort the others.
        found.sort_by_key(|(name, serial)| (serial.clone(), name.len(), name.clone()));
        let mut take = |serial: &str| {
            let at = found.iter().position(|(_, has)| has == serial).unwrap_or(0);
            (at < found.len()).then(|| Path::new("/dev").join(found.remove(at).0))
        };
        Some(Self {
            base: take("base")?,
            scratch: take("scratch")?,
            others: found.into_iter().map(|(name, _)| Path::new("/dev").join(name)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign(disks: &[(&str, &str)]) -> Option<(PathBuf, PathBuf, Vec<PathBuf>)> {
        let disks = disks.iter().map(|&(name, serial)| (name.into(), serial.into())).collect();
        Disks::assign(disks).map(|disks| (disks.base, disks.scratch, disks.others))
    }

    #[test]
    fn serials_decide_whatever_the_order() {
        let disks = [("vda", "other1"), ("vdb", "scratch"), ("vdc", "other0"), ("vdd", "base")];
        let others = vec!["/dev/vdc".into(), "/dev/vda".into()];
        assert_eq!(assign(&disks), Some(("/dev/vdd".into(), "/dev/vdb".into(), others)));
    }

    #[test]
    fn without_serials_the_order_decides() {
        let disks = [("vdc", ""), ("vda", ""), ("vdb", "")];
        assert_eq!(assign(&disks), Some(("/dev/vda".into(), "/dev/vdb".into(), vec!["/dev/vdc".into()])));
        let disks = [("vdc", "7"), ("vda", "9"), ("vdb", "8")];
        assert_eq!(assign(&disks), Some(("/dev/vda".into(), "/dev/vdb".into(), vec!["/dev/vdc".into()])));
        assert_eq!(assign(&[("vda", "")]), None);
        assert_eq!(assign(&[]), None);
    }
}
