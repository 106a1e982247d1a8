//! Every kind of file comes out as it went in.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
};

use super::super::{testing::*, *};
use crate::hash::Digest;

fn metadata(mode: u16) -> Metadata {
    Metadata {
        mode,
        uid: 100_000,
        gid: 4_000_000_000,
        mtime: Timestamp { seconds: 5_000_000_000, nanoseconds: 123_456_789 },
        xattrs: Vec::new(),
    }
}

fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.as_bytes().to_vec(), value: value.to_vec() }
}

#[test]
fn an_empty_file_system_is_valid() {
    let (image, stats) = build(SizePolicy::Fit, |_| {});
    assert_eq!(stats.inodes, 1);
    assert!(stats.allocated < 64 << 10, "{stats:?}");
    let Some(mount) = Mount::new(&image.path) else { return };
    assert_eq!(list(&mount.path).len(), 1);
}

#[test]
fn every_kind_of_file_is_there() {
    let name = |last: u8| [b'n', 0xff, 0x80, b'\n', last];
    let (image, _) = build(SizePolicy::Fit, |writer| {
        writer.mkdir(b"", &metadata(0o1777)).unwrap();
        writer.mkdir(b"d", &metadata(0o2750)).unwrap();
        writer.file(b"d/small", &metadata(0o4755), 5, &mut &b"hello"[..]).unwrap();
        writer.file(b"d/empty", &metadata(0o000), 0, &mut io::empty()).unwrap();
        writer.file(&name(b'f'), &metadata(0o644), 1, &mut &b"x"[..]).unwrap();
        writer.file(&[b'l'; 255], &metadata(0o644), 1, &mut &b"y"[..]).unwrap();
        writer.symlink(b"short", &metadata(0o777), b"/d/small").unwrap();
        writer.symlink(b"s59", &metadata(0o777), &[b's'; 59]).unwrap();
        writer.symlink(b"s60", &metadata(0o777), &[b's'; 60]).unwrap();
        writer.symlink(b"s4095", &metadata(0o777), &[b's'; 4095]).unwrap();
        writer.hardlink(b"hard", b"d/small").unwrap();
        writer.hardlink(b"hardlink-to-symlink", b"short").unwrap();
        writer.special(b"null", &metadata(0o666), Special::CharDevice { major: 1, minor: 3 }).unwrap();
        writer.special(b"big", &metadata(0o600), Special::BlockDevice { major: 259, minor: 70_000 }).unwrap();
        writer.special(b"fifo", &metadata(0o600), Special::Fifo).unwrap();
        writer.special(b"socket", &metadata(0o600), Special::Socket).unwrap();
        writer.file(b"implied/a/b", &Metadata::root(0o600), 0, &mut io::empty()).unwrap();
        assert_eq!(writer.kind(b"implied/a").unwrap(), Some(Kind::Directory));
        assert_eq!(writer.kind(b"short").unwrap(), Some(Kind::Symlink));
        assert_eq!(writer.kind(b"nothing/there").unwrap(), None);
    });
    let Some(mount) = Mount::new(&image.path) else { return };
    let listed = list(&mount.path);
    let got = |path: &[u8]| listed[path].clone();
    let expect = |mode, size, content: &str, links| Listed {
        mode,
        owner: (100_000, 4_000_000_000),
        mtime: (5_000_000_000, 123_456_789),
        size,
        content: content.into(),
        links,
        xattrs: [].into(),
    };
    assert_eq!(got(b""), expect(0o041_777, 0, "", 0));
    assert_eq!(got(b"d"), expect(0o042_750, 0, "", 0));
    assert_eq!(got(b"d/small"), expect(0o104_755, 5, &Digest::of(b"hello").short(), 2));
    assert_eq!(got(b"hard"), got(b"d/small"));
    assert_eq!(got(b"d/empty"), expect(0o100_000, 0, &Digest::of(b"").short(), 1));
    assert_eq!(got(&name(b'f')), expect(0o100_644, 1, &Digest::of(b"x").short(), 1));
    assert_eq!(got(&[b'l'; 255]), expect(0o100_644, 1, &Digest::of(b"y").short(), 1));
    assert_eq!(got(b"short"), expect(0o120_777, 0, "/d/small", 2));
    assert_eq!(got(b"hardlink-to-symlink"), got(b"short"));
    for (name, length) in [("s59", 59), ("s60", 60), ("s4095", 4095)] {
        assert_eq!(got(name.as_bytes()), expect(0o120_777, 0, &"s".repeat(length), 1));
    }
    assert_eq!(got(b"null"), expect(0o020_666, 0, "1:3", 1));
    assert_eq!(got(b"big"), expect(0o060_600, 0, "259:70000", 1));
    assert_eq!(got(b"fifo"), expect(0o010_600, 0, "", 1));
    assert_eq!(got(b"socket"), expect(0o140_600, 0, "", 1));
    assert_eq!((got(b"implied/a").mode, got(b"implied/a").owner), (0o040_755, (0, 0)));
    assert_eq!(listed.len(), 19);
}

