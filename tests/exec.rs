//! More commands in a VM that runs.

use std::{io::Write as _, process::Stdio, thread};

use fcvm_testkit::{Fcvm, Output, Screen, TestEnv, noise};
use rustix::process::Signal;

const FCVM: &str = env!("CARGO_BIN_EXE_fcvm");

/// A VM named `vm` that does nothing until it is told to end.
struct Vm {
    env: TestEnv,
}

impl Vm {
    fn start() -> Option<Self> {
        let env = TestEnv::for_warm_vms(FCVM)?;
        let options = ["-d", "--rm", "--name=vm", "-e", "GIVEN=by run", "-w", "/root"];
        let script = "trap 'exit 0' TERM; while :; do sleep 1; done";
        env.run(&options).args(["idle", "sh", "-c", script]).run().assert_code(0);
        Some(Self { env })
    }

    fn exec(&self, arguments: &[&str]) -> Fcvm {
        self.env.fcvm().arg("exec").args(arguments)
    }

    /// Runs a script in the container.
    fn shell(&self, script: &str) -> Output {
        self.exec(&["vm", "sh", "-c", script]).run()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // A test may have ended it.
        drop(self.env.fcvm().args(["rm", "--force", "vm"]).run());
    }
}

#[test]
fn vm_a_command_runs_as_podman_would_run_it() {
    let Some(vm) = Vm::start() else { return };
    let both = vm.shell("echo out; echo error >&2; exit 5");
    both.assert_code(5);
    assert_eq!((both.stdout().as_str(), both.stderr.as_str()), ("out\n", "error\n"));
    vm.shell("kill -9 $$").assert_code(137);
    for (arguments, expected) in [
        (&["vm", "pwd"][..], "/root\n"),
        (&["-w", "/srv", "vm", "pwd"], "/srv\n"),
        (&["vm", "sh", "-c", "echo $GIVEN"], "by run\n"),
        (&["-e", "GIVEN=by exec", "-e", "MORE=1", "vm", "sh", "-c", "echo $GIVEN $MORE"], "by exec 1\n"),
        (&["vm", "id", "-u"], "0\n"),
        (&["-u", "web", "vm", "id"], "uid=33(web) gid=34(www) groups=40(log)\n"),
        (&["-u", "1000:34", "vm", "id"], "uid=1000 gid=34(www)\n"),
        (&["-u", "web", "vm", "grep", "CapEff", "/proc/self/status"], "CapEff:\t0000000000000000\n"),
        // A name's words are the command's: `--` is not.
        (&["vm", "--", "echo", "--", "-x"], "-- -x\n"),
        (&["-c", "vm", "echo", "in"], "in\n"),
        (&["vm", "sh", "-c", "tty; test -t 1 || echo none"], "not a tty\nnone\n"),
    ] {
        let output = vm.exec(arguments).run();
        assert_eq!((output.stdout().as_str(), output.stderr.as_str()), (expected, ""), "{arguments:?}");
    }
    let bounded = vm.shell("grep CapEff /proc/self/status").stdout();
    let all = vm.exec(&["--privileged", "vm", "grep", "CapEff", "/proc/self/status"]).run().stdout();
    assert!(all > bounded && all.contains("1ffffffffff"), "{bounded}{all}");
    vm.shell("echo neither > /no-format; chmod +x /no-format").assert_code(0);
    for (arguments, code, word) in [
        (&["vm", "nosuch"][..], 127, "nosuch"),
        (&["vm", "/plain"], 126, "/plain"),
        // No shell tries it, as `execvp` of some C libraries would have one do.
        (&["vm", "/no-format"], 126, "format error"),
        (&["-u", "nobody", "vm", "true"], 125, "unable to find user nobody"),
        (&["-w", "/nowhere", "vm", "true"], 127, "/nowhere"),
        (&["none", "true"], 125, "no VM `none`"),
        (&["--pid", "1", "true"], 125, "process 1 has no VM"),
        (&["vm"], 125, "no command"),
    ] {
        let output = vm.exec(arguments).run();
        output.assert_code(code);
        let told = output.stderr.matches(word).count();
        assert!(told == 1, "{arguments:?}: {}", output.stderr);
    }
}

#[test]
fn vm_the_machine_itself_is_reached() {
    let Some(vm) = Vm::start() else { return };
    let output = vm.exec(&["--vm", "vm", "--", "cat", "/proc/1/comm"]).run();
    assert_eq!(output.stdout(), "init\n", "{}", output.stderr);
    let list: serde_json::Value =
        serde_json::from_str(&vm.env.fcvm().args(["inspect", "vm"]).run().ok()).unwrap();
    let pid = list[0]["owner"]["pid"].to_string();
    let output =
        vm.exec(&["--pid", &pid, "--vm", "--", "sh", "-c", "podman ps -q | wc -l; pwd; exit 3"]).run();
    output.assert_code(3);
    assert_eq!(output.stdout(), "1\n/root\n", "{}", output.stderr);
    vm.exec(&["--vm", "vm", "nosuch"]).run().assert_code(127);
    vm.exec(&["--vm", "vm", "/etc/passwd"]).run().assert_code(126);
    assert_eq!(vm.exec(&["--vm", "-u", "nobody", "vm", "id", "-u"]).run().stdout(), "65534\n");
}

