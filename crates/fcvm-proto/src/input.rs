//! A container's input: streams at [`Port::Stdin`](crate::Port::Stdin), one after the other.
//!
//! ```text
//!  agent   how many bytes of input it has taken, u64, little endian: at once, and whenever there are more
//!  host    pieces, from there on: u32 length, little endian, and so many bytes; one of none is the end
//! ```
//! A stream that ends otherwise has broken with its session, and the next goes on where the agent is. So nothing
//! is lost, and nothing comes twice, where a guest is reached in another session; and the container of a machine
//! that goes on from a snapshot waits for what its own host has for it.

/// Bytes before those of a piece.
pub const HEADER: usize = 4;
/// Most bytes of a piece. A longer one is a violation of the protocol.
pub const MAX_PIECE: usize = 64 << 10;
/// Bytes of an account of what was taken.
pub const COUNT: usize = 8;

/// What comes before a piece's bytes; [`MAX_PIECE`] of them at most.
#[must_use]
pub fn header(piece: &[u8]) -> [u8; HEADER] {
    u32::try_from(piece.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// How many bytes of a piece follow; nothing where that is a violation.
#[must_use]
pub fn piece_length(header: [u8; HEADER]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(header)).ok().filter(|length| *length <= MAX_PIECE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_frozen_and_bounded() {
        assert_eq!(header(&[0; 258]), [2, 1, 0, 0]);
        assert_eq!(piece_length([2, 1, 0, 0]), Some(258));
        assert_eq!(piece_length([0; HEADER]), Some(0));
        assert_eq!(piece_length([0, 0, 1, 0]), Some(MAX_PIECE));
        assert_eq!(piece_length([1, 0, 1, 0]), None);
        assert_eq!(piece_length([255; HEADER]), None);
    }
}
