//! Life with VMs in the background: start, log, stop, end.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use fcvm_testkit::{Compression, Image, Layer, Output, TestEnv};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn vm() -> Option<TestEnv> {
    TestEnv::for_warm_vms(env!("CARGO_BIN_EXE_fcvm"))
}

/// A container that lives until a signal.
const LOOP: &str = "while :; do sleep 0.1; done";

/// Starts a container in the background; its id.
fn detach(env: &TestEnv, options: &[&str], script: &str) -> String {
    let command = ["hello", "sh", "-c", script];
    let id = env.run(&["-d"]).args(options).args(command).run().ok();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id:?}");
    id
}

fn fcvm(env: &TestEnv, arguments: &[&str]) -> Output {
    env.fcvm().args(arguments).run()
}

fn inspect(env: &TestEnv, vm: &str) -> Value {
    let all: Value = serde_json::from_str(&fcvm(env, &["inspect", vm]).ok()).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 1);
    all[0].clone()
}

fn directory(env: &TestEnv, id: &str) -> PathBuf {
    env.data().join("vms").join(id)
}

fn pid(vm: &Value, of: &str) -> Pid {
    Pid::from_raw(i32::try_from(vm[of]["pid"].as_i64().unwrap()).unwrap()).unwrap()
}

/// Waits until the container has written something.
fn wait_for_log(env: &TestEnv, vm: &str, text: &str) {
    let follower = env.fcvm().args(["logs", "--follow", vm]).spawn();
    follower.wait_for_stdout(text);
    assert!(follower.kill().stdout().contains(text));
}

#[test]
fn vm_a_detached_container_leaves_its_status_and_log() {
    let Some(env) = vm() else { return };
    let cidfile = env.root().join("cid");
    let pidfile = env.root().join("pid");
    let options = ["--name", "web", "--cidfile", "cid", "--pidfile", "pid", "-l", "a=b"];
    let reader = "exec 3<&0; (read line <&3; echo the input ended) &";
    let script = format!("trap 'exit 3' HUP; {reader} echo out; echo err >&2; printf 'no end'; {LOOP}");
    let id = detach(&env, &[&options[..], &["-i"]].concat(), &script);
    assert_eq!(fs::read_to_string(&cidfile).unwrap(), id);
    let running = inspect(&env, "web");
    assert_eq!(running["pid"].to_string(), fs::read_to_string(pidfile).unwrap());
    assert_eq!((&running["status"], &running["detached"]), (&json!("running"), &json!(true)));
    assert_eq!(running["labels"], json!({ "a": "b" }));
    assert_eq!(fcvm(&env, &["ls", "-q"]).ok(), id[..12]);
    wait_for_log(&env, "web", "no end");

    // The same file is not written twice.
    let again = env.run(&["-d", "--cidfile", "cid", "hello", "true"]).run();
    again.assert_code(125);
    assert!(again.stderr.contains("for the VM's id exists"), "{}", again.stderr);
    fcvm(&env, &["rm", "web"]).assert_code(125);

    // It has an input that does not end, until the VM does.
    let waiting = env.fcvm().args(["wait", &id[..8]]).spawn();
    fcvm(&env, &["kill", "--signal", "HUP", "web"]).assert_stdout("web");
    waiting.wait().assert_stdout("3");
    let table = fcvm(&env, &["ls", "--all"]).ok();
    assert!(table.contains("exited (3) just now"), "{table}");
    assert_eq!(fcvm(&env, &["ls", "-q"]).ok(), "");
    let logs = fcvm(&env, &["logs", &id]);
    logs.assert_code(0);
    assert_eq!((logs.stdout().as_str(), logs.stderr.as_str()), ("out\nno end", "err\n"));
    let exited = inspect(&env, "web");
    assert_eq!(
        (&exited["exit_code"], &exited["error"], &exited["pid"]),
        (&json!(3), &json!(null), &json!(null))
    );
    assert!(exited["finished"].is_string() && exited["hypervisor_process"].is_null(), "{exited}");
    let files: Vec<_> =
        fs::read_dir(directory(&env, &id)).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["container.log"], "the disk is gone");
    fcvm(&env, &["wait", "web"]).assert_stdout("3");
    fcvm(&env, &["inspect", "--format", ".exit_code", "web"]).assert_stdout("3");
    fcvm(&env, &["inspect", "--format", ".nosuch", "web"]).assert_code(125);
    fcvm(&env, &["stop", "web"]).assert_stdout("web");
    fcvm(&env, &["kill", "web"]).assert_code(125);

    // The name is taken until it is removed.
    let taken = env.run(&["--name", "web", "hello", "true"]).run();
    taken.assert_code(125);
    assert!(taken.stderr.contains("`fcvm rm` removes one"), "{}", taken.stderr);
    fcvm(&env, &["rm", "web"]).assert_stdout("web");
    let unknown = fcvm(&env, &["logs", "web"]);
    unknown.assert_code(125);
    assert!(unknown.stderr.contains("no VM `web`\nhint: "), "{}", unknown.stderr);
    env.assert_nothing_left();
}

