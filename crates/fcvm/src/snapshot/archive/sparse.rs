//! Maps of files with holes, in the format 1.0 of GNU tar: numbers in lines, how many parts there are, and of
//! each where it begins and how long it is; then zeros up to whole blocks of tar's. The last part is empty
//! where the file ends with a hole.

use std::io::{self, Read};

use crate::snapshot::blocks::{BLOCK_LENGTH, Extent};

/// Bytes of a block of tar's.
const TAR_BLOCK: usize = 512;
/// Most parts of a file: every other block of 128 GiB.
const MAX_PARTS: u64 = 1 << 24;

/// The map of a file of that length.
pub(super) fn map(extents: &[Extent], length: u64) -> Vec<u8> {
    let ends_with_data = extents.last().is_some_and(|last| last.end == length);
    let end = (!ends_with_data).then_some(Extent { start: length, end: length });
    let mut text = format!("{}\n", extents.len() + usize::from(end.is_some()));
    for part in extents.iter().chain(&end) {
        text += &format!("{}\n{}\n", part.start, part.length());
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(TAR_BLOCK), 0);
    bytes
}

/// Reads the map of a file of that length: its data, in order, in whole blocks but for the end of the file.
pub(super) fn read_map(from: &mut impl Read, length: u64) -> io::Result<Vec<Extent>> {
    let mut numbers = Numbers { from, block: [0; TAR_BLOCK], at: TAR_BLOCK };
    let count = numbers.next()?;
    if count > MAX_PARTS {
        return Err(wrong("it has too many parts"));
    }
    let mut extents = Vec::new();
    let mut at = 0;
    for _ in 0..count {
        let start = numbers.next()?;
        let end = start.checked_add(numbers.next()?).ok_or_else(|| wrong("it ends behind its end"))?;
        if start < at || end > length {
            return Err(wrong("its parts are not in order, or behind its end"));
        }
        at = end;
        if start == end {
            continue;
        }
        if start % BLOCK_LENGTH != 0 || (end % BLOCK_LENGTH != 0 && end != length) {
            return Err(wrong("its parts are not made of blocks"));
        }
        extents.push(Extent { start, end });
    }
    Ok(extents)
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Numbers in lines.
struct Numbers<'a, R> {
    from: &'a mut R,
    block: [u8; TAR_BLOCK],
    /// Of the next byte.
    at: usize,
}

impl<R: Read> Numbers<'_, R> {
    fn next(&mut self) -> io::Result<u64> {
        let mut number: Option<u64> = None;
        loop {
            if self.at == TAR_BLOCK {
                self.from.read_exact(&mut self.block)?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match (byte, number) {
                (b'\n', Some(number)) => return Ok(number),
                (b'0'..=b'9', _) => {
                    let digit = u64::from(byte - b'0');
                    let shifted = number.unwrap_or(0).checked_mul(10).and_then(|ten| ten.checked_add(digit));
                    number = Some(shifted.ok_or_else(|| wrong("its map has a number that is too large"))?);
                }
                _ => return Err(wrong("its map is not made of numbers")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: u64 = BLOCK_LENGTH;

    fn read(text: &str, length: u64) -> io::Result<Vec<Extent>> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(bytes.len().next_multiple_of(TAR_BLOCK), 0);
        read_map(&mut bytes.as_slice(), length)
    }

    #[test]
    fn maps_are_lines_of_numbers() {
        let extents = [Extent { start: 0, end: BLOCK }, Extent { start: 2 * BLOCK, end: 3 * BLOCK }];
        let bytes = map(&extents, 4 * BLOCK);
        assert_eq!(bytes.len(), TAR_BLOCK);
        assert!(bytes.starts_with(b"3\n0\n4096\n8192\n4096\n16384\n0\n\0"));
        assert_eq!(read_map(&mut bytes.as_slice(), 4 * BLOCK).unwrap(), extents);
        assert!(map(&extents, 3 * BLOCK).starts_with(b"2\n0\n"));
        assert!(map(&[], 7).starts_with(b"1\n7\n0\n"));
    }

    #[test]
    fn what_is_none_is_refused() {
        for (text, words) in [
            ("x\n", "not made of numbers"),
            ("\n", "not made of numbers"),
            ("-1\n", "not made of numbers"),
            ("1\n0\n", "not made of numbers"),
            ("99999999999999999999\n", "too large"),
            ("16777217\n", "too many parts"),
            ("1\n0\n40960\n", "behind its end"),
            ("1\n4096\n18446744073709551615\n", "behind its end"),
            ("2\n4096\n4096\n0\n4096\n", "not in order"),
            ("2\n0\n8192\n4096\n4096\n", "not in order"),
            ("1\n1\n4095\n", "not made of blocks"),
            ("1\n0\n100\n", "not made of blocks"),
        ] {
            let error = read(text, 5 * BLOCK).unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
        assert_eq!(read_map(&mut &b"1\n0"[..], 10).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn maps_are_read_as_they_are_written(
            parts in proptest::collection::vec((1_u64..1000, 1_u64..1000), 0..300), tail in 0_u64..5000,
        ) {
            let mut at = 0;
            let extents: Vec<_> = parts.iter().map(|(hole, data)| {
                let start = at + hole * BLOCK;
                at = start + data * BLOCK;
                Extent { start, end: at }
            }).collect();
            let bytes = map(&extents, at + tail);
            prop_assert_eq!(read_map(&mut bytes.as_slice(), at + tail).unwrap(), extents);
        }

        #[test]
        fn no_map_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000), length: u64) {
            drop(read_map(&mut bytes.as_slice(), length));
        }
    }
}