#[test]
fn the_same_operations_give_the_same_bytes() {
    let make = || {
        build(SizePolicy::Fit, |writer| {
            for number in 0..100_u32 {
                let path = format!("{}/{number}", number % 7);
                let content = vec![b'x'; 10_000];
                writer.file(path.as_bytes(), &metadata(0o644), 10_000, &mut &content[..]).unwrap();
            }
            writer.remove(b"3").unwrap();
            writer.mkdir(b"3", &metadata(0o755)).unwrap();
        })
    };
    let ((one, _), (two, _)) = (make(), make());
    assert!(fs::read(&one.path).unwrap() == fs::read(&two.path).unwrap());
}

#[test]
fn attributes_acls_and_capabilities_are_kept() {
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in [
        (1_u16, 6_u16, u32::MAX),
        (2, 7, 1000),
        (4, 4, u32::MAX),
        (8, 5, 70_000),
        (0x10, 7, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        acl.extend_from_slice(&tag.to_le_bytes());
        acl.extend_from_slice(&permissions.to_le_bytes());
        acl.extend_from_slice(&id.to_le_bytes());
    }
    let xattrs = vec![
        xattr("user.empty", b""),
        xattr("user.large", &[b'v'; 2000]),
        xattr("user.a-rather-long-name-of-an-attribute", b"value"),
        xattr("user.z", b"1"),
        xattr("user.z", b"2"),
        xattr("user.yy", b"3"),
        xattr("trusted.t", b"trusted"),
        xattr("security.capability", &capability),
        xattr("system.posix_acl_access", &acl),
    ];
    let (image, _) = build(SizePolicy::Fit, |writer| {
        let file = Metadata { xattrs: xattrs.clone(), ..metadata(0o670) };
        writer.file(b"all", &file, 1, &mut &b"x"[..]).unwrap();
        let inline = Metadata { xattrs: vec![xattrs[7].clone()], ..metadata(0o755) };
        writer.file(b"inline", &inline, 1, &mut &b"x"[..]).unwrap();
        let default = vec![xattr("system.posix_acl_default", &acl), xattrs[1].clone()];
        writer.mkdir(b"dir", &Metadata { xattrs: default, ..metadata(0o755) }).unwrap();
        let link = Metadata { xattrs: vec![xattr("trusted.l", &[7; 200])], ..metadata(0o777) };
        writer.symlink(b"link", &link, b"all").unwrap();

        let bad = |xattrs| Metadata { xattrs, ..metadata(0o644) };
        for name in ["system.other", "os2.x", "user.", "user"] {
            let error = writer.mkdir(b"bad", &bad(vec![xattr(name, b"")])).unwrap_err();
            assert!(matches!(error, Ext4Error::InvalidXattr { .. }), "{error}");
        }
        let error = writer.mkdir(b"bad", &bad(vec![xattr("system.posix_acl_access", b"\x02\0\0\0x")]));
        assert!(matches!(error, Err(Ext4Error::InvalidXattr { .. })));
        let error =
            writer.mkdir(b"bad", &bad(vec![xattr("user.a", &[0; 3000]), xattr("user.b", &[0; 3000])]));
        assert!(matches!(error, Err(Ext4Error::XattrsTooLarge { .. })));
    });
    let Some(mount) = Mount::new(&image.path) else { return };
    let listed = list(&mount.path);
    let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let all = &listed[&b"all"[..]].xattrs;
    assert_eq!(all["user.z"], "2");
    for xattr in xattrs.iter().filter(|xattr| xattr.name != b"user.z") {
        assert_eq!(all[std::str::from_utf8(&xattr.name).unwrap()], shown(&xattr.value));
    }
    assert_eq!(all.len(), 8);
    assert_eq!(listed[&b"inline"[..]].xattrs["security.capability"], shown(&capability));
    assert_eq!(listed[&b"dir"[..]].xattrs["system.posix_acl_default"], shown(&acl));
    assert_eq!(listed[&b"link"[..]].xattrs["trusted.l"].len(), 4 * 200);
}

#[test]
fn large_directories_and_many_links() {
    let (image, stats) = build(SizePolicy::Fit, |writer| {
        for number in 0..20_000 {
            let path = format!("big/file number {number:09} with a name of some length");
            writer.special(path.as_bytes(), &metadata(0o644), Special::Fifo).unwrap();
        }
        writer.file(b"first", &metadata(0o644), 1, &mut &b"x"[..]).unwrap();
        for number in 1..65_000 {
            writer.hardlink(format!("links/{number}").as_bytes(), b"first").unwrap();
        }
        let error = writer.hardlink(b"links/65000", b"first");
        assert!(matches!(error, Err(Ext4Error::TooManyLinks { .. })));
    });
    assert_eq!(stats.inodes, 20_004);
    let Some(mount) = Mount::new(&image.path) else { return };
    assert_eq!(fs::read_dir(mount.path.join("big")).unwrap().count(), 20_000);
    assert!(mount.path.join("big/file number 000012345 with a name of some length").exists());
    assert_eq!(fs::metadata(mount.path.join("links/64999")).unwrap().nlink(), 65_000);
}

#[test]
fn directories_with_more_directories_than_can_be_counted() {
    build(SizePolicy::Fit, |writer| {
        for number in 0..65_100 {
            writer.mkdir(format!("d/{number}").as_bytes(), &metadata(0o755)).unwrap();
        }
    });
}

#[test]
fn a_hundred_thousand_files() {
    let (_, stats) = build(SizePolicy::Fit, |writer| {
        for number in 0..100_000_u32 {
            let path = format!("{}/{}/{number}", number % 10, number % 97);
            let content = number.to_le_bytes();
            writer.file(path.as_bytes(), &metadata(0o644), 4, &mut &content[..]).unwrap();
        }
    });
    assert_eq!(stats.inodes, 100_000 + 10 + 970 + 1);
    // A block each, an inode each, and names.
    assert!(stats.bytes < 100_000 * 4096 * 11 / 10, "{stats:?}");
}

#[test]
fn a_scattered_file_has_a_tree_of_extents() {
    let blocks = 4000;
    let mut content = vec![0; blocks * BLOCK];
    for block in (0..blocks).step_by(2) {
        content[block * BLOCK + 17] = u8::try_from(block % 255).unwrap() + 1;
    }
    let (image, stats) = build(SizePolicy::Fit, |writer| {
        writer.file(b"f", &metadata(0o644), content.len() as u64, &mut &content[..]).unwrap();
    });
    assert!(stats.allocated < content.len() as u64 * 6 / 10, "{stats:?}");
    let Some(mount) = Mount::new(&image.path) else { return };
    assert!(fs::read(mount.path.join("f")).unwrap() == content);
}

#[test]
fn sparse_files_stay_sparse() {
    const SIZE: u64 = 5 << 30;
    let segments = [(0, 10), (5000, 100), (1 << 30, 300_000), (SIZE - 3, 3)];
    let segments = segments.map(|(offset, length)| Segment { offset, length });
    let (image, stats) = build(SizePolicy::Fit, |writer| {
        let total = segments.iter().map(|segment| segment.length).sum();
        writer
            .sparse_file(b"map", &metadata(0o644), SIZE, &segments, &mut io::repeat(b'd').take(total))
            .unwrap();
        writer.sparse_file(b"holes", &metadata(0o644), SIZE, &[], &mut io::empty()).unwrap();
        let overlap = [Segment { offset: 0, length: 2 }, Segment { offset: 1, length: 1 }];
        let outside = [Segment { offset: 9, length: 2 }];
        for bad in [&overlap[..], &outside[..]] {
            let error = writer.sparse_file(b"bad", &metadata(0o644), 10, bad, &mut io::repeat(1));
            assert!(matches!(error, Err(Ext4Error::InvalidSegments { .. })));
        }
    });
    assert!(stats.bytes < 1 << 20, "{stats:?}");
    let Some(mount) = Mount::new(&image.path) else { return };
    let file = fs::File::open(mount.path.join("map")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), SIZE);
    for segment in segments {
        let from = segment.offset.saturating_sub(1);
        let mut read = vec![0; usize::try_from(segment.length).unwrap() + 2];
        let count = file.read_at(&mut read, from).unwrap();
        let inside = usize::try_from(segment.offset - from).unwrap();
        let after = inside + usize::try_from(segment.length).unwrap();
        assert!(read[..inside].iter().all(|byte| *byte == 0));
        assert!(read[inside..after].iter().all(|byte| *byte == b'd'));
        assert!(read[after..count].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn files_larger_than_four_gibibytes_and_an_extent() {
    let mut part = vec![0; 1 << 20];
    part[0] = 1;
    // One block in 256: large as a file, small on the disk that tests have.
    struct Repeat(Vec<u8>, usize);
    impl Read for Repeat {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let at = self.1 % self.0.len();
            let count = buffer.len().min(self.0.len() - at);
            buffer[..count].copy_from_slice(&self.0[at..at + count]);
            self.1 += count;
            Ok(count)
        }
    }
    let (image, stats) = build(SizePolicy::Fit, |writer| {
        writer.file(b"large", &metadata(0o644), 5 << 30, &mut Repeat(part, 0)).unwrap();
        let dense = vec![b'd'; 140 << 20];
        writer.file(b"dense", &metadata(0o644), dense.len() as u64, &mut &dense[..]).unwrap();
    });
    assert!(stats.bytes < 170 << 20, "{stats:?}");
    let Some(mount) = Mount::new(&image.path) else { return };
    let file = fs::File::open(mount.path.join("large")).unwrap();
    for at in [0, 1 << 20, 5119 << 20] {
        let mut byte = [0; 2];
        file.read_exact_at(&mut byte, at).unwrap();
        assert_eq!(byte, [1, 0]);
    }
    assert!(fs::read(mount.path.join("dense")).unwrap().iter().all(|byte| *byte == b'd'));
}

#[test]
fn spare_room_can_be_written_to() {
    let spare = SizePolicy::Spare { bytes: 64 << 20, inodes: 5000 };
    let (image, stats) = build(spare, |writer| {
        writer.file(b"d/f", &metadata(0o644), 3, &mut &b"old"[..]).unwrap();
    });
    assert!(stats.allocated < 1 << 20, "{stats:?}");
    {
        let Some(mount) = Mount::with(&image.path, "loop,rw") else { return };
        fs::write(mount.path.join("d/f"), vec![1; 40 << 20]).unwrap();
        for number in 0..4900 {
            fs::write(mount.path.join(format!("d/{number}")), "x").unwrap();
        }
        fs::set_permissions(mount.path.join("d"), PermissionsExt::from_mode(0o700)).unwrap();
    }
    check(&image.path);
}

#[test]
fn last_groups_may_be_small() {
    let spare = |blocks: u64| SizePolicy::Spare { bytes: blocks * BLOCK_BYTES, inodes: 0 };
    let (_, empty) = build(SizePolicy::Fit, |_| {});
    let to_boundary = 32_768 - empty.blocks;
    // The last has several blocks of descriptors.
    for blocks in [0, 1, 2, 5, 8, 100, 20 << 18].map(|more| to_boundary + more) {
        let (image, _) = build(spare(blocks), |_| {});
        drop(Mount::with(&image.path, "loop,rw"));
    }
}