#[test]
fn vm_a_short_container_counts_as_started() {
    let Some(env) = vm() else { return };
    let id = detach(&env, &[], "echo hi; exit 4");
    fcvm(&env, &["wait", &id]).assert_stdout("4");
    fcvm(&env, &["logs", &id]).assert_stdout("hi");
    fcvm(&env, &["rm", &id]).assert_code(0);
}

#[test]
fn vm_rm_leaves_nothing_of_a_detached_container() {
    let Some(env) = vm() else { return };
    let id = detach(&env, &["--rm"], &format!("trap 'exit 6' TERM; echo ready; {LOOP}"));
    wait_for_log(&env, &id, "ready");
    let waiting = env.fcvm().args(["wait", &id]).spawn();
    // Both who waits and who asked hear of the end.
    fcvm(&env, &["stop", &id]).assert_stdout(&id);
    waiting.wait().assert_stdout("6");
    env.assert_nothing_left();
}

#[test]
fn vm_stop_asks_and_then_kills() {
    let Some(env) = vm() else { return };
    let gentle = detach(&env, &[], &format!("trap 'echo bye; exit 5' TERM; echo ready; {LOOP}"));
    let stubborn = detach(&env, &["--name", "stubborn"], &format!("trap 'echo no' TERM; echo ready; {LOOP}"));
    wait_for_log(&env, &gentle, "ready");
    wait_for_log(&env, &stubborn, "ready");
    // Its shell may take long to hear of it.
    fcvm(&env, &["stop", "--time", "300", &gentle]).assert_stdout(&gentle);
    fcvm(&env, &["wait", &gentle]).assert_stdout("5");
    fcvm(&env, &["logs", &gentle]).assert_stdout("ready\nbye");
    fcvm(&env, &["stop", "--time", "2", "--all"]).assert_stdout("stubborn");
    fcvm(&env, &["wait", &stubborn]).assert_stdout("137");
    fcvm(&env, &["logs", &stubborn]).assert_stdout("ready\nno");
    fcvm(&env, &["rm", "--all"]).assert_code(0);
    env.assert_nothing_left();
}

#[test]
fn vm_stop_sends_the_images_signal_and_ends_a_guest_that_is_frozen() {
    let Some(env) = vm() else { return };
    let config = json!({ "StopSignal": "SIGUSR2", "Cmd": ["sh", "-c", format!("trap 'exit 8' USR2; echo ready; {LOOP}")] });
    let image = Image::new().layer(&Layer::new().busybox(), Compression::None).config(config);
    image.write_layout(&env.root().join("layout"));
    let id = env.run(&["-d", "oci:layout"]).run().ok();
    wait_for_log(&env, &id, "ready");
    fcvm(&env, &["stop", &id]).assert_code(0);
    fcvm(&env, &["wait", &id]).assert_stdout("8");
    fcvm(&env, &["rm", &id]).assert_code(0);

    let id = detach(&env, &[], LOOP);
    kill_process(pid(&inspect(&env, &id), "hypervisor_process"), Signal::STOP).unwrap();
    fcvm(&env, &["stop", "-t", "1", &id]).assert_code(0);
    fcvm(&env, &["wait", &id]).assert_stdout("137");
    fcvm(&env, &["rm", &id]).assert_code(0);
    env.assert_nothing_left();
}

#[test]
fn vm_kill_sends_any_signal_also_to_the_foreground() {
    let Some(env) = vm() else { return };
    let script = format!("trap 'echo usr1' USR1; echo ready; {LOOP}");
    let running = env.run(&["--name", "front", "hello", "sh", "-c", &script]).spawn();
    running.wait_for_stdout("ready");
    fcvm(&env, &["kill", "-s", "USR1", "front"]).assert_stdout("front");
    running.wait_for_stdout("usr1");
    fcvm(&env, &["logs", "front"]).assert_stdout("ready\nusr1");
    let follower = env.fcvm().args(["logs", "-f", "front"]).spawn();
    follower.wait_for_stdout("usr1");
    assert_eq!(fcvm(&env, &["kill", "-s", "nosuch", "front"]).code(), 2);
    fcvm(&env, &["kill", "front", "nosuch"]).assert_code(125);
    running.wait().assert_code(137);
    follower.wait().assert_stdout("ready\nusr1");
    env.assert_nothing_left();
}

