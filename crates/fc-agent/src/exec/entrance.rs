//! The way of a process of ours into a container: what the OCI runtime would do for it, by system calls of the
//! process itself between fork and exec. The runtime is a program with libraries, which reads the container's
//! configuration and copies itself each time: most of what a command took.
//!
//! The order is that of crun 1.21: what needs the guest's own files or privileges first, then the namespaces,
//! then what takes privileges away. The one who forks is in the container's PID namespace for its children.

use std::{
    ffi::{CStr, CString},
    fs::{self, File},
    io::Read as _,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, fchown, open, openat2},
    io::{Errno, write},
    pipe::{PipeFlags, pipe_with},
    process::{
        DumpableBehavior, Gid, Pid, PidfdFlags, Resource, Rlimit, Uid, chdir, chroot, fchdir,
        ioctl_tiocsctty, pidfd_open, set_dumpable_behavior, setrlimit, setsid, umask,
    },
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
    stdio::stdin,
    thread::{
        CapabilitySet, CapabilitySets, ThreadNameSpaceType, capability_is_in_bounding_set,
        clear_ambient_capability_set, configure_capability_in_ambient_set, move_into_thread_name_spaces,
        remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
        set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};
use serde::Deserialize;

use super::process::{Capabilities, Limit, Process};

/// The OCI runtime, which makes the container.
pub(crate) const RUNTIME: &str = "/usr/bin/crun";
/// Where it keeps what it knows of a container.
pub(super) const RUNTIME_STATE: &str = "/run/crun";
/// Where control groups are mounted.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";
/// A process's own likelihood to be killed where memory is short.
const OOM_SCORE: &CStr = c"/proc/self/oom_score_adj";
/// The usual one, of a container that has none.
const UMASK: u32 = 0o22;
/// Bytes of `struct sock_filter`.
const INSTRUCTION: usize = 8;

/// A container that runs, and what its processes are to have.
#[derive(Debug)]
pub(super) struct Entrance {
    id: CString,
    pid: Pid,
    /// Its first process: there is no other of this number.
    init: OwnedFd,
    pub(super) root: OwnedFd,
    pub(super) process: Process,
    /// The programs that tell which system calls are allowed, compiled by the runtime; empty for none.
    filter: Vec<u8>,
}

impl Entrance {
    /// Finds out all that a command's start needs to know.
    ///
    /// # Errors
    /// Where the container has just ended, or is none of ours.
    pub(super) fn find(id: &str, pid: Pid) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Status {
            bundle: PathBuf,
        }
        #[derive(Deserialize)]
        struct Config {
            process: Process,
            linux: Linux,
        }
        #[derive(Deserialize)]
        struct Linux {
            #[serde(default)]
            namespaces: Vec<Namespace>,
            seccomp: Option<serde::de::IgnoredAny>,
        }
        #[derive(Deserialize)]
        struct Namespace {
            #[serde(rename = "type")]
            kind: String,
        }
        let read =
            |path: &Path| fs::read(path).with_context(|| format!("failed to read `{}`", path.display()));
        let init = pidfd_open(pid, PidfdFlags::empty()).context("the container has ended")?;
        let root = open(
            format!("/proc/{}/root", pid.as_raw_nonzero()),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .context("failed to open the container's root")?;
        let state = Path::new(RUNTIME_STATE).join(id);
        let status: Status = serde_json::from_slice(&read(&state.join("status"))?)?;
        let config: Config = serde_json::from_slice(&read(&status.bundle.join("config.json"))?)?;
        let filter = match config.linux.seccomp {
            Some(_) => read(&state.join("seccomp.bpf"))?,
            None => Vec::new(),
        };
        ensure!(filter.len().is_multiple_of(INSTRUCTION), "the container's seccomp filter is damaged");
        let Process { apparmor_profile, selinux_label, .. } = &config.process;
        let apart = config.linux.namespaces.iter().any(|namespace| namespace.kind == "user");
        // Nothing of fcvm asks for these: to do without them would let out what they confine.
        ensure!(
            apparmor_profile.is_empty() && selinux_label.is_empty() && !apart,
            "commands cannot join a container with a security label or users of its own"
        );
        Ok(Self { id: CString::new(id)?, pid, init, root, process: config.process, filter })
    }

