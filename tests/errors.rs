//! Bad input and broken machines: one paragraph, a hint, the right code, and
//! nothing left behind. The messages are in `snapshots/`.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    fs::{self, OpenOptions},
    net::TcpListener,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::PathBuf,
};

use fcvm_testkit::{LoopMount, Output, TestEnv, needs_programs, needs_root, skip};

const FCVM: &str = env!("CARGO_BIN_EXE_fcvm");

/// Checks code and message; paths and what differs by machine are replaced.
fn snapshot(env: &TestEnv, name: &str, output: &Output) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/snapshots"));
    let data = fs::canonicalize(env.data()).unwrap_or_else(|_| env.data().to_owned());
    let root = fs::canonicalize(env.root()).unwrap();
    let sockets = env.sockets().display().to_string();
    let paths =
        [(data.display().to_string(), "[DATA]"), (root.display().to_string(), "[ROOT]"), (sockets, "[RUN]")];
    let text = format!("exit code: {}\nstdout: {:?}\n{}", output.code(), output.stdout(), output.stderr);
    settings.add_filter(r"the \d+ MiB that this host has", "the [N] MiB that this host has");
    let text = paths.iter().fold(text, |text, (path, name)| text.replace(path, name));
    settings.add_filter(r"[^\s`]*/test-assets", "[ASSETS]");
    settings.add_filter(r"\b[0-9a-f]{12}\b", "[KEY]");
    settings.add_filter(r"sha256:[0-9a-f]{64}", "sha256:[DIGEST]");
    settings.add_filter(r"scratch-[0-9-]+\.ext4", "scratch-[SIZE].ext4");
    settings.add_filter(r"qemu-system-\w+", "qemu-system-[ARCH]");
    settings.add_filter(r"linux/\w+", "linux/[ARCH]");
    // A guest's console: what it says and how many lines is the kernel's affair.
    settings.add_filter(r"(?m)(^  \| .*\n)+", "  | [CONSOLE]\n");
    settings.add_filter(r"VM [0-9a-f]{6,}", "VM [ID]");
    settings.add_filter(r"(?m)^\d{4}-\d\d-\d\dT\S+Z", "[TIME]");
    settings.add_filter(r"vm\{name=\w+\}", "vm{name=[NAME]}");
    settings.add_filter(r"\d+ (bytes|GB|MB|kB|B)\b", "[N] $1");
    settings.add_filter(r"\d+\.\d+ (GB|MB|kB)\b", "[N] $1");
    settings.bind(|| insta::assert_snapshot!(name, text));
    env.assert_nothing_left();
}

#[test]
fn not_set_up() {
    let env = TestEnv::new(FCVM);
    snapshot(&env, "not-set-up", &env.run(&["hello", "true"]).run());
}

#[test]
fn bad_values() {
    let env = TestEnv::new(FCVM);
    for (name, options) in [
        ("memory-without-unit", &["-m", "512"][..]),
        ("memory-word", &["--memory", "much"]),
        ("memory-too-large", &["--memory", "99999999t"]),
        ("cpus-none", &["--cpus", "0"]),
        ("cpus-many", &["--cpus", "99"]),
        ("cpus-word", &["--cpus", "two"]),
        ("balloon", &["--balloon", "much"]),
        ("disk-bps", &["--disk-bps", "10"]),
        ("disk-iops", &["--disk-iops", "1"]),
        ("name", &["--name", "no/slash"]),
        ("hostname", &["--hostname=-x"]),
        ("hypervisor", &["--hypervisor", "other"]),
        ("env-file", &["--env-file", "/nonexistent"]),
        ("env-nameless", &["-e", "=x"]),
        ("publish", &["-p", "8000-8010:80"]),
        ("publish-twice", &["-p", "80:80", "-p", "0.0.0.0:80:81"]),
        ("network-none", &["--network", "none", "-p", "80"]),
        ("egress", &["--egress", "allow,example.com"]),
    ] {
        let output = env.run(options).args(["hello", "true"]).run();
        snapshot(&env, &format!("value-{name}"), &output);
    }
    for (name, image) in [("image-name", "No/Image"), ("image-transport", "ftp:x"), ("image-empty", "")] {
        snapshot(&env, &format!("value-{name}"), &env.run(&[image]).run());
    }
}

#[test]
fn bad_cpu_templates() {
    let env = TestEnv::new(FCVM);
    let list = env.file("list.json", "[]");
    let long = env.file("long.json", " ".repeat(60_000));
    for (name, file) in [("static", "T2".into()), ("list", list), ("long", long)] {
        let output = env.run(&["--cpu-template"]).arg(file).args(["hello", "true"]).run();
        snapshot(&env, &format!("cpu-template-{name}"), &output);
    }
}

