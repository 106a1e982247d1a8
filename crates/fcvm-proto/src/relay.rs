//! Bytes that go one way, over one stream after the other: a container's input, and its outputs, at
//! [`Port::Stdin`](crate::Port::Stdin), [`Port::Stdout`](crate::Port::Stdout) and
//! [`Port::Stderr`](crate::Port::Stderr).
//!
//! ```text
//!  taker   who it is, u64, and how many bytes it has taken, u64, both little endian;
//!          the second again, whenever there are many more, and at the end
//!  giver   pieces, from there on: u32 length, little endian, and so many bytes; one of none is the end,
//!          which counts as a byte
//! ```
//! A stream that ends otherwise has broken with its session, and the next goes on where the taker is. So nothing
//! is lost, and nothing comes twice, where a guest is reached in another session. A taker that the giver does not
//! know gets what no other was given, whatever it counts from: the host of a clone, whose output before was the
//! source's; and the guest of a clone, whose input before was.

/// Bytes before those of a piece.
pub const HEADER: usize = 4;
/// Most bytes of a piece. A longer one is a violation of the protocol.
pub const MAX_PIECE: usize = 64 << 10;
/// Bytes of what a taker says of itself: who it is, and a first account.
pub const OPENING: usize = 16;
/// Bytes of an account of what was taken.
pub const ACCOUNT: usize = 8;

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

/// What a taker says of itself.
#[must_use]
pub fn opening(taker: u64, taken: u64) -> [u8; OPENING] {
    let mut opening = [0; OPENING];
    opening[..ACCOUNT].copy_from_slice(&taker.to_le_bytes());
    opening[ACCOUNT..].copy_from_slice(&taken.to_le_bytes());
    opening
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

    #[test]
    fn openings_are_frozen() {
        assert_eq!(opening(1, 0x102), [1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
    }
}
