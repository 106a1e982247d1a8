//! PAX extended headers.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};

use super::TarError;
use crate::storage::ext4::{Segment, Timestamp, Xattr};

/// What extended headers say of an entry. What they do not say is in its own header.
#[derive(Debug, Clone, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: Option<SparseHeader>,
}

/// What PAX headers say of a sparse file, in any of three ways.
#[derive(Debug, Clone, Default)]
pub(super) struct SparseHeader {
    /// 1.0: the map is before the data.
    pub(super) map_in_data: bool,
    pub(super) size: Option<u64>,
    pub(super) map: Vec<Segment>,
    /// 0.0: an offset whose length comes next.
    offset: Option<u64>,
}

impl Pax {
    /// Adds the records of a header: `LENGTH KEY=VALUE\n`, one behind the other.
    pub(super) fn add(&mut self, mut records: &[u8]) -> Result<(), TarError> {
        // Some archivers fill up with zeros.
        while records.first().is_some_and(|byte| *byte != 0) {
            let space = records.iter().take(20).position(|byte| *byte == b' ').ok_or(TarError::Pax)?;
            let length = decimal(&records[..space]).ok_or(TarError::Pax)?;
            let length = usize::try_from(length).map_err(|_| TarError::Pax)?;
            if length <= space + 1 || length > records.len() {
                return Err(TarError::Pax);
            }
            let (record, rest) = records.split_at(length);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or(TarError::Pax)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(TarError::Pax)?;
            self.record(&record[..equals], &record[equals + 1..])?;
            records = rest;
        }
        Ok(())
    }

    /// An empty value takes back what an earlier record, or a global header, said.
    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let some = (!value.is_empty()).then_some(value);
        match key {
            b"path" => self.path = some.map(<[u8]>::to_vec),
            b"linkpath" => self.link_target = some.map(<[u8]>::to_vec),
            b"size" => self.size = some.map(|text| number("size", text)).transpose()?,
            b"uid" => self.uid = some.map(|text| id("uid", text)).transpose()?,
            b"gid" => self.gid = some.map(|text| id("gid", text)).transpose()?,
            b"mtime" => {
                let time = |text| time(text).ok_or(TarError::Number { field: "mtime" });
                self.mtime = some.map(time).transpose()?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let value = base64(value).ok_or(TarError::Pax)?;
                    self.xattrs.insert(percent_decoded(name), value);
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse(key, value)?;
                }
            }
        }
        Ok(())
    }

    fn sparse(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let number = || decimal(value).ok_or(TarError::Sparse);
        let sparse = self.sparse.get_or_insert_default();
        match key {
            b"major" => sparse.map_in_data = number()? == 1,
            b"size" | b"realsize" => sparse.size = Some(number()?),
            b"name" => self.path = Some(value.to_vec()),
            b"offset" => sparse.offset = Some(number()?),
            b"numbytes" => {
                let offset = sparse.offset.take().ok_or(TarError::Sparse)?;
                sparse.map.push(Segment { offset, length: number()? });
            }
            b"map" => {
                let numbers =
                    value.split(|byte| *byte == b',').map(|text| decimal(text).ok_or(TarError::Sparse));
                let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
                let (pairs, rest) = numbers.as_chunks();
                if !rest.is_empty() {
                    return Err(TarError::Sparse);
                }
                sparse.map = pairs
                    .iter()
                    .map(|[offset, length]| Segment { offset: *offset, length: *length })
                    .collect();
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn xattrs(self) -> Vec<Xattr> {
        self.xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect()
    }
}

/// Decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

fn number(field: &'static str, text: &[u8]) -> Result<u64, TarError> {
    decimal(text).ok_or(TarError::Number { field })
}

fn id(field: &'static str, text: &[u8]) -> Result<u32, TarError> {
    u32::try_from(number(field, text)?).map_err(|_| TarError::Number { field })
}

/// Seconds with a fraction of any length; what is beyond nanoseconds is dropped.
fn time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = text.split_at(dot.unwrap_or(text.len()));
    let fraction = fraction.get(1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let digits = fraction.iter().map(|digit| u32::from(digit - b'0')).chain(std::iter::repeat(0)).take(9);
    let nanoseconds = digits.fold(0, |value, digit| value * 10 + digit);
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// The name with `%XX` replaced; a percent sign that starts no such thing stays.
fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        let mut byte = [0];
        match tail.get(..2) {
            Some(digits) if first == b'%' && hex::decode_to_slice(digits, &mut byte).is_ok() => {
                decoded.push(byte[0]);
                rest = &tail[2..];
            }
            _ => {
                decoded.push(first);
                rest = tail;
            }
        }
    }
    decoded
}

/// Base64; archivers leave its padding out.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    BASE64_STANDARD_NO_PAD.decode(&text[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_signs() {
        let parse = |text: &str| time(text.as_bytes()).map(|time| (time.seconds, time.nanoseconds));
        assert_eq!(parse("12"), Some((12, 0)));
        assert_eq!(parse("12.5"), Some((12, 500_000_000)));
        assert_eq!(parse("12.0000000019"), Some((12, 1)));
        assert_eq!(parse("-1"), Some((-1, 0)));
        assert_eq!(parse("-1.25"), Some((-2, 750_000_000)));
        for bad in ["", ".5", "1.x", "x", "1e3", "--1", "99999999999999999999"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn records_are_taken_apart() {
        let mut pax = Pax::default();
        pax.add(b"12 path=a=b\n21 SCHILY.xattr.u=\n\x01\n30 LIBARCHIVE.xattr.a%2Fb=AAE\n8 path=\n\0\0")
            .unwrap();
        assert_eq!(pax.path, None);
        assert_eq!(pax.xattrs[&b"u"[..]], b"\n\x01");
        assert_eq!(pax.xattrs[&b"a/b"[..]], [0, 1]);
        for bad in ["1", "9 path=", "99 path=a\n", "0 path=a\n", "3 \n", "8 path\n", "x y=z\n", "10 size=x\n"]
        {
            assert!(Pax::default().add(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
