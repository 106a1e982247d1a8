//! Disks hold what `umoci unpack` makes of the same image.

use std::process::Command;

use super::*;
use crate::storage::ext4::testing::{Mount, list};

#[test]
fn the_content_is_what_umoci_unpacks() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: unpacking devices and owners needs root");
        return;
    }
    // umoci knows no zstd.
    let fixture = Fixture::compressed(&eventful(), &[Compression::Gzip]);
    let scratch = tempfile::tempdir().unwrap();
    let layout = scratch.path().join("layout");
    fixture.layout(&layout);
    let bundle = scratch.path().join("bundle");
    let image = format!("{}:latest", layout.display());
    let Ok(output) = Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle).output() else {
        eprintln!("skipped: no umoci");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let disk = disk(&fixture.source());
    let Some(mount) = Mount::new(&disk.path) else { return };
    let mut content = fs::read_dir(mount.path.join("overlay")).unwrap().map(|entry| entry.unwrap().path());
    let content = content.find(|path| path.join("diff").exists()).unwrap().join("diff");
    let (got, expected) = (list(&content), list(&bundle.join("rootfs")));
    let shown = |path: &Vec<u8>| path.escape_ascii().to_string();
    let paths = |list: &std::collections::BTreeMap<_, _>| list.keys().map(shown).collect::<Vec<_>>();
    assert_eq!(paths(&got), paths(&expected));
    for (path, file) in &got {
        assert_eq!(file, &expected[path], "{}", shown(path));
    }
    // Files with several names, of which there are two, three or four here, count once.
    let counted: u64 =
        got.values().filter(|file| file.links > 0).map(|file| file.size * 12 / file.links).sum();
    assert_eq!(disk.stats.unpacked, counted / 12);
}
