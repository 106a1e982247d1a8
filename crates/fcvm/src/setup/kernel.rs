//! Gets the kernel, and the modules that the initrd needs.
//!
//! A kernel is a directory `kernels/KEY/`, there whole or not at all:
//! `vmlinux` (what the hypervisor boots) with its record, `release` (`uname -r`),
//! `modules.json` (what to load, in order) and `modules/NAME.ko` (decompressed).

use std::{
    fs::File,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    SetupError, download,
    jail::Workshop,
    manifest::Manifest,
    mmdebstrap::{PROGRAM, Request},
    modules::{Catalogue, Module, ModuleName, Stage},
    plan::{KernelSource, Plan},
    vmlinux::{self, KERNEL_LIMIT, Machine},
};
use crate::{
    hash::Digest,
    output::Progress,
    storage::{DataDir, TEMPORARY_PREFIX},
};

/// Version of the directory; part of its key.
pub(super) const FORMAT: u32 = 1;

/// All modules of a package together are at most this large, compressed.
const PACKAGE_LIMIT: u64 = 1 << 30;

/// A kernel in the data directory.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    pub(super) directory: PathBuf,
    pub(super) digest: Digest,
    pub(super) release: String,
}

/// `modules.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModuleList {
    version: u32,
    pub(super) modules: Vec<ListedModule>,
}

/// A module of the list, which is in load order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListedModule {
    pub(super) name: ModuleName,
    pub(super) stage: Stage,
    pub(super) depends: Vec<ModuleName>,
}

impl Kernel {
    /// Where the kernel's image lies in its directory.
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("vmlinux")
    }

    /// The kernel of this key, checked.
    pub(super) fn locate(data: &DataDir, key: &str) -> Result<Self, SetupError> {
        Self::in_directory(data.kernels().join(key))
    }

    /// The kernel of this directory, checked.
    pub(super) fn in_directory(directory: PathBuf) -> Result<Self, SetupError> {
        let image = directory.join("vmlinux");
        let digest = Manifest::verify(&image)?.ok_or_else(|| SetupError::Corrupt { path: image.clone() })?;
        let release = directory.join("release");
        let text = std::fs::read_to_string(&release).map_err(|_| SetupError::Corrupt { path: release })?;
        Ok(Self { directory, digest, release: text.trim_end().to_owned() })
    }

    /// What the initrd loads.
    pub(super) fn modules(&self) -> Result<ModuleList, SetupError> {
        let path = self.directory.join("modules.json");
        let list = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        match list {
            Some(list @ ModuleList { version: FORMAT, .. }) => Ok(list),
            _ => Err(SetupError::Corrupt { path }),
        }
    }

    /// The file of one of its modules.
    pub(super) fn module_file(&self, name: &ModuleName) -> PathBuf {
        self.directory.join("modules").join(format!("{name}.ko"))
    }
}

/// What a source gave, before it is stored.
struct Found {
    image: Vec<u8>,
    release: String,
    modules: Vec<Module>,
}

/// Gets the kernel of the plan and stores it under `key`.
pub(super) fn make(
    plan: &Plan,
    key: &str,
    data: &DataDir,
    workshop: &Workshop,
    progress: &Progress,
) -> Result<(), SetupError> {
    let found = match plan.kernel_source()? {
        KernelSource::Package(name) => from_package(plan, &name, workshop, progress)?,
        KernelSource::Url { url, sha256 } => {
            bare(&download::fetch(&url, sha256, KERNEL_LIMIT, progress)?, &url)?
        }
        KernelSource::Path(path) => return make_from_file(&path, key, data),
    };
    progress.step("storing");
    store(&found, &data.kernels().join(key))
}

/// Takes in a kernel that is a file of this machine, under `key`.
pub(super) fn make_from_file(path: &Path, key: &str, data: &DataDir) -> Result<(), SetupError> {
    let found = bare(&read_bounded(path)?, &path.display().to_string())?;
    store(&found, &data.kernels().join(key))
}

/// A kernel without modules.
fn bare(file: &[u8], name: &str) -> Result<Found, SetupError> {
    let image = vmlinux::extract(file, Machine::HOST)
        .map_err(|source| SetupError::Kernel { name: name.to_owned(), source })?;
    let release =
        vmlinux::release(file).or_else(|| vmlinux::release(&image)).unwrap_or_else(|| "unknown".to_owned());
    Ok(Found { image, release, modules: Vec::new() })
}

fn from_package(
    plan: &Plan,
    package: &str,
    workshop: &Workshop,
    progress: &Progress,
) -> Result<Found, SetupError> {
    let packages = [package.to_owned()];
    let request =
        Request { debian: &plan.debian, variant: "extract", packages: &packages, exclude: &[], workshop };
    let content = request.run(progress, |archive| {
        read_package(archive).map_err(|source| SetupError::Stream { program: PROGRAM.into(), source })
    })?;
    let wrong = |what| SetupError::KernelPackage { package: package.to_owned(), what };
    let mut kernels = content.kernels.into_iter();
    let (release, file) = match (kernels.next(), kernels.next()) {
        (Some(kernel), None) => kernel,
        (None, _) => return Err(wrong("no kernel in it")),
        (Some(_), Some(_)) => return Err(wrong("more than one kernel in it")),
    };
    progress.step("unpacking");
    let image = vmlinux::extract(&file, Machine::HOST)
        .map_err(|source| SetupError::Kernel { name: package.to_owned(), source })?;
    let modules = content.catalogue.resolve(&plan.modules)?;
    Ok(Found { image, release, modules })
}

/// What is of use in a kernel package.
#[derive(Default)]
struct Package {
    /// Release and file.
    kernels: Vec<(String, Vec<u8>)>,
    catalogue: Catalogue,
}

