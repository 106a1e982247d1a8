use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Output, Stdio},
};

use fcvm_testkit::skip;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use tempfile::TempDir;

use super::*;
use crate::process::{
    die_with_parent,
    namespaces::testing::{Maker, USERS},
};

/// A directory with an empty one in it for the sandbox's root, and a file to show.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("root")).unwrap();
    fs::create_dir(directory.path().join("shown")).unwrap();
    fs::write(directory.path().join("file"), "content\n").unwrap();
    directory
}

fn fill(mut view: View, directory: &TempDir) -> View {
    show_libraries(&mut view).unwrap();
    view.show(&directory.path().join("file"), Path::new("/files/one"), Access::Read).unwrap();
    view.show(&directory.path().join("shown"), Path::new("/run"), Access::Write).unwrap();
    view.show(Path::new("/dev/null"), Path::new("/dev/null"), Access::Device).unwrap();
    view.show(Path::new("/proc"), Path::new("/proc"), Access::Read).unwrap();
    view.start_in(Path::new("/run")).unwrap();
    view
}

/// A shell with this script, in that sandbox. Nothing, with a word why, where there are no namespaces.
fn start(sandbox: Sandbox, script: &str) -> Option<(Child, Confined)> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    die_with_parent(&mut command, Signal::KILL);
    let confined = sandbox.confine(&mut command).unwrap();
    let started = command.spawn();
    drop(command);
    match started {
        Ok(child) => Some((child, confined)),
        Err(error) => match confined.explain(error) {
            SandboxError::Namespaces(error) => {
                skip(format!("no namespaces: {error}"));
                None
            }
            error => panic!("{error:?}"),
        },
    }
}

fn run(script: &str) -> Option<Output> {
    let directory = directory();
    let view = fill(View::at(&directory.path().join("root")), &directory);
    let (child, _) = start(Sandbox::entered(view), script)?;
    Some(child.wait_with_output().unwrap())
}

#[track_caller]
fn assert_said(script: &str, expected: &str) {
    let Some(output) = run(script) else { return };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_shown_is_there_and_nothing_else() {
    let mut names = vec!["dev", "files", "proc", "run", "bin", "usr", "lib", "lib64", "etc", "nix", "gnu"];
    names.retain(|name| {
        ["dev", "files", "proc", "run", "etc"].contains(name) || Path::new("/").join(name).exists()
    });
    names.sort_unstable();
    assert_said("ls /", &format!("{}\n", names.join("\n")));
    assert_said("ls /dev /files; cat /files/one; pwd", "/dev:\nnull\n\n/files:\none\ncontent\n/run\n");
    assert_said("cat /proc/net/dev | tail -n +3 | cut -d: -f1", "    lo\n");
}

#[test]
fn what_may_only_be_read_is_not_written() {
    let script = "for path in /files/one /new /files/new /usr/new; do (echo x > $path) 2> /dev/null && echo $path; done; \
                  echo x > /run/new && cat /run/new";
    assert_said(script, "x\n");
}

#[test]
fn it_is_the_first_of_its_processes_and_has_no_privileges() {
    assert_said("echo $$", "1\n");
    let kept = if geteuid().is_root() { "0000000000000002" } else { "0000000000000000" };
    let script = "sed -n 's/^CapEff:\\t//p; s/^NoNewPrivs:\\t//p' /proc/self/status";
    assert_said(script, &format!("{kept}\n1\n"));
    assert_said("mount -t tmpfs none /run 2> /dev/null || echo refused", "refused\n");
}

#[test]
fn its_end_is_the_keepers() {
    let Some(output) = run("exit 7") else { return };
    assert_eq!(output.status.code(), Some(7));
    let directory = directory();
    let view = fill(View::at(&directory.path().join("root")), &directory);
    let Some((child, confined)) = start(Sandbox::entered(view), "read line") else { return };
    let program = confined.program(child.id().cast_signed()).unwrap();
    kill_process(Pid::from_raw(program).unwrap(), Signal::TERM).unwrap();
    kill_process(Pid::from_raw(program).unwrap(), Signal::KILL).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(9), "an init process is not ended by what it does not handle");
}

