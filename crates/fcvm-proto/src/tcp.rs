//! Messages of the TCP port: a connection to what listens on the guest's loopback.
//!
//! ```text
//! host                                    guest
//!   TcpRequest ---------------------------->  connects to 127.0.0.1, then to ::1
//!   <------------------------------ TcpReply
//!   after Connected: bytes, both ways
//! ```

use serde::{Deserialize, Serialize};

/// The first message of such a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpRequest {
    /// The TCP port.
    pub port: u16,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TcpReply {
    /// What follows is the connection's.
    Connected,
    /// There is none: why, untrusted.
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    /// These bytes are the protocol. If this fails you changed the wire format: raise `PROTOCOL`.
    #[test]
    fn tcp_bytes_are_frozen() {
        let body = |bytes: Vec<u8>| bytes[frame::HEADER..].to_vec();
        assert_eq!(body(frame::encode(&TcpRequest { port: 300 }).unwrap()), [172, 2]);
        assert_eq!(body(frame::encode(&TcpReply::Connected).unwrap()), [0]);
        assert_eq!(body(frame::encode(&TcpReply::Refused("r".into())).unwrap()), [1, 1, b'r']);
    }
}
