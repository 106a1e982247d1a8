//! Archives that GNU tar writes, in each of its formats.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, PermissionsExt, symlink},
    },
    path::Path,
    process::Command,
};

use super::*;

/// A tree with all that archives disagree about.
fn source(directory: &Path) {
    let long = directory.join("l".repeat(120)).join("m".repeat(200));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("file"), "x").unwrap();
    fs::write(directory.join(std::ffi::OsStr::from_bytes(b"not \xff utf8")), "y").unwrap();
    symlink("t".repeat(300), directory.join("long-target")).unwrap();
    fs::hard_link(long.join("file"), directory.join("hard")).unwrap();
    fs::write(directory.join("setuid"), "z").unwrap();
    fs::set_permissions(directory.join("setuid"), PermissionsExt::from_mode(0o4711)).unwrap();
    fs::write(directory.join("empty"), "").unwrap();

    let sparse = fs::File::create(directory.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    for number in 0..60 {
        sparse.write_all_at(&[b'd'; 5000], number * (600 << 10)).unwrap();
    }
    let hole = fs::File::create(directory.join("hole")).unwrap();
    hole.set_len(3 << 20).unwrap();
    for name in [".", "empty", "setuid", "sparse", "hole", "hard", "long-target"] {
        let times = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
            last_modification: rustix::fs::Timespec { tv_sec: 1_234_567_890, tv_nsec: 0 },
        };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, directory.join(name), &times, flags).unwrap();
    }
}

fn agree(arguments: &[&str], times: Times) {
    let directory = tempfile::tempdir().unwrap();
    source(directory.path());
    let mut command = Command::new("tar");
    command.arg("-C").arg(directory.path()).args(arguments).args([
        "--sparse",
        "--numeric-owner",
        "-cf",
        "-",
        ".",
    ]);
    let Ok(output) = command.output() else {
        eprintln!("skipped: no tar");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (image, stats) = build(SizePolicy::Fit, |writer| {
        super::super::apply_tar(writer, &output.stdout[..]).unwrap();
    });
    assert!(stats.bytes < 2 << 20, "{stats:?}");
    let Some(mount) = Mount::new(&image.path) else { return };
    let (mut got, mut expected) = (list(&mount.path), list(directory.path()));
    if times == Times::WholeSeconds {
        for file in got.values_mut().chain(expected.values_mut()) {
            file.mtime.1 = 0;
        }
    }
    assert_eq!(got, expected);
}

#[derive(PartialEq, Eq)]
enum Times {
    Exact,
    WholeSeconds,
}

#[test]
fn gnu_archives() {
    agree(&["--format=gnu"], Times::WholeSeconds);
}

#[test]
fn pax_archives_with_each_kind_of_sparse_map() {
    for version in ["0.0", "0.1", "1.0"] {
        agree(&["--format=pax", &format!("--sparse-version={version}")], Times::Exact);
    }
}

#[test]
fn pax_headers_say_what_plain_ones_cannot() {
    let mut layer = Layer::new();
    let records = [
        ("path", &b"d/\xff"[..]),
        ("uid", b"4000000000"),
        ("gid", b"70000"),
        ("mtime", b"-1.5"),
        ("size", b"3"),
        ("SCHILY.xattr.user.schily", b"a\nb\0c"),
        ("LIBARCHIVE.xattr.user.with%20space", b"AAEC"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.com.apple.quarantine", b"y"),
        ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    ];
    layer.0.append_pax_extensions(records).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("ignored").unwrap();
    header.set_mode(0o755);
    header.set_size(99);
    header.set_cksum();
    // The crate writes as much as it is given.
    layer.0.get_mut().extend_from_slice(header.as_bytes());
    layer.0.get_mut().extend_from_slice(b"abc");
    let length = layer.0.get_ref().len().next_multiple_of(512);
    layer.0.get_mut().resize(length, 0);
    let layer = layer.symlink("after", "x");

    let (image, _) = build(SizePolicy::Fit, |writer| {
        super::super::apply_layer(writer, &layer.bytes()[..]).unwrap();
    });
    let Some(mount) = Mount::new(&image.path) else { return };
    let listed = list(&mount.path);
    let file = &listed[&b"d/\xff"[..]];
    assert_eq!(file.owner, (4_000_000_000, 70_000));
    assert_eq!(file.mtime, (-2, 500_000_000));
    assert_eq!(file.size, 3);
    let names: Vec<_> = file.xattrs.keys().map(String::as_str).collect();
    assert_eq!(names, ["security.capability", "user.schily", "user.with space"]);
    assert_eq!(file.xattrs["user.schily"], "a\\nb\\x00c");
    assert!(listed.contains_key(&b"after"[..]));
}
