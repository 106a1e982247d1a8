//! Streams: byte-exact, to their ends, and none waits for another.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    io::{self, Read as _},
    process::Stdio,
    thread,
};

use fcvm_testkit::{Noise, TestEnv, noise, sha256};

fn vm() -> Option<TestEnv> {
    TestEnv::for_warm_vms(env!("CARGO_BIN_EXE_fcvm"))
}

#[test]
fn vm_input_is_forwarded_with_its_end() {
    let Some(env) = vm() else { return };
    let bytes = noise(100_000);
    let file = std::fs::File::open(env.file("input", &bytes)).unwrap();
    let output = env.run(&["-i", "hello", "cat"]).stdin(file).run();
    output.assert_code(0);
    assert!(output.stdout == bytes, "{} bytes came back", output.stdout.len());
    // Every way to have none.
    env.run(&["-i", "hello", "cat"]).run().assert_stdout("");
    let closed = r#"exec "$0" podman run "$@" -i hello sh -c 'cat; echo end' <&-"#;
    let shell = env.program_in_env("sh").args(["-c", closed]).arg(env.program()).args(env.options());
    shell.run().assert_stdout("end");
}

#[test]
fn vm_without_i_there_is_no_input_and_none_is_taken() {
    let Some(env) = vm() else { return };
    let script = r#""$0" podman run hello cat; echo "left: $(cat)""#;
    let input = std::fs::File::open(env.file("input", "x\n")).unwrap();
    let output = env.program_in_env("sh").args(["-c", script]).arg(env.program()).stdin(input).run();
    output.assert_stdout("left: x");
}

#[test]
fn vm_fifty_megabytes_go_in() {
    const LENGTH: usize = 50_000_000;
    let Some(env) = vm() else { return };
    let mut running = env.run(&["-i", "hello", "sha256sum"]).stdin(Stdio::piped()).spawn();
    let mut stdin = running.stdin();
    let writer = thread::spawn(move || io::copy(&mut Noise::new(LENGTH), &mut stdin).unwrap());
    let output = running.wait();
    assert_eq!(writer.join().unwrap(), LENGTH as u64);
    output.assert_stdout(&format!("{}  -", sha256(Noise::new(LENGTH))));
}

#[test]
fn vm_input_that_nobody_takes_does_not_keep_the_container() {
    let Some(env) = vm() else { return };
    let mut running = env.run(&["-i", "hello", "sh", "-c", "exit 4"]).stdin(Stdio::piped()).spawn();
    // Open until after the end, like a terminal.
    let stdin = running.stdin();
    running.wait().assert_code(4);
    drop(stdin);
}

#[test]
fn vm_output_is_exact_and_a_reader_that_pauses_stalls_nothing_else() {
    // The other stream's last word comes while not a byte of this one is read.
    paused_reader("head -c 209715200 /dev/zero; echo last >&2", "last");
}

#[test]
fn slow_vm_a_reader_that_pauses_for_a_minute_stalls_nothing_else() {
    let script = "head -c 209715200 /dev/zero; \
                  for second in $(seq 60); do echo tick $second >&2; sleep 1; done; echo last >&2";
    paused_reader(script, "tick 60\nlast");
}

fn paused_reader(script: &str, last: &str) {
    const LENGTH: u64 = 200 << 20;
    let Some(env) = vm() else { return };
    let (reader, writer) = io::pipe().unwrap();
    let running = env.shell(script).stdout(writer).spawn();
    running.wait_for_stderr(last);
    let sum = thread::spawn(move || sha256(reader));
    running.wait().assert_code(0);
    assert_eq!(sum.join().unwrap(), sha256(io::repeat(0).take(LENGTH)));
}

#[test]
fn vm_streams_end_with_the_container_and_not_with_what_it_left_running() {
    let Some(env) = vm() else { return };
    env.shell("sleep 1000 & echo out").run().assert_stdout("out");
}

#[test]
fn vm_output_that_cannot_be_written_is_an_error() {
    let Some(env) = vm() else { return };
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = env.shell("echo x").stdout(full).run();
    output.assert_code(125);
    assert!(output.stderr.contains("failed to write the container's output"), "{}", output.stderr);
}
