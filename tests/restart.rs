//! Containers that run again: by policy, on demand, after the machine's death; and those that run too long.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;

use fcvm_testkit::{Output, TestEnv};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn vm() -> Option<TestEnv> {
    TestEnv::for_warm_vms(env!("CARGO_BIN_EXE_fcvm"))
}

/// Tells how often it has run, from a file of its own.
const COUNT: &str = "echo x >> /count; echo run $(wc -l < /count)";
const LOOP: &str = "while :; do sleep 0.1; done";

fn fcvm(env: &TestEnv, arguments: &[&str]) -> Output {
    env.fcvm().args(arguments).run()
}

fn detach(env: &TestEnv, options: &[&str], script: &str) {
    let command = ["hello", "sh", "-c", script];
    env.run(&["-d", "--name=web"]).args(options).args(command).run().assert_code(0);
}

fn inspect(env: &TestEnv) -> Value {
    let all: Value = serde_json::from_str(&fcvm(env, &["inspect", "web"]).ok()).unwrap();
    all[0].clone()
}

fn events(env: &TestEnv) -> Vec<String> {
    let lines = fcvm(env, &["events", "--no-stream"]).ok();
    let name = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let code = event["exit_code"].as_u64().map(|code| format!(" {code}")).unwrap_or_default();
        format!("{}{code}", event["event"].as_str().unwrap())
    };
    lines.lines().map(name).collect()
}

fn wait_for_log(env: &TestEnv, text: &str) {
    let follower = env.fcvm().args(["logs", "--follow", "web"]).spawn();
    follower.wait_for_stdout(text);
    assert!(follower.kill().stdout().contains(text));
}

#[test]
fn vm_a_failure_is_tried_again_so_often_and_files_stay() {
    let Some(env) = vm() else { return };
    detach(&env, &["--restart=on-failure:2"], &format!("{COUNT}; exit 3"));
    fcvm(&env, &["wait", "web"]).assert_stdout("3");
    fcvm(&env, &["logs", "web"]).assert_stdout("run 1\nrun 2\nrun 3");
    let vm = inspect(&env);
    assert_eq!((&vm["restarts"], &vm["restart_policy"]), (&json!(2), &json!("on-failure:2")));
    let expected = ["created", "started", "healthy", "exited 3"];
    let again = ["started", "healthy", "exited 3"];
    assert_eq!(events(&env), [&expected[..], &again, &again].concat());
    fcvm(&env, &["rm", "web"]).assert_code(0);
    // Success is the end.
    let foreground = env.run(&["--restart=on-failure", "hello", "sh", "-c"]);
    let script = format!("{COUNT}; test $(wc -l < /count) = 2");
    foreground.args([script.as_str()]).run().assert_stdout("run 1\nrun 2");
    env.assert_nothing_left();
}

#[test]
fn vm_restart_runs_the_same_container_in_the_same_machine() {
    let Some(env) = vm() else { return };
    detach(&env, &["-e", "A=b"], &format!("{COUNT}; echo $A; trap 'exit 0' TERM; echo ready; {LOOP}"));
    wait_for_log(&env, "ready");
    let before = inspect(&env);
    fcvm(&env, &["restart", "web"]).assert_stdout("web");
    wait_for_log(&env, "run 2\nb\nready");
    let after = inspect(&env);
    assert_eq!(after["hypervisor_process"], before["hypervisor_process"]);
    assert!(after["started"].as_str() > before["started"].as_str());
    assert_eq!((&after["status"], &after["restarts"]), (&json!("running"), &json!(1)));
    fcvm(&env, &["exec", "web", "cat", "/count"]).assert_stdout("x\nx");
    fcvm(&env, &["restart", "nosuch"]).assert_code(125);
    fcvm(&env, &["stop", "web"]).assert_code(0);
    let exited = fcvm(&env, &["restart", "web"]);
    exited.assert_code(125);
    assert!(exited.stderr.contains("VM `web` does not run"), "{}", exited.stderr);
    fcvm(&env, &["rm", "web"]).assert_code(0);
    env.assert_nothing_left();
}

