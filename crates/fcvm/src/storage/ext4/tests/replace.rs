//! What is replaced, removed or hidden is gone, and nothing else is.

use std::{fs, io};

use super::super::{testing::*, *};

fn put(writer: &mut Ext4Writer, path: &str, content: &str) {
    let metadata = Metadata::root(0o644);
    writer.file(path.as_bytes(), &metadata, content.len() as u64, &mut content.as_bytes()).unwrap();
}

fn dir(writer: &mut Ext4Writer, path: &str) {
    writer.mkdir(path.as_bytes(), &Metadata::root(0o755)).unwrap();
}

fn link(writer: &mut Ext4Writer, path: &str, target: &str) {
    writer.symlink(path.as_bytes(), &Metadata::root(0o777), target.as_bytes()).unwrap();
}

/// The paths there are, the root left out.
#[track_caller]
fn expect(image: &Image, paths: &[&str]) {
    let Some(mount) = Mount::new(&image.path) else { return };
    let listed: Vec<_> = list(&mount.path).into_keys().skip(1).collect();
    let listed: Vec<_> = listed.iter().map(|path| std::str::from_utf8(path).unwrap()).collect();
    assert_eq!(listed, paths);
}

#[test]
fn types_replace_one_another() {
    let (image, _) = build(SizePolicy::Fit, |writer| {
        put(writer, "a/b/c", "x");
        put(writer, "a", "file over directory");
        put(writer, "f", "x");
        dir(writer, "f");
        put(writer, "f/g", "in a directory over a file");
        dir(writer, "f");
        link(writer, "l", "f");
        dir(writer, "l");
        put(writer, "h/i", "kept");
        writer.hardlink(b"h", b"h/i").unwrap();
        writer.hardlink(b"h", b"h").unwrap();
    });
    expect(&image, &["a", "f", "f/g", "h", "l"]);
}

#[test]
fn removed_space_is_used_again_and_punched_out() {
    let large = "x".repeat(8 << 20);
    let small = "y".repeat(100_000);
    let (image, stats) = build(SizePolicy::Fit, |writer| {
        put(writer, "one", &large);
        for number in 0..50 {
            put(writer, &format!("d/{number}"), &small);
        }
        assert!(writer.remove(b"one").unwrap());
        assert!(!writer.remove(b"one").unwrap());
        put(writer, "again", &large);
        for number in (0..50).step_by(2) {
            writer.remove(format!("d/{number}").as_bytes()).unwrap();
        }
        put(writer, "last", "z");
    });
    assert!(stats.bytes < 14 << 20, "{stats:?}");
    assert!(stats.allocated < 12 << 20, "{stats:?}");
    let Some(mount) = Mount::new(&image.path) else { return };
    assert!(fs::read_to_string(mount.path.join("again")).unwrap() == large);
    assert!(fs::read_to_string(mount.path.join("d/49")).unwrap() == small);
}

#[test]
fn symbolic_links_are_followed_within_the_tree() {
    let (image, _) = build(SizePolicy::Fit, |writer| {
        dir(writer, "usr/bin");
        link(writer, "bin", "usr/bin");
        put(writer, "bin/sh", "x");
        link(writer, "up", "../../../usr");
        put(writer, "up/lib/a", "x");
        link(writer, "usr/abs", "/usr/../etc/./");
        put(writer, "usr/abs/passwd", "x");
        link(writer, "twice", "up/bin");
        put(writer, "twice/ls", "x");
        assert_eq!(writer.kind(b"bin/ls").unwrap(), Some(Kind::File));
        // The last component is not followed.
        put(writer, "twice", "x");
        writer.hardlink(b"up/hard", b"bin/sh").unwrap();

        link(writer, "loop", "loop/x");
        let error = writer.mkdir(b"loop/y", &Metadata::root(0o755));
        assert!(matches!(error, Err(Ext4Error::SymlinkLoop { .. })));
        let error = writer.mkdir(b"bin/sh/y", &Metadata::root(0o755));
        assert!(matches!(error, Err(Ext4Error::NotADirectory { .. })));
        for number in 0..41 {
            link(writer, &format!("chain{number}"), &format!("chain{}", number + 1));
        }
        dir(writer, "chain41");
        put(writer, "chain1/ok", "x");
        let error = writer.mkdir(b"chain0/y", &Metadata::root(0o755));
        assert!(matches!(error, Err(Ext4Error::SymlinkLoop { .. })));
        for number in 0..41 {
            writer.remove(format!("chain{number}").as_bytes()).unwrap();
        }
    });
    expect(
        &image,
        &[
            "bin",
            "chain41",
            "chain41/ok",
            "etc",
            "etc/passwd",
            "loop",
            "twice",
            "up",
            "usr",
            "usr/abs",
            "usr/bin",
            "usr/bin/ls",
            "usr/bin/sh",
            "usr/hard",
            "usr/lib",
            "usr/lib/a",
        ],
    );
}