    /// The descriptors that a terminal of the container has, its master's and the other.
    ///
    /// # Errors
    /// Where the container has no terminals.
    pub(super) fn terminal(&self) -> anyhow::Result<(OwnedFd, OwnedFd)> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        // Whatever the container made of its files: nothing outside of them, and a terminal.
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let master = openat2(&self.root, "dev/pts/ptmx", flags, Mode::empty(), within)?;
        unlockpt(&master)?;
        let other =
            ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        Ok((master, other))
    }

    /// What a process has to do to become this one.
    ///
    /// # Errors
    /// Where it cannot be prepared.
    pub(super) fn entry(&self, process: &Process, terminal: bool) -> anyhow::Result<(Entry, Report)> {
        let limit = |limit: &Limit| {
            let resource = resource(&limit.resource)?;
            let some = |value| (value != u64::MAX).then_some(value);
            Some((resource, Rlimit { current: some(limit.soft), maximum: some(limit.hard) }))
        };
        let (report, reported) = pipe_with(PipeFlags::CLOEXEC)?;
        let entry = Entry {
            init: self.init.try_clone()?,
            root: self.root.try_clone()?,
            group: self.control_group()?,
            keyring: self.id.clone(),
            terminal,
            oom_score: process.oom_score_adj.map(|score| score.to_string().into_bytes()),
            limits: process.rlimits.iter().filter_map(limit).collect(),
            uid: Uid::from_raw(process.user.uid),
            gid: Gid::from_raw(process.user.gid),
            groups: process.user.additional_gids.iter().copied().map(Gid::from_raw).collect(),
            umask: Mode::from_raw_mode(process.user.umask.unwrap_or(UMASK)),
            capabilities: process.capabilities.clone(),
            no_new_privileges: process.no_new_privileges,
            filter: self.filter.clone(),
            workdir: CString::new(process.cwd.as_str())?,
            reported,
        };
        Ok((entry, Report(report.into())))
    }

    /// Where its first process is: that one takes processes, whatever the container made of its groups.
    fn control_group(&self) -> anyhow::Result<OwnedFd> {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", self.pid.as_raw_nonzero()))?;
        let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).context("no control group")?;
        let path = Path::new(CONTROL_GROUPS).join(group).join("cgroup.procs");
        let opened = open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        opened.with_context(|| format!("failed to open `{}`", path.display()))
    }

    /// Has the children of this thread be the container's.
    ///
    /// # Errors
    /// Where the container has ended.
    pub(super) fn adopt_children(&self) -> rustix::io::Result<()> {
        move_into_thread_name_spaces(self.init.as_fd(), ThreadNameSpaceType::PROCESS_ID)
    }
}

/// `RLIMIT_NOFILE` and the like; `None` for one that this kernel has not.
fn resource(name: &str) -> Option<Resource> {
    Some(match name.strip_prefix("RLIMIT_")? {
        "AS" => Resource::As,
        "CORE" => Resource::Core,
        "CPU" => Resource::Cpu,
        "DATA" => Resource::Data,
        "FSIZE" => Resource::Fsize,
        "LOCKS" => Resource::Locks,
        "MEMLOCK" => Resource::Memlock,
        "MSGQUEUE" => Resource::Msgqueue,
        "NICE" => Resource::Nice,
        "NOFILE" => Resource::Nofile,
        "NPROC" => Resource::Nproc,
        "RSS" => Resource::Rss,
        "RTPRIO" => Resource::Rtprio,
        "RTTIME" => Resource::Rttime,
        "SIGPENDING" => Resource::Sigpending,
        "STACK" => Resource::Stack,
        _ => return None,
    })
}

/// Steps of an entry, as a failure names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    Session,
    ControlGroup,
    Limits,
    Namespaces,
    Terminal,
    Seccomp,
    User,
    Capabilities,
    Workdir,
}

impl Step {
    const ALL: [(Self, &str); 9] = [
        (Self::Session, "start a session"),
        (Self::ControlGroup, "join the container's control group"),
        (Self::Limits, "set its limits"),
        (Self::Namespaces, "join the container"),
        (Self::Terminal, "take its terminal"),
        (Self::Seccomp, "load the container's seccomp filter"),
        (Self::User, "become its user"),
        (Self::Capabilities, "set its capabilities"),
        (Self::Workdir, "change to its working directory"),
    ];
}

/// Tells where an entry failed.
#[derive(Debug)]
pub(super) struct Report(File);

impl Report {
    /// The step that failed, in words, and whether that is the working directory's; `None` where the program
    /// itself could not be executed. For after the failure: all other ends are closed then.
    pub(super) fn failed(mut self) -> Option<(&'static str, bool)> {
        let mut step = [0];
        self.0.read_exact(&mut step).ok()?;
        let (step, words) = Step::ALL.into_iter().find(|(known, _)| *known as u8 == step[0])?;
        Some((words, step == Step::Workdir))
    }
}

