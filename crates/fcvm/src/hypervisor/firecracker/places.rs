//! Where things are for Firecracker, which sees a root of its own.
//!
//! ```text
//!  /firecracker        the program                    (not in a jail, which has a copy)
//!  /kernel, /initrd    what it boots
//!  /disks/SERIAL       its disks
//!  /run/               the machine's sockets and its log; where it starts
//!  /save/              what is saved of it
//!  /saved/             what it goes on from
//!  /dev/kvm
//! ```
//! The names are the same for every machine, so that a snapshot which has them in it fits any other.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

use crate::{
    elf::is_dynamic,
    hypervisor::{Access, MachineConfig, NicBackend, Saved},
    process::sandbox::{self, View},
    snapshot::{MEMORY, STATE},
};

/// Sockets and log, in the machine's runtime directory: what Firecracker may write is nothing else's.
pub(super) const RUN: &str = "vmm";
/// Where a sandbox is mounted, in the same place.
const ROOT: &str = "root";
/// The socket of a page server, in a sandbox.
const PAGES: &str = "/saved/pages.sock";
/// What gives descriptors for page faults.
const FAULTS: &str = "/dev/userfaultfd";
/// The program, in its sandbox.
pub(super) const PROGRAM: &str = "/firecracker";
/// More than a program's headers.
const HEADERS: u64 = 64 << 10;

/// The names that Firecracker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
    /// In the machine's order.
    pub(super) disks: Vec<PathBuf>,
    /// Of sockets and log.
    pub(super) run: PathBuf,
    /// What is behind the guest's network interface, if it can have one.
    pub(super) tap: Option<String>,
    /// Where it is saved; only where the names are the same for every machine.
    pub(super) save: Option<PathBuf>,
    /// What it goes on from.
    pub(super) saved: Option<Saved>,
    /// Whether what gives descriptors for page faults is shown: a jail has its own.
    faults: bool,
}

impl Places {
    /// The host's own names, for a process that starts in its directory of sockets.
    pub(super) fn bare(machine: &MachineConfig) -> Self {
        Self {
            kernel: machine.kernel.clone(),
            initrd: machine.initrd.clone(),
            disks: machine.disks.iter().map(|disk| disk.path.clone()).collect(),
            // Relative, as a socket's path has to be short.
            run: PathBuf::new(),
            tap: tap_of(machine),
            save: None,
            saved: machine.saved.clone(),
            faults: false,
        }
    }

    /// Those in a sandbox.
    pub(super) fn inside(machine: &MachineConfig) -> Self {
        Self {
            kernel: "/kernel".into(),
            initrd: "/initrd".into(),
            disks: machine.disks.iter().map(|disk| Path::new("/disks").join(&disk.serial)).collect(),
            run: "/run".into(),
            tap: tap_of(machine),
            save: Some("/save".into()),
            saved: machine.saved.is_some().then(|| Saved {
                state: Path::new("/saved").join(STATE),
                memory: Path::new("/saved").join(MEMORY),
                pages: machine
                    .saved
                    .as_ref()
                    .is_some_and(|saved| saved.pages.is_some())
                    .then(|| PAGES.into()),
            }),
            faults: machine.options.jail.is_none(),
        }
    }

    /// Has a tap for the guest's network interface, which belongs to this user: the machine's, or one of the
    /// sandbox's own with nothing behind it.
    ///
    /// # Errors
    /// Where the machine's tap has a name that none can have.
    pub(super) fn connect(&mut self, view: &mut View, owner: u32) -> io::Result<()> {
        match &self.tap {
            Some(_) if owner == geteuid().as_raw() => {}
            Some(tap) => view.give_tap(tap, owner)?,
            None if view.with_tap(owner) => self.tap = Some(sandbox::TAP.into()),
            None => tracing::warn!("`/dev/net/tun` cannot be opened: the guest has no metadata service"),
        }
        Ok(())
    }

