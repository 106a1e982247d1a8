//! Snapshots of nothing, for tests.

use std::{fs, os::unix::fs::FileExt as _};

use fcvm_proto::{PROTOCOL, VolumeKind};
use serde_json::json;

use super::{
    Cpu, Engine, FORMAT, Host, MEMORY, Manifest, Partial, SCRATCH, STATE, Snapshot, SnapshotTag, Store,
};
use crate::volume::{Options, VolumeRecord};

pub(crate) fn tag(text: &str) -> SnapshotTag {
    text.parse().unwrap()
}

pub(crate) fn host() -> Host {
    Host {
        engine: Engine { name: "firecracker".into(), version: "1.16.1".into(), accelerator: "kvm".into() },
        cpu: Cpu { architecture: "x86_64".into(), vendor: "GenuineIntel".into(), model: "Some CPU".into() },
    }
}

/// What a snapshot says of itself, but for its files.
pub(crate) fn manifest(tag: &str) -> Manifest {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let file = json!({ "size": 0, "sha256": digest, "stamp": { "mtime": 0, "mtime_nanos": 0 } });
    let asset = |path: &str| json!({ "path": path, "sha256": digest });
    let value = json!({
        "format": FORMAT, "id": "0123456789abcdef".repeat(2), "tag": tag, "created": "2026-01-02T03:04:05Z",
        "contents": "machine",
        "origin": { "vm": "0123456789abcdef".repeat(2), "name": "web", "snapshot": null },
        "hypervisor": host().engine, "cpu": host().cpu,
        "protocol": PROTOCOL, "link_key": "fedcba9876543210".repeat(2),
        "machine": {
            "cpus": 1, "memory_mib": 256, "kernel_arguments": null, "huge_pages": false,
            "kernel": asset("kernels/key/vmlinux"), "initrd": asset("initrd/key.cpio"),
            "base": asset("rootfs/key.ext4"), "interfaces": [],
        },
        "container": {
            "command": ["sh"], "labels": {}, "mounts": [], "hostname": null, "stop_signal": 15,
            "interactive": false, "terminal": false, "health": null,
        },
        "volumes": [],
        "image": { "reference": "hello", "digest": digest },
        "network": null, "ports": [],
        "files": { STATE: file, MEMORY: file, SCRATCH: file }, "base": null,
    });
    serde_json::from_value(value).unwrap()
}

/// A directory of the host.
pub(crate) fn volume() -> VolumeRecord {
    VolumeRecord {
        name: "/srv/site:/data".into(),
        path: "/srv/site".into(),
        named: None,
        kind: VolumeKind::Directory,
        options: Options::default(),
    }
}

/// Writes files with holes, as a hypervisor would.
pub(crate) fn fill(partial: &Partial) {
    fs::write(partial.path(STATE), "devices").unwrap();
    for (name, length) in [(MEMORY, 8 << 20), (SCRATCH, (64 << 20) + 5)] {
        let file = fs::File::create(partial.path(name)).unwrap();
        file.set_len(length).unwrap();
        for at in [0, 1 << 20, length - 5] {
            file.write_all_at(name.as_bytes().get(..5).unwrap(), at).unwrap();
        }
    }
}

pub(crate) fn make(store: &Store, name: &str) -> Snapshot {
    let partial = store.begin(&tag(name)).unwrap();
    fill(&partial);
    partial.commit(manifest(name)).unwrap()
}
