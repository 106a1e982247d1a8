//! What a child does between fork and exec: system calls only, on what was prepared before.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::OwnedFd,
    os::unix::ffi::OsStrExt as _,
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, Mode, OFlags, mkdirat, openat},
    io::{Errno, write},
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
        mount_remount, unmount,
    },
    process::{
        Gid, Pid, PidfdFlags, Resource, Rlimit, Signal, Uid, WaitOptions, chdir, geteuid, getpid, getppid,
        kill_process, pidfd_open, pivot_root, set_parent_process_death_signal, setrlimit, waitpid,
    },
    thread::{
        CapabilitySet, CapabilitySets, UnshareFlags, remove_capability_from_bounding_set, set_capabilities,
        set_name, set_no_new_privs,
    },
};

use super::{
    error::Step,
    sys,
    tap::Tap,
    view::{Mount, View},
};
use crate::process::Namespaces;

/// What root keeps: the files that it is shown may be anybody's.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE;
/// Highest capability that there can be.
const CAPABILITIES: u32 = 63;

/// A user in a namespace of their own: themselves, and nobody else.
#[derive(Debug)]
pub(super) struct Identity {
    uid_map: String,
    gid_map: String,
}

impl Identity {
    pub(super) fn of(uid: Uid, gid: Gid) -> Self {
        let map = |id: u32| format!("{id} {id} 1");
        Self { uid_map: map(uid.as_raw()), gid_map: map(gid.as_raw()) }
    }
}

/// Whose network and users there are.
#[derive(Debug)]
pub(super) enum Membership {
    /// The sandbox's own; of an ordinary user, that user's.
    Own(Option<Identity>),
    /// Those of others.
    Given(Arc<Namespaces>),
}

/// All that the child needs, so that it has nothing to allocate.
#[derive(Debug)]
pub(super) struct Prepared {
    root: CString,
    directory: CString,
    directories: Vec<CString>,
    mounts: Vec<Mount>,
    membership: Membership,
    /// Of the network, with its owner.
    tap: Option<Tap>,
    entered: bool,
}

/// What failed: a step, which mount of it, and why.
type Failure = (Step, u8, Errno);

impl Prepared {
    pub(super) fn new(view: View, membership: Membership, entered: bool) -> Self {
        Self {
            // A path from the file system has no NUL.
            root: CString::new(view.root.as_os_str().as_bytes()).unwrap_or_default(),
            directory: view.directory,
            directories: view.directories,
            mounts: view.mounts,
            tap: view.tap,
            membership,
            entered,
        }
    }

    /// Returns in the program's process only, ready to become it.
    pub(super) fn enter(&self, report: &OwnedFd) -> io::Result<()> {
        self.steps().map_err(|(step, index, errno)| {
            // Without the report the error says less.
            write(report, &[step as u8, index]).ok();
            errno.into()
        })
    }

    fn steps(&self) -> Result<(), Failure> {
        let failed = |step| move |errno| (step, 0, errno);
        if let Membership::Given(namespaces) = &self.membership {
            namespaces.enter().map_err(failed(Step::Join))?;
        }
        self.make_namespaces().map_err(failed(Step::Namespaces))?;
        if let Some(tap) = &self.tap {
            super::tap::make(tap).map_err(failed(Step::Tap))?;
        }
        descend().map_err(failed(Step::Fork))?;
        if !self.entered {
            descend().map_err(failed(Step::Fork))?;
        }
        self.make_root().map_err(failed(Step::Root))?;
        for (index, mount) in self.mounts.iter().enumerate() {
            show(mount).map_err(|errno| (Step::Mount, u8::try_from(index).unwrap_or(u8::MAX), errno))?;
        }
        if self.entered {
            self.change_root().map_err(failed(Step::Enter))?;
            self.give_up_privileges().map_err(failed(Step::Privileges))?;
        }
        Ok(())
    }

