//! Volumes: directories and files of the host in the guest.
//!
//! ```text
//! host                                              guest
//!   BootPlan.volumes ------------------------------->
//!   Volume: Lane, then fuse-pipe, whose client is the guest
//!   ... a stream for each lane of each volume ...
//!                                                   mounts each once all its lanes are there,
//!                                                   then starts the container
//! ```
//! A stream is one of the link's, or where the machine can have them, a connection of its own
//! ([`VSOCK_STREAMS_PORT`](crate::transport::VSOCK_STREAMS_PORT)), which begins with the port's number
//! as the link's do.

use serde::{Deserialize, Serialize};

/// Where the guest mounts volumes: each in a directory, or on a file, named by its number.
pub const VOLUMES_DIR: &str = "/run/fcvm/volumes";
/// The most volumes of a guest.
pub const MAX_VOLUMES: usize = 100;
/// The most lanes of a volume.
pub const MAX_LANES: u16 = 4;

/// What the guest mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// As the user knows it, for errors.
    pub name: String,
    /// What it is.
    pub kind: VolumeKind,
    /// Whether nothing in it can be changed: the host sees to it, the guest's mount says so.
    pub read_only: bool,
    /// How many streams the host opens for it; at least one, at most [`MAX_LANES`].
    pub lanes: u16,
}

impl Volume {
    /// Where the guest has the volume of that number.
    #[must_use]
    pub fn path(number: usize) -> String {
        format!("{VOLUMES_DIR}/{number}")
    }
}

/// What a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeKind {
    /// A directory with all that is in it.
    Directory,
    /// One file.
    File,
}

/// The first bytes of a volume's stream, from the host: which lane of which volume it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// The volume, by its place in the plan.
    pub volume: u16,
    /// The lane, from 0.
    pub lane: u16,
}

impl Lane {
    /// Bytes on the wire.
    pub const LENGTH: usize = 4;

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; Self::LENGTH] {
        let ([a, b], [c, d]) = (self.volume.to_le_bytes(), self.lane.to_le_bytes());
        [a, b, c, d]
    }

    /// From bytes: any are a lane, though perhaps one that is not expected.
    #[must_use]
    pub fn decode([a, b, c, d]: [u8; Self::LENGTH]) -> Self {
        Self { volume: u16::from_le_bytes([a, b]), lane: u16::from_le_bytes([c, d]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    /// These bytes are the protocol.
    #[test]
    fn bytes_are_frozen() {
        let lane = Lane { volume: 0x0102, lane: 3 };
        assert_eq!(lane.encode(), [2, 1, 3, 0]);
        assert_eq!(Lane::decode(lane.encode()), lane);
        let volume = Volume { name: "n".into(), kind: VolumeKind::File, read_only: true, lanes: 2 };
        assert_eq!(frame::encode(&volume).unwrap()[frame::HEADER..], [1, b'n', 1, 1, 2]);
        assert_eq!(Volume::path(7), "/run/fcvm/volumes/7");
    }
}
