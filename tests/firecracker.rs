//! VMs on Firecracker: what goes wrong before a guest runs, and what fcvm makes of it. What a guest
//! shows is in the group `firecracker` of the other tests.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    fs,
    io::Read as _,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::PathBuf,
};

use fcvm::{
    hypervisor::{Death, Hypervisor as _, MachineConfig, MachineOptions, Stop, firecracker},
    setup::{Assets, Overrides},
    storage::DataDir,
};
use fcvm_proto::session::LinkKey;
use fcvm_testkit::{TestEnv, needs_programs, needs_root, skip};

#[cfg(feature = "failpoints")]
use fcvm::failpoint::VARIABLE;

/// A program without failpoints has none.
#[cfg(not(feature = "failpoints"))]
const VARIABLE: &str = "";

fn vm() -> Option<TestEnv> {
    TestEnv::for_firecracker(env!("CARGO_BIN_EXE_fcvm"))
}

/// A program that is called `firecracker`.
fn program_that_says(env: &TestEnv, script: &str) -> PathBuf {
    let path = env.file("firecracker", format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Insists on a refusal that says this, in standard error.
#[track_caller]
fn assert_refused(env: &TestEnv, arguments: &[&str], words: &[&str]) {
    let output = env.run(arguments).args(["hello", "true"]).run();
    output.assert_code(125);
    for words in words {
        assert!(output.stderr.contains(words), "`{words}` is not in:\n{}", output.stderr);
    }
    env.assert_nothing_left();
}

#[test]
fn vm_firecracker_killed_at_any_step_is_told_and_undone() {
    let Some(env) = vm() else { return };
    if VARIABLE.is_empty() {
        return skip("fcvm was built without --features fcvm/failpoints");
    }
    for point in ["hypervisor-recorded", "api-ready", "configured", "instance-started"] {
        eprintln!("at {point}");
        let running = env.run(&["hello", "true"]).env(VARIABLE, format!("{point}=stop")).spawn();
        running.wait_until_stopped();
        env.kill_hypervisors();
        running.signal(rustix::process::Signal::CONT);
        let output = running.wait();
        output.assert_code(125);
        let text = "error: `firecracker` died: signal: 9 (SIGKILL); its last messages:";
        assert!(output.stderr.contains(text), "{point}: {}", output.stderr);
        env.assert_nothing_left();
    }
    // The other way round: its machine dies with fcvm.
    for point in ["api-ready", "configured", "instance-started"] {
        eprintln!("fcvm at {point}");
        let running = env.run(&["hello", "true"]).env(VARIABLE, format!("{point}=stop")).spawn();
        running.wait_until_stopped();
        assert_eq!(env.hypervisors().len(), 1);
        assert_eq!(env.kill(running).code(), 137);
        assert!(env.list().is_empty());
        env.assert_nothing_left();
    }
}

#[test]
fn vm_firecracker_of_another_kind_or_age_is_refused() {
    let Some(env) = vm() else { return };
    let given = |script| program_that_says(&env, script).display().to_string();
    let old = given("echo Firecracker v1.10.1");
    let words =
        ["is Firecracker 1.10.1, older than 1.16.1", "hint: `fcvm setup --with-firecracker` downloads"];
    assert_refused(&env, &["--firecracker", &old], &words);
    let other = given("echo hello; echo world");
    assert_refused(&env, &["--firecracker", &other], &["is no Firecracker: its `--version` says `hello`"]);
    assert_refused(&env, &["--firecracker", "/nonexistent"], &["failed to start `/nonexistent`"]);
}

#[test]
fn vm_firecracker_that_ends_by_itself_is_explained() {
    let Some(env) = vm() else { return };
    for (code, why) in
        [(148, "its seccomp filter stopped a forbidden system call"), (153, "another version?")]
    {
        let script = format!(
            "if [ \"$1\" = --version ]; then echo Firecracker v1.16.1; exit; fi\necho wrong >&2; exit {code}"
        );
        let given = program_that_says(&env, &script).display().to_string();
        let died = format!("error: `firecracker` died: exit status: {code} (");
        assert_refused(&env, &["--firecracker", &given], &[&died, why, "  | wrong"]);
    }
}

#[test]
fn vm_firecracker_refuses_what_it_cannot_run() {
    let Some(env) = vm() else { return };
    let long = "x".repeat(1500);
    assert_refused(
        &env,
        &["--kernel-args", &long],
        &["Firecracker takes 1408", "hint: shorten --kernel-args"],
    );
    // What has the magic number of a kernel and nothing else of one.
    let mut elf = vec![0_u8; 4096];
    elf[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0");
    let kernel = env.file("vmlinux", elf).display().to_string();
    let output = env.run(&["--kernel", &kernel, "hello", "true"]).run();
    output.assert_code(125);
    let words = "error: Firecracker refused `PUT /actions` (HTTP 400): Start microvm error:";
    assert!(output.stderr.contains(words), "{}", output.stderr);
    assert!(output.stderr.contains("hint: give --kernel"), "{}", output.stderr);
    env.assert_nothing_left();
}

#[test]
fn root_vm_firecracker_jailer_says_what_it_lacks() {
    if !needs_root() || !needs_programs(&["setpriv"]) {
        return;
    }
    let Some(env) = vm() else { return };
    // No file need be reached: this is looked at first.
    let program = env.sockets().join("fcvm");
    fs::copy(env.program(), &program).unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    command.args(["--data-dir", "/tmp/none", "podman", "run", "--jailer", "hello"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(
        said.contains("error: Firecracker's jailer can be used by root only\nhint: run fcvm as root;"),
        "{said}"
    );
    // A script, as a program that is linked dynamically, does not start where there is nothing else.
    let script = program_that_says(&env, "echo Firecracker v1.16.1");
    let words =
        ["is not linked statically: the jailer cannot start it", "hint: the programs of releases are static"];
    fs::write(script.with_file_name("jailer"), "#!/bin/sh\n").unwrap();
    assert_refused(&env, &["--firecracker", &script.display().to_string(), "--jailer"], &words);
    fs::remove_file(script.with_file_name("jailer")).unwrap();
    let words = ["`nothing.max` cannot be set", "hint: `cat /sys/fs/cgroup/cgroup.controllers`"];
    if env
        .variable("FCVM_FIRECRACKER")
        .is_some_and(|program| PathBuf::from(program).with_file_name("jailer").exists())
    {
        let arguments = ["--jailer", "--cgroup-conf", "nothing.max=1"];
        let output = env.run(&arguments).args(["hello", "true"]).run();
        output.assert_code(125);
        let dynamic = output.stderr.contains("is not linked statically");
        assert!(dynamic || words.iter().all(|words| output.stderr.contains(words)), "{}", output.stderr);
    }
    let output = env.run(&["--hypervisor", "qemu", "--jailer", "hello", "true"]).run();
    output.assert_code(125);
    assert!(output.stderr.contains("qemu has no `--jailer`"), "{}", output.stderr);
    env.assert_nothing_left();
}

/// Only who has a token is told, and a token is had by PUT.
const METADATA: &str = r#"
ask() { printf "$1 HTTP/1.1\r\nHost: m\r\n$2\r\n" | nc -w 600 169.254.169.254 80; }
wget -q -O- http://169.254.169.254/name 2>&1; echo "without: $?"
ask "PUT /latest/api/token" "X-metadata-token-ttl-seconds: 600\r\n" > /tmp/answer &
until grep -qE '^[A-Za-z0-9+/=]{40,}$' /tmp/answer; do sleep 0.1; done
token=$(tail -n 1 /tmp/answer)
for path in name hostname labels/a; do
    wget -q -O- --header "X-metadata-token: $token" http://169.254.169.254/$path; echo
done
wget -q -O- --header "X-metadata-token: $token" --header "Accept: application/json" http://169.254.169.254/labels
exit 0
"#;

#[test]
fn vm_metadata_is_served_to_who_has_a_token() {
    let Some(env) = vm() else { return };
    let arguments =
        ["--name", "told", "--hostname", "host", "--label", "a=b c", "hello", "sh", "-c", METADATA];
    let output = env.run(&arguments).run();
    let expected = "wget: server returned error: HTTP/1.1 401 \nwithout: 1\ntold\nhost\nb c\n{\"a\":\"b c\"}";
    output.assert_stdout(expected);
}

/// Sockets that a machine which was killed has left do not keep the next from starting.
#[test]
fn vm_firecracker_sockets_have_short_paths() {
    let Some(env) = vm() else { return };
    let long = env.sockets().join("run").join("x".repeat(100));
    let output = env.run(&["hello", "true"]).env("FCVM_RUNTIME_DIR", &long).run();
    output.assert_code(125);
    assert!(output.stderr.contains("hint: set FCVM_RUNTIME_DIR to a shorter directory"), "{}", output.stderr);
    fs::remove_dir(long).unwrap();
}

#[test]
fn root_vm_firecracker_without_permission_for_kvm_says_what_to_do() {
    if !needs_root() || !needs_programs(&["setpriv"]) {
        return;
    }
    let Some(env) = vm() else { return };
    let kvm = fs::metadata("/dev/kvm").unwrap().permissions().mode();
    if kvm & 0o006 != 0 {
        return skip("anybody may open /dev/kvm here");
    }
    // A user without any group, who need not reach any file: this is looked at first.
    let data = env.root().join("theirs");
    fs::create_dir(&data).unwrap();
    for directory in [env.root(), &data, env.sockets()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let fcvm = env.program().display().to_string();
    let output = env
        .program_in_env("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", &fcvm, "podman", "run"])
        .args(["--hypervisor", "firecracker", "hello", "true"])
        .env("FCVM_DATA_DIR", &data)
        .run();
    output.assert_code(125);
    let words = "Firecracker cannot run here: no permission for /dev/kvm";
    assert!(output.stderr.contains(words), "{}", output.stderr);
    assert!(output.stderr.contains("usermod -aG kvm"), "{}", output.stderr);
    fs::remove_dir_all(data).unwrap();
}

/// A socket of that name in the machine's directory is not ours to be afraid of.
#[test]
fn vm_firecracker_takes_the_place_of_stale_sockets() {
    let Some(env) = vm() else { return };
    if VARIABLE.is_empty() {
        return skip("fcvm was built without --features fcvm/failpoints");
    }
    let run = env.run(&["hello", "true"]).env("RUST_LOG", "firecracker=debug");
    let running = run.env(VARIABLE, "log-made=stop").spawn();
    running.wait_until_stopped();
    let directories = fs::read_dir(env.runtime()).unwrap().map(|entry| entry.unwrap().path());
    let directory = directories.into_iter().next().unwrap().join("vmm");
    fs::create_dir(&directory).unwrap();
    for name in ["api.sock", "vsock.sock", "vsock.sock_1024"] {
        drop(UnixListener::bind(directory.join(name)).unwrap());
    }
    running.signal(rustix::process::Signal::CONT);
    // It boots: that takes a while, and is shown by others.
    running.wait_for_stderr("path=\"/actions\" status=204");
    running.signal(rustix::process::Signal::INT);
    running.wait().assert_code(130);
    env.assert_nothing_left();
}

/// A console that is full, as nobody reads it, is no reason for the guest to wait.
#[test]
fn vm_firecracker_runs_on_while_nobody_reads_its_console() {
    let Some(env) = vm() else { return };
    let data = DataDir::open(Some(env.data().to_owned())).unwrap();
    let of = |name| env.variable(name).map(PathBuf::from);
    let agent = env.program().ancestors().nth(2).map(|target| target.join("libexec/fcvm/fc-agent"));
    let overrides = Overrides { agent, kernel: of("FCVM_KERNEL"), ..Overrides::default() };
    let assets = Assets::locate(&data, &overrides).unwrap();
    let directory = env.sockets().join("unread");
    fs::create_dir(&directory).unwrap();
    let machine = MachineConfig {
        name: "unread".into(),
        id: "0123456789abcdef".into(),
        kernel: assets.kernel,
        initrd: assets.initrd,
        // Says all it has to say, and resets as it finds no init.
        kernel_arguments: Some(format!(
            "ignore_loglevel rdinit=/nonexistent {}",
            env.kernel_parameters().unwrap_or_default()
        )),
        link_key: LinkKey([1; 16]),
        cpus: 1,
        memory_mib: 256,
        disks: Vec::new(),
        network: None,
        options: MachineOptions::default(),
        metadata: None,
        runtime_dir: directory,
        save_dir: env.root().to_owned(),
        saved: None,
    };
    let backend = firecracker::find(of("FCVM_FIRECRACKER").as_deref(), &data).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut started = backend.launch(&machine).unwrap();
        rustix::pipe::fcntl_setpipe_size(&started.console, 4096).unwrap();
        let status = tokio::select! {
            status = started.process.wait() => status.unwrap(),
            connected = started.link.pipe() => panic!("a guest without an agent: {connected:?}"),
        };
        assert_eq!(backend.death(status, ""), Death::Guest(Stop::Reset), "{status}");
        let mut said = Vec::new();
        fs::File::from(started.console).read_to_end(&mut said).unwrap();
        assert_eq!(said.len(), 4096, "all that had room, and no more");
    });
}
