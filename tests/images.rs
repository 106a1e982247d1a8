//! Images as containers see them.

use std::{fs, process::Command};

use fcvm_testkit::{
    Compression, Entry, Image, Layer, TestEnv, list_tree, needs_programs, needs_root, noise, skip,
};
use serde_json::json;

const FCVM: &str = env!("CARGO_BIN_EXE_fcvm");

/// `cap_net_raw=ep` as the kernel stores it.
const CAPABILITY: &[u8] = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

/// Layers with all that can go wrong in them, below `t`.
fn layers(lister: Vec<u8>) -> [(Layer, Compression); 4] {
    let bottom =
        Layer::new().busybox().with(Entry::file("bin/list-tree", lister)).with(Entry::directory("t"));
    let bottom = ["gone", "hidden", "kept", "replaced", "linked"]
        .into_iter()
        .fold(bottom, |layer, name| layer.with(Entry::directory(&format!("t/{name}"))))
        .with(Entry::file("t/gone/file", "gone"))
        .with(Entry::file("t/hidden/old", "old"))
        .with(Entry::file("t/kept/file", "kept").mode(0o600).owner(1000, 1001).mtime(1_000_000_000))
        .with(Entry::file("t/kept/removed", "removed"))
        .with(Entry::file("t/kept/changed", "before"))
        .with(Entry::file("t/replaced/by-a-file", "x"))
        .with(Entry::file("t/linked/first", "linked"))
        .with(Entry::hard_link("t/linked/second", "t/linked/first"))
        .with(Entry::hard_link("t/linked/third", "t/linked/first"))
        .with(Entry::symlink("t/linked/relative", "../kept/file"))
        .with(Entry::symlink("t/linked/absolute", "/t/kept/file"))
        .with(Entry::symlink("t/linked/dangling", "nowhere"));
    let special = Layer::new()
        .with(Entry::directory("t/special").mode(0o2750).owner(0, 1001))
        .with(Entry::file("t/special/setuid", "s").mode(0o4755))
        .with(Entry::file("t/special/setgid", "g").mode(0o2755).owner(1000, 1001))
        .with(Entry::directory("t/special/sticky").mode(0o1777))
        .with(Entry::file("t/special/xattrs", "x").xattr("user.one", b"1").xattr("user.two", b"\x00\xff\n"))
        .with(Entry::file("t/special/capable", "c").xattr("security.capability", CAPABILITY))
        .with(Entry::directory("t/special/directory").xattr("user.dir", b"d"))
        .with(Entry::fifo("t/special/fifo"))
        .with(Entry::file("t/special/empty", ""))
        .with(Entry::file("t/special/a name with spaces, ümläuts and a\nline break", "n"))
        .with(Entry::file("t/special/large-owner", "o").owner(2_000_000, 2_000_001))
        .with(Entry::file(&format!("t/special/{}", "long".repeat(60)), "l"));
    let whiteouts = Layer::new()
        .whiteout("t/gone")
        .opaque("t/hidden")
        .with(Entry::file("t/hidden/new", "new"))
        .whiteout("t/kept/removed")
        .with(Entry::file("t/kept/changed", "after, and longer"))
        .with(Entry::directory("t/kept").mode(0o700).mtime(1_100_000_000))
        .whiteout("t/replaced")
        .with(Entry::file("t/replaced", "a file"))
        .whiteout("t/linked/second");
    let large = Layer::new()
        .with(Entry::directory("t/large"))
        .with(Entry::file("t/large/noise", noise(100_000_000)))
        .with(Entry::hard_link("t/large/again", "t/large/noise"))
        // Gone below, back above.
        .with(Entry::directory("t/gone"))
        .with(Entry::file("t/gone/back", "back"));
    [
        (bottom, Compression::Gzip),
        (special, Compression::Zstd),
        (whiteouts, Compression::None),
        (large, Compression::None),
    ]
}

#[test]
fn root_vm_layers_come_out_as_a_reference_unpacks_them() {
    if !needs_root() || !needs_programs(&["umoci"]) {
        return;
    }
    let Some(env) = TestEnv::for_vms(FCVM) else { return };
    let lister = match list_tree(FCVM) {
        Ok(lister) => lister,
        Err(reason) => return skip(reason),
    };
    let layers = layers(fs::read(&lister).unwrap());
    let image =
        layers.iter().fold(Image::new(), |image, (layer, compression)| image.layer(layer, *compression));
    let mixed = env.root().join("mixed");
    image.write_layout(&mixed);
    // Not every umoci knows zstd; what is unpacked is the same.
    let gzip = env.root().join("gzip");
    image.clone().compressed(Compression::Gzip).write_layout(&gzip);
    let docker = env.root().join("docker.tar");
    image.write_docker_archive(&docker, "layers:1");

    let bundle = env.root().join("bundle");
    let umoci = Command::new("umoci").args(["unpack", "--image"]).arg(&gzip).arg(&bundle).output().unwrap();
    assert!(umoci.status.success(), "{}", String::from_utf8_lossy(&umoci.stderr));
    let listed = Command::new(&lister).arg(bundle.join("rootfs")).args(["t", "bin"]).output().unwrap();
    let expected = String::from_utf8(listed.stdout).unwrap();
    assert!(expected.lines().count() > 60, "{expected}");

    for source in [format!("oci:{}", mixed.display()), format!("docker-archive:{}", docker.display())] {
        let seen = env.run(&[&source, "list-tree", "/", "t", "bin"]).run();
        seen.assert_code(0);
        let seen = seen.stdout();
        let different: Vec<_> = expected
            .lines()
            .filter(|line| !seen.lines().any(|other| other == *line))
            .map(|line| format!("- {line}"))
            .chain(
                seen.lines()
                    .filter(|line| !expected.lines().any(|other| other == *line))
                    .map(|line| format!("+ {line}")),
            )
            .collect();
        assert!(seen == expected, "{source}: umoci says -, the container +\n{}", different.join("\n"));
    }
}

