//! Terminals, as a user sees them.

use fcvm_testkit::{Screen, TestEnv};
use rustix::process::{Pid, Signal, kill_process};

const FCVM: &str = env!("CARGO_BIN_EXE_fcvm");

fn at_a_terminal() -> Option<(TestEnv, Screen)> {
    let env = TestEnv::for_warm_vms(FCVM)?;
    let screen = Screen::new(&env, 90, 24)?;
    Some((env, screen))
}

#[test]
fn vm_a_shell_has_a_terminal_of_our_size() {
    let Some((_env, screen)) = at_a_terminal() else { return };
    screen.line("$FCVM podman run -it hello sh; echo status: $?");
    screen.wait_for("/ #");
    screen.line("stty size; tty; echo $TERM");
    let text = screen.wait_for("xterm");
    assert!(text.contains("24 90") && text.contains("/dev/pts/0"), "{text}");
    screen.resize(70, 18);
    // Until the news has come all the way.
    screen.line("until stty size | grep -x '18 70'; do :; done; echo resi''zed");
    screen.wait_for("resized");
    // The keys are the container's: Ctrl-C ends what runs in the shell, and not the shell.
    // In a process of its own, which has the terminal when it says so.
    screen.line("sh -c \"echo wait''ing; exec sleep 1000\"");
    screen.wait_for("waiting");
    screen.key("C-c");
    screen.line("echo still he''re");
    screen.wait_for("still here");
    screen.line("exit 7");
    screen.wait_for("status: 7");
    screen.wait_for_prompt();
    screen.assert_sane();
}

#[test]
fn vm_a_container_that_ends_at_a_change_of_size_leaves_its_status() {
    let Some((_env, screen)) = at_a_terminal() else { return };
    let script = "trap 'exit 7' WINCH; echo wait''ing; while :; do :; done";
    screen.line(&format!("$FCVM podman run -it hello sh -c \"{script}\"; echo status: $?"));
    screen.wait_for("waiting");
    screen.resize(70, 18);
    let text = screen.wait_for("status: 7");
    assert!(!text.contains("not running"), "{text}");
    screen.wait_for_prompt();
    screen.assert_sane();
}

#[test]
fn vm_full_screen_programs_follow_the_size() {
    let Some((_env, screen)) = at_a_terminal() else { return };
    screen.line("$FCVM podman run -it hello sh -c 'seq 100 > f; busybox vi f'");
    let rows = |text: &str| text.trim_end().lines().map(str::to_owned).collect::<Vec<_>>();
    let shows = |height: usize| {
        move |text: &str| {
            let rows = rows(text);
            let numbers = (1..height).map(|number| number.to_string());
            rows.len() == height && rows.iter().zip(numbers).all(|(row, number)| *row == number)
        }
    };
    screen.wait_until("23 lines", shows(24));
    screen.resize(60, 12);
    screen.wait_until("11 lines", shows(12));
    screen.resize(100, 30);
    screen.wait_until("29 lines", shows(30));
    screen.line(":q");
    screen.wait_for_prompt();
    screen.assert_sane();
}

#[test]
fn vm_ctrl_c_ends_a_boot_and_leaves_the_terminal_as_it_was() {
    let Some(env) = TestEnv::for_vms(FCVM) else { return };
    // As large as the hypervisor's whole command line.
    let Some(screen) = Screen::new(&env, 200, 60) else { return };
    for (filter, moment) in [("qemu=debug", "starting"), ("console=debug", "DEBUG console")] {
        screen.line(&format!("RUST_LOG={filter} $FCVM podman run -it hello sh; echo status: $?"));
        screen.wait_for(moment);
        screen.key("C-c");
        screen.wait_for("status: 130");
        screen.wait_for_prompt();
        screen.assert_sane();
    }
}

#[test]
fn vm_a_terminal_needs_none_of_ours() {
    let Some(env) = TestEnv::for_warm_vms(FCVM) else { return };
    let out = env.run(&["-t", "hello", "sh", "-c", "stty size; echo error >&2; tty"]).run();
    out.assert_code(0);
    // A terminal ends lines with both characters, and has one output.
    assert_eq!(out.stdout(), "24 80\r\nerror\r\n/dev/pts/0\r\n", "{}", out.stderr);
    let lost = env.run(&["-t", "hello", "nosuch"]).run();
    lost.assert_code(127);
}

