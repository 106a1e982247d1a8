//! Events as the kernel writes them: `struct fanotify_event_metadata` and what follows it.

use std::ffi::CStr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::handle::FileHandle;

/// `struct fanotify_event_metadata`.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Metadata {
    length: u32,
    version: u8,
    reserved: u8,
    metadata_length: u16,
    mask: u64,
    descriptor: i32,
    pid: i32,
}

/// `struct fanotify_event_info_fid` up to the handle's bytes.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Info {
    kind: u8,
    padding: u8,
    length: u16,
    system: [u8; 8],
    handle_length: u32,
    handle_kind: i32,
}

/// Something has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event<'a> {
    /// `FAN_*`; several of one file may have become one.
    pub(super) mask: u64,
    /// Whose doing it was; 0 where that is not for us to know.
    pub(super) pid: i32,
    /// In which directory, and by what name: `.` is the directory itself.
    pub(super) entry: Option<(FileHandle, &'a [u8])>,
    /// What file.
    pub(super) target: Option<FileHandle>,
}

/// The events of one read. What makes no sense ends them.
pub(super) fn events(mut bytes: &[u8]) -> impl Iterator<Item = Event<'_>> {
    std::iter::from_fn(move || {
        let (head, _) = Metadata::read_from_prefix(bytes).ok()?;
        let (event, rest) = bytes.split_at_checked(head.length as usize)?;
        let mut infos = event.get(usize::from(head.metadata_length).max(size_of::<Metadata>())..)?;
        bytes = rest;
        let mut found = Event { mask: head.mask, pid: head.pid, ..Event::default() };
        while let Ok((info, _)) = Info::read_from_prefix(infos) {
            let Some((one, rest)) = infos.split_at_checked(usize::from(info.length)) else { break };
            let Some(body) = one.get(size_of::<Info>()..) else { break };
            infos = rest;
            let Some((handle, name)) = body.split_at_checked(info.handle_length as usize) else { break };
            let handle = FileHandle::new(info.system, info.handle_kind, handle);
            match info.kind {
                libc::FAN_EVENT_INFO_TYPE_FID => found.target = Some(handle),
                libc::FAN_EVENT_INFO_TYPE_DFID_NAME => {
                    let name = CStr::from_bytes_until_nul(name).map_or(&b"."[..], CStr::to_bytes);
                    found.entry = Some((handle, name));
                }
                _ => {}
            }
        }
        Some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(kind: u8, handle: &[u8], name: &[u8]) -> Vec<u8> {
        let length = (20 + handle.len() + name.len()).next_multiple_of(4);
        let info = Info {
            kind,
            padding: 0,
            length: u16::try_from(length).unwrap(),
            system: [9; 8],
            handle_length: u32::try_from(handle.len()).unwrap(),
            handle_kind: 1,
        };
        let mut bytes = [info.as_bytes(), handle, name].concat();
        bytes.resize(length, 0);
        bytes
    }

    fn event(infos: &[Vec<u8>]) -> Vec<u8> {
        let infos = infos.concat();
        let head = Metadata {
            length: u32::try_from(24 + infos.len()).unwrap(),
            version: 3,
            reserved: 0,
            metadata_length: 24,
            mask: libc::FAN_MODIFY,
            descriptor: -1,
            pid: 7,
        };
        [head.as_bytes(), &infos].concat()
    }

    #[test]
    fn events_are_taken_apart() {
        let handle = |bytes: &[u8]| FileHandle::new([9; 8], 1, bytes);
        let named = event(&[info(2, b"directory", b"name\0"), info(1, b"file", b"")]);
        let bare = event(&[]);
        let bytes = [named.clone(), bare, named.clone()].concat();
        let all: Vec<_> = events(&bytes).collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].entry, Some((handle(b"directory"), b"name".as_slice())));
        assert_eq!(all[0].target, Some(handle(b"file")));
        assert_eq!((all[0].pid, all[0].mask), (7, libc::FAN_MODIFY));
        assert_eq!((&all[1].entry, &all[1].target), (&None, &None));
        assert_eq!(all[0], all[2]);
        // Nothing is read behind the end, whatever the lengths say.
        for length in 0..named.len() {
            assert_eq!(events(&named[..length]).count(), 0, "{length}");
        }
    }
}
