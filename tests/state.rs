//! What is known about VMs, and what they share and leave.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
    process::Stdio,
};

use fcvm_testkit::{Running, TestEnv, is_root, skip};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

fn vm() -> Option<TestEnv> {
    TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm"))
}

/// Starts a container that runs until its input is closed.
fn start(env: &TestEnv, options: &[&str]) -> Running {
    let command = ["-i", "hello", "sh", "-c", "echo ready; cat"];
    let running = env.run(options).args(command).stdin(Stdio::piped()).spawn();
    running.wait_for_stdout("ready");
    running
}

fn stop(mut running: Running) {
    drop(running.stdin());
    running.wait().assert_stdout("ready");
}

#[test]
fn vm_a_running_vm_is_listed() {
    let Some(env) = vm() else { return };
    let running = start(&env, &["--name", "web", "--cpus", "1", "-m", "512m"]);
    let list = env.list();
    assert_eq!(list.len(), 1, "{list:?}");
    let vm = &list[0];
    assert_eq!((vm["name"].as_str(), vm["status"].as_str()), (Some("web"), Some("running")));
    assert_eq!((vm["image"].as_str(), vm["hypervisor"].as_str()), (Some("hello"), Some("qemu")));
    assert_eq!((vm["cpus"].as_u64(), vm["memory_mib"].as_u64()), (Some(1), Some(512)));
    assert_eq!(vm["pid"].as_i64(), Some(running.pid().into()));
    assert_eq!(vm["command"][0], "sh");
    assert!(vm["cpu_seconds"].as_f64().unwrap() > 0.0);
    assert!(vm["uptime_seconds"].is_u64());
    assert!((10 << 20..1 << 30).contains(&vm["memory_pss_bytes"].as_u64().unwrap()), "{vm}");
    let hypervisor = vm["hypervisor_process"]["pid"].as_i64().unwrap();
    assert!(env.processes().iter().any(|(pid, _)| i64::from(*pid) == hypervisor));

    let table = env.fcvm().arg("ls").run().ok();
    let lines: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "ID", "IMAGE", "STATUS", "PID", "UPTIME", "CPU", "MEMORY", "PORTS"]);
    let id = vm["id"].as_str().unwrap();
    assert!(id.starts_with(lines[1][1]), "{table}");
    let pid = running.pid().to_string();
    assert_eq!((lines[1][0], &lines[1][2..5]), ("web", &["hello", "running", pid.as_str()][..]));
    assert_eq!(env.fcvm().args(["ls", "--quiet"]).run().ok(), lines[1][1]);

    // Its name is taken and its image in use for as long as it runs.
    let output = env.run(&["--name", "web", "hello", "true"]).run();
    output.assert_code(125);
    assert!(output.stderr.contains("the name `web` is in use"), "{}", output.stderr);
    assert!(output.stderr.contains("hint: choose another --name"), "{}", output.stderr);
    let output = env.fcvm().args(["image", "rm", "hello"]).run();
    output.assert_code(125);
    assert!(output.stderr.contains("in use by a running VM"), "{}", output.stderr);

    stop(running);
    assert!(env.list().is_empty());
    env.assert_nothing_left();
    env.fcvm().args(["image", "rm", "hello"]).run().assert_code(0);
}

#[test]
fn vm_four_at_once_share_their_disks_and_have_names_of_their_own() {
    let Some(env) = vm() else { return };
    let command = ["-m", "256m", "-i", "hello", "sh", "-c", "echo ready; cat"];
    let vms = [(); 4].map(|()| env.run(&command).stdin(Stdio::piped()).spawn());
    vms.iter().for_each(|vm| vm.wait_for_stdout("ready"));
    let list = env.list();
    let names: BTreeSet<_> = list.iter().map(|vm| vm["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    // Files by what they are, not by name; those of one VM and those of all.
    let disks: Vec<BTreeSet<_>> = list
        .iter()
        .map(|vm| {
            let pid = vm["hypervisor_process"]["pid"].as_i64().unwrap();
            let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path());
            let files = open.filter_map(|path| Some((fs::read_link(&path).ok()?, fs::metadata(path).ok()?)));
            files
                .filter(|(path, metadata)| metadata.is_file() && !path.to_string_lossy().contains("memfd"))
                .filter(|(path, _)| {
                    path.extension().is_some_and(|extension| extension == "ext4" || extension == "raw")
                })
                .map(|(_, metadata)| (metadata.dev(), metadata.ino()))
                .collect()
        })
        .collect();
    assert!(disks.iter().all(|disks| disks.len() == 3), "base, image and scratch: {disks:?}");
    let shared = disks.iter().skip(1).fold(disks[0].clone(), |shared, disks| &shared & disks);
    assert_eq!(shared.len(), 2, "base and image: {disks:?}");
    vms.into_iter().for_each(stop);
    env.assert_nothing_left();
}

#[test]
fn slow_vm_twenty_runs_leave_nothing() {
    let Some(env) = vm() else { return };
    env.shell("true").run().assert_code(0);
    let files = || {
        let mut all = BTreeSet::new();
        let mut directories = vec![env.data().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
                if entry.file_type().unwrap().is_dir() {
                    directories.push(entry.path());
                }
                all.insert(entry.path());
            }
        }
        all
    };
    let before = files();
    for run in 0..20 {
        env.shell(&format!("echo {run}")).run().assert_stdout(&run.to_string());
        env.assert_nothing_left();
    }
    assert_eq!(files(), before);
}

