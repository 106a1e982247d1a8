//! Sudden ends, of sources, clones, servers and owners; full disks, and what cannot go on.

use super::*;

/// A server of a snapshot, and its PID.
fn serve(env: &TestEnv, tag: &str) -> (Running, i32) {
    let server = env.fcvm().args(["snapshot", "serve", tag]).spawn();
    let pid = server.pid();
    server.wait_for_stdout(&format!("{pid}\n"));
    (server, pid)
}

#[test]
fn vm_clones_end_with_who_serves_them() {
    let Some(env) = vm() else { return };
    start(&env, "source", COUNTER);
    snapshot(&env, "source", "warm");
    let (server, pid) = serve(&env, "warm");
    let (other, other_pid) = serve(&env, "warm");
    let run = |pid: i32, name: &str| {
        fcvm(&env, &["snapshot", "run", "--pid", &pid.to_string(), "-d", "--name", name])
    };
    for (pid, name) in [(pid, "a-1"), (pid, "a-2"), (other_pid, "b-1")] {
        run(pid, name).assert_code(0);
        assert_eq!(inspect(&env, name, "{{.serve_pid}}"), pid.to_string());
    }
    let listed: Value = serde_json::from_str(&fcvm(&env, &["snapshot", "ls", "--json"]).ok()).unwrap();
    let mut servers = listed[0]["servers"].as_array().unwrap().clone();
    servers.sort_by_key(|server| server["clones"].as_u64());
    assert_eq!((&servers[0]["pid"], &servers[1]["pid"]), (&other_pid.into(), &pid.into()));
    assert_eq!((&servers[1]["clones"], &servers[1]["health"]), (&2.into(), &"healthy".into()));
    assert_eq!(env.list().len(), 4, "a server is no VM");
    // Asked to end, it ends its own clones first.
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    server.wait().assert_code(0);
    for name in ["a-1", "a-2"] {
        assert_eq!(inspect(&env, name, "{{.status}} {{.exit_code}}"), "exited 137");
    }
    follow(&env, "b-1", 1);
    run(pid, "late").assert_code(125);
    // Killed, it cannot; nobody is left behind.
    kill_process(Pid::from_raw(other_pid).unwrap(), Signal::KILL).unwrap();
    drop(other);
    fcvm(&env, &["wait", "b-1"]);
    let error = inspect(&env, "b-1", "{{.error}}");
    assert!(error.contains("page server") && error.contains(&other_pid.to_string()), "{error}");
    fcvm(&env, &["gc"]).assert_code(0);
    remove(&env, &["source", "a-1", "a-2", "b-1"], &["warm"]);
}

/// The stages of making a snapshot, by its VM's owner.
const STAGES: [&str; 5] = ["saved-ahead", "frozen", "machine-stopped", "thawed", "snapshot-written"];

#[test]
fn vm_a_killed_owner_leaves_no_half_of_a_snapshot() {
    let Some(env) = vm() else { return };
    if VARIABLE.is_empty() {
        return skip("fcvm was built without --features fcvm/failpoints");
    }
    for stage in STAGES {
        let run = env.run(&["-d", "--rm", "--name", "vm", "-m", "256m", "hello", "sh", "-c", COUNTER]);
        run.env(VARIABLE, format!("{stage}=kill")).run().assert_code(0);
        let failed = fcvm(&env, &["snapshot", "create", "vm", "--tag", "half"]);
        failed.assert_code(125);
        assert!(failed.stderr.contains("`vm` ended before it answered"), "{stage}: {}", failed.stderr);
        env.wait_for_processes();
        fcvm(&env, &["gc"]).assert_code(0);
        env.assert_nothing_left();
        let left = fs::read_dir(env.data().join("snapshots")).unwrap().count();
        assert_eq!(left, 0, "{stage}");
    }
}

