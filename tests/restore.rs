//! Restore conformance: what a VM is that goes on from a snapshot, and what its source remains. Whatever
//! hypervisor runs it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fcvm_testkit::{
    Entry, Layer, LoopMount, Output, Running, TestEnv, World, needs_programs, needs_root, skip, slowness,
    talk::{PATIENCE, answer_names, echo, echo_tcp},
    world::OUTSIDE,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[path = "restore/faults.rs"]
mod faults;
#[path = "restore/input.rs"]
mod input;
#[path = "restore/volumes.rs"]
mod volumes;

#[cfg(feature = "failpoints")]
use fcvm::failpoint::VARIABLE;

/// A program without failpoints has none.
#[cfg(not(feature = "failpoints"))]
const VARIABLE: &str = "";

/// Counts, in its memory and in its output; ends well when it is asked to.
const COUNTER: &str = "trap 'exit 5' TERM; n=0; while :; do n=$((n+1)); echo count $n; sleep 0.2; done";

fn vm() -> Option<TestEnv> {
    TestEnv::for_warm_vms(env!("CARGO_BIN_EXE_fcvm"))
}

fn fcvm(env: &TestEnv, arguments: &[&str]) -> Output {
    env.fcvm().args(arguments).run()
}

fn start(env: &TestEnv, name: &str, script: &str) {
    env.run(&["-d", "--name", name, "-m", "256m", "hello", "sh", "-c", script]).run().assert_code(0);
}

fn snapshot(env: &TestEnv, vm: &str, tag: &str) {
    let created = fcvm(env, &["snapshot", "create", vm, "--tag", tag]);
    created.assert_code(0);
    assert_eq!(created.stdout(), format!("{tag}\n"), "{}", created.stderr);
}

fn clone(env: &TestEnv, tag: &str, name: &str) {
    fcvm(env, &["snapshot", "run", "--snapshot", tag, "-d", "--name", name]).assert_code(0);
}

fn exec(env: &TestEnv, vm: &str, script: &str) -> String {
    fcvm(env, &["exec", vm, "sh", "-c", script]).ok()
}

/// In the VM, beside its container.
fn machine(env: &TestEnv, vm: &str, script: &str) -> String {
    env.fcvm().args(["exec", "--vm"]).args(env.exec_options()).args([vm, "sh", "-c", script]).run().ok()
}

fn inspect(env: &TestEnv, vm: &str, field: &str) -> String {
    fcvm(env, &["inspect", "--format", field, vm]).ok()
}

/// The numbers that a counter has told.
fn counts(env: &TestEnv, vm: &str) -> Vec<u32> {
    let logs = fcvm(env, &["logs", vm]).ok();
    logs.lines().map(|line| line.strip_prefix("count ").unwrap().parse().unwrap()).collect()
}

