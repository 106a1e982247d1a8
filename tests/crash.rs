//! Sudden deaths, at every stage: of fcvm in the foreground, of supervisors and those who started
//! them, of commands, of the hypervisor, of the guest's agent.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests")]

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader},
    path::PathBuf,
    time::Duration,
};

use fcvm_testkit::{Fcvm, Output, Running, TestEnv, skip};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, Mode, mknodat},
    process::{Pid, Signal, kill_process},
};
use serde_json::{Value, json};

#[cfg(feature = "failpoints")]
use fcvm::failpoint::VARIABLE;

/// A program without failpoints has none.
#[cfg(not(feature = "failpoints"))]
const VARIABLE: &str = "";

fn vm() -> Option<TestEnv> {
    TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm"))
}

fn has_failpoints() -> bool {
    if VARIABLE.is_empty() {
        skip("fcvm was built without --features fcvm/failpoints");
    }
    !VARIABLE.is_empty()
}

fn vm_with_failpoints() -> Option<TestEnv> {
    if has_failpoints() { vm() } else { None }
}

/// The same, of VMs that need not boot: what dies does so later.
fn warm_vm_with_failpoints() -> Option<TestEnv> {
    if has_failpoints() { TestEnv::for_warm_vms(env!("CARGO_BIN_EXE_fcvm")) } else { None }
}

/// A container that lives until a signal.
const LOOP: &str = "echo ready; while :; do sleep 0.1; done";

trait At {
    /// Stops it at a failpoint.
    fn stop_at(self, point: &str) -> Running;
    /// Has it killed at a failpoint.
    fn kill_at(self, point: &str) -> Self;
}

impl At for Fcvm {
    fn stop_at(self, point: &str) -> Running {
        eprintln!("at {point}");
        let running = self.env(VARIABLE, format!("{point}=stop")).spawn();
        running.wait_until_stopped();
        running
    }

    fn kill_at(self, point: &str) -> Self {
        eprintln!("at {point}");
        self.env(VARIABLE, format!("{point}=kill"))
    }
}

/// Hears of a process that is not a child of this one that it stands at a failpoint.
struct Bell {
    path: PathBuf,
    file: File,
}

impl Bell {
    fn new(env: &TestEnv) -> Self {
        let path = env.root().join("bell");
        mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        Self { path, file }
    }

    fn stop_at(&self, command: Fcvm, point: &str) -> Fcvm {
        eprintln!("at {point}");
        command.env(VARIABLE, format!("{point}=stop,{}", self.path.display()))
    }

    /// The process, which does nothing any more.
    fn wait(&self) -> i32 {
        let longest = Timespec::try_from(Duration::from_secs(300)).unwrap();
        let ready = poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&longest)).unwrap();
        assert_eq!(ready, 1, "it never got there");
        let mut line = String::new();
        BufReader::new(&self.file).read_line(&mut line).unwrap();
        let pid: i32 = line.trim().parse().unwrap();
        // It has said so, and is about to.
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            if stat.rsplit(')').next().unwrap().trim_start().starts_with('T') {
                return pid;
            }
            std::thread::yield_now();
        }
    }
}

fn fcvm(env: &TestEnv, arguments: &[&str]) -> Output {
    env.fcvm().args(arguments).run()
}

fn inspect(env: &TestEnv, vm: &str) -> Value {
    let all: Value = serde_json::from_str(&fcvm(env, &["inspect", vm]).ok()).unwrap();
    all[0].clone()
}

/// Kills a foreground fcvm that stands at a failpoint: the next command cleans up.
fn kill_and_clean(env: &TestEnv, running: Running) {
    assert_eq!(env.kill(running).code(), 137);
    assert!(env.list().is_empty());
    env.assert_nothing_left();
}