#[test]
fn bad_paths_are_refused() {
    build(SizePolicy::Fit, |writer| {
        let long = vec![b'n'; 256];
        let deep = "a/".repeat(2048).into_bytes();
        let bad: [&[u8]; 10] = [b"/", b"/a", b"a/", b"a//b", b".", b"..", b"a/../b", b"a\0b", &long, &deep];
        for path in bad {
            let error = writer.mkdir(path, &Metadata::root(0o755)).unwrap_err();
            assert!(matches!(error, Ext4Error::InvalidPath { .. }), "{error}");
        }
        assert!(writer.file(b"", &Metadata::root(0o644), 0, &mut io::empty()).is_err());
        assert!(writer.symlink(b"l", &Metadata::root(0o777), b"").is_err());
        assert!(writer.hardlink(b"l", b"missing").is_err());
        assert!(writer.hardlink(b"l", b"").is_err());
        let error = writer.mkdir("a/".repeat(1025).trim_end_matches('/').as_bytes(), &Metadata::root(0o755));
        assert!(matches!(error, Err(Ext4Error::TooDeep { .. })));
        // A file that ends early leaves nothing behind.
        let error = writer.file(b"f", &Metadata::root(0o644), 1 << 20, &mut &[1; 700_000][..]);
        assert!(matches!(error, Err(Ext4Error::Read { .. })));
    });
}

#[test]
fn hiding_spares_the_current_layer() {
    let (image, _) = build(SizePolicy::Fit, |writer| {
        for path in
            ["old/a", "old/b/c", "mixed/old", "mixed/implied/old", "mixed/named/old", "gone/x", "both/x"]
        {
            put(writer, path, "lower");
        }
        writer.mkdir(b"mixed/implied", &Metadata::root(0o700)).unwrap();
        writer.begin_layer();
        put(writer, "mixed/new", "upper");
        put(writer, "mixed/implied/new", "upper");
        dir(writer, "mixed/named");
        assert!(writer.hide_children(b"mixed").unwrap());
        assert!(!writer.hide_children(b"missing").unwrap());
        put(writer, "mixed/later", "upper");
        writer.hide_children(b"mixed").unwrap();
        writer.hide(b"gone").unwrap();
        writer.hide(b"missing").unwrap();
        put(writer, "both/y", "upper");
        writer.hide(b"both").unwrap();
        writer.hide(b"old/b").unwrap();
    });
    expect(
        &image,
        &[
            "both",
            "both/y",
            "mixed",
            "mixed/implied",
            "mixed/implied/new",
            "mixed/later",
            "mixed/named",
            "mixed/new",
            "old",
            "old/a",
        ],
    );
    let Some(mount) = Mount::new(&image.path) else { return };
    assert_eq!(list(&mount.path)[&b"mixed/implied"[..]].mode, 0o040_755);
}

#[test]
fn deep_trees_are_hidden_and_removed() {
    build(SizePolicy::Fit, |writer| {
        let deep = "a/".repeat(1024);
        dir(writer, deep.trim_end_matches('/'));
        writer.begin_layer();
        put(writer, &format!("{deep}f"), "upper");
        writer.hide(b"a").unwrap();
        assert_eq!(writer.kind(format!("{deep}f").as_bytes()).unwrap(), Some(Kind::File));
        writer.remove(b"a").unwrap();
        assert_eq!(writer.totals(), Totals { files: 1, bytes: 0 });
    });
}

#[test]
fn a_full_disk_is_told_from_other_failures() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut writer = Ext4Writer::create(full, options()).unwrap();
    let content = vec![1; 4 << 20];
    let error = writer.file(b"f", &Metadata::root(0o644), content.len() as u64, &mut &content[..]);
    let error = error.unwrap_err();
    assert!(matches!(error, Ext4Error::NoSpace { .. }) && error.hint().is_some(), "{error}");
}