/// What a process between fork and exec has to do to be the container's. All is made before the fork: after it,
/// nothing is allocated and nothing locked.
#[derive(Debug)]
pub(crate) struct Entry {
    init: OwnedFd,
    root: OwnedFd,
    group: OwnedFd,
    keyring: CString,
    terminal: bool,
    oom_score: Option<Vec<u8>>,
    limits: Vec<(Resource, Rlimit)>,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    umask: Mode,
    capabilities: Capabilities,
    no_new_privileges: bool,
    filter: Vec<u8>,
    workdir: CString,
    reported: OwnedFd,
}

impl Entry {
    /// Does it, in the forked process.
    ///
    /// # Errors
    /// The kernel's; the step is reported.
    pub(crate) fn enter(&self) -> rustix::io::Result<()> {
        self.steps().map_err(|(step, error)| {
            // Nobody can be told that nobody can be told.
            write(&self.reported, &[step as u8]).ok();
            error
        })
    }

    fn steps(&self) -> Result<(), (Step, Errno)> {
        let at = |step| move |error| (step, error);
        // Nobody in the container looks at what this process has until it is the container's program.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(at(Step::Session))?;
        setsid().map_err(at(Step::Session))?;
        write(&self.group, b"0").map_err(at(Step::ControlGroup))?;
        self.limit().map_err(at(Step::Limits))?;
        self.join().map_err(at(Step::Namespaces))?;
        if self.terminal {
            ioctl_tiocsctty(stdin()).map_err(at(Step::Terminal))?;
            fchown(stdin(), Some(self.uid), None).map_err(at(Step::Terminal))?;
        }
        crate::sys::join_keyring(&self.keyring);
        // The user may lack the right to pass through what leads to it.
        let there = chdir(&self.workdir).is_ok();
        // Without privileges the kernel wants the other order.
        if !self.no_new_privileges {
            self.confine().map_err(at(Step::Seccomp))?;
        }
        self.bound().map_err(at(Step::Capabilities))?;
        self.become_user().map_err(at(Step::User))?;
        self.equip().map_err(at(Step::Capabilities))?;
        if !there {
            chdir(&self.workdir).map_err(at(Step::Workdir))?;
        }
        if self.no_new_privileges {
            set_no_new_privs(true).map_err(at(Step::Seccomp))?;
            self.confine().map_err(at(Step::Seccomp))?;
        }
        Ok(())
    }

    fn limit(&self) -> rustix::io::Result<()> {
        if let Some(score) = &self.oom_score {
            write(open(OOM_SCORE, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?, score)?;
        }
        self.limits.iter().try_for_each(|(resource, limits)| setrlimit(*resource, *limits))
    }

    fn join(&self) -> rustix::io::Result<()> {
        let all = ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::CONTROL_GROUP
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::NETWORK
            // For its children, where it is not there already.
            | ThreadNameSpaceType::PROCESS_ID;
        move_into_thread_name_spaces(self.init.as_fd(), all)?;
        fchdir(&self.root)?;
        chroot(c".")
    }

    fn confine(&self) -> rustix::io::Result<()> {
        if self.filter.is_empty() { Ok(()) } else { crate::sys::filter_system_calls(&self.filter) }
    }

    fn bound(&self) -> rustix::io::Result<()> {
        for bit in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            match capability_is_in_bounding_set(capability) {
                Ok(true) if !self.capabilities.bounding.contains(capability) => {
                    remove_capability_from_bounding_set(capability)?;
                }
                Ok(_) => {}
                // The kernel has no more.
                Err(Errno::INVAL) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn become_user(&self) -> rustix::io::Result<()> {
        set_keep_capabilities(true)?;
        set_thread_groups(&self.groups)?;
        set_thread_res_gid(self.gid, self.gid, self.gid)?;
        set_thread_res_uid(self.uid, self.uid, self.uid)?;
        umask(self.umask);
        Ok(())
    }

    fn equip(&self) -> rustix::io::Result<()> {
        let Capabilities { effective, permitted, inheritable, ambient, .. } = self.capabilities;
        set_capabilities(None, CapabilitySets { effective, permitted, inheritable })?;
        clear_ambient_capability_set()?;
        ambient.iter().try_for_each(|capability| configure_capability_in_ambient_set(capability, true))
    }
}
