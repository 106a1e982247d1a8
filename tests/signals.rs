//! Signals to `fcvm podman run`, and its sudden death.

use std::fs::File;

use fcvm_testkit::TestEnv;
use rustix::process::{Pid, Signal, kill_process};

fn vm() -> Option<TestEnv> {
    TestEnv::for_warm_vms(env!("CARGO_BIN_EXE_fcvm"))
}

/// A container that says when it is ready, and lives until a signal.
const LOOP: &str = "echo ready; while :; do sleep 0.1; done";

#[test]
fn vm_signals_are_the_containers() {
    let Some(env) = vm() else { return };
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::USR1, "USR1")] {
        let running = env.shell(&format!("trap 'echo caught {name}; exit 5' {name}; {LOOP}")).spawn();
        running.wait_for_stdout("ready");
        running.signal(signal);
        let output = running.wait();
        output.assert_code(5);
        assert_eq!(output.stdout(), format!("ready\ncaught {name}\n"));
        env.assert_nothing_left();
    }
}

#[test]
fn vm_the_second_signal_kills() {
    let Some(env) = vm() else { return };
    let running = env.shell(&format!("trap 'echo spared' TERM INT; {LOOP}")).spawn();
    running.wait_for_stdout("ready");
    running.signal(Signal::TERM);
    running.wait_for_stdout("spared");
    running.signal(Signal::INT);
    running.wait().assert_code(130);
    env.assert_nothing_left();
}

/// A guest that hears nothing any more, with the link full of input for it, ends all the same.
#[test]
fn vm_the_second_signal_kills_a_guest_that_is_frozen() {
    let Some(env) = vm() else { return };
    let script = format!("exec 3<&0; cat <&3 >/dev/null & {LOOP}");
    let running =
        env.run(&["-i", "hello", "sh", "-c", &script]).stdin(File::open("/dev/zero").unwrap()).spawn();
    running.wait_for_stdout("ready");
    let hypervisor = env.list()[0]["hypervisor_process"]["pid"].as_i64().unwrap();
    let hypervisor = Pid::from_raw(i32::try_from(hypervisor).unwrap()).unwrap();
    kill_process(hypervisor, Signal::STOP).unwrap();
    // Two different ones: two of the same may arrive as one.
    running.signal(Signal::TERM);
    running.signal(Signal::INT);
    let code = running.wait().code();
    assert!(code == 130 || code == 143, "{code}");
    env.assert_nothing_left();
}

/// Lines of the log that say how far a run is, in order. The last is before the container.
const MOMENTS: [(&str, &str); 3] = [
    ("qemu=debug,firecracker=debug", "starting"),
    ("console=debug", "DEBUG console"),
    ("agent=debug", "hello"),
];

#[test]
fn vm_a_signal_during_the_boot_ends_it() {
    let Some(env) = TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm")) else { return };
    for (filter, text) in MOMENTS {
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
            let running = env.shell("echo too late").env("RUST_LOG", filter).spawn();
            running.wait_for_stderr(text);
            running.signal(signal);
            let output = running.wait();
            output.assert_code(code);
            assert_eq!(output.stdout(), "", "{filter}");
            env.assert_nothing_left();
        }
    }
}

#[test]
fn vm_what_a_killed_fcvm_left_is_removed_by_the_next_command() {
    let Some(env) = TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm")) else { return };
    for (filter, text) in MOMENTS {
        let running = env.shell(LOOP).env("RUST_LOG", filter).spawn();
        running.wait_for_stderr(text);
        killed(&env, running);
    }
    let running = env.shell(LOOP).spawn();
    running.wait_for_stdout("ready");
    killed(&env, running);
    // In the middle of output.
    let running = env.shell("head -c 30000000 /dev/zero; echo filled >&2; yes").spawn();
    running.wait_for_stderr("filled");
    killed(&env, running);
    env.shell("echo ok").run().assert_stdout("ok");
}

fn killed(env: &TestEnv, running: fcvm_testkit::Running) {
    // The hypervisor dies with its parent, without anyone's help.
    assert_eq!(env.kill(running).code(), 137);
    assert!(!env.leftovers().is_empty(), "nothing to clean up: the test tests nothing");
    assert!(env.list().is_empty());
    env.assert_nothing_left();
}

#[test]
fn vm_the_name_of_a_killed_vm_is_free() {
    let Some(env) = vm() else { return };
    let run = |script| env.run(&["--name", "web", "hello", "sh", "-c", script]);
    let running = run(LOOP).spawn();
    running.wait_for_stdout("ready");
    assert_eq!(running.kill().code(), 137);
    // At once: the next command sees to it that what was killed is gone.
    run("echo again").run().assert_stdout("again");
    env.assert_nothing_left();
}