#[test]
fn state_of_a_newer_version_is_left_alone() {
    let env = TestEnv::new(env!("CARGO_BIN_EXE_fcvm"));
    fs::create_dir(env.data().join("state")).unwrap();
    let newer = env.data().join("state/ffffffffffffffff.json");
    fs::write(&newer, r#"{"format":999}"#).unwrap();
    assert!(env.list().is_empty());
    assert!(newer.exists());
    fs::remove_file(newer).unwrap();
}

/// An id of 32 digits.
fn id(number: u32) -> String {
    format!("{number:032x}")
}

/// A record that is right in all that is not changed, its owner dead.
fn record(number: u32, changes: Value) -> Value {
    let mut record = json!({
        "format": 3, "id": id(number), "name": format!("vm-{number}"), "process_type": "vm",
        "owner": { "pid": i32::MAX, "start_time": 1, "boot_id": "another" },
        "hypervisor_process": null, "hypervisor": "qemu", "image": "hello", "image_digest": null,
        "command": ["sh"], "status": "running", "health_status": "healthy", "exit_code": null,
        "created": "2026-11-21T17:00:00Z", "started": "2026-11-21T17:00:01Z", "detached": false,
        "cpus": 1, "memory_mib": 256, "serve_pid": null, "snapshot_name": null, "ports": []
    });
    record.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    record
}

/// Writes a record, and makes the files that its VM would have.
fn write(env: &TestEnv, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = env.data().join("state").join(format!("{name}.json"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    let directory = env.data().join("vms").join(name);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("scratch.raw"), "x").unwrap();
    path
}

/// This process, as an owner.
fn this_process() -> Value {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let start: u64 = stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap().parse().unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    json!({ "pid": std::process::id(), "start_time": start, "boot_id": boot.trim_end() })
}

#[test]
fn records_that_cannot_be_understood_are_left_alone() {
    let env = TestEnv::new(env!("CARGO_BIN_EXE_fcvm"));
    let whole = record(2, json!({})).to_string();
    let victim = id(90);
    let odd: [(u32, &str, Vec<u8>, &str); 11] = [
        (1, "of the future", record(1, json!({ "format": 999, "name": 7 })).to_string().into(), "newer"),
        (2, "cut", whole.as_bytes()[..whole.len() / 2].into(), "damaged"),
        (3, "empty", Vec::new(), "damaged"),
        (4, "no JSON", b"\x7fELF\0\xff{".to_vec(), "damaged"),
        (5, "another JSON", b"[1, 2, 3]".to_vec(), "damaged"),
        (6, "deep", "[".repeat(1 << 20).into(), "damaged"),
        (7, "of a path for an id", record(7, json!({ "id": "../../root" })).to_string().into(), "damaged"),
        (8, "of another's id", record(8, json!({ "id": victim })).to_string().into(), "of another"),
        (9, "of a path for a name", record(9, json!({ "name": "../x" })).to_string().into(), "damaged"),
        (10, "of odd types", record(10, json!({ "cpus": -1 })).to_string().into(), "damaged"),
        (
            11,
            "with keys of a terminal",
            record(11, json!({ "name": "a\u{1b}[2J" })).to_string().into(),
            "damaged",
        ),
    ];
    let paths: Vec<_> = odd.iter().map(|(number, _, bytes, _)| write(&env, &id(*number), bytes)).collect();
    write(&env, &victim, record(90, json!({ "owner": this_process() })).to_string());
    let state = env.data().join("state");
    fs::create_dir(state.join(format!("{}.json", id(20)))).unwrap();
    let pipe = state.join(format!("{}.json", id(21)));
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for arguments in [&["ls", "--all", "-q"][..], &["rm", "--all"], &["ls", "--quiet"]] {
        let output = env.fcvm().args(arguments).env("NO_COLOR", "1").run();
        output.assert_code(0);
        for (number, what, _, why) in &odd {
            let line = output.stderr.lines().find(|line| line.contains(&id(*number)));
            assert!(line.is_some_and(|line| line.contains(why)), "{what}: {}", output.stderr);
        }
        for number in [20, 21] {
            assert!(output.stderr.contains(&id(number)), "{}", output.stderr);
        }
        assert!(!output.stderr.contains('\u{1b}'), "{}", output.stderr);
        if arguments[0] == "ls" {
            assert_eq!(output.stdout().trim_end(), &victim[..12]);
        }
    }
    for name in ["vm-1", &id(1), &id(8)] {
        env.fcvm().args(["rm", name]).run().assert_code(125);
    }
    for (path, (number, what, bytes, _)) in paths.iter().zip(&odd) {
        assert!(fs::read(path).unwrap() == *bytes, "{what}");
        assert!(env.data().join("vms").join(id(*number)).join("scratch.raw").exists(), "{what}");
    }
    assert!(env.data().join("vms").join(&victim).join("scratch.raw").exists());
    forget(&env);
}

/// Removes all records and files of VMs.
fn forget(env: &TestEnv) {
    for directory in ["state", "vms"] {
        fs::remove_dir_all(env.data().join(directory)).unwrap();
    }
}

#[test]
fn a_record_that_is_too_long_takes_no_memory() {
    let env = TestEnv::new(env!("CARGO_BIN_EXE_fcvm"));
    let path = write(&env, &id(1), record(1, json!({})).to_string());
    OpenOptions::new().write(true).open(&path).unwrap().set_len(500 << 20).unwrap();
    let mut spaces = record(2, json!({})).to_string();
    spaces.push_str(&" ".repeat(17 << 20));
    write(&env, &id(2), spaces);
    let limited = env.program_in_env("sh").args(["-c", "ulimit -v 200000; exec \"$0\" ls --all"]);
    let output = limited.arg(env.program()).run();
    output.assert_code(0);
    assert_eq!(output.stdout().lines().count(), 1, "{}", output.stdout());
    assert!(output.stderr.contains("file too large"), "{}", output.stderr);
    assert!(path.exists());
    forget(&env);
}

#[test]
fn a_record_nobody_may_read_is_left_alone() {
    if is_root() {
        return skip("root may read all files");
    }
    let env = TestEnv::new(env!("CARGO_BIN_EXE_fcvm"));
    let path = write(&env, &id(1), record(1, json!({})).to_string());
    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    let output = env.fcvm().args(["ls", "--all", "-q"]).run();
    output.assert_stdout("");
    assert!(output.stderr.contains("unreadable VM state"), "{}", output.stderr);
    assert!(path.exists());
    forget(&env);
}

#[test]
fn of_records_with_a_reused_number_the_process_is_spared() {
    let env = TestEnv::new(env!("CARGO_BIN_EXE_fcvm"));
    let owner = this_process();
    let other = |changes: Value| {
        let mut owner = owner.clone();
        owner.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        owner
    };
    let start = owner["start_time"].as_u64().unwrap();
    let earlier = other(json!({ "start_time": start - 1 }));
    write(&env, &id(1), record(1, json!({ "owner": earlier, "hypervisor_process": earlier })).to_string());
    let before = other(json!({ "boot_id": "00000000-0000-0000-0000-000000000000" }));
    write(&env, &id(2), record(2, json!({ "owner": before, "hypervisor_process": before })).to_string());
    for (number, pid) in [(3, 0), (4, -1), (5, i32::MIN), (6, i32::MAX)] {
        write(
            &env,
            &id(number),
            record(number, json!({ "owner": other(json!({ "pid": pid })) })).to_string(),
        );
    }
    let kept = json!({ "owner": earlier, "detached": true });
    write(&env, &id(7), record(7, kept).to_string());
    let alive = write(&env, &id(8), record(8, json!({ "owner": owner })).to_string());
    // This process lives on, or none of what follows happens.
    let list = env.fcvm().args(["ls", "--all", "--json"]).run().ok();
    let list: Value = serde_json::from_str(&list).unwrap();
    let found: Vec<_> = list.as_array().unwrap().iter().map(|vm| (&vm["name"], &vm["status"])).collect();
    assert_eq!(found, [(&json!("vm-7"), &json!("exited")), (&json!("vm-8"), &json!("running"))]);
    assert_eq!(fs::read_dir(env.data().join("vms")).unwrap().count(), 2, "the others' files are gone");
    let refused = env.fcvm().args(["rm", "vm-8"]).run();
    refused.assert_code(125);
    assert!(refused.stderr.contains("VM `vm-8` is running"), "{}", refused.stderr);
    let refused = env.fcvm().args(["exec", "vm-8", "true"]).run();
    refused.assert_code(125);
    assert!(refused.stderr.contains("VM `vm-8` does not run"), "{}", refused.stderr);
    assert!(alive.exists());
    forget(&env);
}

#[test]
fn vm_a_running_vm_whose_record_is_of_the_future_is_spared() {
    let Some(env) = vm() else { return };
    let running = start(&env, &["--name", "web"]);
    let id = env.list()[0]["id"].as_str().unwrap().to_owned();
    let path = env.data().join("state").join(format!("{id}.json"));
    let record = fs::read_to_string(&path).unwrap();
    fs::write(&path, record.replacen("\"format\": 3", "\"format\": 999", 1)).unwrap();
    assert!(env.list().is_empty());
    for arguments in [&["rm", "--force", "--all"][..], &["stop", "--all"], &["rm", "--force", "web"]] {
        env.fcvm().args(arguments).run().assert_code(0);
    }
    assert!(env.data().join("vms").join(id).join("scratch.raw").exists());
    stop(running);
    env.assert_nothing_left();
}