#[test]
fn vm_input_reaches_the_command_and_output_is_exact() {
    let Some(vm) = Vm::start() else { return };
    let bytes = noise(8_000_000);
    let mut running = vm.exec(&["-i", "vm", "cat"]).stdin(Stdio::piped()).spawn();
    let mut stdin = running.stdin();
    let input = bytes.clone();
    let writer = thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = running.wait();
    writer.join().unwrap();
    output.assert_code(0);
    assert!(output.stdout == bytes);
    // One that takes no input does not wait for it, nor does one that ends before.
    let unread = vm.exec(&["-i", "vm", "true"]).stdin(Stdio::piped()).spawn();
    unread.wait().assert_code(0);
    // What a command leaves running does not keep its output open.
    let left = vm.shell("echo done; sleep 100000 & exit 4");
    left.assert_code(4);
    assert_eq!(left.stdout(), "done\n");
}

#[test]
fn vm_many_commands_at_once_are_exact_and_one_that_stalls_delays_none() {
    let Some(vm) = Vm::start() else { return };
    // Nobody reads what this one writes.
    let (unread, writer) = std::io::pipe().unwrap();
    let stalled = vm.exec(&["vm", "sh", "-c", "echo begun >&2; yes"]).stdout(writer).spawn();
    stalled.wait_for_stderr("begun");
    thread::scope(|scope| {
        for number in 0..100_u32 {
            let vm = &vm;
            scope.spawn(move || {
                let script = format!("yes {number} | head -n 2000; echo e{number} >&2; exit {}", number + 1);
                let output = vm.shell(&script);
                output.assert_code(i32::try_from(number).unwrap() + 1);
                assert!(output.stdout() == format!("{number}\n").repeat(2000), "{number}");
                assert_eq!(output.stderr, format!("e{number}\n"));
            });
        }
    });
    // Its reader goes away: as in any pipeline, it ends.
    drop(unread);
    drop(stalled.wait());
    assert_eq!(vm.shell("ps | grep -c '[y]es'").stdout(), "0\n");
}

#[test]
fn vm_signals_are_the_commands() {
    let Some(vm) = Vm::start() else { return };
    let script = "trap 'echo got TERM; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let running = vm.exec(&["vm", "sh", "-c", script]).spawn();
    running.wait_for_stdout("ready");
    running.signal(Signal::TERM);
    let output = running.wait();
    output.assert_code(9);
    assert_eq!(output.stdout(), "ready\ngot TERM\n");
    // One that does not mind is left by the second, and does not outlive it.
    let script = "trap 'echo got INT' INT; echo ready; while :; do sleep 0.1; done; : stubborn";
    for last in [Signal::INT, Signal::KILL] {
        let running = vm.exec(&["vm", "sh", "-c", script]).spawn();
        running.wait_for_stdout("ready");
        running.signal(Signal::INT);
        // Two that wait are one.
        running.wait_for_stdout("got INT");
        running.signal(last);
        drop(running.wait());
        let gone = "while ps | grep -q '[s]tubborn'; do sleep 0.1; done; echo gone";
        assert_eq!(vm.shell(gone).stdout(), "gone\n");
    }
    // A detached one goes on.
    let begun = vm.exec(&["-d", "vm", "sh", "-c", "sleep 1; echo kept > /kept"]).run();
    begun.assert_code(0);
    assert_eq!(vm.shell("until test -s /kept; do sleep 0.1; done; cat /kept").stdout(), "kept\n");
}

#[test]
fn vm_a_shell_in_a_vm_has_our_terminal() {
    let Some(vm) = Vm::start() else { return };
    let Some(screen) = Screen::new(&vm.env, 90, 24) else { return };
    for target in ["", "--vm"] {
        screen.line(&format!("$FCVM exec -it {target} vm sh; echo status: $?"));
        screen.wait_until("the shell", |text| text.trim_end().ends_with('#'));
        screen.line("stty size; test -t 2 && tty; echo $TERM");
        let text = screen.wait_for("xterm");
        assert!(text.contains("24 90") && text.contains("/dev/pts/"), "{text}");
        screen.resize(70, 18);
        screen.line("until stty size | grep -x '18 70'; do :; done; echo resi''zed");
        screen.wait_for("resized");
        // In a process of its own, which has the terminal when it says so.
        screen.line("sh -c \"echo wait''ing; exec sleep 1000\"");
        screen.wait_for("waiting");
        screen.key("C-c");
        screen.line("echo still he''re");
        screen.wait_for("still here");
        screen.key("C-d");
        screen.wait_for("status: ");
        screen.wait_for_prompt();
        screen.assert_sane();
        screen.resize(90, 24);
    }
    // The VM is killed under it: the terminal is as before.
    screen.line("$FCVM exec -it vm sh; echo status: $?");
    screen.wait_for("~ #");
    vm.env.fcvm().args(["kill", "vm"]).run().assert_code(0);
    screen.wait_for("status: ");
    screen.wait_for_prompt();
    screen.assert_sane();
}
