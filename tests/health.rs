//! Whether containers are well, and whether their machines answer.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use fcvm_testkit::{Compression, Image, Layer, Output, Running, TestEnv};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn vm() -> Option<TestEnv> {
    TestEnv::for_warm_vms(env!("CARGO_BIN_EXE_fcvm"))
}

const LOOP: &str = "while :; do sleep 0.1; done";

fn fcvm(env: &TestEnv, arguments: &[&str]) -> Output {
    env.fcvm().args(arguments).run()
}

fn detach(env: &TestEnv, options: &[&str], command: &[&str]) {
    env.run(&["-d", "--name=web"]).args(options).args(command).run().assert_code(0);
}

fn inspect(env: &TestEnv) -> Value {
    let all: Value = serde_json::from_str(&fcvm(env, &["inspect", "web"]).ok()).unwrap();
    all[0].clone()
}

/// What happens from now on.
fn watch(env: &TestEnv) -> Running {
    env.fcvm().args(["events", "--since", "1h"]).spawn()
}

fn event(name: &str) -> String {
    format!("\"event\":\"{name}\"")
}

#[test]
fn vm_a_command_tells_health() {
    let Some(env) = vm() else { return };
    let check = ["--health-cmd", "echo looked; test -e /well", "--health-interval=1s", "--health-retries=2"];
    detach(&env, &[&check[..], &["-e", "A=b"]].concat(), &["hello", "sh", "-c", LOOP]);
    let events = watch(&env);
    events.wait_for_stdout(&event("unhealthy"));
    assert!(fcvm(&env, &["ls"]).ok().contains("running (unhealthy)"));
    let bad = inspect(&env);
    let log = bad["health_log"].as_array().unwrap();
    assert!(log.len() >= 2 && log.len() <= 5, "{bad}");
    assert_eq!((&log[0]["exit_code"], &log[0]["output"]), (&json!(1), &json!("looked")));
    assert!(log[0]["start"].as_str() < log[0]["end"].as_str());
    let healthy = env.fcvm().args(["wait", "--condition=healthy", "web"]).spawn();
    fcvm(&env, &["exec", "web", "touch", "/well"]).assert_code(0);
    healthy.wait().assert_code(0);
    events.wait_for_stdout(&event("healthy"));
    assert_eq!(inspect(&env)["health_status"], "healthy");
    let format = "{{.State.Health.Status}} {{.State.Health.FailingStreak}}";
    fcvm(&env, &["inspect", "--format", format, "web"]).assert_stdout("healthy 0");
    // After a restart it starts anew.
    fcvm(&env, &["exec", "web", "rm", "/well"]).assert_code(0);
    fcvm(&env, &["restart", "-t", "0", "web"]).assert_code(0);
    fcvm(&env, &["wait", "--condition=unhealthy", "web"]).assert_code(0);
    fcvm(&env, &["stop", "-t", "0", "web"]).assert_code(0);
    assert_eq!(inspect(&env)["health_status"], "stopped");
    fcvm(&env, &["wait", "--condition=healthy", "web"]).assert_code(125);
    let told = events.kill().stdout();
    let order: Vec<_> =
        told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone()).collect();
    let expected = ["created", "started", "unhealthy", "healthy", "exited", "started", "unhealthy", "exited"]
        .map(Value::from);
    assert_eq!(order, expected, "{told}");
    fcvm(&env, &["rm", "web"]).assert_code(0);
    env.assert_nothing_left();
}

#[test]
fn vm_a_check_that_hangs_is_cut_and_its_command_killed() {
    let Some(env) = vm() else { return };
    let check =
        ["--health-cmd=sleep 98765", "--health-interval=1s", "--health-retries=1", "--health-timeout=2s"];
    detach(&env, &check, &["hello", "sh", "-c", LOOP]);
    fcvm(&env, &["wait", "--condition=unhealthy", "web"]).assert_code(0);
    let log = inspect(&env)["health_log"].clone();
    assert_eq!(log[0]["output"], "healthcheck timed out after 2s");
    // Of those that were cut none is left, of the next there may be one.
    let processes =
        fcvm(&env, &["exec", "web", "sh", "-c", "ps -o args | grep -cx 'sleep 98765'; true"]).ok();
    assert!(processes.parse::<u32>().unwrap() <= 1, "{processes}");
    fcvm(&env, &["rm", "-f", "web"]).assert_code(0);
    env.assert_nothing_left();
}

