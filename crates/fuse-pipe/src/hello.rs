//! The first words on each lane, before any frame.
//!
//! ```text
//!   client                                             server
//!     | Hello    32 bytes: who, which lane of how many   |
//!     |------------------------------------------------->|
//!     | Welcome  16 bytes: whether, how large a frame    |
//!     |<-------------------------------------------------|
//!     | frames of FUSE, both ways                        |
//! ```
//! Little endian, and of fixed size, so that no length is to be believed. The id of the mount is the same
//! on all its lanes: by it the server knows what belongs together.

use std::{
    fmt,
    io::{self, Read, Write},
};

use rustix::rand::{GetRandomFlags, getrandom};

/// What this crate speaks.
pub const PROTOCOL: u16 = 1;
/// The most lanes of one mount.
pub const MAX_LANES: u16 = 64;

const MAGIC: [u8; 8] = *b"FUSEPIPE";

/// The first words were not what they should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The stream broke, or ended before all was said.
    #[error("the stream broke during the greeting")]
    Io(#[from] io::Error),
    /// Something else is at the other end.
    #[error("the other side does not speak fuse-pipe")]
    Magic,
    /// The other side is of another version.
    #[error("the other side speaks protocol {found}, this one {PROTOCOL}")]
    Protocol {
        /// What it speaks.
        found: u16,
    },
    /// There is no such lane.
    #[error("lane {lane} of {lanes} does not exist")]
    Lane {
        /// Its number, from 0.
        lane: u16,
        /// How many there are to be.
        lanes: u16,
    },
    /// A later version's flags.
    #[error("flags {flags:#x} are not known")]
    Flags {
        /// They.
        flags: u16,
    },
    /// A later version's status.
    #[error("status {status} is not known")]
    Status {
        /// It.
        status: u16,
    },
    /// The server does not want this lane.
    #[error("the server refused the lane")]
    Refused,
    /// The server takes only frames smaller than the kernel's smallest.
    #[error("the server takes frames of {largest} bytes only")]
    Small {
        /// The largest that it takes.
        largest: u32,
    },
}

impl HelloError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Protocol { .. } => Some("use a client and a server of the same release"),
            Self::Magic => Some("see that the stream leads to a fuse-pipe server"),
            _ => None,
        }
    }
}

/// What one mount's lanes have in common: random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MountId(pub [u8; 16]);

impl MountId {
    /// One that no other mount has.
    ///
    /// # Errors
    /// Where the kernel has no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        // So few bytes come at once or not at all.
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for MountId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MountId({:032x})", u128::from_be_bytes(self.0))
    }
}

/// The client's first words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The lane's number, from 0.
    pub lane: u16,
    /// How many lanes the mount has, 1 to [`MAX_LANES`].
    pub lanes: u16,
    /// Of which mount.
    pub mount: MountId,
}

impl Hello {
    /// Bytes on the wire.
    pub const SIZE: usize = 32;

    /// As it is on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&PROTOCOL.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.lane.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.lanes.to_le_bytes());
        // 14..16 are flags, of which there are none yet.
        bytes[16..].copy_from_slice(&self.mount.0);
        bytes
    }

    /// What is on the wire.
    ///
    /// # Errors
    /// Where it is not a greeting of this protocol, or its numbers make no sense.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, HelloError> {
        if bytes[..8] != MAGIC {
            return Err(HelloError::Magic);
        }
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let (found, lane, lanes, flags) = (number(8), number(10), number(12), number(14));
        if found != PROTOCOL {
            return Err(HelloError::Protocol { found });
        }
        if lanes > MAX_LANES || lane >= lanes {
            return Err(HelloError::Lane { lane, lanes });
        }
        if flags != 0 {
            return Err(HelloError::Flags { flags });
        }
        let mut mount = [0; 16];
        mount.copy_from_slice(&bytes[16..]);
        Ok(Self { lane, lanes, mount: MountId(mount) })
    }

    /// Says it.
    ///
    /// # Errors
    /// Where the stream broke.
    pub fn send(&self, stream: &mut impl Write) -> Result<(), HelloError> {
        stream.write_all(&self.encode())?;
        Ok(stream.flush()?)
    }

    /// Hears it: reads exactly its size.
    ///
    /// # Errors
    /// Where the stream broke, or as of [`decode`](Self::decode).
    pub fn receive(stream: &mut impl Read) -> Result<Self, HelloError> {
        let mut bytes = [0; Self::SIZE];
        stream.read_exact(&mut bytes)?;
        Self::decode(&bytes)
    }
}

/// Whether the server takes the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does.
    Accepted,
    /// It does not speak the client's protocol.
    UnknownProtocol,
    /// It does not want to.
    Refused,
}

/// The server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// What the server speaks.
    pub protocol: u16,
    /// Whether it goes on.
    pub status: Status,
    /// The largest request that it accepts, in bytes with its header.
    pub largest: u32,
}

impl Welcome {
    /// Bytes on the wire.
    pub const SIZE: usize = 16;

    /// A lane is taken, for requests of up to so many bytes.
    #[must_use]
    pub fn accepted(largest: u32) -> Self {
        Self { protocol: PROTOCOL, status: Status::Accepted, largest }
    }

