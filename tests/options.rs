//! Options of `fcvm podman run`, each as the container sees it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use fcvm_testkit::TestEnv;

fn vm() -> Option<TestEnv> {
    TestEnv::for_warm_vms(env!("CARGO_BIN_EXE_fcvm"))
}

#[test]
fn vm_environment_directory_user_and_host_name() {
    let Some(env) = vm() else { return };
    let file = env.file("env", "# a comment\nFROM_FILE=a b\nBOTH=file\n\nFROM_HOST\n");
    let output = env
        .run(&["--env-file", file.to_str().unwrap(), "-e", "BOTH=option", "--env=EMPTY=", "-e", "EQUALS=a=b"])
        .args(["--workdir", "/etc", "--user", "alice", "--hostname", "web-1", "hello", "sh", "-c"])
        .arg(r#"echo "$FROM_FILE|$BOTH|$FROM_HOST|${EMPTY-unset}|$EQUALS|${LEAK-unset}"; pwd; id; hostname"#)
        .env("FROM_HOST", "host's")
        .env("LEAK", "x")
        .run();
    output.assert_stdout(
        "a b|option|host's||a=b|unset\n/etc\nuid=1000(alice) gid=1001(staff) groups=1001(staff)\nweb-1",
    );
}

#[test]
fn vm_entry_points_are_replaced() {
    let Some(env) = vm() else { return };
    env.run(&["--entrypoint", "/bin/echo", "hello", "a", "b"]).run().assert_stdout("a b");
    env.run(&["--entrypoint", r#"["echo", "c d"]"#, "--user", "7:8", "hello"]).run().assert_stdout("c d");
}

#[test]
fn vm_the_host_name_is_the_vms_id_unless_given() {
    let Some(env) = vm() else { return };
    let mut running =
        env.run(&["-i", "hello", "sh", "-c", "hostname; cat"]).stdin(std::process::Stdio::piped()).spawn();
    running.wait_for_stdout("\n");
    let id = env.list()[0]["id"].as_str().unwrap().to_owned();
    drop(running.stdin());
    let hostname = running.wait().ok();
    assert!(!hostname.is_empty() && id.starts_with(&hostname), "{hostname} {id}");
}

#[test]
fn vm_a_read_only_root_with_a_tmpfs() {
    let Some(env) = vm() else { return };
    let script = "touch /root/x && echo writable; touch /scratch/x && echo scratch; \
                  grep ' /scratch ' /proc/mounts";
    let output = env.run(&["--read-only", "--tmpfs", "/scratch:size=3m", "hello", "sh", "-c", script]).run();
    let stdout = output.ok();
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "scratch"), "{stdout}");
    assert!(lines[1].starts_with("tmpfs /scratch tmpfs rw,") && lines[1].contains("size=3072k"), "{stdout}");
    assert!(output.stderr.contains("Read-only file system"), "{}", output.stderr);
}

/// A line of `/proc/self/status` with a set of capabilities.
fn capabilities(status: &str, set: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t")).unwrap();
    u64::from_str_radix(line, 16).unwrap()
}

const CHOWN: u64 = 1 << 0;
const KILL: u64 = 1 << 5;
const NET_ADMIN: u64 = 1 << 12;

#[test]
fn vm_capabilities_and_limits() {
    let Some(env) = vm() else { return };
    let status = env
        .run(&["--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN", "--ulimit", "nofile=123:456", "hello"])
        .args(["cat", "/proc/self/status", "/proc/self/limits"])
        .run()
        .ok();
    let effective = capabilities(&status, "CapEff");
    assert_eq!(effective & (CHOWN | KILL | NET_ADMIN), KILL | NET_ADMIN, "{status}");
    let limit = status.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(limit.split_whitespace().skip(3).collect::<Vec<_>>(), ["123", "456", "files"]);
}

#[test]
fn vm_privileges_and_labels() {
    let Some(env) = vm() else { return };
    // With all devices, a container finds what Podman knows of it on the VM's own disk.
    let script = "set -e; cat /proc/self/status; mkdir /disk; \
                  mount -t ext4 $(for disk in /sys/block/vd*; do \
                  grep -q scratch $disk/serial && echo /dev/${disk##*/}; done) /disk; \
                  grep -rqs '\"KEY-7f3a\":\"VALUE-91c2\"' /disk && echo labelled";
    let output =
        env.run(&["--privileged", "--label", "KEY-7f3a=VALUE-91c2", "hello", "sh", "-c", script]).run();
    let stdout = output.ok();
    assert_eq!(capabilities(&stdout, "CapEff").trailing_ones(), 41, "{stdout}");
    assert!(stdout.ends_with("labelled"), "{stdout} {}", output.stderr);
}

#[test]
fn vm_cpus_and_memory() {
    let Some(env) = vm() else { return };
    let script = "grep -c ^processor /proc/cpuinfo; grep MemTotal /proc/meminfo";
    let stdout = env.run(&["--cpus", "1", "-m", "300m", "--rm", "hello", "sh", "-c", script]).run().ok();
    let (cpus, memory) = stdout.split_once('\n').unwrap();
    assert_eq!(cpus, "1");
    let kibibytes: u64 = memory.split_whitespace().nth(1).unwrap().parse().unwrap();
    // What the kernel keeps for itself is not in the total.
    assert!((200 << 10..300 << 10).contains(&kibibytes), "{memory}");
}