    /// Shows all of them under these names.
    ///
    /// # Errors
    /// Which is not there, and why.
    pub(super) fn show(&self, machine: &MachineConfig, view: &mut View) -> Result<(), (PathBuf, io::Error)> {
        let mut show = |source: &Path, target: &Path, access| {
            view.show(source, target, access).map_err(|error| (source.to_owned(), error))
        };
        show(&machine.kernel, &self.kernel, sandbox::Access::Read)?;
        show(&machine.initrd, &self.initrd, sandbox::Access::Read)?;
        for (disk, place) in machine.disks.iter().zip(&self.disks) {
            let access = match disk.access {
                Access::ReadOnly => sandbox::Access::Read,
                Access::Ephemeral | Access::Durable => sandbox::Access::Write,
            };
            show(&disk.path, place, access)?;
        }
        if let Some(place) = &self.save {
            show(&machine.save_dir, place, sandbox::Access::Write)?;
        }
        if let (Some(saved), Some(places)) = (&machine.saved, &self.saved) {
            show(&saved.state, &places.state, sandbox::Access::Read)?;
            match (&saved.pages, &places.pages) {
                (Some(pages), Some(place)) => {
                    show(pages, place, sandbox::Access::Write)?;
                    // Without privileges only this gives a descriptor for the faults of system calls.
                    let device = Path::new(FAULTS);
                    if self.faults && device.exists() {
                        show(device, device, sandbox::Access::Device)?;
                    }
                }
                _ => show(&saved.memory, &places.memory, sandbox::Access::Read)?,
            }
        }
        show(&machine.runtime_dir.join(RUN), &self.run, sandbox::Access::Write)
    }
}

fn tap_of(machine: &MachineConfig) -> Option<String> {
    match &machine.network.as_ref()?.backend {
        NicBackend::Tap { name, .. } => Some(name.clone()),
        NicBackend::Stream(_) => None,
    }
}

/// Makes the directory of sockets, and the empty one that a sandbox is mounted on; the latter.
pub(super) fn make(runtime_dir: &Path) -> io::Result<PathBuf> {
    let root = runtime_dir.join(ROOT);
    for directory in [&runtime_dir.join(RUN), &root] {
        match std::fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(root)
}

/// Shows a program, and what it needs to start.
///
/// # Errors
/// What is not there, and why.
pub(super) fn show_program(program: &Path, view: &mut View) -> Result<(), (PathBuf, io::Error)> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    view.show(program, Path::new(PROGRAM), sandbox::Access::Execute).map_err(failed(program))?;
    let kvm = Path::new("/dev/kvm");
    view.show(kvm, kvm, sandbox::Access::Device).map_err(failed(kvm))?;
    let tun = Path::new("/dev/net/tun");
    if tun.exists() {
        view.show(tun, tun, sandbox::Access::Device).map_err(failed(tun))?;
    }
    // On aarch64 the guest's caches are those of the host's CPUs, which are described there.
    let cpus = Path::new("/sys/devices/system/cpu");
    if cfg!(target_arch = "aarch64") {
        view.show(cpus, cpus, sandbox::Access::Read).map_err(failed(cpus))?;
    }
    if needs_libraries(program).map_err(failed(program))? {
        sandbox::show_libraries(view).map_err(failed(Path::new("/usr")))?;
    }
    Ok(())
}

/// Whether a program does not start alone: Firecracker's releases do.
///
/// # Errors
/// Where it cannot be read.
pub(super) fn needs_libraries(program: &Path) -> io::Result<bool> {
    let mut headers = Vec::new();
    File::open(program)?.take(HEADERS).read_to_end(&mut headers)?;
    // Also a script does not.
    Ok(!headers.starts_with(b"\x7fELF\x02\x01") || is_dynamic(&headers).unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::test_machine;

    #[test]
    fn names_in_a_sandbox_are_the_same_for_all_machines() {
        let places = Places::inside(&test_machine());
        assert_eq!(places, Places::inside(&MachineConfig { id: "other".into(), ..test_machine() }));
        assert_eq!(places.disks, [Path::new("/disks/base")]);
        assert_eq!(Places::bare(&test_machine()).disks, [Path::new("/with,comma")]);
    }

    #[test]
    fn a_script_needs_what_a_static_program_does_not() {
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), "#!/bin/sh\n").unwrap();
        assert!(needs_libraries(script.path()).unwrap());
        assert!(needs_libraries(Path::new("/bin/sh")).unwrap(), "the shell is linked to the C library");
        std::fs::write(script.path(), crate::elf::program(62, 1)).unwrap();
        assert!(!needs_libraries(script.path()).unwrap());
        std::fs::write(script.path(), crate::elf::program(62, 3)).unwrap();
        assert!(needs_libraries(script.path()).unwrap());
    }
}
