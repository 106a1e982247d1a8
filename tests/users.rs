//! Several users of one machine: their VMs are none of the others' business.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use fcvm_testkit::{Fcvm, Layer, TestEnv, needs_programs, needs_root, skip};
use rustix::process::{Pid, Signal, kill_process};

/// A user that this machine most likely does not have.
const UID: u32 = 54321;

/// A container that lives until a signal.
const LOOP: &str = "echo ready; while :; do sleep 0.1; done";

/// Another user, with a data directory and one for sockets.
struct User<'a> {
    env: &'a TestEnv,
    data: PathBuf,
    sockets: PathBuf,
}

impl<'a> User<'a> {
    /// Gives the user what `fcvm setup` has made.
    fn new(env: &'a TestEnv) -> Self {
        // Others may go through these directories, and see nothing in them.
        for directory in [env.root(), env.sockets()] {
            fs::set_permissions(directory, Permissions::from_mode(0o711)).unwrap();
        }
        let (data, sockets) = (env.root().join("other"), env.sockets().join("other"));
        for directory in [&data, &sockets] {
            fs::create_dir(directory).unwrap();
            chown(directory, Some(UID), Some(UID)).unwrap();
        }
        for directory in ["kernels", "rootfs", "initrd"] {
            let assets = fs::canonicalize(env.data().join(directory)).unwrap();
            let mut copy = Command::new("cp");
            copy.args(["-a", "--sparse=always"]).arg(assets).arg(data.join(directory));
            assert!(copy.status().unwrap().success());
        }
        let tarball = data.join("hello.tar");
        fs::write(&tarball, Layer::new().busybox().to_tar()).unwrap();
        let owner = format!("{UID}:{UID}");
        assert!(Command::new("chown").args(["-R", &owner]).arg(&data).status().unwrap().success());
        let user = Self { env, data, sockets };
        user.fcvm().args(["image", "import", "hello"]).arg(tarball).run().assert_code(0);
        user
    }

    /// `fcvm …` as that user, who has no home.
    fn fcvm(&self) -> Fcvm {
        let become_user = [format!("--reuid={UID}"), format!("--regid={UID}"), "--clear-groups".into()];
        self.env
            .program_in_env("setpriv")
            .args(become_user)
            .arg(self.env.program())
            .env_remove("HOME")
            .env("FCVM_DATA_DIR", &self.data)
            .env("FCVM_RUNTIME_DIR", &self.sockets)
    }

    /// Starts a container in the background; its id.
    fn detach(&self) -> String {
        self.fcvm().args(["podman", "run", "-d", "--name", "web", "hello", "sh", "-c", LOOP]).run().ok()
    }

    fn state(&self, id: &str) -> PathBuf {
        self.data.join("state").join(format!("{id}.json"))
    }
}

/// Root's environment, where another user can do what this test wants of one.
fn env() -> Option<TestEnv> {
    if !needs_root() || !needs_programs(&["setpriv", "chown"]) {
        return None;
    }
    let env = TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm"))?;
    let open = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o001 != 0;
    if !fs::canonicalize(env.program()).unwrap().ancestors().all(open) {
        skip("other users cannot reach the built program");
        return None;
    }
    Some(env)
}

/// Insists that a VM of `data` cannot be reached, whatever is tried.
fn assert_refused(fcvm: impl Fn() -> Fcvm, data: &Path, owner: u32) {
    for arguments in [
        &["ls"][..],
        &["inspect", "web"],
        &["exec", "web", "true"],
        &["stop", "web"],
        &["kill", "web"],
        &["wait", "web"],
        &["logs", "web"],
        &["rm", "--force", "web"],
        &["rm", "--force", "--all"],
        &["stop", "--all"],
    ] {
        let output = fcvm().arg("--data-dir").arg(data).args(arguments).run();
        output.assert_code(125);
        let text = format!("state` belong to user {owner}\nhint: name a data directory of your own");
        assert!(output.stderr.contains(&text), "{arguments:?}: {}", output.stderr);
    }
    // It may fail before it comes to VMs.
    let output = fcvm().arg("--data-dir").arg(data).args(["podman", "run", "hello", "true"]).run();
    output.assert_code(125);
    assert!(output.stderr.contains("\nhint: "), "{}", output.stderr);
}

