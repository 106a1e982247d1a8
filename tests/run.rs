//! `fcvm podman run`: what a container writes and how it ends.

use std::process::Command;

use fcvm_testkit::{Fcvm, TestEnv};

fn vm() -> Option<TestEnv> {
    TestEnv::for_warm_vms(env!("CARGO_BIN_EXE_fcvm"))
}

fn vm_that_boots() -> Option<TestEnv> {
    TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm"))
}

#[test]
fn vm_streams_are_apart_and_the_status_is_the_containers() {
    let Some(env) = vm() else { return };
    let output = env.shell("echo out; echo err >&2; exit 7").env("RUST_LOG", "error").run();
    output.assert_code(7);
    assert_eq!(output.stdout(), "out\n");
    assert_eq!(output.stderr, "err\n");
    env.assert_nothing_left();
}

#[test]
fn vm_a_command_is_taken_after_two_dashes_and_from_the_image() {
    let Some(env) = vm() else { return };
    env.run(&["hello", "--", "echo", "--name", "-e", "x  y"]).run().assert_stdout("--name -e x  y");
    let rootfs = fcvm_testkit::Layer::new().busybox().to_tar();
    let tarball = env.file("r.tar", rootfs);
    let import = env.fcvm().args(["image", "import", "own", "--cmd", r#"["echo", "own words"]"#]);
    import.arg(tarball).run().assert_code(0);
    env.run(&["own"]).run().assert_stdout("own words");
}

#[test]
fn vm_exit_codes_are_podmans() {
    let Some(env) = vm() else { return };
    for (arguments, code, message) in [
        (&["hello", "nosuch"][..], 127, "nosuch"),
        (&["hello", "/etc/passwd"], 126, "/etc/passwd"),
        (&["--user", "nosuch", "hello", "true"], 126, "nosuch"),
        (&["--cap-add", "NOSUCH", "hello", "true"], 125, "NOSUCH"),
    ] {
        let output = env.run(arguments).run();
        output.assert_code(code);
        assert_eq!(output.stdout(), "", "{arguments:?}");
        assert!(output.stderr.contains(message), "{arguments:?}: {}", output.stderr);
        env.assert_nothing_left();
    }
}

#[test]
fn vm_a_container_ended_by_a_signal_gives_128_and_its_number() {
    let Some(env) = vm() else { return };
    env.shell("sh -c 'kill -TERM $$'; exit $?").run().assert_code(143);
    // The kernel itself ends the first process of a container, which signals from inside do not.
    // The limit holds for the runtime that makes the container, too, and emulation is slow.
    env.run(&["--ulimit", "cpu=5:5", "hello", "sh", "-c", "while :; do :; done"]).run().assert_code(137);
}

#[test]
fn vm_a_closed_reader_ends_the_container() {
    let Some(env) = vm() else { return };
    // `sh` is there to tell the signal: a first process of its own would be spared it.
    let pipeline = r#""$0" podman run hello sh -c 'yes; exit $?' | head -n 1; echo "${PIPESTATUS[0]}""#;
    let output = env.program_in_env("bash").args(["-c", pipeline]).arg(env.program()).run();
    output.assert_stdout("y\n141");
    env.assert_nothing_left();
}

#[test]
fn vm_timings_are_told_on_standard_error() {
    let Some(env) = vm_that_boots() else { return };
    let output = env.run(&["--timings", "hello", "echo", "x"]).run();
    output.assert_stdout("x");
    for stage in ["fcvm", "hypervisor", "kernel", "agent", "podman", "container", "teardown", "first output"]
    {
        let line = output.stderr.lines().find(|line| line.starts_with(stage));
        let line = line.unwrap_or_else(|| panic!("no line for {stage}:\n{}", output.stderr));
        let milliseconds = line.split_whitespace().next_back().unwrap().parse::<u64>();
        assert!(milliseconds.is_ok_and(|at| u128::from(at) <= output.took.as_millis()), "{line}");
    }
}

#[test]
fn vm_a_short_container_loses_no_output() {
    let Some(env) = vm_that_boots() else { return };
    short_containers(3, || env.shell(SHORT));
}

/// In VMs that do not boot: so there can be many.
#[test]
fn vm_a_short_container_that_starts_warm_loses_no_output() {
    let Some(env) = vm() else { return };
    short_containers(20, || env.shell(SHORT));
}

/// More than a pipe holds, on both streams, and then the end at once.
const SHORT: &str = "head -c 150000 /dev/zero; head -c 150000 /dev/zero >&2; exit 3";

fn short_containers(runs: usize, start: impl Fn() -> Fcvm) {
    for run in 0..runs {
        let output = start().env("RUST_LOG", "warn").run();
        output.assert_code(3);
        let words = output.stderr.replace('\0', "");
        assert_eq!(
            (output.stdout.len(), output.stderr.len() - words.len()),
            (150_000, 150_000),
            "run {run}: {words}"
        );
        assert!(output.stdout.iter().all(|byte| *byte == 0));
        // A guest that panicked was told of and booted again: nothing else may be said.
        assert!(words.lines().all(|line| line.contains("once again, with one CPU")), "run {run}: {words}");
    }
}

/// The budget for the memory of fcvm itself.
const MAX_MEMORY: u64 = 25 << 20;

#[test]
fn vm_memory_and_time_to_first_output_measured_alone() {
    let Some(env) = vm_that_boots() else { return };
    let script = "echo first; head -c 50000000 /dev/zero; echo done >&2; cat";
    let mut running =
        env.run(&["-i", "hello", "sh", "-c", script]).stdin(std::process::Stdio::piped()).spawn();
    running.wait_for_stderr("done");
    let memory = running.memory("VmHWM");
    drop(running.stdin());
    let output = running.wait();
    output.assert_code(0);
    let first = output.to_first_output.unwrap();
    let (mebibytes, milliseconds) = (memory >> 20, first.as_millis());
    println!("measured: fcvm's own memory {mebibytes} MiB at most, first output after {milliseconds} ms");
    assert!(memory <= MAX_MEMORY, "{memory} bytes");
    // Ten times the aim on an idle machine: this catches a hang, a bench measures.
    assert!(first.as_secs() < 60, "{first:?}");
}

#[test]
fn without_a_command_or_image_the_usage_is_told() {
    let env = TestEnv::new(env!("CARGO_BIN_EXE_fcvm"));
    for arguments in [&["podman", "run"][..], &["podman"], &[], &["podman", "run", "--nosuch", "hello"]] {
        let output = env.fcvm().args(arguments).run();
        output.assert_code(2);
        assert!(output.stderr.contains("Usage: fcvm"), "{arguments:?}: {}", output.stderr);
    }
    let version = env.fcvm().arg("--version").run().ok();
    assert!(version.starts_with("fcvm "), "{version}");
    let direct = Command::new(env.program()).arg("--help").output().unwrap();
    assert!(direct.status.success());
}