#[test]
fn vm_a_fork_that_is_killed_leaves_no_snapshot() {
    let Some(env) = vm() else { return };
    if VARIABLE.is_empty() {
        return skip("fcvm was built without --features fcvm/failpoints");
    }
    start(&env, "source", COUNTER);
    for stage in ["snapshot-reserved", "fork-saved", "fork-started"] {
        let fork = env.fcvm().args(["fork", "source", "--name", "kid", "--rm"]);
        assert_eq!(fork.env(VARIABLE, format!("{stage}=kill")).run().code(), 137, "{stage}");
        assert_eq!(snapshots(&env).len(), 1, "{stage}");
        fcvm(&env, &["gc"]).assert_code(0);
        // One that runs has it; its end is that of the snapshot.
        let runs = stage == "fork-started";
        assert_eq!(snapshots(&env).len(), usize::from(runs), "{stage}");
        if runs {
            follow(&env, "kid", 1);
            fcvm(&env, &["stop", "--time", "300", "kid"]).assert_code(0);
            assert!(snapshots(&env).is_empty());
        }
    }
    follow(&env, "source", 1);
    remove(&env, &["source"], &[]);
    // Its owner dies in the middle of it.
    let run = env.run(&["-d", "--rm", "--name", "vm", "-m", "256m", "hello", "sh", "-c", COUNTER]);
    run.env(VARIABLE, "disk-copied=kill").run().assert_code(0);
    let failed = fcvm(&env, &["fork", "vm"]);
    failed.assert_code(125);
    assert!(failed.stderr.contains("`vm` ended before it answered"), "{}", failed.stderr);
    assert!(snapshots(&env).is_empty());
    env.wait_for_processes();
    fcvm(&env, &["gc"]).assert_code(0);
    env.assert_nothing_left();
}

/// The stages of a clone's start, by its owner.
const STARTING: [&str; 15] = [
    "claimed",
    "network-allocated",
    "signals-heard",
    "scratch-copied",
    "spools-made",
    "launched",
    "hypervisor-recorded",
    "link-connected",
    "hello",
    "plan-sent",
    "restored",
    "volumes-connected",
    "streams-open",
    "control-listens",
    "running-recorded",
];

/// A clone in the foreground, which stands still at a stage.
fn held(env: &TestEnv, from: &[&str], stage: &str) -> Running {
    let run = env.fcvm().args(["snapshot", "run", "--name", "held"]).args(from);
    let running = run.env(VARIABLE, format!("{stage}=stop")).spawn();
    running.wait_until_stopped();
    running
}

#[test]
fn vm_a_clone_that_is_killed_while_it_starts_leaves_nothing_and_the_snapshot_whole() {
    let Some(env) = vm() else { return };
    if VARIABLE.is_empty() {
        return skip("fcvm was built without --features fcvm/failpoints");
    }
    start(&env, "source", COUNTER);
    snapshot(&env, "source", "warm");
    fcvm(&env, &["rm", "-f", "source"]).assert_code(0);
    for stage in STARTING {
        let running = held(&env, &["--snapshot", "warm"], stage);
        assert_eq!(env.kill(running).code(), 137, "{stage}");
        assert!(env.list().is_empty(), "{stage}");
        env.assert_nothing_left();
    }
    assert_eq!(fcvm(&env, &["snapshot", "verify", "warm"]).ok(), "");
    clone(&env, "warm", "clone");
    follow(&env, "clone", 1);
    remove(&env, &["clone"], &["warm"]);
}

#[test]
fn vm_clones_that_start_while_their_server_ends_end_too() {
    let Some(env) = vm() else { return };
    start(&env, "source", COUNTER);
    snapshot(&env, "source", "warm");
    fcvm(&env, &["rm", "-f", "source"]).assert_code(0);
    // Asked to end when the first of several runs.
    let (server, pid) = serve(&env, "warm");
    let from = ["--pid", &pid.to_string()];
    let names: Vec<_> = (1..=20).map(|number| format!("a-{number}")).collect();
    let runs = |name: &String| env.fcvm().args(["snapshot", "run", "-d", "--name", name]).args(from).spawn();
    let starting: Vec<_> = names.iter().map(runs).collect();
    starting[0].wait_for_stdout("\n");
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    server.wait().assert_code(0);
    for (name, running) in names.iter().zip(starting) {
        let output = running.wait();
        if output.code() == 0 {
            fcvm(&env, &["wait", name]);
            fcvm(&env, &["rm", name]).assert_code(0);
        } else {
            assert!([125, 143].contains(&output.code()), "{name}: {}", output.code());
            assert!(output.code() == 143 || output.stderr.contains("error:"), "{name}: {}", output.stderr);
        }
    }
    env.assert_nothing_left();
    if VARIABLE.is_empty() {
        return skip("fcvm was built without --features fcvm/failpoints");
    }
    // Killed at any moment of a start.
    for stage in ["claimed", "scratch-copied", "launched", "link-connected", "restored", "control-listens"] {
        let (server, pid) = serve(&env, "warm");
        let running = held(&env, &["--pid", &pid.to_string()], stage);
        let clone = Pid::from_raw(running.pid()).unwrap();
        assert_eq!(server.kill().code(), 137);
        kill_process(clone, Signal::CONT).unwrap();
        let output = running.wait();
        assert_eq!(output.code(), 125, "{stage}: {}", output.stderr);
        let told = format!("page server {pid}");
        assert!(output.stderr.contains(&told), "{stage}: {}", output.stderr);
        fcvm(&env, &["gc"]).assert_code(0);
        env.assert_nothing_left();
    }
    remove(&env, &[], &["warm"]);
}

