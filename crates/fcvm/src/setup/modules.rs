//! Kernel modules: which of them an initrd needs, and in which order they load.
//!
//! An unpacked kernel package has no `modules.dep` (depmod writes that when the
//! package is installed), so dependencies are read where depmod reads them: in
//! the `.modinfo` section of each module.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::{
    decompress::{self, DecompressError},
    plan::ModulesPlan,
};
use crate::elf::{u16_at, u32_at, u64_at};

/// A decompressed module is at most this large; the largest of a cloud kernel has 3 MiB.
const MODULE_LIMIT: usize = 64 << 20;

/// Name of a module, as the kernel reports it: `-` is `_`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModuleName(String);

/// The text is not the name of a module.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not the name of a kernel module")]
pub struct ParseModuleNameError {
    text: String,
}

impl ModuleName {
    /// Its name in file names and lists.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The module that a path like `kernel/drivers/block/virtio_blk.ko.xz` holds.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        let file = path.rsplit('/').next()?;
        let (name, ending) = file.split_once(".ko")?;
        ["", ".xz", ".zst", ".gz"].contains(&ending).then(|| name.parse().ok())?
    }
}

impl FromStr for ModuleName {
    type Err = ParseModuleNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The kernel's own limit is 64 - sizeof(long) bytes.
        let valid = (1..=56).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if valid { Ok(Self(text.replace('-', "_"))) } else { Err(ParseModuleNameError { text: text.into() }) }
    }
}

impl TryFrom<String> for ModuleName {
    type Error = ParseModuleNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ModuleName> for String {
    fn from(name: ModuleName) -> Self {
        name.0
    }
}

impl fmt::Display for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// When a module is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// At every boot.
    Boot,
    /// When a guest turns out to need it.
    Demand,
}

/// What a kernel package says of its modules.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    /// Module files by name, as compressed as the package has them.
    pub files: BTreeMap<ModuleName, Vec<u8>>,
    /// Modules that are part of the kernel.
    pub builtin: BTreeSet<ModuleName>,
}

/// A module ready to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    /// Its name.
    pub name: ModuleName,
    /// When.
    pub stage: Stage,
    /// Those it needs before it.
    pub depends: Vec<ModuleName>,
    /// The decompressed ELF object.
    pub bytes: Vec<u8>,
}

/// The wanted modules cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModulesError {
    /// No such module.
    #[error("the kernel has no module `{name}`")]
    Unknown {
        /// The wanted one, or what a wanted one depends on.
        name: ModuleName,
    },
    /// A file is damaged.
    #[error("failed to decompress module `{name}`")]
    Decompress {
        /// Which.
        name: ModuleName,
        /// Why.
        #[source]
        source: DecompressError,
    },
    /// A file is not a module.
    #[error("module `{name}` is not a kernel object")]
    NotAnObject {
        /// Which.
        name: ModuleName,
    },
    /// The dependencies are circular.
    #[error("module `{name}` depends on itself")]
    Circular {
        /// One of the circle.
        name: ModuleName,
    },
}

impl Catalogue {
    /// Notes the built-in modules that `modules.builtin` lists.
    pub(super) fn add_builtin(&mut self, list: &str) {
        self.builtin.extend(list.lines().filter_map(ModuleName::of_path));
    }

    /// The wanted modules and all they depend on, in load order: those of the
    /// boot stage first, dependencies before their users.
    ///
    /// # Errors
    /// Where a module that is not optional does not exist, or a file is damaged.
    pub(super) fn resolve(&self, wanted: &ModulesPlan) -> Result<Vec<Module>, ModulesError> {
        let mut order = Vec::new();
        let stages = [(Stage::Boot, &wanted.boot), (Stage::Demand, &wanted.demand)];
        for (stage, names) in stages {
            for name in names {
                let missing = !self.files.contains_key(name) && !self.builtin.contains(name);
                if missing && wanted.optional.contains(name) {
                    continue;
                }
                self.visit(name, stage, &mut order, &mut Vec::new())?;
            }
        }
        Ok(order)
    }

    fn visit(
        &self,
        name: &ModuleName,
        stage: Stage,
        order: &mut Vec<Module>,
        path: &mut Vec<ModuleName>,
    ) -> Result<(), ModulesError> {
        if self.builtin.contains(name) || order.iter().any(|module| module.name == *name) {
            return Ok(());
        }
        if path.contains(name) {
            return Err(ModulesError::Circular { name: name.clone() });
        }
        let file = self.files.get(name).ok_or_else(|| ModulesError::Unknown { name: name.clone() })?;
        let bytes = decompress::any(file, MODULE_LIMIT)
            .map_err(|source| ModulesError::Decompress { name: name.clone(), source })?;
        let info = modinfo(&bytes).ok_or_else(|| ModulesError::NotAnObject { name: name.clone() })?;
        let mut depends = dependencies(info);
        depends.retain(|name| !self.builtin.contains(name));
        path.push(name.clone());
        for dependency in &depends {
            self.visit(dependency, stage, order, path)?;
        }
        // A soft dependency helps where it is there (an algorithm, say); without it the module loads too.
        for soft in soft_dependencies(info) {
            if self.files.contains_key(&soft) && !path.contains(&soft) {
                self.visit(&soft, stage, order, path)?;
            }
        }
        path.pop();
        order.push(Module { name: name.clone(), stage, depends, bytes });
        Ok(())
    }
}

fn values<'a>(info: &'a [u8], key: &'a str) -> impl Iterator<Item = &'a str> {
    info.split(|byte| *byte == 0)
        .filter_map(move |entry| std::str::from_utf8(entry).ok()?.strip_prefix(key)?.strip_prefix('='))
}