/// The builder that the host's writer falls back on, and its oracle.
#[test]
fn vm_a_guests_podman_makes_the_same_disk() {
    let lister = match list_tree(FCVM) {
        Ok(lister) => fs::read(lister).unwrap(),
        Err(reason) => return skip(reason),
    };
    let [bottom, special, whiteouts, _large] = layers(lister);
    let layers = [bottom, special, whiteouts];
    let image =
        layers.iter().fold(Image::new(), |image, (layer, compression)| image.layer(layer, *compression));
    let seen = ["host", "guest"].map(|builder| {
        // Each with a store of its own, or the second would find the first's disk.
        let env = TestEnv::set_up(FCVM)?;
        let archive = env.root().join("image.tar");
        image.write_archive(&archive, |_, _| ());
        let source = format!("oci-archive:{}", archive.display());
        let tree = env.run(&["--disk-builder", builder, &source, "list-tree", "/", "t", "bin"]).run();
        tree.assert_code(0);
        env.assert_nothing_left();
        Some(tree.stdout().lines().map(but_for_what_layers_show).collect::<Vec<_>>())
    });
    let [Some(host), Some(guest)] = seen else { return };
    assert!(host.len() > 60, "{host:#?}");
    assert_eq!(host, guest, "left: our writer, right: Podman");
}

/// A line of the list without what depends on the number of layers on the disk: ours has one,
/// Podman's as many as the image. A directory that a layer only passes through is made anew in
/// it, with the time of that; a name that an upper layer removes still counts as a link below.
fn but_for_what_layers_show(line: &str) -> String {
    let mut fields: Vec<_> = line.split(' ').collect();
    if fields.get(1) == Some(&"dir") {
        fields.remove(4);
    }
    if fields.len() > 3 && fields[fields.len() - 3] == "is" {
        fields.pop();
    }
    fields.join(" ")
}

#[test]
fn vm_what_our_writer_does_not_know_is_made_in_a_guest() {
    let Some(env) = TestEnv::set_up(FCVM) else { return };
    let image = Image::new().layer(&Layer::new().busybox(), Compression::Xz);
    let archive = env.root().join("xz.tar");
    image.write_archive(&archive, |_, _| ());
    let source = format!("oci-archive:{}", archive.display());
    let refused = env.run(&["--disk-builder", "host", &source, "true"]).run();
    refused.assert_code(125);
    assert!(refused.stderr.contains("compressed with `xz`"), "{}", refused.stderr);
    env.run(&[&source, "echo", "made in a guest"]).run().assert_stdout("made in a guest");
}

#[test]
fn vm_every_form_of_an_image_runs_as_its_configuration_says() {
    let Some(env) = TestEnv::set_up(FCVM) else { return };
    let config = json!({
        "Entrypoint": ["sh", "-c", "echo \"$GREETING $0 in $PWD as $(id -u)\""], "Cmd": ["world"],
        "Env": ["GREETING=hello", "PATH=/bin"], "WorkingDir": "/tmp", "User": "alice",
    });
    let image = Image::new().layer(&Layer::new().busybox(), Compression::Zstd).config(config);
    let (layout, archive, docker) =
        (env.root().join("layout"), env.root().join("a.tar"), env.root().join("d.tar"));
    image.write_layout(&layout);
    image.write_archive(&archive, |_, _| ());
    image.write_docker_archive(&docker, "localhost/greeting:1");
    for source in [
        format!("oci:{}", layout.display()),
        format!("oci-archive:{}", archive.display()),
        format!("docker-archive:{}", docker.display()),
    ] {
        env.run(&[&source]).run().assert_stdout("hello world in /tmp as 1000");
    }
    let source = format!("oci:{}:latest", layout.display());
    env.run(&["-e", "GREETING=bye", "-w", "/etc", &source, "moon"])
        .run()
        .assert_stdout("bye moon in /etc as 1000");
}

#[test]
fn vm_what_a_container_writes_is_gone_with_it() {
    let Some(env) = TestEnv::for_vms(FCVM) else { return };
    env.shell("echo changed > /etc/passwd; rm /bin/yes; cat /etc/passwd").run().assert_stdout("changed");
    env.shell("test -e /bin/yes && head -c 4 /etc/passwd").run().assert_stdout("root");
}

#[test]
fn vm_wrong_bytes_in_an_archive_are_refused() {
    let Some(env) = TestEnv::set_up(FCVM) else { return };
    let image = Image::new().layer(&Layer::new().busybox(), Compression::Gzip);
    let archive = env.root().join("spoiled.tar");
    let source = format!("oci-archive:{}", archive.display());
    // Of each blob in turn: layer, configuration, manifest.
    let mut blobs = Vec::new();
    image.write_archive(&archive, |name, _| blobs.push(name.to_owned()));
    blobs.retain(|name| name.starts_with("blobs/"));
    assert_eq!(blobs.len(), 3);
    for blob in &blobs {
        image.write_archive(&archive, |name, bytes| {
            if name == blob {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
        });
        let output = env.run(&[&source, "true"]).run();
        output.assert_code(125);
        let digest = blob.rsplit('/').next().unwrap();
        assert!(output.stderr.contains(&digest[..12]), "{blob}: {}", output.stderr);
        assert!(
            output.stderr.lines().any(|line| line.starts_with("hint: ") && line.contains("damaged")),
            "{blob}: {}",
            output.stderr
        );
        assert_eq!(env.fcvm().args(["image", "ls", "--json"]).run().ok(), "[]");
        env.assert_nothing_left();
    }
}
