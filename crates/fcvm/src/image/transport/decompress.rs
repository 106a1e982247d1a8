//! Compressed streams, told by their first bytes.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

/// Memory an xz or zstd stream may ask for: what their highest usual levels need (xz -9: 65 MiB).
const WINDOW_LOG_MAX: u32 = 27;
const XZ_MEMORY_KIB: u32 = 160 << 10;

/// A reader with the bytes that were looked at put back.
pub(in crate::image) type Rewound<R> = BufReader<io::Chain<io::Cursor<Vec<u8>>, R>>;

/// What the first bytes of a stream say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Magic {
    /// Not compressed in a way that is known here.
    Plain,
    Gzip,
    Zstd,
    Xz,
    /// Known, but not read.
    Bzip2,
}

impl Magic {
    /// How many bytes it takes to tell.
    pub(in crate::image) const LENGTH: usize = 6;

    pub(in crate::image) fn of(bytes: &[u8]) -> Self {
        let begins = |magic: &[u8]| bytes.starts_with(magic);
        // Zstd streams may begin with a skippable frame.
        let skippable = bytes.len() >= 4 && bytes[0] & 0xf0 == 0x50 && bytes[1..4] == [0x2a, 0x4d, 0x18];
        if begins(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if begins(&[0x28, 0xb5, 0x2f, 0xfd]) || skippable {
            Self::Zstd
        } else if begins(b"\xfd7zXZ\0") {
            Self::Xz
        } else if begins(b"BZh") {
            Self::Bzip2
        } else {
            Self::Plain
        }
    }

    /// Looks at the first bytes and gives back a reader that still has them.
    pub(in crate::image) fn detect<R: Read>(mut reader: R) -> io::Result<(Self, Rewound<R>)> {
        let mut head = Vec::with_capacity(Self::LENGTH);
        reader.by_ref().take(Self::LENGTH as u64).read_to_end(&mut head)?;
        let magic = Self::of(&head);
        Ok((magic, BufReader::with_capacity(128 << 10, io::Cursor::new(head).chain(reader))))
    }
}

/// A reader of what `reader` is when uncompressed.
pub(in crate::image) fn decoder<'a>(
    magic: Magic,
    reader: impl BufRead + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match magic {
        Magic::Plain => Box::new(reader),
        Magic::Gzip => Box::new(MultiGzDecoder::new(reader)),
        Magic::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(reader)?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Magic::Xz => Box::new(XzReader::new_mem_limit(reader, true, XZ_MEMORY_KIB)),
        Magic::Bzip2 => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "bzip2 is not supported; use gzip, xz or zstd",
            ));
        }
    })
}
