//! Several users of one machine: their VMs are none of the others' business.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    fs::{self, Permissions},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use fcvm_testkit::{
    Fcvm, Layer, TestEnv, World, kill_uplink, needs_programs, needs_root, skip, world::OUTSIDE,
};
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

/// Where the user's subordinate ids begin in [`with_ranges`].
const RANGE: u32 = 700_000;

/// The same command for a user who has a name and subordinate ids: for its own eyes only.
fn with_ranges(user: &User<'_>, arguments: &[&str]) -> Fcvm {
    let directory = user.env.root();
    for (file, line) in [
        ("passwd", format!("root:x:0:0::/root:/bin/sh\nranger:x:{UID}:{UID}::/:/bin/sh\n")),
        ("subuid", format!("ranger:{RANGE}:65536\n")),
        ("subgid", format!("ranger:{RANGE}:65536\n")),
    ] {
        fs::write(directory.join(file), line).unwrap();
    }
    let script = format!(
        "for file in passwd subuid subgid; do mount --bind $0/$file /etc/$file || exit; done
         exec setpriv --reuid={UID} --regid={UID} --clear-groups \"$@\""
    );
    let fcvm = user.env.program_in_env("unshare").args(["--mount", "sh", "-c", &script]).arg(directory);
    fcvm.arg(user.env.program())
        .args(arguments)
        .env_remove("HOME")
        .env("FCVM_DATA_DIR", &user.data)
        .env("FCVM_RUNTIME_DIR", &user.sockets)
}

#[test]
fn root_vm_an_ordinary_users_files_are_roots_in_the_guest() {
    if !needs_programs(&["unshare", "newuidmap"]) {
        return;
    }
    let Some(env) = env() else { return };
    let user = User::new(&env);
    let shared = user.data.join("shared");
    fs::create_dir(&shared).unwrap();
    chown(&shared, Some(UID), Some(UID)).unwrap();
    fs::write(shared.join("foreign"), "").unwrap();
    let owner = |name: &str| {
        let found = fs::metadata(shared.join(name)).unwrap();
        (found.uid(), found.gid())
    };
    let map = format!("{}:/shared", shared.display());

    // Without ranges everything is the user's, and nothing can be given away.
    let script = "touch /shared/made; stat -c %u:%g /shared /shared/made /shared/foreign; \
                  chown 1000 /shared/made 2>/dev/null || echo refused";
    let output = user.fcvm().args(["podman", "run", "-v", &map, "hello", "sh", "-c", script]).run();
    assert_eq!(output.ok(), "0:0\n0:0\n65534:65534\nrefused");
    assert_eq!(owner("made"), (UID, UID));
    let same = format!("{map}:idmap=same");
    let output = user.fcvm().args(["podman", "run", "-v", &same, "hello", "true"]).run();
    output.assert_code(125);
    assert!(output.stderr.contains("idmap=same takes root"), "{}", output.stderr);

    // With ranges other users of the guest are of those.
    let script = "mkdir -p /data/dir; touch /data/dir/file; chown -R 1000:1001 /data/dir; chmod 700 /data/dir; \
                  stat -c %u:%g /data /data/dir/file";
    let output =
        with_ranges(&user, &["podman", "run", "-v", "data:/data", "hello", "sh", "-c", script]).run();
    assert_eq!(output.ok(), "0:0\n1000:1001");
    let data = user.fcvm().args(["volume", "inspect", "data", "--format", "{{.Mountpoint}}"]).run().ok();
    let made = fs::metadata(Path::new(&data).join("dir/file")).unwrap();
    assert_eq!((made.uid(), made.gid()), (RANGE + 999, RANGE + 1000));
    // Who may not look into the directory removes it all the same.
    assert_eq!(with_ranges(&user, &["volume", "rm", "data"]).run().ok(), "data");
    assert!(!Path::new(&data).exists());
    env.assert_nothing_left();
}

#[test]
fn root_vm_an_ordinary_users_vm_has_a_network() {
    let Some(env) = env() else { return };
    if !needs_programs(&["pasta", "slirp4netns", "passt"]) {
        return;
    }
    let Some(world) = World::new() else { return };
    let env = env.on(&world);
    let user = User::new(&env);
    let outside = world.outside(|| TcpListener::bind((OUTSIDE[0], 1000)).unwrap());
    thread::spawn(move || {
        for stream in outside.incoming() {
            stream.unwrap().write_all(b"outside\n").unwrap();
        }
    });
    let script = "busybox nc -ll -p 8000 -e echo inside & echo ready; wait";
    for driver in ["pasta", "slirp4netns", "passt"] {
        if driver == "passt" {
            // What it is for.
            assert_eq!(world.shell("chmod 600 /dev/net/tun"), "");
        }
        let mut run = user.fcvm().args(["podman", "run", "-d", "--name", driver, "-p", "8080:8000"]);
        if driver != "passt" {
            run = run.args(["--rootless-driver", driver]);
        }
        run.args(["hello", "sh", "-c", script]).run().assert_code(0);
        // Its input has no end: that of its half of the connection is not what this is about.
        let out = format!("mkfifo /tmp/in; busybox nc {} 1000 <> /tmp/in", OUTSIDE[0]);
        let out = user.fcvm().args(["exec", driver, "sh", "-c", &out]).run();
        assert_eq!(out.ok(), "outside", "{driver}: {}", out.stderr);
        let published = user.fcvm().args(["port", driver, "8000"]).run().ok();
        let mut inside = String::new();
        let mut stream = world.on_host(|| TcpStream::connect(&published).unwrap());
        stream.read_to_string(&mut inside).unwrap();
        assert_eq!(inside, "inside\n", "{driver}");
        if driver != "passt" {
            // Another one finds the user's namespaces, too.
            let owner = user.fcvm().args(["inspect", driver, "--format", "{{.owner.pid}}"]).run().ok();
            kill_uplink(&owner, driver);
            let is_told = || {
                let mut stream = world.on_host(|| TcpStream::connect(&published)).ok()?;
                stream.read_to_string(&mut String::new()).ok().filter(|length| *length == inside.len())
            };
            while is_told().is_none() {}
        }
        user.fcvm().args(["rm", "--force", driver]).run().assert_code(0);
        env.assert_nothing_left();
    }
    assert_eq!(world.leftovers(), [""; 0]);
}
