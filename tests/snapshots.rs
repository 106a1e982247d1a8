//! Snapshots on disk, as a user lists, moves and removes them. They are of no machine: the library makes them
//! in the test's own data directory.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use fcvm::{
    process::Owner,
    snapshot::{
        Contents, Cpu, Engine, FORMAT, Host, MANIFEST, MEMORY, Manifest, Partial, SCRATCH, STATE, Snapshot,
        SnapshotTag, Store,
    },
    storage::{DataDir, cow},
};
use fcvm_proto::PROTOCOL;
use fcvm_testkit::{Entry, Layer, LoopMount, Output, TestEnv, needs_programs, needs_root, noise, skip};
use serde_json::{Value, json};

#[path = "snapshots/archives.rs"]
mod archives;
#[path = "snapshots/btrfs.rs"]
mod btrfs;

#[cfg(feature = "failpoints")]
use fcvm::failpoint::VARIABLE;

/// A program without failpoints has none.
#[cfg(not(feature = "failpoints"))]
const VARIABLE: &str = "";

const FCVM: &str = env!("CARGO_BIN_EXE_fcvm");
const MEMORY_SIZE: u64 = 256 << 20;

fn fcvm(env: &TestEnv, arguments: &[&str]) -> Output {
    env.fcvm().arg("snapshot").args(arguments).run()
}

fn json(env: &TestEnv, arguments: &[&str]) -> Value {
    serde_json::from_str(&fcvm(env, arguments).ok()).unwrap()
}

fn refused(env: &TestEnv, arguments: &[&str], words: &str) {
    let output = fcvm(env, arguments);
    output.assert_code(125);
    assert!(output.stderr.contains(words), "{arguments:?}: {}", output.stderr);
}

fn tag(text: &str) -> SnapshotTag {
    text.parse().unwrap()
}

fn store(env: &TestEnv) -> Store {
    Store::open(&DataDir::open(Some(env.data().to_owned())).unwrap())
}

fn directory(env: &TestEnv, name: &str) -> PathBuf {
    env.data().join("snapshots").join(name)
}

