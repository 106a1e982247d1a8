//! Archives made to do harm.

use proptest::prelude::*;

use super::{
    super::{LayerError, TarError, apply_layer},
    *,
};
use crate::storage::ext4::Ext4Error;

fn error(archive: &[u8]) -> LayerError {
    let mut error = None;
    build(SizePolicy::Fit, |writer| error = apply_layer(writer, archive).err());
    error.expect("the archive is bad")
}

/// A header of any kind and size, without data.
fn header(kind: u8, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("x").unwrap();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn bad_names_are_refused() {
    let outside = |layer: Layer| assert!(matches!(error(&layer.bytes()), LayerError::Outside { .. }));
    outside(Layer::new().file("../x", ""));
    outside(Layer::new().file("a/../../x", ""));
    outside(Layer::new().file("a", "").hardlink("b", "../a"));
    for name in [".wh.", "a/.wh.", ".wh..", ".wh...", ".wh.a/b"] {
        let error = error(&Layer::new().file(name, "").bytes());
        assert!(matches!(error, LayerError::Whiteout { .. }), "{name}: {error}");
    }
    expect(vec![Layer::new().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "").file("x", "")], &["x"]);
}

#[test]
fn headers_are_bounded() {
    for kind in [b'x', b'g', b'L', b'K'] {
        let LayerError::Archive { source, .. } = error(&header(kind, 1 << 33)) else { panic!() };
        assert!(matches!(source, TarError::ExtendedTooLarge { .. }), "{source}");
    }
    let long = "n".repeat(1 << 20);
    let mut archive = header(b'L', 1 << 20);
    archive.extend_from_slice(long.as_bytes());
    archive.extend_from_slice(&header(b'0', 0));
    let refused = error(&archive);
    assert!(refused.to_string().len() < 400);
    assert!(matches!(refused, LayerError::Apply { source: Ext4Error::InvalidPath { .. }, .. }));

    for kind in [b'M', b'D', b'?'] {
        let LayerError::Archive { source, .. } = error(&header(kind, 0)) else { panic!() };
        assert!(matches!(source, TarError::Kind { .. }), "{source}");
    }
    let cut = error(&header(b'0', 1000));
    assert!(matches!(cut, LayerError::Apply { source: Ext4Error::Read { .. }, .. }), "{cut}");
    let LayerError::Archive { source, .. } = error(&[b'x'; 1024]) else { panic!() };
    assert!(matches!(source, TarError::Checksum | TarError::Number { .. }), "{source}");
    let LayerError::Archive { source, .. } = error(&header(b'0', 0)[..300]) else { panic!() };
    assert!(matches!(source, TarError::Truncated), "{source}");
    let huge = error(&header(b'0', 1 << 50));
    assert!(matches!(huge, LayerError::Apply { source: Ext4Error::FileTooLarge { .. }, .. }), "{huge}");
}

#[test]
fn attributes_are_bounded() {
    let mut layer = Layer::new();
    layer.0.append_pax_extensions([("SCHILY.xattr.user.x", &[b'v'; 100_000][..])]).unwrap();
    let refused = error(&layer.file("f", "").bytes());
    assert!(matches!(refused, LayerError::Apply { source: Ext4Error::InvalidXattr { .. }, .. }), "{refused}");
}

/// Archives of entries that are meant well, for mutation.
fn archive() -> impl Strategy<Value = Vec<u8>> {
    let name =
        prop::sample::select(vec!["a", "a/b", "./c", "a/.wh.b", "a/.wh..wh..opq", "d/e/f", "l", "l/x"]);
    let kind = prop::sample::select(vec![b'0', b'0', b'1', b'2', b'3', b'5', b'6', b'x', b'S', b'L', b'g']);
    let records = prop::sample::select(vec![
        "",
        "content of some length",
        "12 path=a/b\n",
        "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.realsize=9\n",
        "28 SCHILY.xattr.user.x=abcd\n",
        "12 size=100\n",
    ]);
    prop::collection::vec((kind, name.clone(), name, records), 0..12).prop_map(|entries| {
        let mut layer = Layer::new();
        for (kind, path, target, content) in entries {
            layer = layer.add(tar::EntryType::new(kind), path, target, content);
        }
        layer.bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn mutated_archives_never_break_the_image(
        mut archive in archive(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        repair in any::<bool>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        for (index, byte) in changes {
            let length = archive.len();
            let at = index.index(length);
            archive[at] = byte;
            if repair {
                // Checksums made right again let the damage through.
                let start = at / 512 * 512;
                let block = &mut archive[start..start + 512];
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if let Some(cut) = cut {
            archive.truncate(cut.index(archive.len()));
        }
        build(SizePolicy::Fit, |writer| drop(apply_layer(writer, &archive[..])));
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        build(SizePolicy::Fit, |writer| drop(apply_layer(writer, &bytes[..])));
    }
}