#[test]
fn vm_fcvm_killed_before_the_boot_leaves_nothing() {
    let Some(env) = vm_with_failpoints() else { return };
    for point in [
        "assets-located",
        "locked",
        "collected",
        "file-unnamed",
        "recorded",
        "directory-made",
        "claimed",
        "network-allocated",
        "id-files-written",
        "image-resolved",
        "image-held",
        "image-recorded",
        "signals-heard",
        "scratch-copied",
        "log-made",
        "spools-made",
        "sockets-made",
        "launched",
        "hypervisor-recorded",
    ] {
        let running = env.run(&["--name", "web", "hello", "true"]).stop_at(point);
        kill_and_clean(&env, running);
    }
    // By its own hand, as the machine's memory killer would.
    for point in ["claimed", "file-unnamed"] {
        assert_eq!(env.shell("true").kill_at(point).run().code(), 137);
        assert!(env.list().is_empty());
        env.assert_nothing_left();
    }
    env.run(&["--name", "web", "hello", "echo", "ok"]).run().assert_stdout("ok");
}

#[test]
fn vm_fcvm_killed_while_the_container_starts_leaves_nothing() {
    let Some(env) = vm_with_failpoints() else { return };
    for point in
        ["hello", "plan-sent", "streams-open", "control-listens", "container-started", "running-recorded"]
    {
        kill_and_clean(&env, env.shell(LOOP).stop_at(point));
    }
}

fn killed_at_the_end(points: &[&str]) {
    let Some(env) = warm_vm_with_failpoints() else { return };
    for point in points {
        kill_and_clean(&env, env.shell("echo out; exit 3").stop_at(point));
    }
}

#[test]
fn vm_fcvm_killed_when_the_container_has_ended_leaves_nothing() {
    killed_at_the_end(&[
        "status-known",
        "status-recorded",
        "conversed",
        "hypervisor-killed",
        "farewell-said",
    ]);
}

#[test]
fn vm_fcvm_killed_while_it_cleans_up_leaves_nothing() {
    killed_at_the_end(&["outputs-flushed", "ended", "directory-removed", "directories-removed", "finished"]);
}

#[test]
fn vm_a_machine_that_dies_while_it_is_saved_leaves_no_snapshot() {
    let Some(env) = warm_vm_with_failpoints() else { return };
    let bell = Bell::new(&env);
    for point in ["saved-ahead", "frozen", "disk-copied"] {
        let run = env.run(&["-d", "--name", "web", "hello", "sh", "-c", LOOP]);
        bell.stop_at(run, point).run().assert_code(0);
        let saving = env.fcvm().args(["snapshot", "create", "web", "--tag", "half"]).spawn();
        let owner = bell.wait();
        env.kill_hypervisors();
        kill_process(Pid::from_raw(owner).unwrap(), Signal::CONT).unwrap();
        let failed = saving.wait();
        failed.assert_code(125);
        assert!(failed.stderr.contains("there is no snapshot of VM `web`"), "{point}: {}", failed.stderr);
        let told = ["died", "gone"].iter().any(|word| failed.stderr.contains(word));
        assert!(told, "{point}: {}", failed.stderr);
        env.wait_for_processes();
        assert_eq!(inspect(&env, "web")["status"], "exited", "{point}");
        assert!(std::fs::read_dir(env.data().join("snapshots")).unwrap().next().is_none(), "{point}");
        fcvm(&env, &["rm", "web"]).assert_code(0);
        env.assert_nothing_left();
    }
}

#[test]
fn vm_a_supervisor_killed_before_its_parent_heard_leaves_nothing() {
    let Some(env) = vm_with_failpoints() else { return };
    let bell = Bell::new(&env);
    for point in ["adopted", "claimed", "sockets-made", "hello", "container-started", "start-recorded"] {
        let parent = bell.stop_at(env.run(&["-d", "--name", "web", "hello", "sh", "-c", LOOP]), point);
        let parent = parent.spawn();
        env.kill_all_with(bell.wait());
        let output = parent.wait();
        output.assert_code(125);
        assert_eq!(output.stdout(), "");
        assert!(output.stderr.contains("the VM's supervisor was killed"), "{}", output.stderr);
        // The parent has cleaned up.
        env.assert_nothing_left();
    }
}

/// What is left of a VM of which a log and a record stay.
fn assert_only_record_and_log(env: &TestEnv, id: &str) {
    let left = env.leftovers();
    assert!(left.len() == 2 && left.iter().all(|file| file.contains(id)), "{left:?}");
}

