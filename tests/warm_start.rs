//! Warm starts: a run that goes on from a prepared VM is what a booted one is, and boots where it cannot be.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{fs, io::Write as _, net::TcpStream, path::PathBuf, process::Stdio};

use fcvm_testkit::{Fcvm, Output, Screen, TestEnv, talk::echo};

#[cfg(feature = "failpoints")]
use fcvm::failpoint::VARIABLE;

/// A program without failpoints has none.
#[cfg(not(feature = "failpoints"))]
const VARIABLE: &str = "";

fn vm() -> Option<TestEnv> {
    TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm"))
}

/// A command that may start warm.
fn warm(command: Fcvm) -> Fcvm {
    command.env_remove("FCVM_NO_SNAPSHOT")
}

fn run(env: &TestEnv, arguments: &[&str]) -> Output {
    warm(env.run(&[&["-m", "256m", "--timings"], arguments].concat())).run()
}

/// Prepares a VM for `run`; its key.
fn prepare(env: &TestEnv, arguments: &[&str]) -> String {
    let all = [&["podman", "prepare", "-m", "256m"], env.options(), arguments].concat();
    warm(env.fcvm().args(all)).run().ok()
}

/// Whether it booted, by its account of where the time went.
fn booted(output: &Output) -> bool {
    output.stderr.lines().any(|line| line.starts_with("kernel "))
}

