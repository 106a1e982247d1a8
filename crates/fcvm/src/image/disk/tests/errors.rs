//! Damage and lies are found, and leave nothing behind.

use std::{
    fs, io,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{super::DiskError, *};
use crate::image::disk::build::build_leaving;

fn small() -> Fixture {
    let archive = |name: &str| Archive::new().file(name, 0o644, &[b'x'; 300_000]).bytes();
    Fixture::new(&[archive("a"), archive("b"), archive("c")])
}

/// Building fails, and there is no file.
fn error(source: &DiskSource) -> DiskError {
    let directory = tempfile::tempdir().unwrap();
    let error = build(&directory.path().join("disk"), source).expect_err("the image is bad");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    error
}

#[test]
fn digests_and_sizes_are_checked() {
    let fixture = small();
    let mut source = fixture.source();
    source.manifest.push(b' ');
    assert!(matches!(error(&source), DiskError::ManifestDigest { .. }));
    let mut source = fixture.source();
    source.config.push(b' ');
    assert!(matches!(error(&source), DiskError::ConfigDigest { .. }));
    let mut source = fixture.source();
    source.layers.pop();
    assert!(matches!(error(&source), DiskError::LayerCount { layers: 2, expected: 3 }));
    let mut source = fixture.source();
    source.layers.swap(0, 1);
    assert!(matches!(error(&source), DiskError::DiffId { layer: 1, .. }));
    let mut source = fixture.source();
    source.layers[1].digest = Some(Digest::of(b""));
    assert!(matches!(error(&source), DiskError::LayerDigest { layer: 2, .. }));
    for difference in [-1, 1] {
        let mut source = fixture.source();
        source.layers[0].size = source.layers[0].size.map(|size| size.saturating_add_signed(difference));
        assert!(matches!(error(&source), DiskError::LayerSize { layer: 1, .. }));
    }
}

#[test]
fn damage_is_found_in_every_byte() {
    let fixture = small();
    for (number, (bytes, way)) in (1..).zip(&fixture.layers) {
        for at in (0..bytes.len()).step_by(bytes.len() / 20) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let mut source = fixture.source();
            let digest = source.layers[number - 1].digest;
            source.layers[number - 1] = LayerSource { digest, ..layer(damaged.clone(), *way) };
            let found = error(&source);
            assert!(matches!(found, DiskError::LayerDigest { layer, .. } if layer == number), "{found}");

            // Without a digest of what is stored that of the content speaks, or the format.
            source.layers[number - 1] = LayerSource { digest: None, ..layer(damaged, *way) };
            let found = build(&tempfile::tempdir().unwrap().path().join("disk"), &source);
            match found {
                // Headers of gzip and zstd have bytes that mean nothing; the content is verified.
                Ok(_) => assert!(*way != Compression::None),
                Err(DiskError::Decompress { layer, .. } | DiskError::DiffId { layer, .. }) => {
                    assert_eq!(layer, number);
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        let mut source = fixture.source();
        let cut = bytes[..bytes.len() / 2].to_vec();
        source.layers[number - 1] = LayerSource { digest: None, size: None, ..layer(cut, *way) };
        let found = error(&source);
        assert!(matches!(found, DiskError::Decompress { .. } | DiskError::DiffId { .. }), "{found:?}");
    }
}

#[test]
fn compression_is_detected_where_it_is_not_told() {
    let fixture = small();
    let mut source = fixture.source();
    for layer in &mut source.layers {
        layer.compression = Compression::Detect;
        (layer.digest, layer.size) = (None, None);
    }
    let detected = disk(&source);
    let told = disk(&fixture.source());
    assert_eq!(detected.stats, told.stats);
    assert!(fs::read(&detected.path).unwrap() == fs::read(&told.path).unwrap());
    source.layers[0] = layer(b"\xfd7zXZ\0...".to_vec(), Compression::Detect);
    assert!(matches!(error(&source), DiskError::Compression { compression: "xz", .. }));
    // What a media type says is not doubted.
    let mut source = fixture.source();
    source.layers[0].compression = Compression::Zstd;
    assert!(matches!(error(&source), DiskError::Decompress { layer: 1, .. }));
}

#[test]
fn readers_that_fail_are_told_from_bad_layers() {
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("the network is down"))?;
            buffer[0] = [0x1f, 0x8b, 8, 0][3 - self.0];
            Ok(1)
        }
    }
    let mut source = small().source();
    source.layers[0].open = Box::new(|| Ok(Box::new(Failing(3))));
    let DiskError::Read { layer: 1, source } = error(&source) else { panic!() };
    assert_eq!(source.to_string(), "the network is down");
}

#[test]
fn bad_layers_are_named() {
    let bad = Archive::new().link(tar::EntryType::Link, "a", "missing").bytes();
    let fixture = Fixture::new(&[Archive::new().bytes(), bad]);
    let DiskError::Layer { layer: 2, source } = error(&fixture.source()) else { panic!() };
    assert_eq!(source.to_string(), "failed to apply the archive's entry `a`");
}

#[test]
fn disks_leave_space() {
    let directory = tempfile::tempdir().unwrap();
    let dest = directory.path().join("disk");
    fs::write(&dest, "what was there").unwrap();
    let found = build_leaving(u64::MAX, &dest, &small().source()).unwrap_err();
    assert!(matches!(found, DiskError::NoSpace { .. }));
    // Sizes that nothing can have are refused before anything is read.
    let mut source = small().source();
    static OPENED: AtomicBool = AtomicBool::new(false);
    source.layers[0].size = Some(u64::MAX);
    source.layers[0].open = Box::new(|| {
        OPENED.store(true, Ordering::Relaxed);
        Ok(Box::new(io::empty()))
    });
    assert!(matches!(build(&dest, &source), Err(DiskError::NoSpace { .. })));
    assert!(!OPENED.load(Ordering::Relaxed));
    assert_eq!(fs::read_to_string(&dest).unwrap(), "what was there");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}