/// Picks kernel and modules out of the stream; nothing of it touches a disk.
fn read_package(archive: &mut impl Read) -> io::Result<Package> {
    let mut package = Package::default();
    let mut budget = PACKAGE_LIMIT;
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path.trim_start_matches("./");
        let kernel = path.strip_prefix("boot/vmlinuz-");
        let module = path
            .strip_prefix("usr/")
            .unwrap_or(path)
            .strip_prefix("lib/modules/")
            .and_then(|rest| rest.split_once('/'))
            .map(|(_release, rest)| rest)
            .filter(|rest| rest.starts_with("kernel/") || *rest == "modules.builtin");
        if kernel.is_none() && module.is_none() {
            continue;
        }
        budget = budget
            .checked_sub(entry.size())
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "the package is too large"))?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        match (kernel, module) {
            (Some(release), _) => package.kernels.push((release.to_owned(), bytes)),
            (_, Some("modules.builtin")) => package.catalogue.add_builtin(&String::from_utf8_lossy(&bytes)),
            (_, Some(path)) => {
                if let Some(name) = ModuleName::of_path(path) {
                    package.catalogue.files.insert(name, bytes);
                }
            }
            (None, None) => {}
        }
    }
    Ok(package)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, SetupError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        fs_err::File::open(path)?.take(KERNEL_LIMIT as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| SetupError::io("read kernel", path, source))?;
    if bytes.len() > KERNEL_LIMIT {
        return Err(SetupError::TooLarge { name: path.display().to_string() });
    }
    Ok(bytes)
}

/// Writes the directory under a temporary name and gives it its own when it is complete.
fn store(found: &Found, target: &Path) -> Result<(), SetupError> {
    let list = ModuleList {
        version: FORMAT,
        modules: found
            .modules
            .iter()
            .map(|Module { name, stage, depends, .. }| ListedModule {
                name: name.clone(),
                stage: *stage,
                depends: depends.clone(),
            })
            .collect(),
    };
    let write = || -> io::Result<()> {
        let parent = target.parent().unwrap_or(Path::new("."));
        fs_err::create_dir_all(parent)?;
        let temporary = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempdir_in(parent)?;
        let directory = temporary.path();
        // tempfile makes it private, and assets may be shared.
        rustix::fs::chmod(directory, rustix::fs::Mode::from_raw_mode(0o755))?;
        fs_err::create_dir(directory.join("modules"))?;
        for module in &found.modules {
            durable(&directory.join("modules").join(format!("{}.ko", module.name)), &module.bytes)?;
        }
        durable(&directory.join("modules.json"), &serde_json::to_vec_pretty(&list)?)?;
        durable(&directory.join("release"), format!("{}\n", found.release).as_bytes())?;
        let image = directory.join("vmlinux");
        durable(&image, &found.image)?;
        Manifest::record(&image, Some(Digest::of(&found.image)))?;
        File::open(directory)?.sync_all()?;
        put(directory, target)
    };
    write().map_err(|source| SetupError::io("write kernel", target, source))
}

fn durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs_err::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Names a directory, in exchange for one that has the name already: that one
/// is left under the temporary name, whose owner removes it.
fn put(directory: &Path, target: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match fs_err::rename(directory, target) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) =>
        {
            Ok(renameat_with(CWD, directory, CWD, target, RenameFlags::EXCHANGE)?)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::modules::tests::object, *};

    fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn kernel_and_modules_are_picked_out_of_the_archive() {
        let archive = package(&[
            ("etc/passwd", b"x"),
            ("boot/vmlinuz-6.12-cloud", b"kernel"),
            ("boot/config-6.12-cloud", b"config"),
            ("usr/lib/modules/6.12-cloud/modules.builtin", b"kernel/fs/ext4/ext4.ko\n"),
            ("lib/modules/6.12-cloud/kernel/drivers/virtio-rng.ko.xz", b"module"),
        ]);
        let package = read_package(&mut &archive[..]).unwrap();
        assert_eq!(package.kernels, [("6.12-cloud".to_owned(), b"kernel".to_vec())]);
        let names: Vec<_> = package.catalogue.files.keys().map(ModuleName::as_str).collect();
        assert_eq!(names, ["virtio_rng"]);
        assert!(package.catalogue.builtin.contains(&"ext4".parse().unwrap()));
        assert!(read_package(&mut &archive[..700]).is_err(), "a cut archive");
    }

    #[test]
    fn a_kernel_is_stored_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(Some(directory.path().to_owned())).unwrap();
        let module = Module {
            name: "overlay".parse().unwrap(),
            stage: Stage::Boot,
            depends: Vec::new(),
            bytes: object("depends="),
        };
        let mut found = Found { image: b"image".to_vec(), release: "6.12".into(), modules: vec![module] };
        let target = data.kernels().join("key");
        assert!(matches!(Kernel::locate(&data, "key"), Err(SetupError::Missing { .. })));
        store(&found, &target).unwrap();
        let kernel = Kernel::locate(&data, "key").unwrap();
        assert_eq!((kernel.digest, kernel.release.as_str()), (Digest::of(b"image"), "6.12"));
        let listed = &kernel.modules().unwrap().modules;
        assert_eq!(listed.len(), 1);
        assert!(kernel.module_file(&listed[0].name).exists());

        found.image = b"newer image".to_vec();
        store(&found, &target).unwrap();
        assert_eq!(Kernel::locate(&data, "key").unwrap().digest, Digest::of(b"newer image"));
        assert_eq!(fs_err::read_dir(data.kernels()).unwrap().count(), 1, "nothing temporary is left");
        std::fs::write(kernel.image(), "damaged").unwrap();
        assert!(matches!(Kernel::locate(&data, "key"), Err(SetupError::Corrupt { .. })));
    }
}