#[test]
fn root_vm_two_users_have_vms_of_their_own() {
    let Some(env) = env() else { return };
    let user = User::new(&env);
    let root = || env.fcvm().env_remove("HOME");
    // At the same time, with the same name.
    let roots = env.run(&["-d", "--name", "web", "hello", "sh", "-c", LOOP]).spawn();
    let users = user.detach();
    let roots = roots.wait().ok();
    assert_eq!(root().args(["ls", "--quiet"]).run().ok(), roots[..12]);
    assert_eq!(user.fcvm().args(["ls", "--quiet"]).run().ok(), users[..12]);
    let whoami = |fcvm: Fcvm| fcvm.args(["exec", "web", "hostname"]).run().ok();
    assert_eq!((whoami(root()), whoami(user.fcvm())), (roots[..12].to_owned(), users[..12].to_owned()));

    assert_refused(|| user.fcvm(), env.data(), 0);
    assert_refused(root, &user.data, UID);
    // The other's sockets do not help.
    let output = user.fcvm().env("FCVM_RUNTIME_DIR", env.runtime()).args(["exec", "web", "true"]).run();
    output.assert_code(125);
    let output = user.fcvm().env("FCVM_RUNTIME_DIR", env.runtime());
    let output = output.args(["podman", "run", "hello", "true"]).run();
    output.assert_code(125);
    assert!(output.stderr.contains("hint: set FCVM_RUNTIME_DIR"), "{}", output.stderr);

    // What died of one is the affair of that one.
    let supervisor: i32 =
        user.fcvm().args(["inspect", "--format", ".pid", "web"]).run().ok().parse().unwrap();
    let before = fs::read(user.state(&users)).unwrap();
    kill_process(Pid::from_raw(supervisor).unwrap(), Signal::KILL).unwrap();
    root().args(["ls", "--all"]).run().assert_code(0);
    root().arg("--data-dir").arg(&user.data).args(["image", "ls"]).run().assert_code(0);
    assert!(fs::read(user.state(&users)).unwrap() == before);
    let exited = user.fcvm().args(["ls", "--all"]).run().ok();
    assert!(exited.contains("exited (?)"), "{exited}");
    assert_eq!(whoami(root()), roots[..12]);
    user.fcvm().args(["rm", "web"]).run().assert_code(0);

    // A record that its reader may not read is none of its own.
    let foreign = user.state("0123456789abcdef0123456789abcdef");
    fs::write(&foreign, "{}").unwrap();
    fs::set_permissions(&foreign, Permissions::from_mode(0o600)).unwrap();
    let listed = user.fcvm().args(["ls", "--all", "--quiet"]).run();
    listed.assert_stdout("");
    assert!(listed.stderr.contains("unreadable VM state"), "{}", listed.stderr);
    fs::remove_file(foreign).unwrap();

    root().args(["rm", "--force", "web"]).run().assert_stdout("web");
    env.assert_nothing_left();
    for directory in [user.data.join("vms"), user.sockets.clone()] {
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "{}", directory.display());
    }
}

#[test]
fn root_vm_a_user_needs_no_home() {
    let Some(env) = env() else { return };
    let user = User::new(&env);
    let homeless = user.fcvm().env_remove("FCVM_RUNTIME_DIR").env_remove("XDG_RUNTIME_DIR");
    homeless.args(["podman", "run", "hello", "echo", "ok"]).run().assert_stdout("ok");
    let sockets = PathBuf::from(format!("/tmp/fcvm-{UID}"));
    assert_eq!(fs::metadata(&sockets).unwrap().permissions().mode() & 0o777, 0o700);
    // It is empty.
    fs::remove_dir(sockets).unwrap();
    let lost = user.fcvm().env_remove("FCVM_DATA_DIR").arg("ls").run();
    lost.assert_code(125);
    assert!(lost.stderr.contains("hint: name a directory you can write to"), "{}", lost.stderr);
}
