//! What has to be the same: plain data, and its digest.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use fcvm_proto::Container;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    hash::Digest,
    health::HealthCheck,
    network::{Driver, MacAddress, Mode, Request},
    setup::Assets,
    snapshot::{Cpu, Engine, FORMAT, Moment, SnapshotTag},
};

/// Digits of a key: half of a SHA-256, which nobody meets twice, and short enough for a tag.
const DIGITS: usize = 32;

/// All that a machine's state depends on.
#[derive(Debug, Clone, Serialize)]
pub struct Shape {
    /// When it is saved.
    pub moment: Moment,
    /// What runs it.
    pub engine: Engine,
    /// What that runs on.
    pub cpu: Cpu,
    /// What the guest booted from: kernel, agent, base disk.
    pub assets: [Digest; 3],
    /// Where its scratch disk came from, which is named by what it was made of.
    pub scratch: String,
    /// The image.
    pub image: Digest,
    /// The image's disk: another one of the same image need not have the same blocks.
    pub disk: DiskStamp,
    /// Virtual CPUs.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// More parameters of the kernel.
    pub kernel_arguments: Option<String>,
    /// Its interface.
    pub network: NetworkShape,
    /// The container as far as it has been made.
    pub container: Container,
    /// Of one that runs: the host name that it was given.
    pub hostname: Option<String>,
    /// The same: how to tell that it is well.
    pub health: Option<HealthCheck>,
}

/// A network, as far as a machine has devices of it.
#[derive(Debug, Clone, Serialize)]
pub struct NetworkShape {
    /// How it reaches others.
    pub mode: Mode,
    /// What its interface leads to.
    pub driver: Option<Driver>,
    /// A hardware address that was asked for.
    pub mac: Option<MacAddress>,
    /// The longest packet that was asked for.
    pub mtu: Option<u16>,
}

/// What tells a file from one that has taken its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DiskStamp {
    inode: u64,
    size: u64,
    mtime: i64,
    mtime_nanos: i64,
}

impl DiskStamp {
    /// That of a file.
    ///
    /// # Errors
    /// Where there is none.
    pub fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self { inode: file.ino(), size: file.len(), mtime: file.mtime(), mtime_nanos: file.mtime_nsec() })
    }
}

impl NetworkShape {
    /// That of a network that is asked for.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let driver = (request.mode == Mode::Rootless).then_some(request.driver);
        Self { mode: request.mode, driver, mac: request.mac, mtu: request.mtu }
    }
}

impl Shape {
    /// The digests of what a guest boots from.
    #[must_use]
    pub fn assets(assets: &Assets) -> [Digest; 3] {
        [assets.kernel_digest, assets.agent_digest, assets.base_digest]
    }

    /// The key, by which what has the same shape is found.
    #[must_use]
    pub fn key(&self) -> SnapshotTag {
        #[derive(Serialize)]
        struct Versioned<'a> {
            fcvm: &'a str,
            protocol: u16,
            format: u32,
            shape: &'a Shape,
        }
        let all = Versioned {
            fcvm: env!("CARGO_PKG_VERSION"),
            protocol: fcvm_proto::PROTOCOL,
            format: FORMAT,
            shape: self,
        };
        let bytes = serde_json::to_vec(&all).expect("a shape has only plain fields");
        let mut digits = hex::encode(Sha256::digest(bytes));
        digits.truncate(DIGITS);
        digits.parse().expect("hexadecimal digits are a tag")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::snapshot::testing::host;

    fn shape() -> Shape {
        let host = host();
        let place = tempfile::NamedTempFile::new().unwrap();
        Shape {
            moment: Moment::Created,
            engine: host.engine,
            cpu: host.cpu,
            assets: [1, 2, 3].map(digest),
            scratch: "scratch-10g.ext4".into(),
            image: digest(4),
            disk: DiskStamp { inode: 1, ..DiskStamp::of(place.path()).unwrap() },
            cpus: 2,
            memory_mib: 512,
            kernel_arguments: None,
            network: NetworkShape { mode: Mode::Rootless, driver: Some(Driver::Pasta), mac: None, mtu: None },
            container: Container { image: "i".into(), ..Container::default() },
            hostname: None,
            health: None,
        }
    }

    fn digest(number: u8) -> Digest {
        format!("sha256:{}", hex::encode([number; 32])).parse().unwrap()
    }

    #[test]
    fn the_same_is_found_again() {
        let mut second = shape();
        second.disk = shape().disk;
        let mut first = shape();
        first.disk = second.disk;
        assert_eq!(first.key(), second.key());
        assert_eq!(first.key().as_str().len(), DIGITS);
    }

    /// Each of them alone makes another key.
    #[test]
    fn whatever_differs_finds_nothing() {
        let base = shape();
        let changes: &[fn(&mut Shape)] = &[
            |shape| shape.moment = Moment::Healthy,
            |shape| shape.engine.name = "qemu".into(),
            |shape| shape.engine.version = "0.0.1".into(),
            |shape| shape.engine.accelerator = "tcg".into(),
            |shape| shape.cpu.architecture = "riscv64".into(),
            |shape| shape.cpu.vendor = "Other".into(),
            |shape| shape.cpu.model = "Other".into(),
            |shape| shape.assets[0] = digest(9),
            |shape| shape.assets[1] = digest(9),
            |shape| shape.assets[2] = digest(9),
            |shape| shape.scratch = "scratch-20g.ext4".into(),
            |shape| shape.image = digest(9),
            |shape| shape.disk.inode += 1,
            |shape| shape.disk.size += 1,
            |shape| shape.disk.mtime += 1,
            |shape| shape.disk.mtime_nanos += 1,
            |shape| shape.cpus = 1,
            |shape| shape.memory_mib = 1024,
            |shape| shape.kernel_arguments = Some("quiet".into()),
            |shape| shape.network.mode = Mode::None,
            |shape| shape.network.driver = Some(Driver::Passt),
            |shape| shape.network.mac = Some("02:00:00:00:00:01".parse().unwrap()),
            |shape| shape.network.mtu = Some(1400),
            |shape| shape.container.image = "j".into(),
            |shape| shape.container.command = vec!["x".into()],
            |shape| shape.container.entrypoint = Some("x".into()),
            |shape| shape.container.env = vec![("A".into(), "b".into())],
            |shape| shape.container.workdir = Some("/".into()),
            |shape| shape.container.user = Some("1".into()),
            |shape| shape.container.labels = vec![("A".into(), "b".into())],
            |shape| shape.container.privileged = true,
            |shape| shape.container.read_only = true,
            |shape| shape.container.tmpfs = vec!["/t".into()],
            |shape| shape.container.volumes = vec!["/v".into()],
            |shape| shape.container.mounts = vec!["m".into()],
            |shape| shape.container.filled_volumes = vec![("v".into(), 0)],
            |shape| shape.container.cap_add = vec!["c".into()],
            |shape| shape.container.cap_drop = vec!["c".into()],
            |shape| shape.container.ulimits = vec!["u".into()],
            |shape| shape.container.interactive = true,
            |shape| shape.container.terminal = Some(crate::output::USUAL_SIZE),
            |shape| shape.hostname = Some("web".into()),
            |shape| shape.health = Some(HealthCheck::new(crate::health::Probe::shell("true"))),
        ];
        let mut keys = BTreeSet::from([base.key()]);
        for (number, change) in changes.iter().enumerate() {
            let mut other = base.clone();
            change(&mut other);
            assert!(keys.insert(other.key()), "change {number}");
        }
    }
}
