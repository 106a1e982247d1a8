//! What users do with VMs besides running them: names, events, processes, garbage.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;

use fcvm_testkit::{Output, TestEnv};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn vm() -> Option<TestEnv> {
    TestEnv::for_warm_vms(env!("CARGO_BIN_EXE_fcvm"))
}

const LOOP: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

fn fcvm(env: &TestEnv, arguments: &[&str]) -> Output {
    env.fcvm().args(arguments).run()
}

fn detach(env: &TestEnv, name: &str) -> String {
    env.run(&["-d", "--name", name, "hello", "sh", "-c", LOOP]).run().ok()
}

fn kinds(lines: &str) -> Vec<String> {
    let kind =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned();
    lines.lines().map(kind).collect()
}

#[test]
fn vm_a_name_can_be_changed_while_it_runs_and_afterwards() {
    let Some(env) = vm() else { return };
    let id = detach(&env, "first");
    detach(&env, "other");
    fcvm(&env, &["rename", "first", "second"]).assert_code(0);
    fcvm(&env, &["exec", "second", "true"]).assert_code(0);
    fcvm(&env, &["exec", "first", "true"]).assert_code(125);
    let taken = fcvm(&env, &["rename", "second", "other"]);
    taken.assert_code(125);
    assert!(taken.stderr.contains("the name `other` is in use"), "{}", taken.stderr);
    assert_eq!(fcvm(&env, &["rename", "second", "no name"]).code(), 2);
    // What its owner writes later does not undo it.
    fcvm(&env, &["stop", "second"]).assert_code(0);
    fcvm(&env, &["rename", &id[..12], "third"]).assert_code(0);
    let exited_taken = fcvm(&env, &["rename", "third", "other"]);
    assert!(exited_taken.stderr.contains("the name `other` is in use"), "{}", exited_taken.stderr);
    fcvm(&env, &["inspect", "--format", ".name", &id]).assert_stdout("third");
    let renamed = fcvm(&env, &["events", "--no-stream", "--filter", "event=renamed"]).ok();
    let old: Vec<_> = renamed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["old_name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(old, ["first", "second"]);
    fcvm(&env, &["rm", "-f", "third", "other"]).assert_code(0);
    env.assert_nothing_left();
}

#[test]
fn vm_events_are_followed_and_filtered() {
    let Some(env) = vm() else { return };
    env.run(&["--name=before", "hello", "true"]).run().assert_code(0);
    let follow =
        |filters: &[&str]| env.fcvm().args(["events", "--since=1h", "-f", "vm=web"]).args(filters).spawn();
    let follower = follow(&[]);
    let ends = follow(&["--filter=event=exited", "--filter=event=removed"]);
    env.run(&["--name=web", "hello", "sh", "-c", "exit 4"]).run().assert_code(4);
    follower.wait_for_stdout("removed");
    ends.wait_for_stdout("removed");
    let lines = follower.kill().stdout();
    assert_eq!(kinds(&lines), ["created", "started", "healthy", "exited", "removed"], "{lines}");
    let exited: Value = serde_json::from_str(lines.lines().nth(3).unwrap()).unwrap();
    assert_eq!((&exited["exit_code"], &exited["image"]), (&4.into(), &"hello".into()));
    assert!(exited["time"].is_string() && exited["id"].as_str().unwrap().len() == 32);
    assert_eq!(kinds(&ends.kill().stdout()), ["exited", "removed"]);
    // What was, without waiting.
    let both = fcvm(&env, &["events", "--no-stream"]).ok();
    assert_eq!(both.lines().count(), 10);
    fcvm(&env, &["events", "--until", "0s", "--since", "1h"]).assert_stdout(&both);
    let image = fcvm(&env, &["events", "--no-stream", "--filter", "image=nosuch"]);
    image.assert_stdout("");
    for bad in ["x", "event=nosuch", "colour=red"] {
        assert_eq!(fcvm(&env, &["events", "--filter", bad]).code(), 2, "{bad}");
    }
    env.assert_nothing_left();
}

#[test]
fn vm_top_shows_the_containers_processes() {
    let Some(env) = vm() else { return };
    detach(&env, "web");
    fcvm(&env, &["exec", "-d", "web", "sleep", "98765"]).assert_code(0);
    let table = fcvm(&env, &["top", "web"]).ok();
    assert!(table.starts_with("USER") && table.contains("sleep 98765"), "{table}");
    let columns = fcvm(&env, &["top", "web", "pid", "comm"]).ok();
    let first: Vec<_> = columns.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(first, ["PID", "COMMAND"]);
    // Also by another name than it was started with.
    fcvm(&env, &["rename", "web", "other"]).assert_code(0);
    assert!(fcvm(&env, &["top", "other", "args"]).ok().contains("sleep 98765"));
    fcvm(&env, &["rm", "-f", "other"]).assert_code(0);
    env.assert_nothing_left();
}

/// What `gc` tells of this environment: networks are the host's, and may be those of another test's dead VMs.
fn collected(env: &TestEnv, options: &[&str]) -> String {
    let told = fcvm(env, &[&["gc"], options].concat()).ok();
    told.lines().filter(|line| !line.starts_with("network ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn vm_gc_says_what_it_removes() {
    let Some(env) = vm() else { return };
    let id = detach(&env, "web");
    let orphan = env.data().join("vms").join("0".repeat(32));
    fs::create_dir(&orphan).unwrap();
    fs::write(orphan.join("scratch.raw"), "x").unwrap();
    let alive = collected(&env, &["--dry-run"]);
    assert_eq!(alive, orphan.display().to_string());
    let state: Value = serde_json::from_str(&fcvm(&env, &["inspect", "web"]).ok()).unwrap();
    let pid = i32::try_from(state[0]["pid"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let expected = format!("VM web, whose process died, but for its record and log\n{}", orphan.display());
    // The death of a process takes a moment; a command that finds it dying waits for it.
    while collected(&env, &["-n"]) != expected {}
    assert!(orphan.exists() && env.data().join("vms").join(&id).join("scratch.raw").exists());
    assert_eq!(collected(&env, &[]), expected);
    assert_eq!(collected(&env, &[]), "");
    assert!(!orphan.exists());
    fcvm(&env, &["logs", "web"]).assert_code(0);
    fcvm(&env, &["rm", "web"]).assert_code(0);
    env.assert_nothing_left();
}