/// Refused before it is asked whether fcvm is set up.
#[test]
fn machines_that_cannot_be() {
    if !needs_programs(&[&format!("qemu-system-{}", std::env::consts::ARCH)]) {
        return;
    }
    let env = TestEnv::new(FCVM);
    let template = env.file("template.json", "{}").display().to_string();
    for (name, options) in [
        ("balloon", &["--balloon", "0"][..]),
        ("huge-pages", &["--huge-pages"]),
        ("cpu-template", &["--cpu-template", &template]),
        ("memory", &["--memory", "1000t"]),
    ] {
        let output = env.run(&["--hypervisor", "qemu"]).args(options).args(["hello", "true"]).run();
        snapshot(&env, &format!("machine-{name}"), &output);
    }
}

#[test]
fn vm_bad_images() {
    let Some(env) = TestEnv::set_up(FCVM) else { return };
    env.file("noise.tar", fcvm_testkit::noise(100_000));
    env.file("empty.tar", "");
    snapshot(&env, "image-unknown", &env.run(&["--pull=never", "nosuch", "true"]).run());
    for (name, image) in [
        ("unreachable-registry", "127.0.0.1:1/alpine"),
        ("missing-layout", "oci:/nonexistent"),
        ("missing-archive", "oci-archive:/nonexistent"),
        ("corrupt-oci", "oci-archive:noise.tar"),
        ("corrupt-docker", "docker-archive:noise.tar"),
        ("empty", "oci-archive:empty.tar"),
    ] {
        snapshot(&env, &format!("image-{name}"), &env.run(&[image, "true"]).run());
    }
}

#[test]
fn vm_a_taken_port_is_found_before_the_boot() {
    let Some(env) = TestEnv::set_up(FCVM) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    let output = env.run(&["-p", &format!("{host}:80"), "hello", "true"]).run();
    output.assert_code(125);
    let told = format!("port {host}/tcp is in use by `");
    let pid = format!("(PID {})", std::process::id());
    assert!(output.stderr.contains(&told) && output.stderr.contains(&pid), "{}", output.stderr);
    assert!(output.stderr.contains("hint: choose another port"), "{}", output.stderr);
    env.assert_nothing_left();
}

#[test]
fn vm_missing_kernel_and_agent() {
    let Some(env) = TestEnv::set_up(FCVM) else { return };
    snapshot(&env, "kernel-missing", &env.run(&["--kernel", "/nonexistent/vmlinux", "hello", "true"]).run());
    let junk = env.file("junk", fcvm_testkit::noise(100_000));
    snapshot(&env, "kernel-junk", &env.run(&["--kernel"]).arg(junk).args(["hello", "true"]).run());
    snapshot(&env, "agent-missing", &env.run(&["--agent", "/nonexistent", "hello", "true"]).run());
}

#[test]
fn vm_hypervisor_missing() {
    let Some(env) = TestEnv::set_up(FCVM) else { return };
    // System directories are searched whatever the PATH is: there it must not be.
    let name = format!("qemu-system-{}", std::env::consts::ARCH);
    if ["/usr/local/sbin", "/usr/sbin", "/sbin"].iter().any(|place| PathBuf::from(place).join(&name).exists())
    {
        return skip("QEMU is in a system directory");
    }
    snapshot(&env, "qemu-missing", &env.run(&["hello", "true"]).env("PATH", env.root()).run());
    // Which of the two is told depends on the host's KVM.
    let firecracker = env.run(&["--hypervisor", "firecracker", "hello", "true"]).run();
    firecracker.assert_code(125);
    let told = ["hint: `fcvm setup --with-firecracker`", "or use --hypervisor qemu, which emulates"];
    assert!(told.iter().any(|hint| firecracker.stderr.contains(hint)), "{}", firecracker.stderr);
}

#[test]
fn vm_long_runtime_directory() {
    let Some(env) = TestEnv::for_vms(FCVM) else { return };
    let long = env.sockets().join("run").join("x".repeat(100));
    let output = env.run(&["hello", "true"]).env("FCVM_RUNTIME_DIR", &long).run();
    output.assert_code(125);
    assert!(output.stderr.contains("hint: set FCVM_RUNTIME_DIR to a shorter directory"), "{}", output.stderr);
    fs::remove_dir(long).unwrap();
}

fn base_disk(env: &TestEnv) -> PathBuf {
    let is_base = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.ends_with(".ext4") && !name.starts_with("scratch")
    };
    let rootfs = fs::read_dir(env.data().join("rootfs")).unwrap().map(|entry| entry.unwrap().path());
    rootfs.into_iter().find(is_base).unwrap()
}

