//! What carries the link, and how host and guest agree on it.

/// The vsock port that the agent listens on, and at which it knocks at the host once it does.
pub const VSOCK_PORT: u32 = 1024;
/// The vsock port at which the agent takes streams beside the link, each of which begins with its
/// [port](crate::Port)'s number.
pub const VSOCK_STREAMS_PORT: u32 = 1025;

/// The device between host and guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// One virtio-serial port.
    #[default]
    VirtioSerial,
    /// Connections over virtio-vsock.
    Vsock,
}

impl Transport {
    /// Name of the kernel parameter that tells the guest; without it, it is virtio-serial.
    pub const PARAMETER: &str = "fcvm.transport";

    /// The parameter's value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtioSerial => "virtio-serial",
            Self::Vsock => "vsock",
        }
    }

    /// The transport of a value.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::VirtioSerial, Self::Vsock].into_iter().find(|transport| transport.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent in an initrd or a snapshot knows these.
    #[test]
    fn names_are_frozen() {
        assert_eq!(Transport::from_name("vsock"), Some(Transport::Vsock));
        assert_eq!(Transport::from_name("virtio-serial"), Some(Transport::VirtioSerial));
        assert_eq!(Transport::from_name("serial"), None);
        assert_eq!((Transport::PARAMETER, VSOCK_PORT), ("fcvm.transport", 1024));
        assert_eq!(VSOCK_STREAMS_PORT, 1025);
    }
}
