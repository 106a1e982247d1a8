//! The plan file: what set-up makes.
//!
//! Reading ([`Plan::load`]), checking ([`Plan::validate`]) and naming by content
//! ([`Plan::kernel_key`], [`Plan::base_key`]) are apart; nothing here does any work.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::{SetupError, modules::ModuleName};
use crate::{hash::Digest, storage::DataDir};

/// The plan that is used where the user has none, with its comments.
pub const DEFAULT_PLAN: &str = include_str!("rootfs-plan.toml");
/// Name of plan files.
pub const PLAN_FILE: &str = "rootfs-plan.toml";
/// The format this fcvm reads.
const PLAN_VERSION: u32 = 1;
/// Limits of a scratch disk: below, Podman has no room; above, ext4 without 64-bit block numbers ends.
const SCRATCH_SIZES: std::ops::RangeInclusive<u64> = (64 << 20)..=(8 << 40);

/// What set-up makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Format of the file.
    pub version: u32,
    /// Where packages come from.
    pub debian: DebianPlan,
    /// The base disk.
    pub base: BasePlan,
    /// The kernel.
    pub kernel: KernelPlan,
    /// Modules in the initrd.
    #[serde(default)]
    pub modules: ModulesPlan,
    /// Scratch disks.
    #[serde(default)]
    pub scratch: ScratchPlan,
    /// Firecracker's release, by architecture.
    #[serde(default)]
    pub firecracker: BTreeMap<String, ReleasePlan>,
}

/// Where packages come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebianPlan {
    /// Name of the release.
    pub suite: String,
    /// Base URL; the distribution's own where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// Archive areas.
    #[serde(default = "main_component")]
    pub components: Vec<String>,
}

/// The base disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasePlan {
    /// How much besides the packages.
    pub variant: Variant,
    /// Packages by name.
    pub packages: Vec<String>,
    /// Files left out, as dpkg patterns.
    #[serde(default)]
    pub exclude: Vec<String>,
}

/// How much of the distribution a base disk holds besides its packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Packages marked essential.
    Essential,
    /// Those, and apt.
    Minbase,
}

/// Where the kernel comes from, as written: exactly one of the three.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelPlan {
    /// Package name by architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<BTreeMap<String, String>>,
    /// Where to download it; needs `sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Digest of the download, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// A file on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// Where the kernel comes from, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelSource {
    /// A package of the distribution.
    Package(String),
    /// A download.
    Url {
        /// Where.
        url: String,
        /// What it must be.
        sha256: Digest,
    },
    /// A file on this machine.
    Path(PathBuf),
}

/// A release of Firecracker, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasePlan {
    /// Where to download the archive.
    pub url: String,
    /// Its digest, in hex.
    pub sha256: String,
}

/// A release of Firecracker, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Where to download the archive.
    pub url: String,
    /// Its digest.
    pub sha256: Digest,
}

impl ReleasePlan {
    /// Where the archive is and what it must be.
    ///
    /// # Errors
    /// Where the values are wrong.
    pub fn release(&self) -> Result<Release, InvalidPlan> {
        let sha256 = download_of(["firecracker.url", "firecracker.sha256"], &self.url, &self.sha256)?;
        Ok(Release { url: self.url.clone(), sha256 })
    }
}

/// The digest of a download whose URL is one; `keys` are those of URL and digest.
fn download_of(keys: [&'static str; 2], url: &str, sha256: &str) -> Result<Digest, InvalidPlan> {
    let [in_url, in_sha256] = keys;
    if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
        let problem = format!("is `{url}`, not an http or https URL");
        return Err(InvalidPlan { key: in_url, problem });
    }
    format!("sha256:{sha256}")
        .parse()
        .map_err(|_| InvalidPlan { key: in_sha256, problem: format!("is `{sha256}`, not 64 hex digits") })
}

/// Modules in the initrd. Names may be written with `-` or `_`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModulesPlan {
    /// Loaded at every boot.
    #[serde(default)]
    pub boot: Vec<ModuleName>,
    /// Loaded when needed.
    #[serde(default)]
    pub demand: Vec<ModuleName>,
    /// Those of both lists that a kernel may lack.
    #[serde(default)]
    pub optional: Vec<ModuleName>,
}

/// Scratch disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScratchPlan {
    /// Size as the guest sees it.
    pub size: ByteSize,
}

impl Default for ScratchPlan {
    fn default() -> Self {
        Self { size: ByteSize::gib(10) }
    }
}

fn main_component() -> Vec<String> {
    vec!["main".into()]
}

/// A value of the plan is wrong.
#[derive(Debug, thiserror::Error)]
#[error("`{key}` {problem}")]
pub struct InvalidPlan {
    /// The key, with its section.
    pub key: &'static str,
    /// What about it.
    pub problem: String,
}