#[test]
fn vm_damaged_base_disk() {
    let Some(env) = TestEnv::for_vms(FCVM) else { return };
    env.unshare_assets();
    let path = base_disk(&env);
    let disk = OpenOptions::new().write(true).open(&path).unwrap();
    let time = disk.metadata().unwrap().modified().unwrap();
    // The superblock; then the same behind the back of the check by size and time.
    disk.write_all_at(&[0; 4096], 0).unwrap();
    snapshot(&env, "base-damaged", &env.run(&["hello", "true"]).run());
    disk.set_modified(time).unwrap();
    let output = env.run(&["hello", "true"]).run();
    output.assert_code(125);
    assert!(output.stderr.contains("hint: a disk may be damaged: `fcvm setup --force`"), "{}", output.stderr);
    env.assert_nothing_left();
    disk.set_len(4096).unwrap();
    snapshot(&env, "base-cut", &env.run(&["hello", "true"]).run());
}

#[test]
fn vm_guest_panic() {
    let Some(env) = TestEnv::for_vms(FCVM) else { return };
    // Without an init in the initrd the kernel looks for a root disk that it is not told.
    let run = || env.run(&["--kernel-args", "rdinit=/nonexistent", "hello", "true"]);
    let output = run().run();
    assert!(output.stderr.contains("guest panicked: VFS: Unable to mount root fs"), "{}", output.stderr);
    snapshot(&env, "guest-panic", &output);
    let logged = run().env("RUST_LOG", "warn").run();
    logged.assert_code(125);
    assert_eq!(logged.stderr.matches("once again, with one CPU").count(), 1, "{}", logged.stderr);
}

#[test]
fn root_vm_full_disk() {
    if !needs_root() || !needs_programs(&["mkfs.ext4", "mount"]) {
        return;
    }
    let Some(env) = TestEnv::set_up(FCVM) else { return };
    let mounted = match LoopMount::new(200 << 20) {
        Ok(mounted) => mounted,
        Err(reason) => return skip(format!("no loop device: {reason}")),
    };
    let data = mounted.path().join("data");
    fs::create_dir(&data).unwrap();
    let env = env.with_data(data);
    full_disk(&env, &mounted);
    drop((env, mounted));
}

fn full_disk(env: &TestEnv, mounted: &LoopMount) {
    // The mount itself is the test's.
    let rootfs = fcvm_testkit::Layer::new().busybox().to_tar();
    env.import("hello", &rootfs);
    let noise =
        fcvm_testkit::Layer::new().with(fcvm_testkit::Entry::file("noise", fcvm_testkit::noise(150_000_000)));
    let tarball = env.file("noise.tar", noise.to_tar());
    let import = |name: &str| env.fcvm().args(["image", "import", name]).arg(&tarball).run();
    let output = import("large");
    output.assert_code(125);
    assert!(output.stderr.contains("hint: free "), "{}", output.stderr);

    // Little space: output still comes through, all of it, though not by way of the disk.
    let filler = mounted.fill(8 << 20);
    let output = env
        .shell("head -c 30000000 /dev/zero | sha256sum; head -c 30000000 /dev/zero >&2")
        .env("RUST_LOG", "error")
        .run();
    output.assert_code(0);
    assert_eq!(output.stderr.len(), 30_000_000);
    fs::remove_file(filler).unwrap();

    let filler = mounted.fill(0);
    let output = env.shell("true").run();
    output.assert_code(125);
    assert!(output.stderr.contains("hint: free some space"), "{}", output.stderr);
    fs::remove_file(filler).unwrap();
    env.shell("echo ok").run().assert_stdout("ok");
}

#[test]
fn root_no_permission() {
    if !needs_root() || !needs_programs(&["setpriv"]) {
        return;
    }
    let env = TestEnv::new(FCVM);
    fs::set_permissions(env.root(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(env.data(), fs::Permissions::from_mode(0o700)).unwrap();
    let program = env.sockets().join("fcvm");
    fs::copy(FCVM, &program).unwrap();
    fs::set_permissions(env.sockets(), fs::Permissions::from_mode(0o755)).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        env.program_in_env("setpriv").args(nobody).arg(&program).args(arguments).run()
    };
    snapshot(&env, "permission-run", &as_nobody(&["podman", "run", "hello", "true"]));
    snapshot(&env, "permission-image", &as_nobody(&["image", "ls"]));
    let below = env.root().join("data/below");
    let below = below.to_str().unwrap();
    snapshot(&env, "permission-new", &as_nobody(&["--data-dir", below, "image", "ls"]));
}