#[test]
fn vm_an_images_check_is_made_unless_it_is_not_wanted() {
    let Some(env) = vm() else { return };
    let test = json!(["CMD-SHELL", "echo of the image; exit 0"]);
    let config = json!({
        "Cmd": ["sh", "-c", LOOP],
        "Healthcheck": { "Test": test, "Interval": 1_000_000_000 },
    });
    let image = Image::new().layer(&Layer::new().busybox(), Compression::None).config(config);
    image.write_layout(&env.root().join("layout"));
    detach(&env, &[], &["oci:layout"]);
    fcvm(&env, &["wait", "--condition=healthy", "web"]).assert_code(0);
    assert_eq!(inspect(&env)["health_log"][0]["output"], "of the image");
    fcvm(&env, &["rm", "-f", "web"]).assert_code(0);
    detach(&env, &["--no-healthcheck"], &["oci:layout"]);
    let vm = inspect(&env);
    assert_eq!((&vm["health_status"], &vm["health_log"]), (&json!("healthy"), &json!([])));
    fcvm(&env, &["rm", "-f", "web"]).assert_code(0);
    env.assert_nothing_left();
}

#[test]
fn vm_a_request_tells_health() {
    let Some(env) = vm() else { return };
    let server = "mkdir -p /srv && echo well > /srv/ready && exec busybox httpd -f -p 127.0.0.1:8080 -h /srv";
    let check = [
        "--health-check",
        "http://localhost:8080/ready",
        "--health-check-status=200",
        "--health-interval=1s",
    ];
    detach(&env, &[&check[..], &["--health-retries=1"]].concat(), &["hello", "sh", "-c", server]);
    fcvm(&env, &["wait", "--condition=healthy", "web"]).assert_code(0);
    fcvm(&env, &["exec", "web", "rm", "/srv/ready"]).assert_code(0);
    fcvm(&env, &["wait", "--condition=unhealthy", "web"]).assert_code(0);
    let log = inspect(&env)["health_log"].clone();
    let said: Vec<_> = log.as_array().unwrap().iter().map(|entry| entry["output"].clone()).collect();
    assert!(said.contains(&json!("HTTP 404 Not Found")), "{said:?}");
    fcvm(&env, &["rm", "-f", "web"]).assert_code(0);
    for bad in ["https://localhost/", "http://example.com/", "localhost"] {
        let refused = env.run(&["--health-check", bad, "hello", "true"]).run();
        assert_eq!(refused.code(), 2, "{bad}");
    }
    env.assert_nothing_left();
}

#[test]
fn vm_a_guest_that_is_frozen_is_not_called_unhealthy() {
    let Some(env) = vm() else { return };
    let check = ["--health-cmd=true", "--health-interval=1s", "--health-retries=1", "--health-timeout=60s"];
    detach(&env, &check, &["hello", "sh", "-c", LOOP]);
    fcvm(&env, &["wait", "--condition=healthy", "web"]).assert_code(0);
    let pid = i32::try_from(inspect(&env)["hypervisor_process"]["pid"].as_i64().unwrap()).unwrap();
    let hypervisor = Pid::from_raw(pid).unwrap();
    let events = watch(&env);
    kill_process(hypervisor, Signal::STOP).unwrap();
    events.wait_for_stdout(&event("not_responding"));
    let frozen = inspect(&env);
    assert_eq!((&frozen["responding"], &frozen["health_status"]), (&json!(false), &json!("healthy")));
    assert!(fcvm(&env, &["ls"]).ok().contains("running (not answering)"));
    kill_process(hypervisor, Signal::CONT).unwrap();
    events.wait_for_stdout(&event("responding"));
    drop(events);
    assert_eq!(inspect(&env)["responding"], true);
    fcvm(&env, &["rm", "-f", "web"]).assert_code(0);
    env.assert_nothing_left();
}