fn entries(env: &TestEnv) -> Vec<PathBuf> {
    let entries = fs::read_dir(env.data().join("cache/warm")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn vm_a_warm_run_is_what_a_booted_one_would_be() {
    let Some(env) = vm() else { return };
    let key = prepare(&env, &["hello"]);
    assert_eq!(entries(&env).len(), 1);
    // What is there is not made again, whatever the run's last words are.
    assert_eq!(prepare(&env, &["-e", "A=b", "--hostname", "other", "hello", "cat", "/nothing"]), key);

    let script = "cat /etc/hosts /etc/hostname; hostname; pwd; env | sort; id; grep Cap /proc/self/status; \
                  mount | sed 's/[0-9a-f]\\{64\\}/ID/g; s/overlay.l.[A-Z0-9]*/L/g; s/size=[0-9]*k,nr_inodes=[0-9]*//' | sort; \
                  ls -a / /dev; echo error >&2; exit 7";
    let options = ["--hostname", "here", "-w", "/etc", "-e", "A=b c", "-e", "PATH=/bin:/x", "hello"];
    let arguments = [&options[..], &["sh", "-c", script]].concat();
    let first = run(&env, &arguments);
    assert!(!booted(&first), "{}", first.stderr);
    let cold = env.run(&[&["-m", "256m", "--timings"], &arguments[..]].concat()).run();
    assert!(booted(&cold), "{}", cold.stderr);
    assert_eq!(first.stdout(), cold.stdout());
    assert!(first.stdout().contains("A=b c\n") && first.stderr.contains("error\n"), "{}", first.stderr);
    assert_eq!((first.code(), cold.code()), (7, 7));

    // Podman's word for what is not there.
    let absent = run(&env, &["hello", "/no/such"]);
    absent.assert_code(127);
    assert!(!booted(&absent) && absent.stderr.contains("/no/such"), "{}", absent.stderr);
    // A directory that only Podman can judge.
    let nowhere = run(&env, &["-w", "/no/such", "hello", "pwd"]);
    assert!(booted(&nowhere), "{}", nowhere.stderr);
    assert_eq!(entries(&env).len(), 1);
    // Another user is another container: it boots, and in the background one is prepared for the next.
    for has_booted in [true, false] {
        let user = run(&env, &["--user", "5:6", "hello", "id"]);
        let id = user.stdout();
        assert!(id.starts_with("uid=5") && id.contains(" gid=6"), "{id}");
        assert_eq!(booted(&user), has_booted, "{}", user.stderr);
        env.wait_for_processes();
    }
    assert_eq!(entries(&env).len(), 2);
    assert!(env.list().is_empty());
}

#[test]
fn vm_a_warm_vm_lives_as_any_other() {
    let Some(env) = vm() else { return };
    prepare(&env, &["-i", "hello"]);
    let script =
        "n=$(cat /n 2> /dev/null); echo $((n+1)) > /n; echo run $((n+1)); exec busybox nc -ll -p 80 -e cat";
    let web = ["-d", "-i", "--name", "web", "-m", "256m", "-p", "80", "hello", "sh", "-c", script];
    warm(env.run(&web)).run().assert_code(0);
    let inspect = |field: &str| env.fcvm().args(["inspect", "--format", field, "web"]).run().ok();
    assert_eq!(inspect("{{.process_type}} {{.warm_start}}"), "vm created");
    let id = inspect("{{.id}}");
    let exec = |script: &str| env.fcvm().args(["exec", "web", "sh", "-c", script]).run().ok();
    assert_eq!(exec("hostname; cat /etc/hostname"), format!("{0}\n{0}", &id[..12]));
    let follower = env.fcvm().args(["logs", "--follow", "web"]).spawn();
    follower.wait_for_stdout("run 1\n");
    exec("until grep -q ':0050 .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done");
    let port = env.fcvm().args(["port", "web"]).run().ok();
    let address = port.rsplit(' ').next().unwrap().to_owned();
    assert_eq!(echo(TcpStream::connect(address).unwrap(), b"hello"), b"hello");
    // The same container, with the same program.
    env.fcvm().args(["restart", "-t", "0", "web"]).run().assert_code(0);
    follower.wait_for_stdout("run 2\n");
    env.fcvm().args(["snapshot", "create", "web", "--tag", "of-warm"]).run().assert_code(0);
    env.fcvm()
        .args(["snapshot", "run", "--snapshot", "of-warm", "--exec", "cat /n"])
        .run()
        .assert_stdout("2");
    env.fcvm().args(["snapshot", "rm", "of-warm"]).run().assert_code(0);
    env.fcvm().args(["rm", "-f", "web"]).run().assert_code(0);
    let mut echo =
        warm(env.run(&["-i", "--timings", "-m", "256m", "hello", "cat"])).stdin(Stdio::piped()).spawn();
    echo.stdin().write_all(b"in and out").unwrap();
    let echoed = echo.wait();
    assert_eq!(echoed.stdout(), "in and out");
    assert!(!booted(&echoed), "{}", echoed.stderr);
}

#[test]
fn vm_what_was_prepared_and_is_damaged_or_half_made_is_not_used() {
    let Some(env) = vm() else { return };
    prepare(&env, &["hello"]);
    let [entry] = &entries(&env)[..] else { panic!("{:?}", entries(&env)) };
    // Of the same size and date, so that only going on from it tells.
    let memory = entry.join("state");
    let (length, modified) =
        (fs::metadata(&memory).unwrap().len(), fs::metadata(&memory).unwrap().modified().unwrap());
    fs::write(&memory, vec![0xa5; usize::try_from(length).unwrap()]).unwrap();
    fs::File::options().write(true).open(&memory).unwrap().set_modified(modified).unwrap();
    let fallen = run(&env, &["hello", "echo", "out"]);
    assert_eq!((fallen.code(), &*fallen.stdout()), (0, "out\n"), "{}", fallen.stderr);
    assert!(booted(&fallen) && fallen.stderr.contains("a prepared VM is unusable"), "{}", fallen.stderr);
    // The next command removes what is left of it.
    let listed = env.fcvm().arg("ls").run();
    listed.assert_code(0);
    assert!(entries(&env).is_empty(), "{:?}", entries(&env));

    prepare(&env, &["hello"]);
    let memory = entries(&env)[0].join("memory.bin");
    fs::remove_file(memory).unwrap();
    // One that asks for a boot has no part in it.
    let asked = run(&env, &["--no-snapshot", "hello", "true"]);
    assert!(booted(&asked) && asked.code() == 0 && entries(&env).len() == 1, "{}", asked.stderr);
    let fallen = run(&env, &["hello", "echo", "out"]);
    assert!(booted(&fallen) && fallen.stderr.contains("memory.bin` is missing"), "{}", fallen.stderr);
    env.wait_for_processes();

    // Killed on its way, it leaves nothing that the next command does not remove.
    fs::remove_dir_all(env.data().join("cache/warm")).unwrap();
    if cfg!(feature = "failpoints") {
        let all = [&["podman", "prepare", "-m", "256m"], env.options(), &["hello"]].concat();
        let killed = warm(env.fcvm().args(all)).env(VARIABLE, "snapshot-files-written=kill").run();
        assert_eq!(killed.status.code(), None, "{}", killed.stderr);
        env.wait_for_processes();
        env.fcvm().arg("ls").run().assert_code(0);
        assert!(entries(&env).is_empty(), "{:?}", entries(&env));
    }
}

#[test]
fn vm_a_healthy_container_is_there_at_once_for_the_same_run_only() {
    let Some(env) = vm() else { return };
    let script = "echo $$ > /began; while :; do sleep 1000; done";
    let health = ["--cache-at", "healthy", "--health-cmd", "test -f /began", "--health-interval", "1s"];
    let service = |value: &str| {
        let container = ["-e", value, "hello", "sh", "-c", script];
        [&health[..], &container].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let same = service("A=b");
    let same: Vec<_> = same.iter().map(String::as_str).collect();
    prepare(&env, &same);
    let start = |name: &str, arguments: &[&str]| {
        warm(env.run(&[&["-d", "--rm", "--name", name, "-m", "256m"], arguments].concat()))
            .run()
            .assert_code(0);
        env.fcvm().args(["inspect", "--format", "{{.warm_start}} {{.process_type}}", name]).run().ok()
    };
    assert_eq!(start("one", &same), "healthy vm");
    let exec = env.fcvm().args(["exec", "one", "sh", "-c", "echo $A; cat /began; hostname"]).run().ok();
    let id = env.fcvm().args(["inspect", "--format", "{{.id}}", "one"]).run().ok();
    assert_eq!(exec, format!("b\n1\n{}", &id[..12]));
    let unfit = [&["podman", "prepare", "--cache-at", "healthy"], env.options(), &["-i", "hello"]].concat();
    let unfit = warm(env.fcvm().args(unfit)).run();
    unfit.assert_code(125);
    assert!(unfit.stderr.contains("always boots") && unfit.stderr.contains("hint: "), "{}", unfit.stderr);
    env.fcvm().args(["rm", "-f", "one"]).run().assert_code(0);
    env.wait_for_processes();
}

#[test]
fn vm_a_shell_at_a_terminal_starts_warm() {
    let Some(env) = vm() else { return };
    let Some(screen) = Screen::new(&env, 100, 50) else { return };
    prepare(&env, &["-it", "hello"]);
    screen.line("env -u FCVM_NO_SNAPSHOT $FCVM podman run -it --timings -m 256m hello sh; echo status: $?");
    screen.wait_for("/ #");
    screen.line("stty size; tty; echo $TERM");
    let text = screen.wait_for("xterm");
    assert!(text.contains("50 100") && text.contains("/dev/pts/0"), "{text}");
    screen.resize(90, 45);
    screen.line("until stty size | grep -x '45 90'; do :; done; echo resi''zed");
    screen.wait_for("resized");
    screen.line("exit 7");
    let text = screen.wait_for("status: 7");
    assert!(!text.contains("kernel "), "it booted: {text}");
    screen.wait_for_prompt();
    screen.assert_sane();
}