    /// A lane is not taken.
    #[must_use]
    pub fn refused(status: Status) -> Self {
        Self { protocol: PROTOCOL, status, largest: 0 }
    }

    /// As it is on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let status: u16 = match self.status {
            Status::Accepted => 0,
            Status::UnknownProtocol => 1,
            Status::Refused => 2,
        };
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.protocol.to_le_bytes());
        bytes[10..12].copy_from_slice(&status.to_le_bytes());
        bytes[12..].copy_from_slice(&self.largest.to_le_bytes());
        bytes
    }

    /// What is on the wire. That the server says no is no error of it; see [`taken`](Self::taken).
    ///
    /// # Errors
    /// Where it is not an answer, or its status is not known.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<Self, HelloError> {
        if bytes[..8] != MAGIC {
            return Err(HelloError::Magic);
        }
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let status = match number(10) {
            0 => Status::Accepted,
            1 => Status::UnknownProtocol,
            2 => Status::Refused,
            status => return Err(HelloError::Status { status }),
        };
        let largest = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        Ok(Self { protocol: number(8), status, largest })
    }

    /// The largest request, where the server takes the lane.
    ///
    /// # Errors
    /// Where it does not.
    pub fn taken(&self) -> Result<u32, HelloError> {
        match self.status {
            Status::Refused => Err(HelloError::Refused),
            Status::Accepted if self.protocol == PROTOCOL => Ok(self.largest),
            Status::Accepted | Status::UnknownProtocol => Err(HelloError::Protocol { found: self.protocol }),
        }
    }

    /// Says it.
    ///
    /// # Errors
    /// Where the stream broke.
    pub fn send(&self, stream: &mut impl Write) -> Result<(), HelloError> {
        stream.write_all(&self.encode())?;
        Ok(stream.flush()?)
    }

    /// Hears it: reads exactly its size.
    ///
    /// # Errors
    /// Where the stream broke, or as of [`decode`](Self::decode).
    pub fn receive(stream: &mut impl Read) -> Result<Self, HelloError> {
        let mut bytes = [0; Self::SIZE];
        stream.read_exact(&mut bytes)?;
        Self::decode(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HELLO: Hello = Hello { lane: 1, lanes: 4, mount: MountId(*b"0123456789abcdef") };

    /// These bytes are the protocol. If this fails you changed the wire format: raise [`PROTOCOL`].
    #[test]
    fn v1_bytes_are_frozen() {
        assert_eq!(&HELLO.encode(), b"FUSEPIPE\x01\0\x01\0\x04\0\0\x000123456789abcdef");
        assert_eq!(&Welcome::accepted(0x0011_0000).encode(), b"FUSEPIPE\x01\0\0\0\0\0\x11\0");
        assert_eq!(&Welcome::refused(Status::UnknownProtocol).encode(), b"FUSEPIPE\x01\0\x01\0\0\0\0\0");
        assert_eq!(&Welcome::refused(Status::Refused).encode(), b"FUSEPIPE\x01\0\x02\0\0\0\0\0");
    }

    #[test]
    fn what_is_sent_is_received() {
        let mut wire = Vec::new();
        HELLO.send(&mut wire).unwrap();
        assert_eq!(Hello::receive(&mut &wire[..]).unwrap(), HELLO);
        assert!(matches!(Hello::receive(&mut &wire[1..]), Err(HelloError::Io(_))));
    }

    #[test]
    fn each_wrong_field_is_its_own_error() {
        let broken = |at: usize, value: u8| {
            let mut bytes = HELLO.encode();
            bytes[at] = value;
            Hello::decode(&bytes).unwrap_err()
        };
        assert!(matches!(broken(0, b'f'), HelloError::Magic));
        assert!(matches!(broken(8, 2), HelloError::Protocol { found: 2 }));
        assert!(matches!(broken(10, 4), HelloError::Lane { lane: 4, lanes: 4 }));
        assert!(matches!(broken(12, 65), HelloError::Lane { lanes: 65, .. }));
        assert!(matches!(broken(12, 0), HelloError::Lane { lanes: 0, .. }));
        assert!(matches!(broken(15, 1), HelloError::Flags { flags: 0x100 }));
        let mut answer = Welcome::accepted(1).encode();
        answer[10] = 3;
        assert!(matches!(Welcome::decode(&answer), Err(HelloError::Status { status: 3 })));
    }

    #[test]
    fn a_server_that_says_no_is_understood() {
        assert_eq!(Welcome::accepted(7).taken().unwrap(), 7);
        assert!(matches!(Welcome::refused(Status::Refused).taken(), Err(HelloError::Refused)));
        let other = Welcome { protocol: 2, ..Welcome::refused(Status::UnknownProtocol) };
        assert!(matches!(other.taken(), Err(HelloError::Protocol { found: 2 })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_or_themselves(bytes: [u8; 32], start in 0_usize..=10) {
            let mut bytes = bytes;
            let greeting = HELLO.encode();
            bytes[..start].copy_from_slice(&greeting[..start]);
            if let Ok(hello) = Hello::decode(&bytes) {
                prop_assert_eq!(hello.encode(), bytes);
            }
        }
    }
}
