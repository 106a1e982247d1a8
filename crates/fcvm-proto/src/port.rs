//! Numbered ports: each stream between host and guest belongs to one.

/// What a stream is for: the number is the stream's first four bytes, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Port {
    /// Framed [`ToGuest`](crate::ToGuest) and [`ToHost`](crate::ToHost) messages.
    Control = 1,
    /// The container's standard input, host to guest: see [`relay`](crate::relay).
    Stdin = 2,
    /// Its standard output, or its terminal's, guest to host, likewise.
    Stdout = 3,
    /// Its standard error, likewise.
    Stderr = 4,
    /// Framed messages of one more command: see [`exec`](crate::exec).
    Exec = 5,
    /// Such a command's standard input, host to guest: its id, then raw bytes.
    ExecStdin = 6,
    /// Its standard output, or its terminal's: the host sends the id, the guest raw bytes.
    ExecStdout = 7,
    /// Its standard error, likewise.
    ExecStderr = 8,
    /// A connection to a TCP port of the guest's loopback: see [`tcp`](crate::tcp).
    Tcp = 9,
    /// FUSE frames of a volume, host to guest and back: see [`volume`](crate::volume).
    Volume = 10,
}

impl Port {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The port of a number, `None` for one this version does not know.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Control),
            2 => Some(Self::Stdin),
            3 => Some(Self::Stdout),
            4 => Some(Self::Stderr),
            5 => Some(Self::Exec),
            6 => Some(Self::ExecStdin),
            7 => Some(Self::ExecStdout),
            8 => Some(Self::ExecStderr),
            9 => Some(Self::Tcp),
            10 => Some(Self::Volume),
            _ => None,
        }
    }

    /// Whether a program on the host may have a stream to it, by way of the VM's owner. The
    /// others are the owner's alone.
    #[must_use]
    pub const fn client_may_open(self) -> bool {
        match self {
            Self::Control | Self::Stdin | Self::Stdout | Self::Stderr | Self::Tcp | Self::Volume => false,
            Self::Exec | Self::ExecStdin | Self::ExecStdout | Self::ExecStderr => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These numbers are the protocol.
    #[test]
    fn numbers_are_frozen_and_round_trip() {
        let frozen = [
            (Port::Control, 1),
            (Port::Stdin, 2),
            (Port::Stdout, 3),
            (Port::Stderr, 4),
            (Port::Exec, 5),
            (Port::ExecStdin, 6),
            (Port::ExecStdout, 7),
            (Port::ExecStderr, 8),
            (Port::Tcp, 9),
            (Port::Volume, 10),
        ];
        for (port, number) in frozen {
            assert_eq!(port.number(), number);
            assert_eq!(Port::from_number(number), Some(port));
        }
        assert_eq!(Port::from_number(0), None);
        assert_eq!(Port::from_number(11), None);
    }
}
