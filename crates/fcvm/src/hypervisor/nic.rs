//! The network interface of a machine, and what is behind it.

use std::{path::PathBuf, sync::Arc};

use fcvm_proto::Interface;

use crate::process::Namespaces;

/// The network interface of a machine.
#[derive(Debug, Clone)]
pub struct Nic {
    /// As the guest has to set it up.
    pub interface: Interface,
    /// Where its packets go.
    pub backend: NicBackend,
}

/// What is behind a network interface.
#[derive(Debug, Clone)]
pub enum NicBackend {
    /// A tap that is there, up, and this user's.
    Tap {
        /// Its name.
        name: String,
        /// Where it is: the machine's process is to be in them.
        namespaces: Arc<Namespaces>,
    },
    /// A Unix stream socket on which passt listens.
    Stream(PathBuf),
}

impl Nic {
    /// The namespaces in which the machine's process is to be.
    pub(super) fn namespaces(&self) -> Option<&Arc<Namespaces>> {
        match &self.backend {
            NicBackend::Tap { namespaces, .. } => Some(namespaces),
            NicBackend::Stream(_) => None,
        }
    }

    /// The hardware address of the guest's side, as hypervisors take it.
    pub(super) fn mac(&self) -> String {
        mac(self.interface.mac)
    }
}

/// A hardware address as hypervisors take it.
pub(super) fn mac(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// An interface for the tests of backends, on a tap.
#[cfg(test)]
pub(super) fn test_nic() -> Nic {
    use fcvm_proto::Address;

    let namespace = std::fs::File::open("/proc/self/ns/net").expect("a process has a network namespace");
    Nic {
        interface: Interface {
            mac: [2, 0, 0, 0, 0, 0x0a],
            mtu: Some(1400),
            addresses: vec![Address { address: [10, 0, 2, 100].into(), prefix: 24 }],
            routes: Vec::new(),
        },
        backend: NicBackend::Tap {
            name: "tap0".into(),
            namespaces: Arc::new(Namespaces { user: None, network: namespace.into() }),
        },
    }
}