#[test]
fn root_vm_a_full_disk_leaves_no_snapshot_and_the_source_runs_on() {
    if !needs_root() || !needs_programs(&["mkfs.ext4", "mount"]) {
        return;
    }
    let Some(env) = vm() else { return };
    let mounted = match LoopMount::new(512 << 20) {
        Ok(mounted) => mounted,
        Err(reason) => return skip(format!("no loop device: {reason}")),
    };
    let data = mounted.path().join("data");
    fs::create_dir(&data).unwrap();
    let env = env.with_data(data);
    env.import("hello", &Layer::new().busybox().to_tar());
    start(&env, "source", COUNTER);
    exec(&env, "source", "head -c 40000000 /dev/urandom > /large; sync");
    let filler = mounted.fill(12 << 20);
    let free = mounted.free();
    for more in [&[][..], &["--disk-only"]] {
        let failed = fcvm(&env, &[&["snapshot", "create", "source", "--tag", "half"], more].concat());
        failed.assert_code(125);
        assert!(failed.stderr.contains("No space left on device"), "{}", failed.stderr);
        assert!(failed.stderr.contains("hint: free s"), "{}", failed.stderr);
        assert!(snapshots(&env).is_empty(), "{:?}", snapshots(&env));
        assert!(mounted.free() + (1 << 20) > free, "{} of {free} bytes are free", mounted.free());
        assert_eq!(exec(&env, "source", "echo written > /small && wc -c < /large"), "40000000");
    }
    fs::remove_file(filler).unwrap();
    snapshot(&env, "source", "whole");
    clone(&env, "whole", "clone");
    assert_eq!(exec(&env, "clone", "cat /small"), "written");
    remove(&env, &["source", "clone"], &["whole"]);
    drop((env, mounted));
}

#[test]
fn vm_what_cannot_go_on_is_refused_before_anything_starts() {
    let Some(env) = vm() else { return };
    let missing = fcvm(&env, &["snapshot", "run", "--snapshot", "nosuch"]);
    missing.assert_code(125);
    assert!(missing.stderr.contains("nosuch"), "{}", missing.stderr);
    start(&env, "source", COUNTER);
    snapshot(&env, "source", "warm");
    let again = fcvm(&env, &["snapshot", "create", "source", "--tag", "warm"]);
    again.assert_code(125);
    assert!(again.stderr.contains("warm") && again.stderr.contains("hint:"), "{}", again.stderr);
    let directory = env.data().join("snapshots/warm");
    let state = fs::read(directory.join("state")).unwrap();
    let mut flipped = state.clone();
    flipped[state.len() / 2] ^= 1;
    for bytes in [&flipped[..], &state[..state.len() - 1]] {
        fs::write(directory.join("state"), bytes).unwrap();
        let refused = fcvm(&env, &["snapshot", "run", "--snapshot", "warm"]);
        refused.assert_code(125);
        assert!(refused.stderr.contains("state"), "{}", refused.stderr);
        assert_eq!(env.list().len(), 1, "nothing was started");
    }
    fs::write(directory.join("state"), &state).unwrap();
    let manifest = fs::read_to_string(directory.join("manifest.json")).unwrap();
    let (name, version) = (r#""version": ""#, r#""version": "99."#);
    fs::write(directory.join("manifest.json"), manifest.replace(name, version)).unwrap();
    let refused = fcvm(&env, &["snapshot", "run", "--snapshot", "warm"]);
    refused.assert_code(125);
    assert!(refused.stderr.contains("99."), "{}", refused.stderr);
    fs::write(directory.join("manifest.json"), manifest).unwrap();
    // Whole again, by its content.
    clone(&env, "warm", "clone");
    remove(&env, &["source", "clone"], &["warm"]);
}