#[test]
fn vm_logs_follow_to_the_end_and_select() {
    let Some(env) = vm() else { return };
    let script = "for i in 1 2 3; do echo line $i; sleep 1; done; echo last >&2; exit 2";
    let id = detach(&env, &[], script);
    let follower = env.fcvm().args(["logs", "--follow", &id]).spawn();
    let output = follower.wait();
    output.assert_code(0);
    assert_eq!((output.stdout().as_str(), output.stderr.as_str()), ("line 1\nline 2\nline 3\n", "last\n"));
    fcvm(&env, &["wait", &id]).assert_stdout("2");
    fcvm(&env, &["logs", "--tail", "2", &id]).assert_stdout("line 3");
    let stamped = fcvm(&env, &["logs", "--timestamps", "--tail=4", &id]).ok();
    let times: Vec<_> = stamped.lines().map(|line| line.split_once(' ').unwrap().0.to_owned()).collect();
    assert!(times.len() == 3 && times.is_sorted(), "{stamped}");
    fcvm(&env, &["logs", "--since", &times[1], &id]).assert_stdout("line 2\nline 3");
    fcvm(&env, &["logs", "--until", &times[1], &id]).assert_stdout("line 1\nline 2");
    fcvm(&env, &["logs", "--until", "1h", &id]).assert_stdout("");
    fcvm(&env, &["rm", &id]).assert_code(0);
    env.assert_nothing_left();
}

#[test]
fn vm_of_a_supervisor_that_was_killed_the_record_and_log_are_left() {
    let Some(env) = vm() else { return };
    let id = detach(&env, &["--name", "web"], &format!("echo ready; {LOOP}"));
    wait_for_log(&env, "web", "ready");
    let waiting = env.fcvm().args(["wait", "web"]).spawn();
    wait_until_it_watches(&env, waiting.pid());
    kill_process(pid(&inspect(&env, "web"), "owner"), Signal::KILL).unwrap();
    let waited = waiting.wait();
    waited.assert_code(125);
    assert!(waited.stderr.contains("has no exit code: its fcvm process (PID "), "{}", waited.stderr);
    env.wait_for_processes();
    let exited = inspect(&env, "web");
    assert_eq!((&exited["status"], &exited["exit_code"]), (&json!("exited"), &json!(null)));
    assert!(exited["error"].as_str().unwrap().contains("died"), "{exited}");
    assert!(fcvm(&env, &["ls", "-a"]).ok().contains("exited (?)"));
    fcvm(&env, &["logs", "web"]).assert_stdout("ready");
    let left = env.leftovers();
    assert!(left.len() == 2 && left.iter().all(|file| file.contains(&id)), "{left:?}");
    fcvm(&env, &["rm", "web"]).assert_code(0);
    env.assert_nothing_left();

    // Of one with --rm nothing is left.
    let id = detach(&env, &["--rm"], LOOP);
    kill_process(pid(&inspect(&env, &id), "owner"), Signal::KILL).unwrap();
    env.wait_for_processes();
    assert_eq!(fcvm(&env, &["ls", "--all", "-q"]).ok(), "");
    env.assert_nothing_left();
}

/// Waits until a process watches what becomes of a VM.
fn wait_until_it_watches(env: &TestEnv, pid: i32) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let watches = || {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|file| fs::read_link(file.path()).ok())
            .any(|file| file.to_string_lossy().contains("inotify"))
    };
    while !watches() {
        assert!(Instant::now() < deadline, "{:?}", env.processes());
        std::thread::yield_now();
    }
}

#[test]
fn vm_a_start_that_fails_says_why_and_leaves_nothing() {
    let Some(env) = vm() else { return };
    for (arguments, code, text) in [
        (&["hello", "/nonexistent"][..], 127, "/nonexistent"),
        (&["hello", "/etc"], 126, "/etc"),
        (&["--pull=never", "nosuch", "true"], 125, "no image `nosuch`"),
        (&["--kernel-args", "rdinit=/nonexistent", "hello", "true"], 125, "guest panicked"),
    ] {
        let output = env.run(&["-d", "--cidfile", "cid"]).args(arguments).run();
        output.assert_code(code);
        assert_eq!(output.stdout(), "", "{arguments:?}");
        assert!(output.stderr.contains(text), "{arguments:?}: {}", output.stderr);
        assert!(!env.root().join("cid").exists());
        env.assert_nothing_left();
    }
}

