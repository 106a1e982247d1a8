//! What can go wrong with a hypervisor.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    HugePages, Pages, Virtualization,
    firecracker::{Version, api::ApiError},
};
use crate::process::{sandbox::SandboxError, version::VersionError};

/// A hypervisor could not be found, chosen or started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HypervisorError {
    /// No program of that name.
    #[error("`{program}` is not installed")]
    NotFound {
        /// The program.
        program: String,
    },
    /// Firecracker is nowhere.
    #[error("Firecracker was not found")]
    NoFirecracker,
    /// A program does not tell its version: it is something else.
    #[error("`{program}` does not say which version it is: its `--version` says `{said}`")]
    NoVersion {
        /// The program.
        program: PathBuf,
        /// Its first line, cleaned.
        said: String,
    },
    /// A Firecracker from before what fcvm needs.
    #[error("`{program}` is Firecracker {found}, older than {least}")]
    OldVersion {
        /// The program.
        program: PathBuf,
        /// Its version.
        found: Version,
        /// The first that will do.
        least: Version,
    },
    /// Firecracker needs KVM.
    #[error("Firecracker cannot run here: {}", .obstacle.obstacle().unwrap_or("no KVM"))]
    NoKvm {
        /// What is in its way.
        obstacle: Virtualization,
    },
    /// The kernel's parameters are too long.
    #[error("the kernel's parameters have {length} bytes, and Firecracker takes {limit}")]
    KernelParameters {
        /// In bytes.
        length: usize,
        /// In bytes.
        limit: usize,
    },
    /// Firecracker did not do what it was asked.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// QEMU did not do what it was asked.
    #[error("QEMU did not do `{command}`: {why}")]
    Qmp {
        /// The command.
        command: &'static str,
        /// In its words, cleaned.
        why: String,
    },
    /// What a machine is to go on from cannot be read.
    #[error("failed to open the saved state `{path}`")]
    Saved {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A guest's memory cannot be saved.
    #[error("failed to save the guest's memory to `{path}`")]
    SaveMemory {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A machine that is made like this cannot be saved.
    #[error("{hypervisor} cannot save a machine {that}")]
    NotSaved {
        /// The backend.
        hypervisor: &'static str,
        /// What it is.
        that: &'static str,
    },
    /// The machine runs, and its agent cannot be reached.
    #[error("failed to reach the guest by socket `{path}`")]
    Link {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More than the backend can.
    #[error("{cpus} virtual CPUs are more than the {limit} that {hypervisor} can have")]
    TooManyCpus {
        /// Asked for.
        cpus: u8,
        /// Possible.
        limit: u8,
        /// The backend.
        hypervisor: &'static str,
    },
    /// The backend has no such thing.
    #[error("{hypervisor} has no `{option}`")]
    Lacks {
        /// The option that asks for it.
        option: &'static str,
        /// The backend.
        hypervisor: &'static str,
    },
    /// More than the host has.
    #[error("{memory_mib} MiB of memory are more than the {host_mib} MiB that this host has")]
    TooMuchMemory {
        /// Asked for.
        memory_mib: u32,
        /// There.
        host_mib: u64,
    },
    /// A balloon takes from memory that is there.
    #[error("a balloon of {balloon_mib} MiB leaves nothing of {memory_mib} MiB of memory")]
    LargeBalloon {
        /// The balloon.
        balloon_mib: u32,
        /// The guest's memory.
        memory_mib: u32,
    },
    /// Memory of huge pages is a multiple of them.
    #[error("{memory_mib} MiB of memory are no whole number of huge pages")]
    OddMemory {
        /// Asked for.
        memory_mib: u32,
    },
    /// The host's kernel cannot have them.
    #[error("this host has no huge pages of 2 MiB")]
    NoHugePages,
    /// The host has too few of them.
    #[error("the machine needs {needed} huge pages, and this host has {} free", .pages.free)]
    FewHugePages {
        /// For the guest's memory.
        needed: u64,
        /// There.
        pages: HugePages,
    },
    /// A CPU template cannot be read.
    #[error("failed to read CPU template `{path}`")]
    ReadCpuTemplate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A CPU template is longer than Firecracker takes.
    #[error("CPU template `{path}` is longer than {limit} bytes")]
    LongCpuTemplate {
        /// The file.
        path: PathBuf,
        /// What it may have.
        limit: u64,
    },
    /// A CPU template is something else.
    #[error("CPU template `{path}` is no JSON object")]
    ParseCpuTemplate {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A socket's path would not fit its address.
    #[error("socket path `{path}` is longer than the 107 bytes a Unix socket may have")]
    SocketPath {
        /// The path.
        path: PathBuf,
    },
    /// A socket could not be made.
    #[error("failed to create socket `{path}`")]
    Socket {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process could not be confined.
    #[error("failed to start Firecracker in a sandbox")]
    Sandbox(#[from] SandboxError),
    /// What the machine is made of is not there.
    #[error("failed to find `{path}`")]
    Show {
        /// It.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The jailer is for root.
    #[error("Firecracker's jailer can be used by root only")]
    JailerNeedsRoot,
    /// There is no jailer.
    #[error("Firecracker's jailer was not found")]
    NoJailer,
    /// The jailer starts a program that needs nothing but itself.
    #[error("`{program}` is not linked statically: the jailer cannot start it")]
    DynamicFirecracker {
        /// Firecracker.
        program: PathBuf,
    },
    /// The host's control groups have no such thing.
    #[error("`{setting}` cannot be set: the host's unified control groups lack its controller")]
    NoController {
        /// The file.
        setting: String,
    },
    /// A machine's own file cannot be given to its user.
    #[error("failed to give `{path}` to user {uid}")]
    Give {
        /// The file.
        path: PathBuf,
        /// The user.
        uid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that machines share is not for everybody.
    #[error("`{path}` cannot be read by user {uid}, whom the jail has Firecracker run as")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The user.
        uid: u32,
    },
    /// Another network than there can be.
    #[error("Firecracker has network interfaces on taps only")]
    NeedsTap,
    /// The process could not be started.
    #[error("failed to start `{program}`")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Names of Firecracker's static CPU templates.
const STATIC_TEMPLATES: [&str; 6] = ["C3", "T2", "T2S", "T2CL", "T2A", "V1N1"];

fn is_static_template(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| STATIC_TEMPLATES.contains(&name.to_ascii_uppercase().as_str()))
}

impl HypervisorError {
    /// That the version of this program is not known.
    pub(super) fn version(program: &Path, error: VersionError) -> Self {
        let program = program.to_owned();
        match error {
            VersionError::Start(source) => Self::Start { program, source },
            VersionError::Other(said) => Self::NoVersion { program, said },
        }
    }

    /// Whether it is what one meets when the hypervisor's process ends: its end tells more.
    pub(crate) fn may_be_its_end(&self) -> bool {
        matches!(self, Self::Link { .. } | Self::Api(ApiError::Connect { .. } | ApiError::Gone { .. }))
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => {
                Some("`fcvm setup --check` lists what is missing and how to get it".into())
            }
            Self::NoFirecracker => Some(
                "`fcvm setup --with-firecracker` downloads it; or name it with --firecracker or FCVM_FIRECRACKER"
                    .into(),
            ),
            Self::NoVersion { .. } => {
                Some("--firecracker, FCVM_FIRECRACKER or PATH name the program `firecracker` of a release".into())
            }
            Self::OldVersion { least, .. } => Some(format!(
                "`fcvm setup --with-firecracker` downloads {least}; or use --hypervisor qemu"
            )),
            Self::NoKvm { obstacle } => Some(obstacle.advice().into()),
            Self::KernelParameters { .. } => Some("shorten --kernel-args".into()),
            Self::Api(ApiError::Fault { message, .. }) if message.contains("Cannot load kernel") => {
                Some("give --kernel a kernel of this architecture that is whole, or none for the plan's".into())
            }
            Self::Api(error) => error.hint(),
            Self::SocketPath { .. } => Some("set FCVM_RUNTIME_DIR to a shorter directory".into()),
            Self::TooManyCpus { limit, .. } => Some(format!("use --cpus {limit} or fewer")),
            Self::Lacks { option, .. } => {
                Some(format!("Firecracker has it: use --hypervisor firecracker, or leave {option} out"))
            }
            Self::TooMuchMemory { .. } => {
                Some("give less with --memory: the host needs some of it for itself".into())
            }
            Self::LargeBalloon { .. } => Some(
                "give --balloon less than --memory; with 0 it takes nothing, and tells of the guest's memory"
                    .into(),
            ),
            Self::OddMemory { memory_mib } => {
                Some(format!("use --memory {}m", memory_mib.next_multiple_of(Pages::HUGE_MIB)))
            }
            Self::NoHugePages => Some("use memory of usual pages: leave --huge-pages out".into()),
            Self::FewHugePages { needed, pages } => Some(format!(
                "as root, `sysctl vm.nr_hugepages={}` sets enough aside where the host has the memory for it",
                pages.total + needed.saturating_sub(pages.free)
            )),
            Self::ReadCpuTemplate { path, .. } if is_static_template(path) => Some(format!(
                "Firecracker's static templates ({}) are deprecated: give a file with a custom one",
                STATIC_TEMPLATES.join(", ")
            )),
            Self::LongCpuTemplate { .. } | Self::ParseCpuTemplate { .. } => Some(
                "Firecracker's docs/cpu_templates/cpu-templates.md describes them; its cpu-template-helper makes them"
                    .into(),
            ),
            Self::Sandbox(error) => error.hint(),
            Self::JailerNeedsRoot => Some(
                "run fcvm as root; without --jailer Firecracker runs in namespaces of its own, whoever starts it"
                    .into(),
            ),
            Self::NoJailer => Some(
                "releases have it beside Firecracker, and `fcvm setup --with-firecracker` downloads both".into(),
            ),
            Self::DynamicFirecracker { .. } => Some(
                "the programs of releases are static, and `fcvm setup --with-firecracker` downloads one".into(),
            ),
            Self::NoController { .. } => Some(
                "`cat /sys/fs/cgroup/cgroup.controllers` lists those that it has; one in use by version 1 is not among them"
                    .into(),
            ),
            Self::Give { .. } => {
                Some("--jailer-user UID[:GID] names a user that exists in this user namespace".into())
            }
            Self::Unreadable { path, .. } => {
                Some(format!("`chmod o+r {}`, or name a user with --jailer-user who can read it", path.display()))
            }
            Self::NeedsTap => Some(
                "use --hypervisor qemu, or let this user open /dev/net/tun".into(),
            ),
            Self::SaveMemory { source, .. } if source.kind() == io::ErrorKind::StorageFull => Some(
                "free some space, for instance with `fcvm snapshot prune`, or choose another data directory with --data-dir".into(),
            ),
            Self::SaveMemory { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Some(
                "the kernel keeps processes from reading others' memory: see kernel.yama.ptrace_scope".into(),
            ),
            Self::NotSaved { .. } => Some("a VM that is to be saved is started without that".into()),
            Self::Qmp { .. } | Self::Saved { .. } | Self::SaveMemory { .. } => None,
            Self::Show { .. } | Self::ReadCpuTemplate { .. } | Self::Socket { .. } | Self::Start { .. } | Self::Link { .. } => None,
        }
    }
}