#[test]
fn vm_of_a_supervisor_killed_when_its_parent_knows_record_and_log_are_left() {
    let Some(env) = warm_vm_with_failpoints() else { return };
    let bell = Bell::new(&env);
    for point in ["announced", "heard", "released", "running-recorded"] {
        let run = env.run(&["-d", "--name", "web", "hello", "sh", "-c", LOOP]);
        let parent = bell.stop_at(run, point).spawn();
        let supervisor = bell.wait();
        parent.wait_for_stdout("\n");
        env.kill_all_with_but(supervisor, parent.pid());
        // Until it was released the supervisor had the parent's standard error.
        let id = parent.wait().ok();
        let exited = inspect(&env, "web");
        assert_eq!((&exited["id"], &exited["status"]), (&json!(id), &json!("exited")), "{point}");
        let error = exited["error"].as_str().unwrap();
        assert!(error.starts_with("its fcvm process (PID ") && error.ends_with(") died"), "{error}");
        assert_only_record_and_log(&env, &id);
        fcvm(&env, &["rm", "web"]).assert_code(0);
        env.assert_nothing_left();
    }
}

fn supervisor_killed_at_the_end(points: &[(&str, Option<u8>)]) {
    let Some(env) = warm_vm_with_failpoints() else { return };
    let bell = Bell::new(&env);
    let script = "trap 'echo bye; exit 3' TERM; ".to_owned() + LOOP;
    for &(point, code) in points {
        let run = env.run(&["-d", "--name", "web", "hello", "sh", "-c", &script]);
        let id = bell.stop_at(run, point).run().ok();
        wait_for_log(&env, "web", "ready");
        let stop = env.fcvm().args(["stop", "web"]).spawn();
        env.kill_all_with_but(bell.wait(), stop.pid());
        // It has ended, which is what was asked for.
        stop.wait().assert_stdout("web");
        let exited = inspect(&env, "web");
        assert_eq!((&exited["id"], &exited["status"]), (&json!(id), &json!("exited")), "{point}");
        assert_eq!(exited["exit_code"], json!(code), "{point}");
        assert_eq!(exited["error"].is_string(), code.is_none(), "{point}: {exited}");
        assert!(fcvm(&env, &["logs", "web"]).ok().starts_with("ready"), "{point}");
        assert_only_record_and_log(&env, &id);
        fcvm(&env, &["rm", "web"]).assert_code(0);
        env.assert_nothing_left();
    }
}

#[test]
fn vm_of_a_supervisor_killed_when_it_is_stopped_record_and_log_are_left() {
    supervisor_killed_at_the_end(&[
        ("stop-ordered", None),
        ("status-known", None),
        ("status-recorded", Some(3)),
        ("hypervisor-killed", Some(3)),
    ]);
}

#[test]
fn vm_of_a_supervisor_killed_while_it_cleans_up_record_and_log_are_left() {
    let points = ["keeping", "files-removed", "sockets-removed", "record-kept"];
    supervisor_killed_at_the_end(&points.map(|point| (point, Some(3))));
}

/// Waits until the container has written something.
fn wait_for_log(env: &TestEnv, vm: &str, text: &str) {
    let follower = env.fcvm().args(["logs", "--follow", vm]).spawn();
    follower.wait_for_stdout(text);
    drop(follower.kill());
}

#[test]
fn vm_a_parent_killed_before_it_answered_takes_the_vm_with_it() {
    let Some(env) = warm_vm_with_failpoints() else { return };
    let run = || env.run(&["-d", "--name", "web", "hello", "sh", "-c", LOOP]);
    for point in ["parent-waits", "parent-told"] {
        assert_eq!(run().kill_at(point).run().code(), 137);
        env.wait_for_processes();
        env.assert_nothing_left();
    }
    assert_eq!(run().kill_at("parent-acknowledged").run().code(), 137);
    fcvm(&env, &["wait", "--condition", "running", "web"]).assert_code(0);
    fcvm(&env, &["rm", "-f", "web"]).assert_code(0);
    env.assert_nothing_left();
}

