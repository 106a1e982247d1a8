//! Makes what is missing: `fcvm setup`.
//!
//! ```text
//! all there? -> done
//! preflight -> lock -> remove leftovers -> all there now? -> done
//!    kernel  (mmdebstrap | tar -> kernels/KEY/)     \  at the same time
//!    base    (mmdebstrap | tar -> rootfs/KEY.ext4)  /
//!    scratch (mkfs.ext4 -> rootfs/scratch-*.ext4)
//! -> initrd
//! ```
//!
//! Killed at any point, it leaves nothing under a final name that is not complete:
//! what it was writing has a temporary name, which the next run removes. Its
//! children end with it. One that fails lets the other one finish, whose work the
//! next run finds.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
};

use bytesize::ByteSize;

use super::{
    Assets, Overrides, SetupError,
    assets::{base_path, derive_lock, find_kernel, scratch_path, verify_base},
    base,
    jail::{Workshop, remove},
    kernel,
    manifest::{Manifest, manifest_path},
    plan::Plan,
    preflight, scratch,
};
use crate::{
    output::Printer,
    snapshot,
    storage::{DataDir, Lock, TEMPORARY_PREFIX},
};

/// What is made again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rebuild {
    /// What is missing or damaged.
    #[default]
    Missing,
    /// Everything.
    Everything,
}

/// Finds everything a VM boots from, and makes what is missing.
///
/// # Errors
/// Where the host lacks something, or a step fails.
pub fn ensure(
    data: &DataDir,
    overrides: &Overrides,
    rebuild: Rebuild,
    printer: &Printer,
) -> Result<Assets, SetupError> {
    let plan = overrides.plan(data)?;
    let found = || Assets::locate_for(&plan, data, overrides);
    if rebuild == Rebuild::Missing
        && let Ok(assets) = found()
    {
        return Ok(assets);
    }
    let report = preflight::check(data, overrides.agent.as_deref());
    if !report.is_ok() {
        return Err(SetupError::Preflight { report: Box::new(report) });
    }
    let _lock = Lock::acquire(&data.state().join("setup.lock"), || {
        printer.note("another `fcvm setup` is running; waiting for it");
    })?;
    remove_leftovers(data)?;
    if rebuild == Rebuild::Everything || found().is_err() {
        make(&plan, data, rebuild, printer)?;
    }
    found()
}

fn make(plan: &Plan, data: &DataDir, rebuild: Rebuild, printer: &Printer) -> Result<(), SetupError> {
    let key = plan.kernel_key()?;
    let base = base_path(plan, data);
    let template = scratch_path(plan, data);
    let again = |lacking: bool| rebuild == Rebuild::Everything || lacking;
    let make_kernel = again(find_kernel(plan, data).is_err());
    let make_base = again(verify_base(&base).is_err());
    let workshop = &Workshop::open(data)?;
    thread::scope(|scope| {
        // A thread each that starts its child and waits for it: the child ends with its thread.
        let kernel = make_kernel.then(|| {
            scope.spawn(|| {
                let progress = printer.progress("kernel");
                kernel::make(plan, &key, data, workshop, &progress)?;
                let made = kernel::Kernel::locate(data, &key)?;
                progress.done(&format!("Linux {}", made.release));
                Ok(())
            })
        });
        let disk = make_base.then(|| {
            scope.spawn(|| {
                let progress = printer.progress("base disk");
                let size = base::make(plan, &base, workshop, &progress)?;
                progress.done(&format!("Debian {}, {}", plan.debian.suite, ByteSize(size)));
                Ok(())
            })
        });
        let template = if again(Manifest::verify(&template).is_err()) {
            scratch::make(&template, plan.scratch.size.as_u64())
        } else {
            Ok(())
        };
        [kernel, disk]
            .into_iter()
            .flatten()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .chain([template])
            .collect()
    })
}

/// Removes what an interrupted run left. Only under the set-up lock.
fn remove_leftovers(data: &DataDir) -> Result<(), SetupError> {
    let _lock = derive_lock(data)?;
    for directory in [data.kernels(), data.rootfs(), data.initrd(), data.cache()] {
        for path in entries(&directory)? {
            if file_name(&path).starts_with(TEMPORARY_PREFIX) {
                remove(&path)?;
            }
        }
    }
    Ok(())
}

/// Removes assets that neither the plan nor a snapshot needs, and those of other agents.
///
/// # Errors
/// Where assets of the plan are missing, or a file cannot be removed.
pub fn prune(data: &DataDir, overrides: &Overrides) -> Result<Vec<PathBuf>, SetupError> {
    let _lock = Lock::acquire(&data.state().join("setup.lock"), || {})?;
    let assets = Assets::locate(data, overrides)?;
    remove_leftovers(data)?;
    let mut keep = Vec::new();
    for (_, path) in assets.files() {
        keep.extend([path.to_owned(), manifest_path(path)]);
    }
    let snapshots = data.snapshots();
    let kept = snapshot::assets(data).map_err(|source| SetupError::io("read", &snapshots, source))?;
    for path in kept {
        keep.extend([manifest_path(&path), path]);
    }
    let mut removed = Vec::new();
    for directory in [data.kernels(), data.rootfs(), data.initrd()] {
        for path in entries(&directory)? {
            // A kernel lies in a directory of its own.
            if !keep.iter().any(|kept| kept.starts_with(&path)) {
                remove(&path)?;
                removed.push(path);
            }
        }
    }
    Ok(removed)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, SetupError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        match std::fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?.map(|entry| Ok(entry?.path())).collect(),
        }
    };
    let mut paths = list().map_err(|source| SetupError::io("list", directory, source))?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default()
}
