//! What layers remove and replace.

use super::*;
use crate::hash::Digest;

fn base() -> Layer {
    Layer::new()
        .dir("./")
        .dir("./d/")
        .file("./d/a", "a")
        .file("d/b", "b")
        .file("/d/sub/c", "c")
        .file("e", "e")
}

#[test]
fn whiteouts_remove_what_is_below() {
    let upper =
        Layer::new().file("d/.wh.a", "").file(".wh.e", "").file("d/.wh.missing", "").file(".wh.no/", "");
    expect(vec![base(), upper], &["d/", "d/b", "d/sub/", "d/sub/c"]);
    let upper = Layer::new().file("./.wh.d", "").file("e", "new");
    expect(vec![base(), upper], &["e"]);
}

#[test]
fn whiteouts_spare_their_own_layer() {
    let upper = Layer::new().file("e", "new").file(".wh.e", "").file("d/new", "n").file(".wh.d", "");
    expect(vec![base(), upper], &["d/", "d/new", "e"]);
}

#[test]
fn opaque_directories_hide_what_is_below_in_any_order() {
    let expected = ["d/", "d/new", "d/sub/", "d/sub/n", "e"];
    let first = Layer::new().dir("d").file("d/.wh..wh..opq", "").file("d/new", "n").file("d/sub/n", "n");
    expect(vec![base(), first], &expected);
    let last = Layer::new().dir("d").file("d/new", "n").file("d/sub/n", "n").file("d/.wh..wh..opq", "");
    expect(vec![base(), last], &expected);
    let root = Layer::new().file("x", "x").file(".wh..wh..opq", "");
    expect(vec![base(), root], &["x"]);
}

#[test]
fn files_of_one_type_replace_those_of_another() {
    let upper = Layer::new().file("d", "now a file").dir("e").file("e/f", "f").symlink("s", "e");
    let third = Layer::new().file("s/g", "through a link").dir("d");
    expect(vec![base(), upper, third], &["d/", "e/", "e/f", "e/g", "s"]);
}

#[test]
fn directories_take_the_metadata_of_the_last_layer() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_path("d").unwrap();
    header.set_mode(0o1777);
    header.set_uid(7);
    header.set_size(0);
    header.set_cksum();
    let mut upper = Layer::new();
    upper.0.append(&header, &b""[..]).unwrap();
    let Some(listed) = listed(&image(vec![base(), upper])) else { return };
    assert_eq!((listed["d"].mode, listed["d"].owner), (0o041_777, (7, 0)));
    assert!(listed.contains_key("d/a"));
}

#[test]
fn hard_links_cross_layers() {
    let upper = Layer::new().hardlink("d/again", "./d/a").hardlink("third", "/d/again").symlink("s", "/d");
    let third = Layer::new().file("d/a", "changed").hardlink("fourth", "s/again");
    let Some(listed) = listed(&image(vec![base(), upper, third])) else { return };
    let content = |path: &str| (listed[path].content.clone(), listed[path].links);
    assert_eq!(content("d/a"), (Digest::of(b"changed").short(), 1));
    for path in ["d/again", "third", "fourth"] {
        assert_eq!(content(path), (Digest::of(b"a").short(), 3), "{path}");
    }
}

#[test]
fn links_do_not_lead_out_of_the_layers() {
    let upper = Layer::new()
        .symlink("up", "../../..")
        .file("up/below", "x")
        .symlink("abs", "/d/sub")
        .file("abs/y", "y")
        .file("up/store/diff/z", "z");
    expect(
        vec![base(), upper],
        &[
            "abs",
            "below",
            "d/",
            "d/a",
            "d/b",
            "d/sub/",
            "d/sub/c",
            "d/sub/y",
            "e",
            "store/",
            "store/diff/",
            "store/diff/z",
            "up",
        ],
    );
}

#[test]
fn plain_archives_have_no_whiteouts() {
    let (image, _) = build(SizePolicy::Fit, |writer| {
        let archive = base().file(".wh.e", "").file("d/.wh..wh..opq", "").bytes();
        super::super::apply_tar(writer, &archive[..]).unwrap();
    });
    let Some(mount) = Mount::new(&image.path) else { return };
    assert!(mount.path.join("e").exists() && mount.path.join(".wh.e").exists());
    assert!(mount.path.join("d/.wh..wh..opq").exists());
}
