//! One line of the log.

use jiff::Timestamp;

/// Which output something came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What was written at once: a line or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it came.
    pub time: Timestamp,
    /// Where from.
    pub source: Source,
    /// Whether the line ends here.
    pub whole: bool,
    /// The bytes, without the line's end.
    pub text: &'a [u8],
}

impl Source {
    /// For tables by source.
    pub(super) fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }
}

impl<'a> Record<'a> {
    /// Adds the record's line to `buffer`; `time` is the record's as text.
    pub(super) fn encode(buffer: &mut Vec<u8>, time: &str, source: Source, whole: bool, text: &[u8]) {
        buffer.extend_from_slice(time.as_bytes());
        buffer.extend_from_slice(match (source, whole) {
            (Source::Stdout, true) => b" stdout F ",
            (Source::Stdout, false) => b" stdout P ",
            (Source::Stderr, true) => b" stderr F ",
            (Source::Stderr, false) => b" stderr P ",
        });
        buffer.extend_from_slice(text);
        buffer.push(b'\n');
    }

    /// Reads a line, without its end; `None` where it is none of ours.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let source = match parts.next()? {
            b"stdout" => Source::Stdout,
            b"stderr" => Source::Stderr,
            _ => return None,
        };
        let whole = match parts.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { time, source, whole, text: parts.next()? })
    }
}

/// A time as records have it: always as long, so that lines are in order as text, too.
pub(super) fn time_text(time: Timestamp) -> String {
    format!("{time:.9}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_time_source_tag_and_bytes() {
        let time: Timestamp = "2026-11-21T17:09:39.1Z".parse().unwrap();
        let mut buffer = Vec::new();
        Record::encode(&mut buffer, &time_text(time), Source::Stderr, false, b"a  b\xff ");
        assert_eq!(buffer, b"2026-11-21T17:09:39.100000000Z stderr P a  b\xff \n");
        let record = Record { time, source: Source::Stderr, whole: false, text: b"a  b\xff " };
        assert_eq!(Record::parse(&buffer[..buffer.len() - 1]), Some(record));
        // As Podman writes them.
        let podmans = Record::parse(b"2026-11-21T18:09:39.1+01:00 stdout F ").unwrap();
        assert_eq!((podmans.time, podmans.whole, podmans.text), (time, true, &b""[..]));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            assert!(Record::parse(&line).is_none_or(|record| line.ends_with(record.text)));
        }
    }
}