/// Also who asked for the restart hears of the boot after that.
#[test]
fn vm_a_guest_that_hangs_is_restarted_with_another_machine() {
    let Some(env) = vm() else { return };
    detach(&env, &[], &format!("{COUNT}; echo ready; {LOOP}"));
    wait_for_log(&env, "ready");
    let before = inspect(&env);
    let pid = i32::try_from(before["hypervisor_process"]["pid"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
    fcvm(&env, &["restart", "-t", "0", "web"]).assert_stdout("web");
    let after = inspect(&env);
    assert_eq!((&after["status"], &after["restarts"]), (&json!("running"), &json!(1)));
    assert_ne!(after["hypervisor_process"], before["hypervisor_process"]);
    assert_eq!(after["owner"], before["owner"]);
    wait_for_log(&env, "ready\nrun 1\nready");
    fcvm(&env, &["rm", "--force", "web"]).assert_code(0);
    env.assert_nothing_left();
}

#[test]
fn vm_one_that_always_runs_ends_when_a_user_ends_it() {
    let Some(env) = vm() else { return };
    let script = format!("trap 'exit 7' TERM; {COUNT}; test $(wc -l < /count) -ge 2 || exit 1; {LOOP}");
    detach(&env, &["--restart=always"], &script);
    wait_for_log(&env, "run 2");
    fcvm(&env, &["stop", "web"]).assert_code(0);
    fcvm(&env, &["wait", "web"]).assert_stdout("7");
    fcvm(&env, &["logs", "web"]).assert_stdout("run 1\nrun 2");
    fcvm(&env, &["rm", "web"]).assert_code(0);

    detach(&env, &["--restart=always"], &format!("{COUNT}; {LOOP}"));
    wait_for_log(&env, "run 1");
    fcvm(&env, &["kill", "web"]).assert_code(0);
    fcvm(&env, &["wait", "web"]).assert_stdout("137");
    fcvm(&env, &["rm", "web"]).assert_code(0);

    // Also between two runs, and in the foreground.
    let script = format!("{COUNT}; exit 1");
    let running = env.run(&["--restart=always", "hello", "sh", "-c", &script]).spawn();
    running.wait_for_stdout("run 3");
    running.signal(Signal::TERM);
    let output = running.wait();
    assert!([1, 143].contains(&output.code()), "{output:?}");
    env.assert_nothing_left();
}

#[test]
fn vm_a_machine_that_dies_is_replaced_and_the_log_goes_on() {
    let Some(env) = vm() else { return };
    detach(&env, &["--restart=always"], &format!("{COUNT}; echo ready; {LOOP}"));
    wait_for_log(&env, "ready");
    let before = inspect(&env);
    let pid = i32::try_from(before["hypervisor_process"]["pid"].as_i64().unwrap()).unwrap();
    let follower = env.fcvm().args(["events"]).spawn();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    follower.wait_for_stdout("\"event\":\"started\"");
    let told = follower.kill().stdout();
    assert!(told.contains("\"event\":\"exited\"") && told.contains("`qemu` died"), "{told}");
    let after = inspect(&env);
    assert_eq!(
        (&after["status"], &after["error"], &after["restarts"]),
        (&json!("running"), &json!(null), &json!(1))
    );
    assert_eq!(after["owner"], before["owner"]);
    // A new machine has a new disk.
    wait_for_log(&env, "ready\nrun 1\nready");
    fcvm(&env, &["rm", "--force", "web"]).assert_code(0);
    env.assert_nothing_left();
}

#[test]
fn vm_a_container_that_runs_too_long_is_killed() {
    let Some(env) = vm() else { return };
    env.run(&["--timeout=1", "hello", "sleep", "1000"]).run().assert_code(255);
    env.run(&["--timeout=1000", "hello", "true"]).run().assert_code(0);
    assert_eq!(env.run(&["--timeout=x", "hello", "true"]).run().code(), 2);
    assert_eq!(env.run(&["--restart=sometimes", "hello", "true"]).run().code(), 2);
    assert!(fs::read_dir(env.data().join("vms")).unwrap().next().is_none());
}