#[test]
fn vm_an_interrupted_start_leaves_nothing() {
    let Some(env) = vm() else { return };
    for (filter, text) in [("qemu=debug", "starting"), ("agent=debug", "hello")] {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::KILL, 137)] {
            let running = env.run(&["-d", "hello", "sleep", "1000"]).env("RUST_LOG", filter).spawn();
            running.wait_for_stderr(text);
            running.signal(signal);
            let output = running.wait();
            assert_eq!((output.code(), output.stdout().as_str()), (code, ""), "{filter}");
            env.wait_for_processes();
            env.assert_nothing_left();
        }
    }
}

/// What nobody reads takes no more disk or memory than it may, and does not hold up the container.
#[test]
fn vm_fifty_megabytes_of_output_are_bounded() {
    let Some(env) = vm() else { return };
    let script = "yes 0123456789abcdef | head -c 50000000; echo; echo end; read line";
    let id = detach(&env, &["-i", "--log-max-size", "1MB"], script);
    // All of it has come through.
    wait_for_log(&env, &id, "\nend\n");
    let status = fs::read_to_string(format!("/proc/{}/status", inspect(&env, &id)["pid"])).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 100 << 10, "{kilobytes} kB");
    let files = fs::read_dir(directory(&env, &id)).unwrap().map(|file| file.unwrap());
    let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with("container.log"));
    let sizes: Vec<_> = logs.map(|file| file.metadata().unwrap().len()).collect();
    assert!(sizes.len() == 2 && sizes.iter().sum::<u64>() <= 1 << 20, "{sizes:?}");
    fcvm(&env, &["logs", "--tail", "1", &id]).assert_stdout("end");
    fcvm(&env, &["rm", "--force", &id]).assert_stdout(&id);
    env.assert_nothing_left();
}

/// The same in earnest: what it costs is time.
#[test]
fn slow_vm_a_gigabyte_of_output_is_bounded_measured_alone() {
    /// As often as there are 10 MB: a guest that is emulated takes longer to make up lines than to
    /// write them.
    const TIMES: u64 = 100;
    const BYTES: u64 = TIMES * 10_000_000;
    let Some(env) = vm() else { return };
    let line = "0123456789abcdef".repeat(5);
    let block =
        format!("yes {line} | head -c 1000000 > /some; for i in $(seq 10); do cat /some; done > /block");
    let script = format!(
        "busybox mkfifo /full; {block}; for i in $(seq {TIMES}); do cat /block; done; echo; echo end; \
         echo > /full; read line"
    );
    let begun = Instant::now();
    let id = detach(&env, &["-i", "--log-max-size", "1MB"], &script);
    let used = || {
        let files = fs::read_dir(directory(&env, &id)).unwrap().map(|file| file.unwrap());
        files.map(|file| file.metadata().unwrap().blocks() * 512).sum::<u64>()
    };
    let (started, used_before) = (begun.elapsed(), used());
    // It is not frozen, and neither are its neighbours.
    let asked = Instant::now();
    fcvm(&env, &["exec", &id, "echo", "alive"]).assert_stdout("alive");
    let asked = asked.elapsed();
    // All of it is written, and nobody has read the log.
    fcvm(&env, &["exec", &id, "sh", "-c", "until test -p /full; do :; done; cat /full"]).assert_stdout("");
    let took = begun.elapsed() - started;
    fcvm(&env, &["logs", "--tail", "1", &id]).assert_stdout("end");
    let status = fs::read_to_string(format!("/proc/{}/status", inspect(&env, &id)["pid"])).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap();
    let grown = used().saturating_sub(used_before);
    println!(
        "measured: {BYTES} bytes in {took:.1?} ({:.1} MB/s), fcvm had {kilobytes} kB at most, \
         the VM's files grew by {grown} bytes, a command meanwhile took {asked:.1?}",
        1e-6 * BYTES as f64 / took.as_secs_f64()
    );
    assert!(kilobytes < 100 << 10 && grown < 64 << 20, "{kilobytes} kB of memory, {grown} bytes of disk");
    let files = fs::read_dir(directory(&env, &id)).unwrap().map(|file| file.unwrap());
    let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with("container.log"));
    let sizes: Vec<_> = logs.map(|file| file.metadata().unwrap().len()).collect();
    assert!(sizes.len() == 2 && sizes.iter().sum::<u64>() <= 1 << 20, "{sizes:?}");
    fcvm(&env, &["rm", "--force", &id]).assert_stdout(&id);
    env.assert_nothing_left();
}

#[test]
fn completions_are_scripts() {
    let env = TestEnv::new(env!("CARGO_BIN_EXE_fcvm"));
    for shell in ["bash", "zsh", "fish"] {
        let script = fcvm(&env, &["completions", shell]).ok();
        assert!(script.contains("podman") && script.contains("logs"), "{shell}");
    }
    fcvm(&env, &["ls"]).assert_code(0);
}
