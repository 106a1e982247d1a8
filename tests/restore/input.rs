//! Input of containers that go on.

use std::{io::Write as _, process::Stdio};

use fcvm_testkit::{Screen, TestEnv};

use super::{fcvm, remove, snapshot, vm};

/// Tells what it is given, and its end.
const ECHO: &str = "while read line; do echo \"got $line\"; done; echo end; exit 3";

fn start(env: &TestEnv, options: &[&str], script: &str) {
    env.run(options).args(["-m", "256m", "hello", "sh", "-c", script]).run().assert_code(0);
}

#[test]
fn vm_a_clone_is_given_our_input() {
    let Some(env) = vm() else { return };
    start(&env, &["-d", "-i", "--name", "source"], ECHO);
    snapshot(&env, "source", "warm");
    let begin = || {
        let clone = env.fcvm().args(["snapshot", "run", "--snapshot", "warm", "-i"]);
        clone.stdin(Stdio::piped()).spawn()
    };
    // Each its own, and as much as there is.
    let mut clones = [begin(), begin()];
    for (number, clone) in clones.iter_mut().enumerate() {
        clone.stdin().write_all(format!("of {number}\n").as_bytes()).unwrap();
    }
    for (number, clone) in clones.into_iter().enumerate() {
        clone.wait_for_stdout(&format!("got of {number}\n"));
        let output = clone.wait();
        output.assert_code(3);
        assert_eq!(output.stdout(), format!("got of {number}\nend\n"), "{}", output.stderr);
    }
    // One in the background waits for input as its source does.
    fcvm(&env, &["snapshot", "run", "--snapshot", "warm", "-d", "--name", "kid"]).assert_code(0);
    fcvm(&env, &["exec", "kid", "true"]).assert_code(0);
    for (option, words) in [("-t", "started without `-t`"), ("-dt", "cannot be used with")] {
        let refused = fcvm(&env, &["snapshot", "run", "--snapshot", "warm", option]);
        assert!(refused.stderr.contains(words), "{option}: {}", refused.stderr);
    }
    assert_eq!(fcvm(&env, &["logs", "kid"]).ok(), "");
    remove(&env, &["source", "kid"], &["warm"]);
}

/// Of a container in the foreground a clone goes on where the next input is its own.
#[test]
fn vm_input_goes_on_while_and_after_a_snapshot_is_made() {
    let Some(env) = vm() else { return };
    let source = env.run(&["-i", "--name", "source", "-m", "256m", "hello", "sh", "-c", ECHO]);
    let mut source = source.stdin(Stdio::piped()).spawn();
    let mut typing = source.stdin();
    typing.write_all(b"one\n").unwrap();
    source.wait_for_stdout("got one\n");
    snapshot(&env, "source", "warm");
    typing.write_all(b"two\n").unwrap();
    source.wait_for_stdout("got two\n");
    let clone = env.fcvm().args(["snapshot", "run", "--snapshot", "warm", "-i"]);
    let mut clone = clone.stdin(Stdio::piped()).spawn();
    clone.stdin().write_all(b"another\n").unwrap();
    let output = clone.wait();
    output.assert_code(3);
    assert_eq!(output.stdout(), "got another\nend\n", "{}", output.stderr);
    drop(typing);
    let output = source.wait();
    output.assert_code(3);
    assert_eq!(output.stdout(), "got one\ngot two\nend\n");
    remove(&env, &[], &["warm"]);
}

#[test]
fn vm_a_clone_has_our_terminal() {
    let Some(env) = vm() else { return };
    start(&env, &["-d", "-it", "--name", "source"], "export n=5; PS1='> ' exec sh -i");
    snapshot(&env, "source", "warm");
    let Some(screen) = Screen::new(&env, 90, 24) else { return remove(&env, &["source"], &["warm"]) };
    screen.line("$FCVM snapshot run --snapshot warm -it; echo status: $?");
    // Until the news has come all the way.
    screen.line("until stty size | grep -x '24 90'; do :; done; echo $n n''ow");
    screen.wait_for("5 now");
    screen.line("exit 9");
    screen.wait_for("status: 9");
    screen.wait_for_prompt();
    screen.assert_sane();
    drop(screen);
    remove(&env, &["source"], &["warm"]);
}
