//! The 512 bytes before an entry.

use super::TarError;

/// The unit of tar archives.
pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
pub(super) struct Header {
    bytes: Box<[u8; BLOCK]>,
}

/// Who wrote the header, which says what its end means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Gnu,
    Ustar,
    Star,
}

impl Header {
    /// Nothing where the block is all zeros, the end of the archive.
    pub(super) fn parse(bytes: Box<[u8; BLOCK]>) -> Result<Option<Self>, TarError> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Self { bytes };
        let stored = header.number("chksum", 148, 8)?;
        // The field itself counts as spaces. Some archivers took bytes for signed.
        let others = || header.bytes[..148].iter().chain(&header.bytes[156..]);
        let unsigned: i64 = others().map(|byte| i64::from(*byte)).sum::<i64>() + 8 * 32;
        let signed: i64 = others().map(|byte| i64::from(byte.cast_signed())).sum::<i64>() + 8 * 32;
        if stored != unsigned && stored != signed {
            return Err(TarError::Checksum);
        }
        Ok(Some(header))
    }

    pub(super) fn kind(&self) -> u8 {
        self.bytes[156]
    }

    /// The name, with its prefix where the format has one.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix = match self.format() {
            Format::Ustar => self.text(345, 155),
            Format::Star => self.text(345, 131),
            Format::V7 | Format::Gnu => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link_target(&self) -> Vec<u8> {
        self.text(157, 100).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u16, TarError> {
        Ok((self.number("mode", 100, 8)? & 0o7777) as u16)
    }

    pub(super) fn uid(&self) -> Result<u32, TarError> {
        self.small("uid", 108)
    }

    pub(super) fn gid(&self) -> Result<u32, TarError> {
        self.small("gid", 116)
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        self.large("size", 124)
    }

    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        self.number("mtime", 136, 12)
    }

    /// The device number; an empty field is zero.
    pub(super) fn device(&self) -> Result<(u32, u32), TarError> {
        if self.format() == Format::V7 {
            return Ok((0, 0));
        }
        Ok((self.small("devmajor", 329)?, self.small("devminor", 337)?))
    }

    /// The start of an old GNU sparse map, and whether it goes on in the next block.
    pub(super) fn sparse_map(&self) -> (&[u8], bool) {
        (&self.bytes[386..482], self.bytes[482] != 0)
    }

    /// The size of an old GNU sparse file with its holes.
    pub(super) fn sparse_size(&self) -> Result<u64, TarError> {
        self.large("realsize", 483)
    }

    fn format(&self) -> Format {
        match &self.bytes[257..265] {
            b"ustar  \0" => Format::Gnu,
            magic if magic.starts_with(b"ustar\0") => {
                if &self.bytes[508..] == b"tar\0" {
                    Format::Star
                } else {
                    Format::Ustar
                }
            }
            _ => Format::V7,
        }
    }

    fn text(&self, at: usize, length: usize) -> &[u8] {
        let field = &self.bytes[at..at + length];
        field.split(|byte| *byte == 0).next().unwrap_or(field)
    }

    fn small(&self, field: &'static str, at: usize) -> Result<u32, TarError> {
        u32::try_from(self.number(field, at, 8)?).map_err(|_| TarError::Number { field })
    }

    fn large(&self, field: &'static str, at: usize) -> Result<u64, TarError> {
        u64::try_from(self.number(field, at, 12)?).map_err(|_| TarError::Number { field })
    }

    fn number(&self, field: &'static str, at: usize, length: usize) -> Result<i64, TarError> {
        number(&self.bytes[at..at + length]).ok_or(TarError::Number { field })
    }
}

/// Octal digits between spaces and zero bytes, or a big-endian number after a set top bit.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Bit 6 is the sign. Fields have at most twelve bytes.
        let head = if first & 0x40 != 0 { first } else { first & 0x7f };
        let head = i128::from(head.cast_signed());
        let value = rest.iter().fold(head, |value, byte| value << 8 | i128::from(*byte));
        return i64::try_from(value).ok();
    }
    let padding = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !padding(byte)).unwrap_or(field.len());
    let digits = field[start..].split(padding).next().unwrap_or_default();
    digits.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_all_their_forms() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"77777777777\0"), Some(0o77_777_777_777));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(b"-000001\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), Some(0xffff_ffff));
        assert_eq!(number(&[0xff; 8]), Some(-1));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]), Some(2 << 32));
        assert_eq!(number(&[0x80, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]), None);
        assert_eq!(number(&[0x81, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