fn dependencies(info: &[u8]) -> Vec<ModuleName> {
    values(info, "depends").flat_map(|list| list.split(',')).filter_map(|name| name.parse().ok()).collect()
}

fn soft_dependencies(info: &[u8]) -> Vec<ModuleName> {
    // `pre: a b post: c`: only those before matter here.
    values(info, "softdep")
        .filter_map(|text| text.split("post:").next()?.split("pre:").nth(1))
        .flat_map(str::split_whitespace)
        .filter_map(|name| name.parse().ok())
        .collect()
}

/// The `.modinfo` section of a 64-bit little-endian ELF object (layout: elf(5)).
fn modinfo(object: &[u8]) -> Option<&[u8]> {
    const SECTION_HEADER: usize = 64;
    if !object.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(u64_at(object, 0x28)?).ok()?;
    let size = usize::from(u16_at(object, 0x3a)?);
    let count = usize::from(u16_at(object, 0x3c)?);
    let names_index = usize::from(u16_at(object, 0x3e)?);
    if size != SECTION_HEADER {
        return None;
    }
    let header = |index: usize| {
        let start = table.checked_add(index.checked_mul(SECTION_HEADER)?)?;
        object.get(start..start.checked_add(SECTION_HEADER)?)
    };
    let content = |header: &[u8]| {
        let start = usize::try_from(u64_at(header, 0x18)?).ok()?;
        let length = usize::try_from(u64_at(header, 0x20)?).ok()?;
        object.get(start..start.checked_add(length)?)
    };
    let names = content(header(names_index)?)?;
    (0..count).filter_map(header).find_map(|header| {
        let name = names.get(usize::try_from(u32_at(header, 0)?).ok()?..)?;
        name.starts_with(b".modinfo\0").then(|| content(header))?
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An ELF object with nothing but a `.modinfo` section.
    pub(in super::super) fn object(info: &str) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let info_at = bytes.len();
        bytes.extend(info.replace(' ', "\0").replace('+', " ").bytes());
        bytes.push(0);
        let names_at = bytes.len();
        bytes.extend(names);
        let table = bytes.len() as u64;
        bytes[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        bytes[0x3a..0x3c].copy_from_slice(&64_u16.to_le_bytes());
        bytes[0x3c..0x3e].copy_from_slice(&3_u16.to_le_bytes());
        bytes[0x3e..0x40].copy_from_slice(&2_u16.to_le_bytes());
        for (name, at, length) in [(0, 0, 0), (1, info_at, names_at - info_at), (10, names_at, names.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&u32::to_le_bytes(name));
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(length as u64).to_le_bytes());
            bytes.extend(header);
        }
        bytes
    }

    fn catalogue(modules: &[(&str, &str)]) -> Catalogue {
        let mut catalogue = Catalogue::default();
        for (name, info) in modules {
            catalogue.files.insert(name.parse().unwrap(), object(info));
        }
        catalogue.add_builtin("kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio-ring.ko\n");
        catalogue
    }

    fn wanted(boot: &[&str], demand: &[&str], optional: &[&str]) -> ModulesPlan {
        let names = |list: &[&str]| list.iter().map(|name| name.parse().unwrap()).collect();
        ModulesPlan { boot: names(boot), demand: names(demand), optional: names(optional) }
    }

    fn order(modules: &[Module]) -> Vec<String> {
        modules.iter().map(|module| format!("{:?} {}", module.stage, module.name)).collect()
    }

    #[test]
    fn names_are_normalised() {
        let name = |path| ModuleName::of_path(path).map(String::from);
        assert_eq!(name("kernel/drivers/char/hw_random/virtio-rng.ko.xz").as_deref(), Some("virtio_rng"));
        assert_eq!(name("a.ko").as_deref(), Some("a"));
        assert_eq!(name("modules.order"), None);
        assert_eq!(name("a.ko.txt"), None);
        assert!("../etc".parse::<ModuleName>().is_err());
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let catalogue = catalogue(&[
            ("virtio-blk", "name=x depends=virtio_ring"),
            ("virtio_net", "depends=net_failover,failover"),
            ("net_failover", "depends=failover softdep=pre:+crc+nothing+post:+later"),
            ("failover", "license=GPL depends="),
            ("crc", "depends="),
            ("later", "depends="),
        ]);
        let resolved =
            catalogue.resolve(&wanted(&["virtio_blk", "ext4", "gone"], &["virtio-net"], &["gone"])).unwrap();
        assert_eq!(
            order(&resolved),
            ["Boot virtio_blk", "Demand failover", "Demand crc", "Demand net_failover", "Demand virtio_net"]
        );
        assert_eq!(resolved[4].depends.len(), 2);
        assert!(resolved[0].depends.is_empty(), "what is built in is no dependency");
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        let catalogue = catalogue(&[("a", "depends=b"), ("b", "depends=a"), ("c", "depends=gone")]);
        let error = |name| catalogue.resolve(&wanted(&[name], &[], &[])).unwrap_err().to_string();
        assert_eq!(error("gone"), "the kernel has no module `gone`");
        assert_eq!(error("c"), "the kernel has no module `gone`");
        assert_eq!(error("a"), "module `a` depends on itself");
    }

    proptest::proptest! {
        #[test]
        fn damaged_objects_do_not_panic(at in 0_usize..300, value: u8, length in 0_usize..400) {
            let mut bytes = object("depends=a,b");
            if let Some(byte) = bytes.get_mut(at) { *byte = value; }
            bytes.truncate(length);
            drop(modinfo(&bytes).map(dependencies));
        }
    }
}