#[test]
fn vm_stop_and_rm_may_be_killed_and_repeated() {
    let Some(env) = warm_vm_with_failpoints() else { return };
    let script = "trap 'exit 3' TERM; ".to_owned() + LOOP;
    let run = || env.run(&["-d", "--name", "web", "hello", "sh", "-c", &script]).run().ok();
    run();
    let stop = || env.fcvm().args(["stop", "web"]);
    wait_for_log(&env, "web", "ready");
    assert_eq!(stop().kill_at("stop-watches").run().code(), 137);
    assert_eq!(inspect(&env, "web")["status"], "running", "it asked nothing yet");
    assert_eq!(stop().kill_at("stop-asked").run().code(), 137);
    fcvm(&env, &["wait", "web"]).assert_stdout("3");
    for point in ["rm-locked", "directory-removed", "directories-removed"] {
        assert_eq!(env.fcvm().args(["rm", "web"]).kill_at(point).run().code(), 137);
        assert_eq!(inspect(&env, "web")["exit_code"], 3, "the record goes last");
    }
    fcvm(&env, &["rm", "web"]).assert_stdout("web");
    env.assert_nothing_left();
    // The hypervisor dies while the supervisor is about to obey.
    let bell = Bell::new(&env);
    for (point, order) in
        [("kill-ordered", ["kill", "web"].as_slice()), ("end-ordered", &["rm", "-f", "web"])]
    {
        let run = env.run(&["-d", "--name", "web", "hello", "sh", "-c", LOOP]);
        bell.stop_at(run, point).run().assert_code(0);
        let order = env.fcvm().args(order).spawn();
        let supervisor = bell.wait();
        env.kill_hypervisors();
        resume(supervisor);
        order.wait().assert_code(0);
        // Whoever only kills it does not wait for its end.
        env.wait_for_processes();
        fcvm(&env, &["rm", "-f", "web"]).assert_code(0);
        env.assert_nothing_left();
    }
}

fn resume(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::CONT).unwrap();
}

#[test]
fn vm_a_hypervisor_killed_before_the_container_has_ended_is_named() {
    let Some(env) = vm_with_failpoints() else { return };
    for point in [
        "launched",
        "hypervisor-recorded",
        "hello",
        "plan-sent",
        "streams-open",
        "control-listens",
        "container-started",
        "running-recorded",
    ] {
        let running = env.shell(LOOP).stop_at(point);
        env.kill_hypervisors();
        resume(running.pid());
        let output = running.wait();
        output.assert_code(125);
        assert!(output.stderr.contains("`qemu` died: signal: 9 (SIGKILL)"), "{point}: {}", output.stderr);
        env.assert_nothing_left();
    }
}

#[test]
fn vm_a_hypervisor_killed_after_the_container_has_ended_costs_nothing() {
    let Some(env) = warm_vm_with_failpoints() else { return };
    for point in ["status-known", "status-recorded", "conversed"] {
        let running = env.shell("echo out; exit 3").stop_at(point);
        env.kill_hypervisors();
        resume(running.pid());
        let output = running.wait();
        output.assert_code(3);
        assert_eq!(output.stdout(), "out\n");
        env.assert_nothing_left();
    }
    // In the background the record says what died.
    let bell = Bell::new(&env);
    let run = env.run(&["-d", "--name", "web", "hello", "sh", "-c", LOOP]);
    let id = bell.stop_at(run, "running-recorded").run().ok();
    let supervisor = bell.wait();
    env.kill_hypervisors();
    resume(supervisor);
    let waited = fcvm(&env, &["wait", "web"]);
    waited.assert_code(125);
    assert!(waited.stderr.contains("`qemu` died: signal: 9 (SIGKILL)"), "{}", waited.stderr);
    assert_only_record_and_log(&env, &id);
    fcvm(&env, &["rm", "web"]).assert_code(0);
    env.assert_nothing_left();
}

#[test]
fn vm_a_hypervisor_that_freezes_is_given_up() {
    let Some(env) = warm_vm_with_failpoints() else { return };
    let freeze = || {
        for pid in env.hypervisors() {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
        }
    };
    // Before its container runs: once more, and then well.
    let running = env.shell("echo ok").stop_at("hypervisor-recorded");
    freeze();
    resume(running.pid());
    let output = running.wait();
    output.assert_stdout("ok");
    assert!(output.stderr.contains("guest did not start within"), "{}", output.stderr);
    env.assert_nothing_left();
    // While its container runs: it is the user who has enough, here twice.
    let running = env.shell(LOOP).stop_at("running-recorded");
    freeze();
    resume(running.pid());
    let stop = fcvm(&env, &["kill", "--all"]);
    stop.assert_code(0);
    let output = running.wait();
    output.assert_code(137);
    env.assert_nothing_left();
}