    fn make_namespaces(&self) -> Result<(), Errno> {
        let parent = getppid();
        let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC;
        let identity = match &self.membership {
            Membership::Own(identity) => {
                flags |= UnshareFlags::NEWNET;
                identity.as_ref()
            }
            Membership::Given(_) => None,
        };
        flags.set(UnshareFlags::NEWUSER, identity.is_some());
        sys::unshare(flags)?;
        if let Some(identity) = identity {
            // Who cannot drop groups may not be rid of what they forbid.
            put(c"/proc/self/setgroups", b"deny")?;
            put(c"/proc/self/uid_map", identity.uid_map.as_bytes())?;
            put(c"/proc/self/gid_map", identity.gid_map.as_bytes())?;
        }
        // Where privileges are had in name only, this is the first that fails.
        mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
        // Another user's view of this process may have cancelled it.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() == parent { Ok(()) } else { Err(Errno::PIPE) }
    }

    fn make_root(&self) -> Result<(), Errno> {
        // The jailer makes device nodes, and copies the program.
        let flags = if self.entered {
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC
        } else {
            MountFlags::NOSUID
        };
        mount(c"fcvm", self.root.as_c_str(), c"tmpfs", flags, c"mode=755")?;
        chdir(self.root.as_c_str())?;
        for directory in &self.directories {
            mkdirat(CWD, directory.as_c_str(), Mode::from_raw_mode(0o755))?;
        }
        Ok(())
    }

    fn change_root(&self) -> Result<(), Errno> {
        // The old root comes to lie upon the new one, and goes.
        pivot_root(c".", c".")?;
        unmount(c".", UnmountFlags::DETACH)?;
        let flags = MountFlags::BIND
            | MountFlags::RDONLY
            | MountFlags::NOSUID
            | MountFlags::NODEV
            | MountFlags::NOEXEC;
        mount_remount(c"/", flags, c"")?;
        chdir(self.directory.as_c_str())
    }

    fn give_up_privileges(&self) -> Result<(), Errno> {
        set_no_new_privs(true)?;
        if !geteuid().is_root() {
            // With exec goes what one has who is not root in the namespace.
            return Ok(());
        }
        for capability in 0..=CAPABILITIES {
            let capability = CapabilitySet::from_bits_retain(1 << capability);
            if capability != KEPT {
                match remove_capability_from_bounding_set(capability) {
                    // The kernel does not know it.
                    Ok(()) | Err(Errno::INVAL) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: KEPT, permitted: KEPT, inheritable: none })
    }
}

fn put(path: &CStr, bytes: &[u8]) -> Result<(), Errno> {
    let file = openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    // At once, or not at all.
    write(file, bytes).map(drop)
}

fn show(mount: &Mount) -> Result<(), Errno> {
    let target = mount.target.as_c_str();
    if !mount.is_directory {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        openat(CWD, target, flags, Mode::from_raw_mode(0o444)).map(drop)?;
    }
    // What is mounted in it is a part of it, which a user namespace does not take apart.
    mount_bind_recursive(mount.source.as_c_str(), target)?;
    mount_remount(target, mount.flags | MountFlags::BIND, c"")
}

/// Goes on as a child of this process, which waits for it and ends as it does.
fn descend() -> Result<(), Errno> {
    let parent = pidfd_open(getpid(), PidfdFlags::empty())?;
    if let Some(child) = sys::fork()? {
        keep(child);
    }
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the line above; seen from here it has no number.
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut [PollFd::new(&parent, PollFlags::IN)], Some(&now))? {
        0 => Ok(()),
        _ => Err(Errno::PIPE),
    }
}

/// Waits for the child, and ends as it has.
fn keep(child: Pid) -> ! {
    // Whoever waits for the end of a pipe is not to wait for this process.
    sys::close_all();
    set_name(c"fcvm-keeper").ok();
    let status = loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => break status,
            Ok(None) | Err(Errno::INTR) => {}
            Err(_) => sys::exit(1),
        }
    };
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => {
            setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).ok();
            sys::reset(signal);
            if let Some(signal) = Signal::from_named_raw(signal) {
                // What an init process cannot do to itself, its end says instead.
                kill_process(getpid(), signal).ok();
            }
            128 + signal
        }
        (None, None) => 1,
    };
    sys::exit(code)
}
