//! Records of VMs that no hypervisor runs, for tests.

use std::{collections::BTreeMap, path::Path};

use super::{Life, NewVm, ProcessType, Registry, RestartPolicy, RuntimeDir};
use crate::storage::DataDir;

/// Directories of data and of sockets, both below `root`.
pub(crate) fn registry(root: &Path) -> Registry {
    let data = DataDir::open(Some(root.join("data"))).unwrap();
    Registry::new(&data, RuntimeDir::at(root.join("run")))
}

/// A VM in the foreground.
pub(crate) fn vm(name: Option<&str>) -> NewVm {
    NewVm {
        name: name.map(|name| name.parse().unwrap()),
        hypervisor: "qemu".into(),
        image: "hello".into(),
        command: Vec::new(),
        cpus: 1,
        memory_mib: 256,
        life: Life::Foreground,
        mounts: Vec::new(),
        labels: BTreeMap::new(),
        restart_policy: RestartPolicy::No,
        process_type: ProcessType::Vm,
        snapshot: None,
        serve_pid: None,
    }
}