/// Waits until a counter has told so many more; the last.
fn follow(env: &TestEnv, vm: &str, more: u32) -> u32 {
    let follower = env.fcvm().args(["logs", "--follow", vm]).spawn();
    // That of a clone begins with any number.
    follower.wait_for_stdout("\n");
    let last = counts(env, vm).last().unwrap() + more;
    follower.wait_for_stdout(&format!("count {last}\n"));
    last
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// The clock is the host's, within half a second.
fn assert_time(env: &TestEnv, vm: &str) {
    let before = now();
    let there = machine(env, vm, "date +%s%N").parse().map(Duration::from_nanos).unwrap();
    let half = Duration::from_millis(500);
    assert!(there + half > before && there < now() + half, "{there:?} {before:?}");
}

fn remove(env: &TestEnv, vms: &[&str], tags: &[&str]) {
    if !vms.is_empty() {
        fcvm(env, &[&["rm", "-f"], vms].concat()).assert_code(0);
    }
    if !tags.is_empty() {
        fcvm(env, &[&["snapshot", "rm"], tags].concat()).assert_code(0);
    }
    env.assert_nothing_left();
}

/// What there is of snapshots, with names or without.
fn snapshots(env: &TestEnv) -> Vec<PathBuf> {
    let entries = fs::read_dir(env.data().join("snapshots")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn vm_clones_go_on_as_others_and_the_source_as_itself() {
    let Some(env) = vm() else { return };
    start(&env, "source", COUNTER);
    let then = follow(&env, "source", 2);
    let pid = inspect(&env, "source", "{{.hypervisor_process.pid}}");
    snapshot(&env, "source", "warm");
    let ids = fcvm(&env, &["snapshot", "run", "--snapshot", "warm", "-d", "-n", "2", "--name", "clone"]).ok();
    let clones = ["clone-1", "clone-2"];
    assert_eq!(ids.lines().count(), 2, "{ids}");
    // The container goes on from where it was, and tells of it in a log of its own.
    for clone in clones {
        follow(&env, clone, 2);
        let numbers = counts(&env, clone);
        assert!(numbers[0] > then.saturating_sub(2) && numbers.windows(2).all(|two| two[0] + 1 == two[1]));
    }
    // The source has lost nothing.
    follow(&env, "source", 1);
    // Neither is late by the time that its boot took.
    assert_time(&env, "source");
    let numbers = counts(&env, "source");
    assert!(numbers[0] == 1 && numbers.windows(2).all(|two| two[0] + 1 == two[1]), "{numbers:?}");
    assert_eq!(inspect(&env, "source", "{{.hypervisor_process.pid}}"), pid);
    fcvm(&env, &["exec", "source", "true"]).assert_code(0);

    let all = ["source", clones[0], clones[1]];
    let different = |what: &dyn Fn(&str) -> String| {
        let values: BTreeSet<_> = all.iter().map(|vm| what(vm)).collect();
        assert_eq!(values.len(), 3, "{values:?}");
    };
    different(&|vm| exec(&env, vm, "hostname"));
    different(&|vm| machine(&env, vm, "cat /etc/machine-id"));
    for vm in clones {
        let id = inspect(&env, vm, "{{.id}}");
        assert_eq!(machine(&env, vm, "cat /etc/machine-id; hostname"), format!("{id}\n{}", &id[..12]));
        assert_eq!(exec(&env, vm, "hostname; cat /etc/hostname"), format!("{0}\n{0}", &id[..12]));
        assert_eq!(inspect(&env, vm, "{{.process_type}} {{.snapshot_name}}"), "clone warm");
        assert_time(&env, vm);
    }
    let first = fs::read_to_string(env.data().join("snapshots/warm/manifest.json")).unwrap();
    let refused = fcvm(&env, &["snapshot", "rm", "warm"]);
    refused.assert_code(125);
    assert!(refused.stderr.contains("in use") && refused.stderr.contains("clone-1"), "{}", refused.stderr);
    // An end like any other.
    fcvm(&env, &["stop", "--time", "300", "clone-1"]).assert_code(0);
    fcvm(&env, &["wait", "clone-1"]).assert_stdout("5");
    fcvm(&env, &["kill", "clone-2"]).assert_code(0);
    fcvm(&env, &["wait", "clone-2"]).assert_stdout("137");
    assert_eq!(fs::read_to_string(env.data().join("snapshots/warm/manifest.json")).unwrap(), first);
    remove(&env, &all, &["warm"]);
}

#[test]
fn vm_clones_draw_other_random_numbers() {
    let Some(env) = vm() else { return };
    let run = ["-d", "--name", "source", "-m", "256m", "--network", "none", "hello"];
    env.run(&run).args(["sh", "-c", "while :; do sleep 1000; done"]).run().assert_code(0);
    snapshot(&env, "source", "warm");
    let refused = fcvm(&env, &["snapshot", "run", "--snapshot", "warm", "--network", "rootless"]);
    refused.assert_code(125);
    assert!(refused.stderr.contains("was made without a network"), "{}", refused.stderr);
    let drawn: BTreeSet<_> = (0..3)
        .map(|_| {
            let script = "head -c 16 /dev/urandom | od -An -tx1";
            fcvm(&env, &["snapshot", "run", "--snapshot", "warm", "--exec", script]).ok()
        })
        .collect();
    assert_eq!(drawn.len(), 3, "{drawn:?}");
    let status = fcvm(&env, &["snapshot", "run", "--snapshot", "warm", "--exec", "echo out; exit 7"]);
    status.assert_code(7);
    assert_eq!(status.stdout(), "out\n");
    remove(&env, &["source"], &["warm"]);
}

#[test]
fn vm_timers_fire_when_they_are_due() {
    let Some(env) = vm() else { return };
    // The guest's own clock stands still while nothing runs, and that is what timers go by; the host's does not.
    let script = format!("echo ready; sleep {}; echo rang; while :; do sleep 0.1; done", 3 * slowness());
    start(&env, "source", &script);
    let ready = |vm: &str| {
        let follower = env.fcvm().args(["logs", "--follow", vm]).spawn();
        follower.wait_for_stdout("rang\n");
        drop(follower.kill());
    };
    let follower = env.fcvm().args(["logs", "--follow", "source"]).spawn();
    follower.wait_for_stdout("ready\n");
    drop(follower.kill());
    snapshot(&env, "source", "warm");
    ready("source");
    // Made when the time of the source has long come.
    clone(&env, "warm", "clone");
    ready("clone");
    // Also those that are set in it.
    let took = exec(&env, "clone", "a=$(date +%s); sleep 2; echo $(($(date +%s) - a))");
    assert!((2..=3 * slowness()).contains(&took.parse().unwrap()), "{took} s");
    remove(&env, &["source", "clone"], &["warm"]);
}

#[test]
fn vm_what_is_written_meanwhile_is_whole_in_a_clone() {
    let Some(env) = vm() else { return };
    // Each file holds its own name, many times.
    let script = "mkdir /files; n=0; while :; do n=$((n+1));
        for i in 0 1 2 3 4 5 6 7 8 9; do echo $n$n$n$n$n$n$n$n; done > /files/new && mv /files/new /files/$n
        [ $n = 20 ] && echo count 20; done";
    start(&env, "source", script);
    let follower = env.fcvm().args(["logs", "--follow", "source"]).spawn();
    follower.wait_for_stdout("count 20\n");
    drop(follower);
    snapshot(&env, "source", "warm");
    clone(&env, "warm", "clone");
    let check = "cd /files; for f in $(ls | grep -v new | head -n 30); do
        [ \"$(sort -u $f)\" = $f$f$f$f$f$f$f$f ] && [ $(wc -l < $f) = 10 ] || echo bad $f; done; echo checked";
    assert_eq!(exec(&env, "clone", check), "checked");
    // Nothing of the disk was on its way.
    if needs_programs(&["e2fsck"]) {
        let disk = env.data().join("snapshots/warm/scratch.raw");
        let checked = std::process::Command::new("e2fsck").args(["-f", "-n"]).arg(&disk).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
    remove(&env, &["source", "clone"], &["warm"]);
}

#[test]
fn vm_generations_go_on_from_one_another() {
    let Some(env) = vm() else { return };
    start(&env, "vm-0", COUNTER);
    for generation in 0..3 {
        let (vm, tag, next) =
            (format!("vm-{generation}"), format!("tag-{generation}"), format!("vm-{}", generation + 1));
        exec(&env, &vm, &format!("echo {generation} >> /disk; echo {generation} >> /dev/shm/memory"));
        let then = follow(&env, &vm, 1);
        snapshot(&env, &vm, &tag);
        clone(&env, &tag, &next);
        follow(&env, &next, 2);
        assert!(counts(&env, &next)[0] > then.saturating_sub(2));
        let expected = (0..=generation).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
        assert_eq!(exec(&env, &next, "cat /disk"), expected);
        assert_eq!(exec(&env, &next, "cat /dev/shm/memory"), expected);
    }
    let manifests: Vec<Value> =
        serde_json::from_str(&fcvm(&env, &["snapshot", "inspect", "tag-0", "tag-1"]).ok()).unwrap();
    assert_eq!(manifests[1]["origin"]["snapshot"], manifests[0]["id"]);
    remove(&env, &["vm-0", "vm-1", "vm-2", "vm-3"], &["tag-0", "tag-1", "tag-2"]);
}

/// Counts its runs on its disk.
const RUNS: &str = "trap 'exit 5' TERM; n=$(($(cat /runs 2> /dev/null || echo 0) + 1))
    echo run $n on $(hostname); echo $n > /runs; while :; do sleep 0.1; done";
/// Behind a number of runs: waits for them.
const HAS_RUN: &str = "; until [ \"$(cat /runs)\" = $n ]; do sleep 0.1; done";

#[test]
fn vm_a_clone_of_a_disk_boots_and_its_container_starts_again() {
    let Some(env) = TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm")) else { return };
    is_cloned_by_its_disk(&env);
}

/// Of one that started warm, Podman knows another program than it runs.
#[test]
fn vm_a_clone_of_the_disk_of_a_vm_that_started_warm_is_no_other() {
    let Some(env) = vm() else { return };
    is_cloned_by_its_disk(&env);
}

fn is_cloned_by_its_disk(env: &TestEnv) {
    start(env, "first", RUNS);
    fcvm(env, &["rename", "first", "source"]).assert_code(0);
    exec(
        env,
        "source",
        &format!("n=1{HAS_RUN}; echo kept > /written; echo gone > /dev/shm/memory; rm /etc/passwd"),
    );
    let created = fcvm(env, &["snapshot", "create", "source", "--tag", "disk", "--disk-only"]);
    assert_eq!(created.ok(), "disk");
    let files = fs::read_dir(env.data().join("snapshots/disk")).unwrap();
    let files: BTreeSet<_> = files.map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["manifest.json", "scratch.raw"].map(Into::into).into());
    assert_eq!(fcvm(env, &["snapshot", "inspect", "--format", "{{.contents}}", "disk"]).ok(), "disk");
    let refused = fcvm(env, &["snapshot", "run", "--snapshot", "disk", "--mem-backend", "file"]);
    refused.assert_code(125);
    assert!(refused.stderr.contains("of a disk alone"), "{}", refused.stderr);
    // The source's container has run on meanwhile, and what it writes now is its own.
    assert_eq!(exec(env, "source", "cat /runs; echo later > /written"), "1");
    clone(env, "disk", "clone");
    let id = inspect(env, "clone", "{{.id}}");
    assert_eq!(
        inspect(env, "clone", "{{.process_type}} {{.snapshot_name}} {{.memory_mib}}"),
        "clone disk 256"
    );
    let follower = env.fcvm().args(["logs", "--follow", "clone"]).spawn();
    follower.wait_for_stdout("\n");
    drop(follower);
    assert_eq!(fcvm(env, &["logs", "clone"]).ok(), format!("run 2 on {}", &id[..12]));
    let script = "cat /written; ls /dev/shm /etc/passwd; cat /etc/hostname; tr '\\0' '\\n' < /proc/1/environ | \
        grep HOSTNAME || true";
    let told = fcvm(env, &["exec", "clone", "sh", "-c", script]).ok();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines[..2], ["kept", "/dev/shm:"], "{told}");
    assert!(lines[2..].iter().all(|line| line.trim_start_matches("HOSTNAME=") == &id[..12]), "{told}");
    assert_eq!(machine(env, "clone", "cat /etc/machine-id; hostname"), format!("{id}\n{}", &id[..12]));
    assert_time(env, "clone");
    // It is a VM like others: it is restarted, stopped, and saved.
    fcvm(env, &["restart", "clone"]).assert_code(0);
    assert_eq!(exec(env, "clone", &format!("n=3{HAS_RUN}; hostname")), id[..12]);
    assert_eq!(fcvm(env, &["snapshot", "create", "clone", "--tag", "again", "--disk-only"]).ok(), "again");
    fcvm(env, &["stop", "--time", "300", "clone"]).assert_code(0);
    fcvm(env, &["wait", "clone"]).assert_stdout("5");
    let script = format!("n=4{HAS_RUN}; echo out; exit 7");
    let once = fcvm(env, &["snapshot", "run", "--snapshot", "again", "--exec", &script]);
    once.assert_code(7);
    assert_eq!(once.stdout(), "out\n", "{}", once.stderr);
    remove(env, &["source", "clone"], &["disk", "again"]);
}

#[test]
fn root_vm_connections_end_and_new_ones_are_made() {
    const ECHO: u16 = 7;
    if !needs_root() || !needs_programs(&["socat"]) {
        return;
    }
    let Some(world) = World::new() else { return };
    let Some(env) = vm().map(|env| env.on(&world)) else { return };
    let layer = Layer::new().busybox().with(Entry::symlink("bin/nslookup", "busybox"));
    env.import("net", &layer.program("/usr/bin/socat").to_tar());
    echo_tcp(world.outside(|| TcpListener::bind(("::", ECHO)).unwrap()));
    answer_names(world.outside(|| UdpSocket::bind((OUTSIDE[0], 53)).unwrap()), &[("far.example", OUTSIDE)]);
    // One connection that is spoken on, one on which it only waits; and a server.
    let script = format!(
        "socat TCP4-LISTEN:80,fork,reuseaddr PIPE &
         (socat -u TCP4:{far}:{ECHO} - ; echo ended) > /waiting &
         mkfifo /in; (socat - TCP4:{far}:{ECHO} < /in > /out; echo ended >> /out) &
         exec 3> /in; echo before >&3
         until grep -q before /out; do sleep 0.1; done
         echo ready; trap 'echo after >&3' USR1; while :; do sleep 0.1; done",
        far = OUTSIDE[0]
    );
    let run = ["podman", "run", "-d", "--name", "source", "-m", "256m", "-p", "8080:80", "--dns", OUTSIDE[0]];
    let image = ["net", "sh", "-c", &script];
    env.fcvm().args(run).args(env.options()).args(image).run().assert_code(0);
    let follower = env.fcvm().args(["logs", "--follow", "source"]).spawn();
    follower.wait_for_stdout("ready\n");
    drop(follower);
    snapshot(&env, "source", "warm");
    clone(&env, "warm", "clone");
    // In the clone both have ended, also that on which nothing was sent.
    exec(&env, "clone", "until grep -q ended /waiting && grep -q ended /out; do sleep 0.1; done");
    // In the source both go on.
    fcvm(&env, &["kill", "-s", "USR1", "source"]).assert_code(0);
    exec(&env, "source", "until grep -q after /out; do sleep 0.1; done; ! grep ended /out /waiting");
    // So do names.
    let known = exec(&env, "clone", "nslookup -type=a far.example");
    assert!(known.contains(&format!("Address: {}", OUTSIDE[0])), "{known}");
    let new = format!("echo new | socat -t 100 - TCP4:{}:{ECHO}", OUTSIDE[0]);
    assert_eq!(exec(&env, "clone", &new), "new");
    // The same port of each, at addresses of their own.
    let ports =
        ["source", "clone"].map(|vm| fcvm(&env, &["port", vm, "80"]).ok().parse::<SocketAddr>().unwrap());
    assert!(ports[0].ip() != ports[1].ip() && ports.iter().all(|port| port.port() == 8080), "{ports:?}");
    for port in ports {
        assert_eq!(echo(world.on_host(|| TcpStream::connect(port).unwrap()), b"hello"), b"hello");
    }
    // A connection from the host to the source is not the clone's.
    let mut kept = world.on_host(|| TcpStream::connect(ports[0]).unwrap());
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    kept.write_all(b"one").unwrap();
    let mut answer = [0; 3];
    kept.read_exact(&mut answer).unwrap();
    snapshot(&env, "source", "warmer");
    kept.write_all(b"two").unwrap();
    kept.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"two");
    drop(kept);
    remove(&env, &["source", "clone"], &["warm", "warmer"]);
}

/// Podman knows the name of the VM whose container it was.
#[test]
fn vm_a_clone_that_is_restarted_is_called_as_itself() {
    for env in [vm(), TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm"))] {
        let Some(env) = env else { return };
        start(&env, "source", RUNS);
        let id = fcvm(&env, &["fork", "source", "--name", "kid"]).ok();
        fcvm(&env, &["restart", "kid"]).assert_code(0);
        let script = format!("n=2{HAS_RUN}; hostname; cat /etc/hostname; grep -c $(hostname) /etc/hosts");
        let told = exec(&env, "kid", &script);
        assert_eq!(told, format!("{0}\n{0}\n1", &id[..12]));
        assert_eq!(exec(&env, "source", "hostname"), inspect(&env, "source", "{{.id}}")[..12]);
        remove(&env, &["source", "kid"], &[]);
    }
}

#[test]
fn vm_a_fork_goes_on_and_leaves_no_snapshot() {
    let Some(env) = vm() else { return };
    start(&env, "source", COUNTER);
    let then = follow(&env, "source", 1);
    let pid = inspect(&env, "source", "{{.hypervisor_process.pid}}");
    let ids = fcvm(&env, &["fork", "source", "-n", "2", "--name", "kid"]).ok();
    for (id, kid) in ids.lines().zip(["kid-1", "kid-2"]) {
        assert_eq!(inspect(&env, kid, "{{.id}} {{.process_type}}"), format!("{id} clone"));
        assert_eq!(exec(&env, kid, "hostname"), id[..12]);
        follow(&env, kid, 1);
        assert!(counts(&env, kid)[0] > then.saturating_sub(2));
    }
    assert_eq!(ids.lines().count(), 2, "{ids}");
    follow(&env, "source", 1);
    assert_eq!(inspect(&env, "source", "{{.hypervisor_process.pid}}"), pid);
    // What they map is there, and nobody sees it.
    assert_eq!(fcvm(&env, &["snapshot", "ls", "-q"]).ok(), "");
    fcvm(&env, &["gc"]).assert_code(0);
    let [place] = &snapshots(&env)[..] else { panic!("{:?}", snapshots(&env)) };
    assert!(place.join("memory.bin").exists() && !place.join("scratch.raw").exists());
    // One that cannot be is not the other's affair; and a clone forks as well.
    fcvm(&env, &["rm", "-f", "kid-1"]).assert_code(0);
    let half = fcvm(&env, &["fork", "kid-2", "-n", "2", "--name", "kid"]);
    half.assert_code(125);
    assert_eq!(half.stdout().lines().collect::<Vec<_>>(), [inspect(&env, "kid-1", "{{.id}}")]);
    assert!(half.stderr.contains("`kid-2`"), "{}", half.stderr);
    follow(&env, "kid-1", 1);
    let one = fcvm(&env, &["fork", "kid-1", "--name", "grandchild", "--rm"]).ok();
    assert_eq!(inspect(&env, "grandchild", "{{.id}}"), one);
    let unknown = fcvm(&env, &["fork", "nosuch"]);
    unknown.assert_code(125);
    assert!(unknown.stderr.contains("nosuch"), "{}", unknown.stderr);
    // The last of its clones takes each of them with it.
    fcvm(&env, &["kill", "kid-1", "kid-2", "grandchild", "source"]).assert_code(0);
    env.wait_for_processes();
    assert!(snapshots(&env).is_empty(), "{:?}", snapshots(&env));
    fcvm(&env, &["rm", "source", "kid-1", "kid-2"]).assert_code(0);
    env.assert_nothing_left();
}
