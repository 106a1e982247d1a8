//! The commands of `fcvm image` that keep the store in order, as a user runs them.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use fcvm_testkit::{Compression, Entry, Image, Layer, Output, TestEnv, needs_programs, sha256};
use serde_json::{Value, json};

const CREATED: &str = "2024-05-06T07:08:09Z";

struct Place {
    env: TestEnv,
}

impl Place {
    fn new() -> Self {
        Self { env: TestEnv::new(env!("CARGO_BIN_EXE_fcvm")) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.env.root().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.env.fcvm().arg("image").args(arguments).run()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }

    /// Writes a docker archive of an image, and loads it.
    fn load(&self, image: &Image, name: &str) -> String {
        image.write_docker_archive(&self.path("load.tar"), name);
        self.ok(&["load", "-i", &self.text("load.tar")])
    }

    fn blobs(&self) -> Vec<PathBuf> {
        children(&self.env.data().join("blobs/sha256"))
    }

    fn disk(&self, name: &str) -> PathBuf {
        let path = self.json(&["inspect", name])[0]["Disk"]["Path"].as_str().unwrap().to_owned();
        path.into()
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn layer(name: &str) -> Layer {
    Layer::new().with(Entry::file(name, format!("content of {name}").repeat(500)))
}

fn image() -> Image {
    let history = json!([
        { "created": CREATED, "created_by": "ADD base" },
        { "created": CREATED, "created_by": "ENV A=b", "empty_layer": true },
        { "created": CREATED, "created_by": "COPY top", "comment": "the last", "author": "alice" },
    ]);
    let config = json!({
        "User": "1:2", "Env": ["A=b"], "Cmd": ["/x"], "Entrypoint": ["/e"], "WorkingDir": "/w",
        "Labels": { "k": "v" }, "ExposedPorts": { "80/tcp": {} }, "Volumes": { "/d": {} },
        "StopSignal": "SIGQUIT", "Healthcheck": { "Test": ["CMD", "true"], "Interval": 5_000_000_000_u64 },
    });
    Image::new()
        .layer(&layer("base"), Compression::None)
        .layer(&layer("top"), Compression::None)
        .config(config)
        .history(history)
}

#[test]
fn an_image_is_inspected_in_podmans_words() {
    let place = Place::new();
    assert_eq!(place.load(&image(), "localhost/web:1"), "Loaded image: localhost/web:1");
    place.ok(&["tag", "web:1", "registry.example/team/web:2", "plain"]);
    let all = place.json(&["inspect", "web:1", "plain"]);
    assert_eq!(all.as_array().unwrap().len(), 2);
    let web = &all[0];
    let id = web["Id"].as_str().unwrap();
    let digest = web["Digest"].as_str().unwrap();
    assert_eq!((id.len(), digest.len()), (64, 71));
    assert_eq!(
        web["RepoTags"],
        json!(["localhost/plain:latest", "localhost/web:1", "registry.example/team/web:2"])
    );
    assert_eq!(web["RepoDigests"][2], format!("registry.example/team/web@{digest}"));
    assert_eq!((&web["Os"], &web["Size"]), (&json!("linux"), &json!(14_500)));
    assert_eq!(
        web["Config"],
        json!({
            "User": "1:2", "Env": ["A=b"], "Cmd": ["/x"], "Entrypoint": ["/e"], "WorkingDir": "/w",
            "Labels": { "k": "v" }, "ExposedPorts": { "80/tcp": {} }, "Volumes": { "/d": {} },
            "StopSignal": "SIGQUIT", "Healthcheck": { "Test": ["CMD", "true"], "Interval": 5_000_000_000_u64 },
        })
    );
    assert_eq!(
        (&web["RootFS"]["Type"], web["RootFS"]["Layers"].as_array().unwrap().len()),
        (&json!("layers"), 2)
    );
    assert_eq!(web["History"][1]["empty_layer"], true);
    assert_eq!(web["Origin"]["localhost/plain:latest"], json!({ "Kind": "local" }));
    let disk = fs::metadata(web["Disk"]["Path"].as_str().unwrap()).unwrap();
    assert_eq!(web["Disk"]["Size"], disk.len());
    let unknown = place.run(&["inspect", "web:1", "nothing"]);
    unknown.assert_code(125);
    assert!(unknown.stdout.is_empty() && unknown.stderr.contains("no image `nothing`"), "{}", unknown.stderr);
}

#[test]
fn history_is_told_newest_first() {
    let place = Place::new();
    place.load(&image(), "localhost/web:1");
    let steps = place.json(&["history", "--json", "web:1"]);
    let by: Vec<_> =
        steps.as_array().unwrap().iter().map(|step| step["created_by"].as_str().unwrap()).collect();
    assert_eq!(by, ["COPY top", "ENV A=b", "ADD base"]);
    assert_eq!((&steps[0]["comment"], &steps[0]["author"]), (&json!("the last"), &json!("alice")));
    assert_eq!((&steps[1]["size"], &steps[1]["layer"]), (&json!(0), &Value::Null));
    for step in [0, 2] {
        let layer = steps[step]["layer"].as_str().unwrap();
        let blob = place.env.data().join("blobs/sha256").join(layer.strip_prefix("sha256:").unwrap());
        assert_eq!(steps[step]["size"], fs::metadata(blob).unwrap().len());
    }
    let table = place.ok(&["history", "web:1"]);
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("CREATED") && lines[1].ends_with("COPY top     the last"), "{table}");
    // Whose history says nothing of its layers.
    let bare = Image::new().layer(&layer("x"), Compression::None).history(json!([]));
    place.load(&bare, "localhost/bare:1");
    assert_eq!(place.json(&["history", "--json", "bare:1"]), json!([]));
}

#[test]
fn tags_are_given_and_taken() {
    let place = Place::new();
    place.load(&image(), "localhost/one:1");
    let other = Image::new().layer(&layer("other"), Compression::None);
    place.load(&other, "localhost/two:1");
    place.ok(&["tag", "one:1", "two:1", "three"]);
    let id = |name: &str| place.json(&["inspect", name])[0]["Id"].clone();
    assert!(id("two:1") == id("one:1") && id("three") == id("one:1"));
    assert_eq!(place.ok(&["ls", "-q"]).lines().count(), 2, "the other has no name, and stays");
    let digest = format!("x@sha256:{}", "0".repeat(64));
    let output = place.run(&["tag", "one:1", "fine", &digest]);
    output.assert_code(125);
    place.run(&["inspect", "fine"]).assert_code(125);
    place.run(&["tag", "one:1"]).assert_code(2);
    place.run(&["tag", "nothing", "x"]).assert_code(125);
}

#[test]
fn what_is_saved_is_loaded_again_and_read_by_others() {
    if !needs_programs(&["skopeo"]) {
        return;
    }
    let place = Place::new();
    place.load(&image(), "localhost/web:1");
    let packed = Image::new().layer(&layer("zstd"), Compression::Zstd).layer(&layer("gz"), Compression::Gzip);
    packed.write_archive(&place.path("packed.tar"), |_, _| ());
    place.ok(&["load", "--input", &place.text("packed.tar")]);
    let id = place.json(&["ls", "--json"]);
    let id = id.as_array().unwrap().iter().find(|image| image["names"] == json!([])).unwrap();
    place.ok(&["tag", id["id"].as_str().unwrap(), "packed:2"]);
    let before = place.json(&["ls", "--json"]);

    for (format, transport) in
        [("oci-archive", "oci-archive"), ("docker-archive", "docker-archive"), ("oci-dir", "oci")]
    {
        let (file, again) = (place.text(format), place.text(&format!("{format}-again")));
        for path in [&file, &again] {
            place.ok(&["save", "--format", format, "-o", path, "web:1", "packed:2"]);
        }
        if format == "oci-dir" {
            let same = Command::new("diff").args(["-r", &file, &again]).status().unwrap();
            assert!(same.success());
        } else {
            assert!(fs::read(&file).unwrap() == fs::read(&again).unwrap(), "{format}: other bytes");
        }
        for name in ["localhost/web:1", "localhost/packed:2"] {
            let source = format!("{transport}:{file}:{name}");
            let target = format!("dir:{}", place.text(&format!("{format}-{}", name.len())));
            let copied = Command::new("skopeo")
                .args(["--insecure-policy", "copy", &source, &target])
                .output()
                .unwrap();
            assert!(copied.status.success(), "{source}: {}", String::from_utf8_lossy(&copied.stderr));
        }
        let other = Place::new();
        let loaded = other.ok(&["load", "-i", &file]);
        assert_eq!(loaded, "Loaded image: localhost/web:1\nLoaded image: localhost/packed:2");
        let ids = |list: &Value| {
            let list = list.as_array().unwrap().clone();
            list.into_iter().map(|image| (image["names"].clone(), image["id"].clone())).collect::<Vec<_>>()
        };
        assert_eq!(ids(&other.json(&["ls", "--json"])), ids(&before), "{format}");
        assert_eq!(other.ok(&["verify"]), "");
    }

    // By pipes, compressed.
    let piped = place.run(&["save", "web:1"]);
    piped.assert_code(0);
    assert_eq!(sha256(piped.stdout.as_slice()), {
        place.ok(&["save", "-o", &place.text("one.tar"), "web:1"]);
        sha256(fs::File::open(place.path("one.tar")).unwrap())
    });
    fs::write(place.path("one.tar.zst"), zstd::encode_all(piped.stdout.as_slice(), 1).unwrap()).unwrap();
    let other = Place::new();
    let mut cat = Command::new("cat").arg(place.path("one.tar.zst")).stdout(Stdio::piped()).spawn().unwrap();
    let loaded = other.env.fcvm().args(["image", "load"]).stdin(cat.stdout.take().unwrap()).run();
    loaded.assert_stdout("Loaded image: localhost/web:1");
    assert!(cat.wait().unwrap().success());
}

#[test]
fn what_cannot_be_saved_or_loaded_is_told() {
    let place = Place::new();
    place.load(&image(), "localhost/web:1");
    for blob in place.blobs() {
        fs::remove_file(blob).unwrap();
    }
    let output = place.run(&["save", "-o", &place.text("x.tar"), "web:1"]);
    output.assert_code(125);
    assert!(
        output.stderr.contains("are not in the store") && output.stderr.contains("hint: "),
        "{}",
        output.stderr
    );
    let output = place.run(&["save", "--format", "oci-dir", "web:1"]);
    assert!(output.stderr.contains("--output DIR"), "{}", output.stderr);
    place.load(&image(), "localhost/web:1");
    let blob = place.blobs().into_iter().max_by_key(|blob| fs::metadata(blob).unwrap().len()).unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    bytes[700] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let output = place.run(&["save", "-o", &place.text("x.tar"), "web:1"]);
    output.assert_code(125);
    assert!(output.stderr.contains("was changed or damaged"), "{}", output.stderr);
    assert!(!place.path("x.tar").exists(), "half an archive");

    place.env.file("noise", "no archive");
    for bad in ["noise", "missing", "."] {
        let output = place.run(&["load", "-i", &place.text(bad)]);
        output.assert_code(125);
        assert!(output.stderr.starts_with("error: "), "{}", output.stderr);
    }
    image().write_archive(&place.path("bad.tar"), |name, bytes| {
        if name.starts_with("blobs/") && bytes.len() > 5000 {
            bytes[1000] ^= 1;
        }
    });
    let other = Place::new();
    other.run(&["load", "-i", &place.text("bad.tar")]).assert_code(125);
    assert_eq!(other.json(&["ls", "--json"]), json!([]));
    assert!(other.blobs().is_empty());
}

#[test]
fn pruning_takes_what_nobody_needs() {
    let place = Place::new();
    place.load(&image(), "localhost/named:1");
    let other = Image::new().layer(&layer("other"), Compression::None);
    place.load(&other, "localhost/lost:1");
    place.ok(&["tag", "named:1", "lost:1"]);
    let partial = place.env.data().join("blobs/partial");
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join("0".repeat(64)), vec![1; 10_000]).unwrap();
    let blobs = place.blobs().len();

    let output = place.run(&["prune"]);
    output.assert_code(125);
    assert!(output.stderr.contains("hint: answer `y`, or add --force"), "{}", output.stderr);
    let dry = place.ok(&["prune", "--dry-run"]);
    assert!(dry.starts_with("would delete: sha256:") && dry.contains("would free: "), "{dry}");
    assert_eq!(place.blobs().len(), blobs);
    for filter in ["until=1h", "size=1GB", "size=<10"] {
        let dry = place.ok(&["prune", "--dry-run", "--filter", filter]);
        assert!(!dry.contains("delete"), "{filter}: {dry}");
    }
    let kept = place.ok(&["prune", "--dry-run", "--filter", "until=2100-01-01", "--filter", "size=>100"]);
    assert!(kept.contains("would delete: sha256:"), "{kept}");

    let pruned = place.ok(&["prune", "--force"]);
    assert!(pruned.starts_with("deleted: sha256:") && pruned.contains("\nfreed: "), "{pruned}");
    assert_eq!(place.json(&["ls", "--json"]).as_array().unwrap().len(), 1);
    assert!(children(&partial).is_empty());
    assert_eq!(place.blobs().len(), blobs - 3);

    let in_use = fs::File::open(place.disk("named:1").with_file_name("lock")).unwrap();
    in_use.lock_shared().unwrap();
    let output = place.run(&["prune", "--all", "--force"]);
    assert!(output.stderr.contains("is in use by a running VM, and stays"), "{}", output.stderr);
    assert_eq!(output.ok(), "freed: 0 B");
    drop(in_use);
    let all = place.ok(&["prune", "-af"]);
    assert!(
        all.starts_with("deleted: localhost/lost:1\ndeleted: localhost/named:1\ndeleted: sha256:"),
        "{all}"
    );
    assert_eq!(place.json(&["ls", "--json"]), json!([]));
    assert!(place.blobs().is_empty());
    place.run(&["prune", "--filter", "label=x"]).assert_code(2);
}

#[test]
fn what_the_store_takes_is_told() {
    let place = Place::new();
    assert_eq!(place.json(&["df", "--json"])["disks"]["count"], 0);
    place.load(&image(), "localhost/one:1");
    let same = Image::new().layer(&layer("base"), Compression::None);
    place.load(&same, "localhost/two:1");
    let in_use = fs::File::open(place.disk("one:1").with_file_name("lock")).unwrap();
    in_use.lock_shared().unwrap();
    let report = place.json(&["df", "--json", "-v"]);
    assert_eq!((&report["disks"]["count"], &report["disks"]["in_use"]), (&json!(2), &json!(1)));
    assert_eq!(report["blobs"]["count"], place.blobs().len());
    // Manifest and configuration of the other; the layer is also of the one in use.
    assert_eq!(report["blobs"]["in_use"], place.blobs().len() - 2);
    assert_eq!(report["shared_blobs"]["count"], 1);
    let images = report["images"].as_array().unwrap();
    let of = |name: &str| images.iter().find(|image| image["names"] == json!([name])).unwrap();
    assert_eq!(
        (&of("localhost/one:1")["in_use"], &of("localhost/two:1")["in_use"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(of("localhost/two:1")["disk"], report["disks"]["reclaimable"]);
    let table = place.ok(&["df", "-v"]);
    assert!(table.starts_with("KIND"), "{table}");
    assert_eq!(table.lines().count(), 9, "{table}");
    let dry = place.json(&["df", "--json"]);
    assert_eq!(dry.get("images"), None);
}

#[test]
fn damage_is_found_and_repaired() {
    let place = Place::new();
    place.load(&image(), "localhost/web:1");
    assert_eq!(place.ok(&["verify"]), "");
    let disk = place.disk("web:1");
    let spoil = |path: &Path, at: usize| {
        let modified = fs::metadata(path).unwrap().modified().unwrap();
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
        // So that nothing but its bytes tells.
        fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
    };
    let good = fs::read(&disk).unwrap();
    spoil(&disk, good.len() / 2);
    let damaged = place.run(&["verify", "web:1"]);
    damaged.assert_code(1);
    assert_eq!(damaged.stdout().trim(), format!("{}: differs from a disk made anew", disk.display()));
    let in_use = fs::File::open(disk.with_file_name("lock")).unwrap();
    in_use.lock_shared().unwrap();
    let damaged = place.run(&["verify", "--repair"]);
    damaged.assert_code(1);
    assert!(damaged.stdout().contains("a VM uses it: not replaced"), "{}", damaged.stdout());
    drop(in_use);
    let repaired = place.ok(&["verify", "--repair"]);
    assert!(repaired.ends_with("; repaired"), "{repaired}");
    assert!(fs::read(&disk).unwrap() == good);
    assert_eq!(place.ok(&["verify"]), "");

    fs::write(&disk, "cut").unwrap();
    place.run(&["verify"]).assert_code(1);
    place.ok(&["verify", "--repair"]);
    assert!(fs::read(&disk).unwrap() == good);

    let blob = place.blobs().into_iter().max_by_key(|blob| fs::metadata(blob).unwrap().len()).unwrap();
    spoil(&blob, 600);
    let damaged = place.run(&["verify"]);
    damaged.assert_code(1);
    assert_eq!(damaged.stdout().trim(), format!("{}: has another digest than its name", blob.display()));
    let removed = place.run(&["verify", "--repair"]);
    removed.assert_code(1);
    assert!(removed.stdout().trim().ends_with("; removed") && !blob.exists(), "{}", removed.stdout());
    let missing = place.run(&["verify"]);
    missing.assert_code(1);
    assert!(missing.stdout().trim().ends_with(": is missing"), "{}", missing.stdout());
    place.load(&image(), "localhost/web:1");
    assert_eq!(place.ok(&["verify"]), "");

    let stray = place.env.data().join("blobs/sha256").join("0".repeat(64));
    fs::write(&stray, "not zero").unwrap();
    place.run(&["verify"]).assert_code(1);
    place.ok(&["verify", "--repair"]);
    assert!(!stray.exists());
    assert_eq!(place.ok(&["verify", "web:1"]), "");
}

/// Each text, with code and both streams; what differs by run is replaced.
#[test]
fn what_is_said() {
    let place = Place::new();
    place.load(&image(), "localhost/web:1");
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/snapshots"));
    settings.add_filter(r"sha256:[0-9a-f]{64}", "sha256:[DIGEST]");
    settings.add_filter(r"\b[0-9a-f]{12}\b", "[ID]");
    settings.add_filter(r"\d+(\.\d+)? (MB|kB|B)\b", "[SIZE]");
    settings.add_filter(r"\d+ (year|month|week|day|hour)s? ago", "[AGO]");
    settings.add_filter(r"\(\d+\.\d s\)", "([TIME])");
    settings.add_filter(r" {2,}", "  ");
    let data = fs::canonicalize(place.env.data()).unwrap().display().to_string();
    let root = fs::canonicalize(place.env.root()).unwrap().display().to_string();
    let blob = place.blobs().into_iter().max_by_key(|blob| fs::metadata(blob).unwrap().len()).unwrap();
    let mut said = String::new();
    for arguments in [
        &["inspect", "nothing"][..],
        &["history", "web:1"],
        &["tag", "web:1", "UPPER"],
        &["df", "-v"],
        &["save", "--format", "oci-dir", "web:1"],
        &["save", "nothing"],
        &["load", "-i", "nothing.tar"],
        &["prune"],
        &["prune", "--filter", "until=soon"],
        &["prune", "--filter", "size=large"],
        &["prune", "--all", "--dry-run"],
        &["verify", "web:1"],
        &["verify", "nothing"],
    ] {
        let output = place.run(arguments);
        said += &format!(
            "$ fcvm image {}\n{}--- {}\n{}\n",
            arguments.join(" "),
            output.stdout(),
            output.code(),
            output.stderr
        );
    }
    fs::write(&blob, "damaged").unwrap();
    let output = place.run(&["verify", "--repair"]);
    let name = blob.file_name().unwrap().to_str().unwrap();
    said += &format!("{}--- {}\n{}", output.stdout().replace(name, "[HEX]"), output.code(), output.stderr);
    let said = said.replace(&data, "[DATA]").replace(&root, "[ROOT]");
    settings.bind(|| insta::assert_snapshot!("image-commands", said));

    let mut help = String::new();
    for command in ["df", "history", "inspect", "load", "prune", "save", "tag", "verify"] {
        let text = place.ok(&[command, "-h"]);
        // Those of every command are not of these.
        let own = text.lines().filter(|line| {
            !["FCVM_", "--log-format", "--data-dir"].iter().any(|of_all| line.contains(of_all))
        });
        help += &format!("$ fcvm image {command} -h\n{}\n\n", own.collect::<Vec<_>>().join("\n"));
    }
    settings.bind(|| insta::assert_snapshot!("image-help", help));
}