#[test]
fn vm_an_agent_that_dies_is_named() {
    let Some(env) = vm() else { return };
    for stage in ["mounts", "link", "hello", "plan", "podman", "ended"] {
        eprintln!("at {stage}");
        let parameter = format!("fcvm.fail={stage}");
        let output = env.run(&["--cpus", "1", "--kernel-args", &parameter, "hello", "echo", "out"]).run();
        output.assert_code(125);
        for text in ["guest panicked: Attempted to kill init!", &format!("fcvm.fail demands it at `{stage}`")]
        {
            assert!(output.stderr.contains(text), "{stage}: {}", output.stderr);
        }
        env.assert_nothing_left();
    }
}

#[test]
fn vm_a_guest_that_dies_is_told_to_all_who_wait() {
    let Some(env) = vm() else { return };
    // By its kernel.
    let id = env.run(&["-d", "--name", "web", "hello", "sh", "-c", LOOP]).run().ok();
    let crash = ["exec", "--vm", "web", "sh", "-c", "echo c > /proc/sysrq-trigger"];
    let exec = fcvm(&env, &crash);
    exec.assert_code(125);
    assert!(exec.stderr.contains("the VM ended before the command did"), "{}", exec.stderr);
    let waited = fcvm(&env, &["wait", "web"]);
    waited.assert_code(125);
    assert!(waited.stderr.contains("guest panicked: sysrq triggered crash"), "{}", waited.stderr);
    assert_only_record_and_log(&env, &id);
    fcvm(&env, &["rm", "web"]).assert_code(0);
    // By its agent, in the middle of a command.
    let options = ["--name", "web", "--kernel-args", "fcvm.fail=exec"];
    let running = env.run(&options).args(["hello", "sh", "-c", LOOP]).spawn();
    running.wait_for_stdout("ready");
    let exec = fcvm(&env, &["exec", "web", "true"]);
    exec.assert_code(125);
    assert!(exec.stderr.contains("the VM ended before the command did"), "{}", exec.stderr);
    let output = running.wait();
    output.assert_code(125);
    assert!(output.stderr.contains("fcvm.fail demands it at `exec`"), "{}", output.stderr);
    env.assert_nothing_left();
}

#[test]
fn vm_an_exec_killed_half_way_kills_its_command_only() {
    let Some(env) = warm_vm_with_failpoints() else { return };
    let bell = Bell::new(&env);
    let run = env.run(&["-d", "--name", "web", "hello", "sh", "-c", LOOP]);
    bell.stop_at(run, "stream-relayed").run().assert_code(0);
    // The owner stands still in the middle of the first one, and the client goes.
    let exec = env.fcvm().args(["exec", "web", "sleep", "1000"]).spawn();
    let supervisor = bell.wait();
    assert_eq!(exec.kill().code(), 137);
    resume(supervisor);
    for point in ["exec-requested", "exec-started"] {
        assert_eq!(env.fcvm().args(["exec", "web", "sleep", "1000"]).kill_at(point).run().code(), 137);
    }
    assert_eq!(env.fcvm().args(["exec", "web", "true"]).kill_at("exec-ended").run().code(), 137);
    fcvm(&env, &["exec", "web", "sh", "-c", "while ps | grep -q '[s]leep 1000'; do :; done; echo ok"])
        .assert_stdout("ok");
    // The hypervisor dies while a command's client stands still.
    let exec = env.fcvm().args(["exec", "web", "sleep", "1000"]).stop_at("exec-started");
    env.kill_hypervisors();
    resume(exec.pid());
    let output = exec.wait();
    output.assert_code(125);
    assert!(output.stderr.contains("the VM ended before the command did"), "{}", output.stderr);
    fcvm(&env, &["wait", "web"]).assert_code(125);
    fcvm(&env, &["rm", "web"]).assert_code(0);
    env.assert_nothing_left();
}
