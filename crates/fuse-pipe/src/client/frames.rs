//! Replies, cut out of what a stream gives.
//!
//! A read takes as many bytes as there are, often several replies. Only the length at the start of each is
//! believed, and only after it was found to be possible; what the reply says is between server and kernel.

use super::MAX_FRAME;

/// `fuse_out_header` of `linux/fuse.h`: `len: u32, error: i32, unique: u64`, as this machine orders bytes.
const HEADER: usize = 16;
const LENGTH: usize = 4;

/// One whole reply, or a notification.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) bytes: &'a [u8],
    /// 0, or the negative error number.
    pub(super) error: i32,
    pub(super) unique: u64,
}

impl Frame<'_> {
    /// Whether it answers nothing: the kernel is told something.
    pub(super) fn is_notification(&self) -> bool {
        self.unique == 0
    }
}

/// A length that no reply has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadLength(pub(super) u32);

/// Bytes that were read, and room for more.
#[derive(Debug)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Frames {
    /// Room for one of the largest replies: the memory is the kernel's until it is written to.
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; MAX_FRAME], start: 0, end: 0 }
    }

    /// Where the next bytes go: never empty after [`next`](Self::next) had nothing more.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let needed = self.length().map_or(HEADER, |length| (length as usize).clamp(HEADER, MAX_FRAME));
        if self.start + needed > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were put there.
    pub(super) fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// The next whole reply; `None` where more is to be read before.
    pub(super) fn next(&mut self) -> Result<Option<Frame<'_>>, BadLength> {
        let Some(announced) = self.length() else { return Ok(None) };
        let length = announced as usize;
        if !(HEADER..=MAX_FRAME).contains(&length) {
            return Err(BadLength(announced));
        }
        let Some(bytes) = self.buffer[self.start..self.end].get(..length) else { return Ok(None) };
        self.start += length;
        Ok(Some(parse(bytes)))
    }

    /// What the next reply says of its length.
    fn length(&self) -> Option<u32> {
        let (length, _) = self.buffer[self.start..self.end].split_first_chunk::<LENGTH>()?;
        Some(u32::from_ne_bytes(*length))
    }
}

/// `bytes` are a header at least.
fn parse(bytes: &[u8]) -> Frame<'_> {
    let (mut error, mut unique) = ([0; 4], [0; 8]);
    error.copy_from_slice(&bytes[4..8]);
    unique.copy_from_slice(&bytes[8..HEADER]);
    Frame { bytes, error: i32::from_ne_bytes(error), unique: u64::from_ne_bytes(unique) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply(unique: u64, body: usize) -> Vec<u8> {
        let length = u32::try_from(HEADER + body).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend((-2_i32).to_ne_bytes());
        bytes.extend(unique.to_ne_bytes());
        bytes.resize(HEADER + body, 7);
        bytes
    }

    /// Gives the bytes in pieces of these sizes, over and over.
    fn cut(mut wire: &[u8], pieces: &[usize]) -> Vec<Vec<u8>> {
        let (mut frames, mut found) = (Frames::new(), Vec::new());
        for &piece in pieces.iter().cycle() {
            while let Some(frame) = frames.next().unwrap() {
                found.push(frame.bytes.to_vec());
            }
            if wire.is_empty() {
                return found;
            }
            let room = frames.room();
            assert!(!room.is_empty());
            let read = piece.min(room.len()).min(wire.len());
            room[..read].copy_from_slice(&wire[..read]);
            frames.filled(read);
            wire = &wire[read..];
        }
        found
    }

    #[test]
    fn a_frame_is_understood() {
        let mut frames = Frames::new();
        frames.room()[..HEADER].copy_from_slice(&reply(9, 0));
        frames.filled(HEADER);
        let frame = frames.next().unwrap().unwrap();
        assert_eq!((frame.error, frame.is_notification()), (-2, false));
    }

    #[test]
    fn the_largest_frames_pass_in_any_pieces() {
        let sent: Vec<_> = [MAX_FRAME - HEADER, 0, MAX_FRAME - HEADER, 5].map(|body| reply(1, body)).into();
        for piece in [MAX_FRAME, 4095, 200_001] {
            assert!(cut(&sent.concat(), &[piece]) == sent, "{piece}");
        }
    }

    #[test]
    fn impossible_lengths_are_refused_before_anything_is_read() {
        for length in [0, 15, u32::try_from(MAX_FRAME).unwrap() + 1, u32::MAX] {
            let mut frames = Frames::new();
            frames.room()[..4].copy_from_slice(&length.to_ne_bytes());
            frames.filled(4);
            assert_eq!(frames.next(), Err(BadLength(length)));
        }
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            bodies in prop::collection::vec(0_usize..300_000, 1..12),
            pieces in prop::collection::vec(1_usize..400_000, 1..6),
        ) {
            let sent: Vec<_> = (1..).zip(bodies).map(|(unique, body)| reply(unique, body)).collect();
            prop_assert!(cut(&sent.concat(), &pieces) == sent);
        }
    }
}