/// What is in the directory of snapshots.
fn names(env: &TestEnv) -> Vec<String> {
    let entries = fs::read_dir(directory(env, "")).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// This host, and a hypervisor.
fn host() -> Host {
    Host {
        engine: Engine { name: "firecracker".into(), version: "1.16.1".into(), accelerator: "kvm".into() },
        cpu: Cpu::of_this_host().unwrap(),
    }
}

fn manifest(name: &str) -> Manifest {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let asset = |path: &str| json!({ "path": path, "sha256": digest });
    let mount = json!({
        "type": "bind", "source": "/srv/site", "destination": "/x", "options": [], "writable": true,
    });
    let value = json!({
        "format": FORMAT, "id": "0123456789abcdef".repeat(2), "tag": name, "created": "2026-01-02T03:04:05Z",
        "contents": "machine",
        "origin": { "vm": "0123456789abcdef".repeat(2), "name": "web", "snapshot": null },
        "hypervisor": host().engine, "cpu": host().cpu,
        "protocol": PROTOCOL, "link_key": "fedcba9876543210".repeat(2),
        "machine": {
            "cpus": 1, "memory_mib": 256, "kernel_arguments": null, "huge_pages": false,
            "kernel": asset("kernels/old/vmlinux"), "initrd": asset("initrd/old.cpio"),
            "base": asset("rootfs/old.ext4"), "interfaces": [],
        },
        "container": {
            "command": ["sh"], "labels": { "a": "b" }, "mounts": [mount], "hostname": null, "stop_signal": 15,
            "interactive": false, "terminal": false, "health": null,
        },
        "volumes": [], "image": { "reference": "localhost/hello:latest", "digest": digest },
        "network": null, "ports": [], "files": {}, "base": null,
    });
    serde_json::from_value(value).unwrap()
}

/// Makes a snapshot: of its memory every 64th page is written.
fn make_as(env: &TestEnv, manifest: Manifest) -> Snapshot {
    let partial = store(env).begin(&manifest.tag).unwrap();
    fill(&partial, manifest.contents);
    partial.commit(manifest).unwrap()
}

fn fill(partial: &Partial, contents: Contents) {
    if contents == Contents::Machine {
        fs::write(partial.path(STATE), "devices").unwrap();
        let memory = File::create(partial.path(MEMORY)).unwrap();
        memory.set_len(MEMORY_SIZE).unwrap();
        let pages = noise(4 << 20);
        for (page, at) in pages.chunks(4096).zip((0..).step_by(64 * 4096)) {
            memory.write_all_at(page, at).unwrap();
        }
    }
    let scratch = File::create(partial.path(SCRATCH)).unwrap();
    scratch.set_len(1 << 30).unwrap();
    scratch.write_all_at(&noise(300_000), 12_345).unwrap();
}

fn make(env: &TestEnv, name: &str) {
    drop(make_as(env, manifest(name)));
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn snapshots_are_listed_inspected_and_removed() {
    let env = TestEnv::new(FCVM);
    assert_eq!(json(&env, &["ls", "--json"]), json!([]));
    make(&env, "web");
    drop(make_as(&env, Manifest { contents: Contents::Disk, ..manifest("disk") }));
    assert_eq!(fcvm(&env, &["ls", "-q"]).ok(), "disk\nweb");
    let table = fcvm(&env, &["ls"]).ok();
    let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(
        lines[0],
        ["TAG", "ID", "CREATED", "CONTENTS", "IMAGE", "HYPERVISOR", "SIZE", "CLONES", "SERVERS"]
    );
    assert_eq!((lines[1][0], lines[2][0], lines[2][1]), ("disk", "web", "0123456789ab"), "{table}");
    assert!(table.contains("machine    localhost/hello:latest   firecracker 1.16.1"), "{table}");
    let all = json(&env, &["ls", "--json"]);
    assert_eq!((&all[0]["contents"], &all[1]["contents"]), (&json!("disk"), &json!("machine")));
    assert_eq!((&all[1]["clones"], &all[1]["error"]), (&json!(0), &Value::Null));
    let size = all[1]["size"].as_u64().unwrap();
    assert!((4 << 20..8 << 20).contains(&size), "{size}");

    let both = json(&env, &["inspect", "web", "disk"]);
    assert_eq!(both.as_array().unwrap().len(), 2);
    assert_eq!((&both[0]["tag"], &both[0]["container"]["labels"]["a"]), (&json!("web"), &json!("b")));
    assert_eq!(both[0]["files"]["memory.bin"]["size"], MEMORY_SIZE);
    assert_eq!((&both[0]["allocated_bytes"], &both[0]["clones"]), (&json!(size), &json!([])));
    let format = "{{.tag}} {{.hypervisor.name}} {{index .container.labels \"a\"}}";
    assert_eq!(fcvm(&env, &["inspect", "--format", format, "web"]).ok(), "web firecracker b");
    refused(&env, &["inspect", "web", "none"], "no snapshot `none`");

    let some = fcvm(&env, &["rm", "none", "web"]);
    some.assert_code(125);
    assert_eq!(some.stdout(), "web\n");
    assert!(some.stderr.contains("no snapshot `none`") && some.stderr.contains("hint:"), "{}", some.stderr);
    fcvm(&env, &["rm", "--force", "web"]).assert_code(0);
    assert_eq!(names(&env), ["disk"]);
    assert!(fcvm(&env, &["rm", "../disk"]).stderr.contains("is no tag"));
    // No answer is a no.
    refused(&env, &["prune"], "not confirmed");
    assert_eq!(fcvm(&env, &["prune", "--until", "2026-01-01", "--force"]).ok(), "freed: 0 B");
    let pruned = fcvm(&env, &["prune", "--until", "1h", "--force"]).ok();
    assert!(pruned.starts_with("deleted: disk\nfreed: ") && names(&env).is_empty(), "{pruned}");
}

#[test]
fn a_snapshot_with_clones_stays() {
    let env = TestEnv::new(FCVM);
    let made = make_as(&env, manifest("web"));
    // This process is a clone, as far as anybody can tell.
    let id = "00112233445566778899aabbccddeeff";
    let state = json!({
        "format": 3, "id": id, "name": "copy", "process_type": "clone", "owner": Owner::current().unwrap(),
        "hypervisor_process": null, "hypervisor": "firecracker", "image": "hello", "image_digest": null,
        "command": [], "status": "running", "health_status": "healthy", "exit_code": null,
        "created": "2026-01-02T03:04:05Z", "started": "2026-01-02T03:04:05Z", "cpus": 1, "memory_mib": 256,
        "serve_pid": null, "snapshot_name": "web", "ports": [],
    });
    let record = env.data().join(format!("state/{id}.json"));
    fs::create_dir_all(record.parent().unwrap()).unwrap();
    fs::write(&record, state.to_string()).unwrap();

    assert_eq!(json(&env, &["ls", "--json"])[0]["clones"], 1);
    assert_eq!(json(&env, &["inspect", "web"])[0]["clones"], json!(["copy"]));
    refused(
        &env,
        &["rm", "web"],
        "snapshot `web` is in use by VM `copy`\nhint: stop what uses it first: `fcvm stop copy`",
    );
    let pruned = fcvm(&env, &["prune", "--force"]);
    assert_eq!(pruned.ok(), "freed: 0 B");
    assert!(pruned.stderr.contains("snapshot `web` is in use, and stays"), "{}", pruned.stderr);
    made.check(&host()).unwrap();
    drop(made);
    fs::remove_file(record).unwrap();
    assert_eq!(fcvm(&env, &["rm", "web"]).ok(), "web");
}

#[test]
fn damage_is_found_and_told() {
    let env = TestEnv::new(FCVM);
    for name in ["cut", "flipped", "good", "newer", "other"] {
        make(&env, name);
    }
    assert_eq!(fcvm(&env, &["verify"]).ok(), "");
    let file = |name: &str, file: &str| directory(&env, name).join(file);
    let memory = file("flipped", MEMORY);
    let time = fs::metadata(&memory).unwrap().modified().unwrap();
    flip(&memory, 64 * 4096 * 3);
    File::options().write(true).open(file("cut", SCRATCH)).unwrap().set_len(1 << 20).unwrap();
    fs::write(file("newer", MANIFEST), r#"{"format":99,"more":true}"#).unwrap();
    fs::remove_file(file("other", MANIFEST)).unwrap();

    let get = |name: &str| store(&env).get(&tag(name));
    let check = |name: &str| get(name).unwrap().check(&host());
    check("good").unwrap();
    assert!(check("cut").unwrap_err().to_string().contains("has 1048576 bytes, and had 1073741824"));
    assert!(check("flipped").unwrap_err().to_string().contains("`memory.bin` is not what it was"));
    // What only reading can tell, reading tells.
    File::options().write(true).open(&memory).unwrap().set_modified(time).unwrap();
    check("flipped").unwrap();

    let verified = fcvm(&env, &["verify", "flipped", "cut", "good", "other"]);
    verified.assert_code(1);
    let place = directory(&env, "other").join(MANIFEST);
    let expected = [
        "snapshot `flipped` is damaged: the content of its file `memory.bin` is not what it was".to_owned(),
        "snapshot `cut` is damaged: its file `scratch.raw` has 1048576 bytes, and had 1073741824".to_owned(),
        format!("there is no `{}`", place.display()),
    ];
    assert_eq!(verified.stdout().lines().collect::<Vec<_>>(), expected);
    let all = fcvm(&env, &["verify"]);
    all.assert_code(125);
    let words = format!("has format 99, and this fcvm knows format {FORMAT}");
    assert!(all.stderr.contains(&words), "{}", all.stderr);
    assert_eq!(all.stdout().lines().count(), 3);

    let list = fcvm(&env, &["ls"]);
    assert_eq!(list.ok().lines().filter(|line| line.contains("unusable")).count(), 2);
    assert!(list.stderr.contains("warning: snapshot `newer` cannot be used"), "{}", list.stderr);
    let listed = json(&env, &["ls", "--json"]);
    assert!(listed[3]["error"].as_str().unwrap().contains("has format 99") && listed[3]["id"].is_null());
    refused(&env, &["inspect", "newer"], "has format 99");
    refused(&env, &["export", "cut", "-o", "x"], "`scratch.raw` has 1048576 bytes");
    assert!(!env.root().join("x").exists());
    assert_eq!(fcvm(&env, &["rm", "cut", "flipped", "newer", "other"]).ok(), "cut\nflipped\nnewer\nother");
}

#[test]
fn another_host_is_refused_before_anything_starts() {
    let env = TestEnv::new(FCVM);
    let made = make_as(&env, manifest("web"));
    made.check(&host()).unwrap();
    for (change, words) in [
        ((|host| host.cpu.model = "Other".into()) as fn(&mut Host), "needs a host with CPU model"),
        (|host| host.cpu.vendor = "Other".into(), "needs a host with CPU vendor"),
        (
            |host| host.engine.name = "qemu".into(),
            "made by firecracker 1.16.1, and qemu 1.16.1 cannot load it",
        ),
        (|host| host.engine.version = "1.15.0".into(), "firecracker 1.15.0 cannot load it"),
    ] {
        let mut host = host();
        change(&mut host);
        let error = made.check(&host).unwrap_err();
        assert!(error.to_string().contains(words) && error.hint().is_some(), "{error}");
    }
}

#[test]
fn of_two_at_once_with_one_tag_one_wins() {
    let (env, other) = (TestEnv::new(FCVM), TestEnv::new(FCVM));
    make(&env, "web");
    let archive = env.file("web.fcvm", fcvm(&env, &["export", "web"]).stdout);
    let running = [(); 3].map(|()| other.fcvm().args(["snapshot", "import"]).arg(&archive).spawn());
    let outputs = running.map(fcvm_testkit::Running::wait);
    assert_eq!(outputs.iter().filter(|output| output.code() == 0).count(), 1, "{outputs:?}");
    for output in outputs.iter().filter(|output| output.code() != 0) {
        assert!(output.code() == 125 && output.stderr.contains("snapshot `web` exists"), "{}", output.stderr);
    }
    assert_eq!(names(&other), ["web"]);
    assert_eq!(fcvm(&other, &["verify"]).ok(), "");
}

#[test]
fn a_sudden_death_leaves_a_whole_snapshot_or_none() {
    if VARIABLE.is_empty() {
        return skip("fcvm was built without --features fcvm/failpoints");
    }
    let (env, other) = (TestEnv::new(FCVM), TestEnv::new(FCVM));
    make(&env, "web");
    let archive = env.file("web.fcvm", fcvm(&env, &["export", "web"]).stdout);
    let import = || other.fcvm().args(["snapshot", "import"]).arg(&archive);
    for point in ["snapshot-begun", "snapshot-file-imported", "snapshot-files-written", "snapshot-written"] {
        // While it is being written nobody takes it for garbage.
        let running = import().env(VARIABLE, format!("{point}=stop")).spawn();
        running.wait_until_stopped();
        assert_eq!(fcvm(&other, &["ls", "-q"]).ok(), "", "{point}");
        assert_eq!(other.fcvm().args(["gc", "--dry-run"]).run().ok(), "", "{point}");
        assert_eq!(names(&other).len(), 1, "{point}");
        assert_eq!(running.kill().code(), 137);
        let would = other.fcvm().args(["gc", "--dry-run"]).run().ok();
        assert!(would.contains("/snapshots/.tmp-"), "{point}: {would}");
        assert_eq!(other.fcvm().arg("gc").run().ok(), would, "{point}");
        assert!(names(&other).is_empty(), "{point}");
    }
    let killed = import().env(VARIABLE, "snapshot-file-imported=kill").run();
    assert_eq!(killed.code(), 137);
    assert_eq!(names(&other).len(), 1);
    // Any command does.
    fcvm(&other, &["ls"]).assert_code(0);
    assert!(names(&other).is_empty());

    assert_eq!(import().env(VARIABLE, "snapshot-named=kill").run().code(), 137);
    assert_eq!(fcvm(&other, &["ls", "-q"]).ok(), "web");
    assert_eq!(fcvm(&other, &["verify"]).ok(), "");
    let rm = other.fcvm().args(["snapshot", "rm", "web"]).env(VARIABLE, "snapshot-doomed=kill").run();
    assert_eq!(rm.code(), 137);
    assert_eq!(fcvm(&other, &["ls", "-q"]).ok(), "");
    assert!(names(&other).is_empty());
}

#[test]
fn an_image_of_a_snapshot_stays() {
    let env = TestEnv::new(FCVM);
    let image = |arguments: &[&str]| env.fcvm().arg("image").args(arguments).run();
    env.import("hello", &Layer::new().with(Entry::file("x", "y")).to_tar());
    let digest = image(&["inspect", "hello", "--format", "{{.Digest}}"]).ok();
    let id = image(&["ls", "-q"]).ok();
    let mut manifest = manifest("web");
    manifest.image.digest = digest.parse().unwrap();
    drop(make_as(&env, manifest));

    for arguments in [&["rm", "hello"][..], &["rm", &id], &["rm", "--force", &id]] {
        let output = image(arguments);
        output.assert_code(125);
        assert!(output.stderr.contains("is in use by snapshot `web`"), "{}", output.stderr);
        assert!(output.stderr.contains("hint: remove the snapshot first: `fcvm snapshot rm web`"));
    }
    for arguments in [&["prune", "--all", "--dry-run"][..], &["prune", "--all", "--force"]] {
        let output = image(arguments);
        assert!(!output.ok().contains(&digest), "{}", output.stdout());
        assert!(output.stderr.contains("is in use by snapshot `web`, and stays"), "{}", output.stderr);
    }
    // Another name of it may go.
    image(&["tag", "hello", "second"]).assert_code(0);
    assert_eq!(image(&["rm", "second"]).ok(), "untagged: localhost/second:latest");
    assert_eq!(fcvm(&env, &["rm", "web"]).ok(), "web");
    assert!(image(&["rm", "hello"]).ok().contains(&digest));
}

#[test]
fn vm_setup_keeps_what_a_snapshot_needs() {
    let Some(env) = TestEnv::set_up(FCVM) else { return };
    env.unshare_assets();
    let needed = ["kernels/old/vmlinux", "rootfs/old.ext4", "rootfs/old.ext4.json", "initrd/old.cpio"];
    let other = ["kernels/older/vmlinux", "rootfs/older.ext4", "initrd/older.cpio"];
    for name in needed.iter().chain(&other) {
        let path = env.data().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "old").unwrap();
    }
    let there = |names: &[&str]| names.iter().filter(|name| env.data().join(name).exists()).count();
    let prune = || env.fcvm().args(["setup", "--prune"]).run().assert_code(0).stderr.clone();
    make(&env, "web");
    let said = prune();
    assert_eq!((there(&needed), there(&other)), (needed.len(), 0), "{said}");
    fcvm(&env, &["rm", "web"]).assert_code(0);
    assert!(prune().contains("old.ext4"));
    assert_eq!(there(&needed), 0);
}

#[test]
fn root_a_full_disk_is_told_and_nothing_is_left() {
    if !needs_root() || !needs_programs(&["mkfs.ext4", "mount"]) {
        return;
    }
    let env = TestEnv::new(FCVM);
    make(&env, "web");
    let archive = env.file("web.fcvm", fcvm(&env, &["export", "web"]).stdout);
    let mounted = match LoopMount::new(16 << 20) {
        Ok(mounted) => mounted,
        Err(reason) => return skip(format!("no loop device: {reason}")),
    };
    let data = mounted.path().join("data");
    fs::create_dir(&data).unwrap();
    let small = TestEnv::new(FCVM).with_data(data);
    mounted.fill(3 << 20);
    let free = mounted.free();
    let output = small.fcvm().args(["snapshot", "import"]).arg(&archive).run();
    output.assert_code(125);
    assert!(output.stderr.contains("No space left on device"), "{}", output.stderr);
    assert!(
        output.stderr.contains("hint: free space, for instance with `fcvm snapshot prune`"),
        "{}",
        output.stderr
    );
    assert!(names(&small).is_empty());
    assert!(mounted.free() + (64 << 10) > free, "{} of {free} bytes are free", mounted.free());
    drop((small, mounted));
}

#[test]
fn commands_say_what_they_do() {
    let env = TestEnv::new(FCVM);
    let mut help = String::new();
    for command in ["export", "import", "inspect", "ls", "prune", "rm", "verify"] {
        let text = fcvm(&env, &[command, "-h"]).ok();
        // Those of every command are not of these.
        let own = text.lines().filter(|line| {
            !["FCVM_", "--log-format", "--data-dir"].iter().any(|of_all| line.contains(of_all))
        });
        help += &format!("$ fcvm snapshot {command} -h\n{}\n\n", own.collect::<Vec<_>>().join("\n"));
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/snapshots"));
    settings.add_filter(r" {2,}", "  ");
    settings.bind(|| insta::assert_snapshot!("snapshot-help", help));
}