#[test]
fn vm_detach_keys_leave_a_command_to_itself() {
    let Some((env, screen)) = at_a_terminal() else { return };
    let script = "trap 'exit 0' TERM; while :; do sleep 1; done";
    env.run(&["-d", "--rm", "--name=vm", "hello", "sh", "-c", script]).run().assert_code(0);
    screen.line("$FCVM exec -it vm sh; echo status: $?");
    screen.wait_for("/ #");
    // What is written meanwhile does not stop it either.
    screen.line("(sleep 1; yes | head -n 5000; touch /written) & sleep 98765");
    screen.key("C-p");
    screen.key("C-q");
    screen.wait_for("status: 0");
    screen.wait_for_prompt();
    screen.assert_sane();
    let shell = |script: &str| env.fcvm().args(["exec", "vm", "sh", "-c", script]).run();
    shell("until test -e /written; do sleep 0.1; done").assert_code(0);
    shell("ps -o args | grep -x 'sleep 98765'").assert_code(0);
    // With others, or none, these keys are the program's.
    screen.line("$FCVM exec -it --detach-keys ctrl-x vm sh; echo status: $?");
    screen.wait_for("/ #");
    screen.key("C-x");
    screen.wait_for_prompt();
    env.fcvm().args(["rm", "-f", "vm"]).run().assert_code(0);
    drop(screen);
    env.assert_nothing_left();
}

#[test]
fn vm_detach_keys_leave_a_container_in_the_background() {
    let Some((env, screen)) = at_a_terminal() else { return };
    screen.line("$FCVM podman run -it --name vm hello sh; echo status: $?");
    screen.wait_for("/ #");
    screen.line("trap 'exit 6' TERM; while :; do echo tick; sleep 0.2; done");
    screen.wait_for("tick");
    screen.key("C-p");
    screen.key("C-q");
    screen.wait_for("status: 0");
    let text = screen.wait_for_prompt();
    screen.assert_sane();
    // It goes on, and not on this screen.
    let fcvm = |arguments: &[&str]| env.fcvm().args(arguments).run();
    let follower = env.fcvm().args(["logs", "--follow", "vm"]).spawn();
    let ticks = text.matches("tick").count() + 5;
    follower.wait_for_stdout(&"tick\r\n".repeat(ticks));
    drop(follower);
    assert_eq!(fcvm(&["inspect", "--format", "{{.detached}} {{.status}}", "vm"]).ok(), "true running");
    fcvm(&["exec", "vm", "true"]).assert_code(0);
    fcvm(&["stop", "vm"]).assert_code(0);
    fcvm(&["wait", "vm"]).assert_stdout("6");
    fcvm(&["rm", "vm"]).assert_code(0);
    // With --rm nothing is left of it.
    screen.line("$FCVM podman run -it --rm --detach-keys ctrl-x --name vm hello sh; echo status: $?");
    screen.wait_for("/ #");
    screen.key("C-x");
    screen.wait_for("status: 0");
    fcvm(&["rm", "--force", "vm"]).assert_code(0);
    drop(screen);
    env.assert_nothing_left();
}

#[test]
fn vm_a_terminal_is_restored_also_where_its_vms_process_is_killed() {
    let Some((env, screen)) = at_a_terminal() else { return };
    screen.line("$FCVM podman run -it --name vm hello sh; echo status: $?");
    screen.wait_for("/ #");
    let pid = env.fcvm().args(["inspect", "--format", ".pid", "vm"]).run().ok();
    let owner = Pid::from_raw(pid.parse().unwrap()).unwrap();
    kill_process(owner, Signal::KILL).unwrap();
    screen.wait_for("status: 137");
    screen.wait_for_prompt();
    screen.assert_sane();
    env.fcvm().args(["ls"]).run().assert_code(0);
    drop(screen);
    env.assert_nothing_left();
}