/// Kills the keeper, and waits for the program.
fn program_dies_with_keeper(sandbox: Sandbox) {
    let Some((child, confined)) = start(sandbox, "read line") else { return };
    let program = confined.program(child.id().cast_signed()).unwrap();
    assert_ne!(program, child.id().cast_signed());
    let end = pidfd_open(Pid::from_raw(program).unwrap(), PidfdFlags::empty()).unwrap();
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::KILL).unwrap();
    let deadline = Timespec { tv_sec: 60, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&deadline)).unwrap();
    assert_eq!(ended, 1, "the program lives on");
    child.wait_with_output().unwrap();
}

#[test]
fn it_dies_with_its_keeper() {
    let directory = directory();
    let view = fill(View::at(&directory.path().join("root")), &directory);
    program_dies_with_keeper(Sandbox::entered(view));
}

#[test]
fn one_that_enters_by_itself_finds_the_view_and_dies_with_its_keeper() {
    let directory = directory();
    let root = directory.path().join("root");
    let view = || fill(View::below(&root, Path::new("name/id")).unwrap(), &directory);
    let script = format!("cd {}/name/id && ls && cat files/one", root.display());
    let Some((child, _)) = start(Sandbox::prepared(view()), &script) else { return };
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("files\n") && said.ends_with("content\n"), "{said}");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "the mounts are not the host's");
    program_dies_with_keeper(Sandbox::prepared(view()));
}

#[test]
fn what_went_wrong_is_told() {
    let directory = directory();
    let view = fill(View::at(&directory.path().join("root")), &directory);
    fs::remove_file(directory.path().join("file")).unwrap();
    let mut command = Command::new("/bin/sh");
    let confined = Sandbox::entered(view).confine(&mut command).unwrap();
    let error = command.spawn().unwrap_err();
    drop(command);
    match confined.explain(error) {
        SandboxError::Mount { path, source } => {
            assert_eq!(path, directory.path().join("file"));
            assert_eq!(source.kind(), io::ErrorKind::NotFound);
        }
        SandboxError::Namespaces(error) => skip(format!("no namespaces: {error}")),
        error => panic!("{error:?}"),
    }
    let mut view = View::at(&directory.path().join("root"));
    let missing = view.show(Path::new("/nonexistent"), Path::new("/x"), Access::Read).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

/// The options of `unshare` for namespaces that this user can have.
fn possible() -> Vec<&'static [&'static str]> {
    if geteuid().is_root() { vec![&["--net"], USERS] } else { vec![USERS] }
}

#[test]
fn given_namespaces_take_the_place_of_its_own() {
    for options in possible() {
        let Some(maker) = Maker::start(options, "ip link add fc0 type veth peer name fc1") else { return };
        let directory = directory();
        let view = fill(View::at(&directory.path().join("root")), &directory);
        let script = "readlink /proc/self/ns/net; cut -d: -sf1 /proc/net/dev | tr -d ' ' | sort; \
                      sed -n 's/^CapEff:\\t//p' /proc/self/status; cat /files/one";
        let sandbox = Sandbox::entered(view).within(Some(maker.namespaces()));
        let Some((child, _)) = start(sandbox, script) else { return };
        let output = child.wait_with_output().unwrap();
        let network = fs::read_link(maker.path("net")).unwrap();
        let kept = if geteuid().is_root() { "0000000000000002" } else { "0000000000000000" };
        let expected = format!("{}\nfc0\nfc1\nlo\n{kept}\ncontent\n", network.display());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, expected, "{}", String::from_utf8_lossy(&output.stderr));
        let view = fill(View::at(&directory.path().join("root")), &directory);
        program_dies_with_keeper(Sandbox::entered(view).within(Some(maker.namespaces())));
    }
}

#[test]
fn root_a_tap_that_is_there_is_given_to_another() {
    if !fcvm_testkit::needs_root() {
        return;
    }
    let Some(maker) = Maker::start(&["--net"], "ip tuntap add tap7 mode tap user 0") else { return };
    let directory = directory();
    let mut view = fill(View::at(&directory.path().join("root")), &directory);
    view.give_tap("tap7", 1234).unwrap();
    let Some((child, _)) = start(Sandbox::entered(view).within(Some(maker.namespaces())), "true") else {
        return;
    };
    assert!(child.wait_with_output().unwrap().status.success());
    let mut command = Command::new("ip");
    command.args(["-oneline", "-details", "link", "show", "dev", "tap7"]);
    maker.namespaces().join(&mut command);
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(said.contains(" tap7: ") && said.contains(" user 1234 "), "{said}");
}
