//! A request, taken apart: every length is checked here, so that nobody behind has to.

use std::ffi::CStr;

use rustix::io::Errno;
use zerocopy::FromBytes;

use crate::{
    abi::{EXT_GROUPS, ExtHeader, InHeader, Opcode},
    passthrough::{GuestGid, GuestUid},
};

/// Longest name of a directory's entry, in bytes.
const MAX_NAME: usize = 255;

/// Who asks, in the client's numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) uid: GuestUid,
    pub(crate) gid: GuestGid,
    /// The supplementary group that a new file's parent has, where the caller is in it.
    pub(crate) group: Option<GuestGid>,
}

/// A request's bytes and how much of them was taken.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) opcode: Option<Opcode>,
    pub(crate) unique: u64,
    pub(crate) node: u64,
    pub(crate) caller: Caller,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// Takes a whole frame apart.
    ///
    /// # Errors
    /// Where it is no request at all.
    pub(crate) fn parse(frame: &'a [u8]) -> Result<Self, Errno> {
        let (header, body) = InHeader::read_from_prefix(frame).map_err(|_| Errno::PROTO)?;
        if header.len as usize != frame.len() {
            return Err(Errno::PROTO);
        }
        let extensions = usize::from(header.total_extlen) * 8;
        let at = body.len().checked_sub(extensions).ok_or(Errno::PROTO)?;
        let (body, extensions) = body.split_at(at);
        let caller = Caller {
            uid: GuestUid(header.uid),
            gid: GuestGid(header.gid),
            group: group(extensions).map(GuestGid),
        };
        let (opcode, unique) = (Opcode::of(header.opcode), header.unique);
        Ok(Self { opcode, unique, node: header.nodeid, caller, body })
    }

    /// The next structure.
    ///
    /// # Errors
    /// `EINVAL` where there is less.
    pub(crate) fn take<T: FromBytes>(&mut self) -> Result<T, Errno> {
        let (value, rest) = T::read_from_prefix(self.body).map_err(|_| Errno::INVAL)?;
        self.body = rest;
        Ok(value)
    }

    /// The next text, up to its NUL.
    ///
    /// # Errors
    /// `EINVAL` where it has no end.
    pub(crate) fn text(&mut self) -> Result<&'a CStr, Errno> {
        let text = CStr::from_bytes_until_nul(self.body).map_err(|_| Errno::INVAL)?;
        self.body = &self.body[text.to_bytes_with_nul().len()..];
        Ok(text)
    }

    /// The next text, as a name within a directory: it leads nowhere else.
    ///
    /// # Errors
    /// `EINVAL` for what is no name, `ENAMETOOLONG`.
    pub(crate) fn name(&mut self) -> Result<&'a CStr, Errno> {
        let name = self.text()?;
        match name.to_bytes() {
            b"" | b"." | b".." => Err(Errno::INVAL),
            bytes if bytes.contains(&b'/') => Err(Errno::INVAL),
            bytes if bytes.len() > MAX_NAME => Err(Errno::NAMETOOLONG),
            _ => Ok(name),
        }
    }

    /// So many bytes of data.
    ///
    /// # Errors
    /// `EINVAL` where there are less.
    pub(crate) fn data(&mut self, length: u32) -> Result<&'a [u8], Errno> {
        let (data, rest) = self.body.split_at_checked(length as usize).ok_or(Errno::INVAL)?;
        self.body = rest;
        Ok(data)
    }
}

/// The group in a request's extensions; what is not understood is as if it were not there.
fn group(mut extensions: &[u8]) -> Option<u32> {
    while let Ok((header, rest)) = ExtHeader::read_from_prefix(extensions) {
        let length = (header.size as usize).checked_sub(size_of::<ExtHeader>())?;
        let body = rest.get(..length)?;
        if header.kind == EXT_GROUPS {
            let (count, groups) = u32::read_from_prefix(body).ok()?;
            return u32::read_from_prefix(groups).ok().filter(|_| count > 0).map(|(group, _)| group);
        }
        extensions = extensions.get(header.size as usize..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    fn frame(body: &[u8], total_extlen: u16) -> Vec<u8> {
        let len = u32::try_from(40 + body.len()).unwrap();
        let header = InHeader { len, opcode: 1, unique: 7, nodeid: 1, total_extlen, ..InHeader::default() };
        [header.as_bytes(), body].concat()
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let whole = frame(b"name\0", 0);
        assert_eq!(Request::parse(&whole).unwrap().name().unwrap(), c"name");
        for length in 0..40 {
            assert!(Request::parse(&whole[..length]).is_err(), "{length}");
        }
        assert!(Request::parse(&[whole.as_slice(), b"x"].concat()).is_err());
        assert!(Request::parse(&frame(b"", 1)).is_err(), "extensions beyond the frame");
        assert_eq!(Request::parse(&frame(b"name", 0)).unwrap().name().unwrap_err(), Errno::INVAL);
        assert!(Request::parse(&frame(b"abc", 0)).unwrap().take::<u64>().is_err());
        assert!(Request::parse(&frame(b"abc", 0)).unwrap().data(4).is_err());
    }

    #[test]
    fn names_lead_nowhere_else() {
        for (name, errno) in [
            ("", Errno::INVAL),
            (".", Errno::INVAL),
            ("..", Errno::INVAL),
            ("a/b", Errno::INVAL),
            ("/", Errno::INVAL),
            (&"x".repeat(256), Errno::NAMETOOLONG),
        ] {
            let frame = frame(&[name.as_bytes(), b"\0"].concat(), 0);
            assert_eq!(Request::parse(&frame).unwrap().name().unwrap_err(), errno, "{name}");
        }
        let odd = frame(b"\xff\x01\n\0", 0);
        assert_eq!(Request::parse(&odd).unwrap().name().unwrap().to_bytes(), b"\xff\x01\n");
    }

    #[test]
    fn a_group_comes_behind_the_body() {
        let group = [16_u32, EXT_GROUPS, 1, 1000];
        let of = |extensions: &[u32]| {
            let body = [b"name\0\0\0\0", extensions.as_bytes()].concat();
            let frame = frame(&body, u16::try_from(extensions.len() / 2).unwrap());
            Request::parse(&frame).unwrap().caller.group
        };
        assert_eq!(of(&group), Some(GuestGid(1000)));
        assert_eq!(of(&[&[8, 5], &group[..]].concat()), Some(GuestGid(1000)));
        assert_eq!(of(&[]), None);
        for bad in [[16, EXT_GROUPS, 0, 1000], [99, EXT_GROUPS, 1, 1], [0, 5, 1, 1], [4, EXT_GROUPS, 1, 1]] {
            assert_eq!(of(&bad), None, "{bad:?}");
        }
    }
}
