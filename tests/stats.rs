//! `fcvm stats`: what it says is what `/proc` says.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;

use fcvm_testkit::{Screen, TestEnv};
use serde_json::Value;

const FCVM: &str = env!("CARGO_BIN_EXE_fcvm");

/// What `/proc` tells of a process.
#[derive(Debug)]
struct Measured {
    cpu_seconds: f64,
    resident: u64,
    proportional: u64,
    private: u64,
    read: u64,
    written: u64,
}

impl Measured {
    fn of(pid: i64) -> Self {
        let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
        let number = |text: &str, name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let stat = file("stat");
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        let (memory, disk) = (file("smaps_rollup"), file("io"));
        let kib = |name| number(&memory, name) << 10;
        Self {
            cpu_seconds: f64::from(u32::try_from(ticks).unwrap()) / 100.0,
            resident: kib("Rss"),
            proportional: kib("Pss"),
            private: kib("Private_Clean") + kib("Private_Dirty"),
            read: number(&disk, "read_bytes"),
            written: number(&disk, "write_bytes"),
        }
    }
}

fn start(env: &TestEnv, name: &str, script: &str) -> i64 {
    env.run(&["-d", "--rm", "--name", name, "--cpus=1", "-m", "300m", "hello", "sh", "-c", script])
        .run()
        .assert_code(0);
    let pid = env.fcvm().args(["inspect", "--format", "{{.hypervisor_process.pid}}", name]).run().ok();
    pid.parse().unwrap()
}

fn row<'a>(rows: &'a Value, name: &str) -> &'a Value {
    rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap()
}

/// Whether a number lies between two measurements, or so near that what changed in between explains it.
fn assert_between(what: &str, value: &Value, before: u64, after: u64) {
    let value = value.as_u64().unwrap();
    let (least, most) = (before.min(after), before.max(after));
    assert!(
        value >= least - least / 10 && value <= most + most / 10,
        "{what}: {value}, not {before}..{after}"
    );
}

#[test]
fn vm_stats_are_what_proc_tells() {
    let Some(env) = TestEnv::for_warm_vms(FCVM) else { return };
    let burning = start(&env, "burn", "while :; do :; done");
    start(&env, "idle", "while :; do sleep 1; done");
    let before = Measured::of(burning);
    let all = env.fcvm().args(["stats", "--no-stream", "--json"]).run().ok();
    let after = Measured::of(burning);
    let all: Value = serde_json::from_str(&all).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 2);
    let burn = row(&all, "burn");
    let seconds = burn["cpu_seconds"].as_f64().unwrap();
    assert!((before.cpu_seconds..=after.cpu_seconds).contains(&seconds), "{before:?} {burn} {after:?}");
    assert_between("resident", &burn["memory_rss_bytes"], before.resident, after.resident);
    assert_between("proportional", &burn["memory_pss_bytes"], before.proportional, after.proportional);
    assert_between("private", &burn["memory_private_bytes"], before.private, after.private);
    let disk =
        [("disk_read_bytes", before.read, after.read), ("disk_written_bytes", before.written, after.written)];
    for (name, before, after) in disk {
        assert!((before..=after).contains(&burn[name].as_u64().unwrap()), "{name}: {burn}");
    }
    assert_eq!(burn["memory_limit_bytes"], 300 << 20);
    assert!(burn["threads"].as_u64().unwrap() >= 2 && burn["network_sent_bytes"].is_u64());

    // One measurement after the other: the share is of the time in between.
    let stream = env.fcvm().args(["stats", "--json", "--interval", "1", "burn"]).spawn();
    stream.wait_for_stdout("]\n[");
    stream.wait_for_stdout("]\n");
    stream.signal(rustix::process::Signal::INT);
    let output = stream.wait();
    output.assert_code(130);
    let stdout = output.stdout();
    let mut rows = stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let [first, second] = [rows.next().unwrap(), rows.next().unwrap()];
    let [then, now] = [&first, &second].map(|rows| row(rows, "burn")["cpu_seconds"].as_f64().unwrap());
    let percent = row(&second, "burn")["cpu_percent"].as_f64().unwrap();
    assert!(now > then && percent > 0.0 && percent <= (now - then) * 100.0 + 0.1, "{first} {second}");

    // Not in a terminal: a table after the other.
    let table = env.fcvm().args(["stats", "--no-stream", "idle"]).run().ok();
    assert!(table.starts_with("NAME ") && table.lines().nth(1).unwrap().starts_with("idle "), "{table}");
    assert!(table.contains("300.0 MiB") && table.contains(" B / "), "{table}");
    let unknown = env.fcvm().args(["stats", "nosuch"]).run();
    unknown.assert_code(125);
    assert!(unknown.stderr.contains("no VM `nosuch`"), "{}", unknown.stderr);

    on_a_terminal(&env);
    // All that were named have ended: so does it.
    let named = env.fcvm().args(["stats", "--interval=0.2", "--json", "burn"]).spawn();
    named.wait_for_stdout("]\n");
    env.fcvm().args(["rm", "--force", "burn", "idle"]).run().assert_code(0);
    named.wait().assert_code(0);
}

fn on_a_terminal(env: &TestEnv) {
    let Some(screen) = Screen::new(env, 150, 24) else { return };
    let cursor = || {
        let socket = env.sockets().join("tmux");
        let asked = env.program_in_env("tmux").arg("-S").arg(socket).args([
            "display-message",
            "-p",
            "#{cursor_flag}",
        ]);
        asked.run().ok()
    };
    screen.line("$FCVM stats --interval 0.5");
    let text = screen.wait_for("THREADS");
    assert_eq!(text.matches("burn ").count(), 1, "{text}");
    assert_eq!(cursor(), "0");
    // Too narrow for a line: it is cut and not broken, and nothing of before is left.
    screen.resize(60, 10);
    let cut = |text: &str| {
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.len() == 3
            && ["NAME ", "burn ", "idle "].iter().zip(&lines).all(|(begin, line)| line.starts_with(begin))
    };
    screen.wait_until("three lines", cut);
    screen.resize(150, 24);
    screen.wait_until("three whole lines", |text| cut(text) && text.contains("THREADS"));
    screen.key("C-c");
    screen.wait_for_prompt();
    assert_eq!(cursor(), "1");
    screen.assert_sane();
}
