//! Decompression of kernels and modules, bounded.

use std::io::{self, Read as _};

/// The bytes cannot be decompressed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecompressError {
    /// Damaged.
    #[error("damaged {kind} data")]
    Damaged {
        /// The compression.
        kind: &'static str,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// A bomb, or not what it is taken for.
    #[error("decompressed {kind} data is larger than {limit} bytes")]
    TooLarge {
        /// The compression.
        kind: &'static str,
        /// The limit.
        limit: usize,
    },
}

/// Kinds of compression, by their first bytes.
const KINDS: [(&[u8], Kind); 4] = [
    (b"\x1f\x8b\x08", Kind::Gzip),
    (b"\xfd7zXZ\0", Kind::Xz),
    (b"\x28\xb5\x2f\xfd", Kind::Zstd),
    (b"\x02\x21\x4c\x18", Kind::Lz4Legacy),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gzip,
    Xz,
    Zstd,
    Lz4Legacy,
}

impl Kind {
    fn of(bytes: &[u8]) -> Option<Self> {
        KINDS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, kind)| *kind)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4Legacy => "LZ4",
        }
    }
}

/// Whether the bytes begin as compressed data does.
pub(super) fn is_compressed(bytes: &[u8]) -> bool {
    Kind::of(bytes).is_some()
}

/// Decompresses one stream; what follows it is ignored (a kernel image has its
/// size there). Bytes that are not compressed are returned as they are.
///
/// # Errors
/// Where the data is damaged, or decompresses to more than `limit` bytes.
pub(super) fn any(bytes: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    let Some(kind) = Kind::of(bytes) else { return Ok(bytes.to_owned()) };
    let bound = limit as u64 + 1;
    let mut output = Vec::new();
    let read = match kind {
        Kind::Gzip => flate2::bufread::GzDecoder::new(bytes).take(bound).read_to_end(&mut output),
        Kind::Xz => {
            // 64 MiB is the largest dictionary of any preset.
            let memory = 80 << 10;
            lzma_rust2::XzReader::new_mem_limit(bytes, false, memory).take(bound).read_to_end(&mut output)
        }
        Kind::Zstd => zstd::Decoder::with_buffer(bytes)
            .map(zstd::Decoder::single_frame)
            .and_then(|decoder| decoder.take(bound).read_to_end(&mut output)),
        Kind::Lz4Legacy => lz4_legacy(bytes, limit, &mut output),
    };
    read.map_err(|source| DecompressError::Damaged { kind: kind.name(), source })?;
    if output.len() > limit {
        return Err(DecompressError::TooLarge { kind: kind.name(), limit });
    }
    Ok(output)
}

/// LZ4 as `lz4 -l` writes it: the magic, then blocks of up to 8 MiB, each after
/// its compressed length. A kernel image has the decompressed size at the end,
/// where the length of one more block would be.
fn lz4_legacy(bytes: &[u8], limit: usize, output: &mut Vec<u8>) -> io::Result<usize> {
    const BLOCK: usize = 8 << 20;
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut rest = bytes.get(4..).unwrap_or_default();
    let mut block = vec![0; BLOCK];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        if after.is_empty() {
            break;
        }
        let length = u32::from_le_bytes(*length) as usize;
        let data = after.get(..length).ok_or_else(|| damaged("a block ends after the data"))?;
        let written = lz4_flex::block::decompress_into(data, &mut block).map_err(io::Error::other)?;
        output.extend_from_slice(&block[..written]);
        if output.len() > limit {
            break;
        }
        rest = &after[length..];
    }
    Ok(output.len())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn lz4(text: &[u8], size: bool) -> Vec<u8> {
        let mut bytes = b"\x02\x21\x4c\x18".to_vec();
        for chunk in text.chunks(8 << 20) {
            let block = lz4_flex::block::compress(chunk);
            bytes.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
            bytes.extend(block);
        }
        if size {
            bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        }
        bytes
    }

    fn samples(text: &[u8]) -> Vec<Vec<u8>> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
        xz.write_all(text).unwrap();
        let mut zstd = zstd::encode_all(text, 1).unwrap();
        zstd.extend([1, 2, 3, 4]);
        vec![gzip.finish().unwrap(), xz.finish().unwrap(), zstd, lz4(text, false), lz4(text, true)]
    }

    #[test]
    fn every_kind_round_trips() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for sample in samples(&text) {
            assert!(is_compressed(&sample));
            assert_eq!(any(&sample, text.len()).unwrap(), text);
            let error = any(&sample, text.len() - 1).unwrap_err();
            assert!(matches!(error, DecompressError::TooLarge { .. }), "{error}");
            let half = any(&sample[..sample.len() / 2], text.len());
            assert!(matches!(half, Err(DecompressError::Damaged { .. })), "{:?}", half.map(|b| b.len()));
        }
        assert_eq!(any(b"plain", 1).unwrap(), b"plain");
    }

    proptest::proptest! {
        #[test]
        fn damaged_data_does_not_panic(at in 4_usize..200, value: u8) {
            for mut sample in samples(b"some text, some text, some other text") {
                if let Some(byte) = sample.get_mut(at) { *byte = value; }
                drop(any(&sample, 1000));
            }
        }
    }
}
