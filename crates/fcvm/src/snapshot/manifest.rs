//! What a snapshot says of itself: plain data.

use std::{collections::BTreeMap, path::PathBuf};

use fcvm_proto::{Interface, Program};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SnapshotTag;
use crate::{
    hash::Digest,
    health::HealthCheck,
    hypervisor::Jail,
    network::{NetworkRecord, PortRecord},
    state::{MountRecord, VmId, VmName},
    volume::{VolumeRecord, state_file},
};

/// Version of the manifest and of what the files mean. Another one is refused.
pub const FORMAT: u32 = 4;

/// A snapshot's description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Its own, whatever it is called: 32 random hexadecimal digits.
    pub id: String,
    /// What the user calls it. After an import under another name that is the directory's.
    pub tag: SnapshotTag,
    /// When the machine stood still.
    pub created: Timestamp,
    /// What there is of the machine.
    pub contents: Contents,
    /// Where it came from.
    pub origin: Origin,
    /// What can load its state.
    pub hypervisor: Engine,
    /// What its state was running on.
    pub cpu: Cpu,
    /// The agent's [`PROTOCOL`](fcvm_proto::PROTOCOL).
    pub protocol: u16,
    /// Opens sessions with its agent: 32 hexadecimal digits.
    pub link_key: String,
    /// The machine as it was made.
    pub machine: MachineRecord,
    /// Its container.
    pub container: ContainerRecord,
    /// Directories and files of the host that it had, and clones have, too.
    pub volumes: Vec<VolumeRecord>,
    /// Its image.
    pub image: ImageRecord,
    /// How it reached others; clones do it the same way unless told otherwise.
    pub network: Option<NetworkRecord>,
    /// What it published.
    pub ports: Vec<PortRecord>,
    /// Its files beside this one, by name.
    pub files: BTreeMap<String, FileRecord>,
    /// The snapshot with which its memory file shared what is the same when it was made here.
    pub base: Option<BaseRecord>,
}

impl Manifest {
    /// The files that there are to be.
    pub(crate) fn file_names(&self) -> Vec<String> {
        let states = match self.contents {
            Contents::Machine => self.volumes.len(),
            Contents::Disk => 0,
        };
        let fixed = self.contents.files().iter().map(|name| (*name).to_owned());
        fixed.chain((0..states).map(state_file)).collect()
    }
}

/// Another snapshot, of which a memory file was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseRecord {
    /// What it was called.
    pub tag: SnapshotTag,
    /// Its id.
    pub id: String,
    /// How much was shared, in bytes.
    pub shared_bytes: u64,
}

/// What there is of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contents {
    /// Memory, devices and disk: it goes on where it was.
    Machine,
    /// The disk: it boots.
    Disk,
}

/// Where a snapshot came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The VM.
    pub vm: VmId,
    /// Its name then.
    pub name: VmName,
    /// The id of the snapshot that this one was a clone of.
    pub snapshot: Option<String>,
}

/// A hypervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// As `--hypervisor` takes it.
    pub name: String,
    /// As it tells it: states are only loaded by those whose first two numbers are the same.
    pub version: String,
    /// What runs the guest's code: `kvm`, or `tcg` for QEMU's emulation.
    pub accelerator: String,
}

/// A processor, as far as a machine's state depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// `x86_64`, `aarch64`.
    pub architecture: String,
    /// As the processor calls its maker.
    pub vendor: String,
    /// As it calls itself.
    pub model: String,
}

/// A machine as it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineRecord {
    /// Virtual CPUs.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Kernel parameters of the user.
    pub kernel_arguments: Option<String>,
    /// Whether its memory lay in huge pages.
    pub huge_pages: bool,
    /// The jail that it was in; clones are each in one of their own.
    pub jail: Option<Jail>,
    /// What it booted from.
    pub kernel: Asset,
    /// The same.
    pub initrd: Asset,
    /// Its base disk.
    pub base: Asset,
    /// Its network interfaces as the guest has them.
    pub interfaces: Vec<Interface>,
}

/// A file of the data directory that a machine needs as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asset {
    /// Where it is, below the data directory where it lies in there.
    pub path: PathBuf,
    /// Its content.
    pub sha256: Digest,
}

/// A container, as far as the host has to know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerRecord {
    /// The command, empty for the image's own.
    pub command: Vec<String>,
    /// What it runs, where it was made before that was known: one that started warm.
    pub program: Option<Program>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// What it has beside its image.
    pub mounts: Vec<MountRecord>,
    /// Its host name, where the user gave it one.
    pub hostname: Option<String>,
    /// What asks it to end, by its Linux number.
    pub stop_signal: i32,
    /// Whether it takes input.
    pub interactive: bool,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// How to tell that it is well.
    pub health: Option<HealthCheck>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecord {
    /// As the user wrote it.
    pub reference: String,
    /// Its manifest's digest.
    pub digest: Digest,
}

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Bytes, holes included.
    pub size: u64,
    /// Of its content: of each block of 4096 bytes that has others than zeros, the number as eight bytes, the
    /// first the least, and the block (the last one filled with zeros). So holes and zeros are the same.
    pub sha256: Digest,
    /// What it looked like when that was computed: as long as it does, it need not be read.
    pub stamp: Stamp,
}

/// When a file changed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// Seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds of the second.
    pub mtime_nanos: i64,
}