impl Plan {
    /// Parses a plan; the values are not checked yet.
    ///
    /// # Errors
    /// Where it is not TOML, or has keys that a plan does not have.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The plan in force, checked: the file given, the first of [`plan_files`] that
    /// exists, or the default.
    ///
    /// # Errors
    /// Where the file cannot be read, or is not a valid plan.
    pub fn load(given: Option<&Path>, data: &DataDir) -> Result<Self, SetupError> {
        let file = match given {
            Some(path) => Some(path.to_owned()),
            None => plan_files(data).into_iter().find(|path| path.exists()),
        };
        let (path, text) = match file {
            Some(path) => match fs_err::read_to_string(&path) {
                Ok(text) => (path, text),
                Err(source) => return Err(SetupError::ReadPlan { path, source }),
            },
            None => (PathBuf::from("(built in)"), DEFAULT_PLAN.to_owned()),
        };
        let plan = Self::parse(&text)
            .map_err(|source| SetupError::ParsePlan { path: path.clone(), source: Box::new(source) })?;
        plan.validate().map_err(|source| SetupError::InvalidPlan { path, source })?;
        Ok(plan)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// Names the first key whose value is wrong.
    pub fn validate(&self) -> Result<(), InvalidPlan> {
        let invalid = |key, problem: String| Err(InvalidPlan { key, problem });
        if self.version != PLAN_VERSION {
            return invalid("version", format!("is {}, and this fcvm reads {PLAN_VERSION}", self.version));
        }
        if !is_word(&self.debian.suite) {
            return invalid("debian.suite", format!("is `{}`, not the name of a release", self.debian.suite));
        }
        if let Some(mirror) = &self.debian.mirror {
            let known = ["http://", "https://", "file:", "copy:"];
            if !known.iter().any(|scheme| mirror.starts_with(scheme)) || mirror.contains(char::is_whitespace)
            {
                return invalid("debian.mirror", format!("is `{mirror}`, not a URL"));
            }
        }
        if self.debian.components.is_empty() {
            return invalid("debian.components", "is empty".into());
        }
        if let Some(bad) = self.debian.components.iter().find(|word| !is_word(word)) {
            return invalid("debian.components", format!("has `{bad}`, not the name of an archive area"));
        }
        if let Some(bad) = self.base.packages.iter().find(|word| !is_word(word)) {
            return invalid("base.packages", format!("has `{bad}`, not the name of a package"));
        }
        if let Some(bad) =
            self.base.exclude.iter().find(|path| !path.starts_with('/') || path.contains(char::is_control))
        {
            return invalid("base.exclude", format!("has `{bad}`, not an absolute path pattern"));
        }
        self.kernel.source(env::consts::ARCH)?;
        for release in self.firecracker.values() {
            release.release()?;
        }
        let modules = &self.modules;
        if let Some(stray) = modules
            .optional
            .iter()
            .find(|name| !modules.boot.contains(name) && !modules.demand.contains(name))
        {
            return invalid("modules.optional", format!("has `{stray}`, which no other list has"));
        }
        if let Some(twice) = modules.demand.iter().find(|name| modules.boot.contains(name)) {
            return invalid("modules.demand", format!("has `{twice}`, which `modules.boot` has too"));
        }
        let size = self.scratch.size;
        if !SCRATCH_SIZES.contains(&size.as_u64()) || !size.as_u64().is_multiple_of(4096) {
            return invalid(
                "scratch.size",
                format!("is {size}, not a multiple of 4 KiB from 64 MiB to 8 TiB"),
            );
        }
        Ok(())
    }

    /// The name by content of what the kernel section makes.
    ///
    /// # Errors
    /// Where the kernel is a file that cannot be read.
    pub fn kernel_key(&self) -> Result<String, SetupError> {
        let source = self.kernel_source()?;
        let arch = env::consts::ARCH;
        let text = match &source {
            KernelSource::Package(name) => format!(
                "package {name} {} {:?} {:?} {}",
                self.debian.suite,
                self.debian.mirror,
                self.debian.components,
                self.modules.key()
            ),
            KernelSource::Url { sha256, .. } => format!("url {sha256}"),
            // The file may be large, and this runs at every start of a VM.
            KernelSource::Path(path) => {
                let stat = super::manifest::Stamp::of_path(path)
                    .map_err(|source| SetupError::io("read", path, source))?;
                format!("path {} {stat:?}", path.display())
            }
        };
        Ok(key(&format!("{} {arch} {text}", super::kernel::FORMAT)))
    }

    /// The name by content of the base disk.
    #[must_use]
    pub fn base_key(&self) -> String {
        let plan = (&self.debian, &self.base);
        key(&format!("{} {} {plan:?}", super::base::format_digest(), env::consts::ARCH))
    }

    /// The name of the scratch template.
    #[must_use]
    pub fn scratch_name(&self) -> String {
        format!("scratch-{}-{}", super::scratch::FORMAT, self.scratch.size.as_u64())
    }

    /// Where the kernel for this machine comes from.
    ///
    /// # Errors
    /// Where the section is not valid.
    pub fn kernel_source(&self) -> Result<KernelSource, SetupError> {
        self.kernel
            .source(env::consts::ARCH)
            .map_err(|source| SetupError::InvalidPlan { path: PLAN_FILE.into(), source })
    }
}

impl KernelPlan {
    /// The one source that is set.
    ///
    /// # Errors
    /// Where there is none or more than one, or its values are wrong.
    pub fn source(&self, arch: &str) -> Result<KernelSource, InvalidPlan> {
        let invalid = |key, problem: String| Err(InvalidPlan { key, problem });
        match (&self.package, &self.url, &self.path, &self.sha256) {
            (Some(packages), None, None, None) => match packages.get(arch) {
                Some(name) if is_word(name) => Ok(KernelSource::Package(name.clone())),
                Some(name) => invalid("kernel.package", format!("has `{name}`, not the name of a package")),
                None => invalid("kernel.package", format!("has no package for `{arch}`")),
            },
            (None, Some(url), None, Some(sha256)) => {
                let sha256 = download_of(["kernel.url", "kernel.sha256"], url, sha256)?;
                Ok(KernelSource::Url { url: url.clone(), sha256 })
            }
            (None, Some(_), None, None) => invalid("kernel.sha256", "is missing beside `kernel.url`".into()),
            (None, None, Some(path), None) if path.is_absolute() => Ok(KernelSource::Path(path.clone())),
            (None, None, Some(path), None) => {
                invalid("kernel.path", format!("is `{}`, not an absolute path", path.display()))
            }
            _ => invalid("kernel", "needs exactly one of `package`, `url` with `sha256`, and `path`".into()),
        }
    }
}

impl ModulesPlan {
    fn key(&self) -> String {
        format!("{:?} {:?} {:?}", self.boot, self.demand, self.optional)
    }
}

/// Where a user's plan is looked for, in order.
#[must_use]
pub fn plan_files(data: &DataDir) -> Vec<PathBuf> {
    let mut files = vec![data.root().join(PLAN_FILE)];
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    files.extend(config.map(|config| config.join("fcvm").join(PLAN_FILE)));
    files.push(Path::new("/etc/fcvm").join(PLAN_FILE));
    files
}

fn key(text: &str) -> String {
    Digest::of(text.as_bytes()).short()
}

/// Whether `text` is safe as one word of apt's command line and sources: `+` or `-` at its
/// end would change what apt does with a package, `/` and `=` pick versions, which is fine.
fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-._:/=~".contains(c))
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::parse(DEFAULT_PLAN).unwrap()
    }

    #[test]
    fn the_default_is_valid() {
        plan().validate().unwrap();
        assert_eq!(plan().scratch.size, ByteSize::gib(10));
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = Plan::parse(&DEFAULT_PLAN.replace("suite =", "suit =")).unwrap_err();
        assert!(error.to_string().contains("suit"), "{error}");
    }

    #[test]
    fn errors_name_the_key() {
        type Spoil = fn(&mut Plan);
        let cases: [(&str, Spoil); 12] = [
            ("version", |plan| plan.version = 2),
            ("debian.suite", |plan| plan.debian.suite = "--help".into()),
            ("debian.mirror", |plan| plan.debian.mirror = Some("deb".into())),
            ("debian.components", |plan| plan.debian.components.clear()),
            ("base.packages", |plan| plan.base.packages.push("a,b".into())),
            ("base.exclude", |plan| plan.base.exclude.push("usr".into())),
            ("kernel", |plan| plan.kernel = KernelPlan::default()),
            ("kernel.sha256", |plan| {
                plan.kernel = KernelPlan { url: Some("https://a/b".into()), ..KernelPlan::default() };
            }),
            ("kernel.path", |plan| {
                plan.kernel = KernelPlan { path: Some("vmlinux".into()), ..KernelPlan::default() };
            }),
            ("modules.optional", |plan| plan.modules.optional.push("nothing".parse().unwrap())),
            ("modules.demand", |plan| plan.modules.demand.push("virtio-blk".parse().unwrap())),
            ("scratch.size", |plan| plan.scratch.size = ByteSize::kib(4)),
        ];
        for (key, spoil) in cases {
            let mut plan = plan();
            spoil(&mut plan);
            assert_eq!(plan.validate().unwrap_err().key, key);
        }
    }

    #[test]
    fn keys_follow_what_they_name() {
        let (before, mut after) = (plan(), plan());
        after.base.packages.push("jq".into());
        assert_ne!(before.base_key(), after.base_key());
        assert_eq!(before.kernel_key().unwrap(), after.kernel_key().unwrap());
        after.modules.demand.push("tun".parse().unwrap());
        assert_ne!(before.kernel_key().unwrap(), after.kernel_key().unwrap());
    }
}
