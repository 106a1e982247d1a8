//! What is known about VMs, and what they share and leave.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _, process::Stdio};

use fcvm_testkit::{Running, TestEnv};

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
    assert_eq!(lines[0], ["NAME", "ID", "IMAGE", "STATUS", "PID", "UPTIME", "CPU", "MEMORY"]);
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
