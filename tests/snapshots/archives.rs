//! Snapshots as one file.

use super::*;

#[test]
fn an_archive_is_the_snapshot_elsewhere() {
    let (env, other) = (TestEnv::new(FCVM), TestEnv::new(FCVM));
    make(&env, "web");
    let archive = env.root().join("web.fcvm");
    let path = archive.to_str().unwrap();
    assert_eq!(fcvm(&env, &["export", "web", "-o", path]).ok(), "");
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    let size = fs::metadata(&archive).unwrap().len();
    assert!((4 << 20..6 << 20).contains(&size), "{size} bytes");

    let imported = fcvm(&other, &["import", path]);
    assert_eq!(imported.ok(), "web");
    for words in [
        "its image `localhost/hello:latest` (abababababab) is not here yet",
        "its `kernels/old/vmlinux` is not here",
        "its clones are given `/srv/site` of this host",
    ] {
        assert!(imported.stderr.contains(words), "{}", imported.stderr);
    }
    let [was, is] = [&env, &other].map(|env| json(env, &["inspect", "web"])[0].clone());
    for name in [STATE, MEMORY, SCRATCH] {
        for field in ["size", "sha256"] {
            assert_eq!(was["files"][name][field], is["files"][name][field], "{name}");
        }
        let [was, is] = [&env, &other].map(|env| allocated(&directory(env, "web").join(name)));
        // The file system's own blocks differ.
        assert!(is <= was + was / 8, "{name} took {was} bytes of the disk and takes {is}");
    }
    assert_eq!((&was["id"], &was["created"]), (&is["id"], &is["created"]));
    store(&other).get(&tag("web")).unwrap().check(&host()).unwrap();
    assert_eq!(fcvm(&other, &["verify"]).ok(), "");
    let mode = fs::metadata(directory(&other, "web")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    refused(&other, &["import", path], "snapshot `web` exists\nhint: choose another name");
    // By pipes, and under another name.
    let exported = fcvm(&env, &["export", "web"]);
    exported.assert_code(0);
    assert_eq!(exported.stdout, fs::read(&archive).unwrap());
    let input = File::open(&archive).unwrap();
    let imported = other.fcvm().args(["snapshot", "import", "-", "--tag", "copy"]).stdin(input).run();
    assert_eq!(imported.ok(), "copy");
    assert_eq!(json(&other, &["inspect", "copy"])[0]["tag"], "copy");
    assert_eq!(names(&other), ["copy", "web"]);
    refused(&env, &["export", "web", "-o", "/dev/full"], "failed to write archive `/dev/full`");
    refused(&env, &["import", "missing"], "failed to read archive `missing`");
}

#[test]
fn tar_reads_an_archive() {
    if !needs_programs(&["tar"]) {
        return;
    }
    let env = TestEnv::new(FCVM);
    let made = make_as(&env, manifest("web"));
    let exported = fcvm(&env, &["export", "web"]);
    exported.assert_code(0);
    let plain = env.file("web.tar", zstd::decode_all(exported.stdout.as_slice()).unwrap());
    let target = env.root().join("unpacked");
    fs::create_dir(&target).unwrap();
    let tar = Command::new("tar").arg("-xf").arg(plain).arg("-C").arg(&target).output().unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    for name in [MANIFEST, STATE, MEMORY, SCRATCH] {
        let same = Command::new("cmp").arg(made.path(name)).arg(target.join(name)).status();
        // The manifest is written anew, and is the same.
        assert!(same.unwrap().success(), "{name}");
    }
    assert!(allocated(&target.join(SCRATCH)) < 1 << 20);
}

#[test]
fn a_broken_archive_leaves_nothing() {
    let (env, other) = (TestEnv::new(FCVM), TestEnv::new(FCVM));
    make(&env, "web");
    let bytes = fcvm(&env, &["export", "web"]).stdout;
    let import = |bytes: &[u8]| {
        let path = env.file("broken", bytes);
        let output = fcvm(&other, &["import", path.to_str().unwrap()]);
        output.assert_code(125);
        assert!(names(&other).is_empty(), "{:?}", names(&other));
        output.stderr
    };
    for length in [0, 1, 100, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
        let error = import(&bytes[..length]);
        assert!(error.contains("broken` ") || error.contains("broken`\n"), "{length}: {error}");
    }
    for at in [bytes.len() / 4, bytes.len() / 2, bytes.len() - 2] {
        let mut wrong = bytes.clone();
        wrong[at] ^= 16;
        assert!(import(&wrong).contains("hint: export the snapshot again"), "{at}");
    }
    assert!(import(b"not an archive").contains("failed to read archive"));
}
