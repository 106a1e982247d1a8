//! Directories and files of the host in containers.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use fcvm_testkit::{
    Entry, Layer, Output, TestEnv, needs_programs, needs_root, noise, sha256,
    suites::{PJDFSTEST, program},
};

fn fcvm(env: &TestEnv, arguments: &[&str]) -> Output {
    env.fcvm().args(arguments).run()
}

fn shell(env: &TestEnv, script: &str) -> String {
    fcvm(env, &["exec", "web", "sh", "-c", script]).ok()
}

#[test]
fn what_cannot_be_mounted_is_said_before_anything_is_done() {
    let env = TestEnv::new(env!("CARGO_BIN_EXE_fcvm"));
    fs::create_dir(env.root().join("there")).unwrap();
    for (arguments, code, words) in [
        (&["-v", "./missing:/x"][..], 125, "failed to map `./missing` to `/x`"),
        (&["--map", "/dev/null:/x"], 125, "neither a directory nor a file"),
        (&["-v", "./there:/x", "--mount", "type=tmpfs,target=/x/"], 125, "`/x` is given twice"),
        (&["-v", "./there:x"], 2, "no absolute path"),
        (&["-v", "./there:/x:read-only"], 2, "no option `read-only`"),
        (&["-v", "not a name:/x"], 2, "a path begins with `/` or `.`"),
        (&["--map", "./there:/x:cache=forever"], 2, "no cache `forever`"),
        (&["--mount", "type=bind,source=./there"], 2, "target=/PATH"),
        (&["--mount", "type=smb,target=/x"], 2, "no type `smb`"),
    ] {
        let output = env.run(&[arguments, &["hello"]].concat()).run();
        output.assert_code(code);
        assert!(output.stderr.contains(words), "{arguments:?}: {}", output.stderr);
    }
    let missing = env.run(&["-v", "./missing:/x", "hello"]).run();
    assert!(missing.stderr.contains("hint: make it first"), "{}", missing.stderr);
}

#[test]
fn named_volumes_are_made_listed_and_removed() {
    let env = TestEnv::new(env!("CARGO_BIN_EXE_fcvm"));
    assert_eq!(fcvm(&env, &["volume", "create", "data", "--label", "a=b"]).ok(), "data");
    let again = fcvm(&env, &["volume", "create", "data"]);
    again.assert_code(125);
    assert!(again.stderr.contains("volume `data` exists already"), "{}", again.stderr);
    let generated = fcvm(&env, &["volume", "create"]).ok();
    assert_eq!(generated.len(), 64);
    let path = fcvm(&env, &["volume", "inspect", "data", "--format", "{{.Mountpoint}}"]).ok();
    fs::write(Path::new(&path).join("file"), "x").unwrap();
    let all: serde_json::Value = serde_json::from_str(&fcvm(&env, &["volume", "ls", "--json"]).ok()).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 2);
    let data = all.as_array().unwrap().iter().find(|volume| volume["Name"] == "data").unwrap();
    assert_eq!((&data["Labels"]["a"], &data["InUse"]), (&"b".into(), &false.into()));
    assert!(fcvm(&env, &["volume", "ls"]).ok().starts_with("NAME"));
    assert_eq!(fcvm(&env, &["volume", "rm", "data"]).ok(), "data");
    assert!(!Path::new(&path).exists());
    let gone = fcvm(&env, &["volume", "rm", "data"]);
    gone.assert_code(125);
    assert!(gone.stderr.contains("no volume `data`"), "{}", gone.stderr);
    fcvm(&env, &["volume", "rm", "--force", "data"]).assert_code(0);
    fcvm(&env, &["volume", "prune"]).assert_code(125);
    assert_eq!(fcvm(&env, &["volume", "prune", "--force"]).ok(), generated);
    assert_eq!(fcvm(&env, &["volume", "ls", "-q"]).ok(), "");
}

#[test]
fn vm_a_map_is_the_hosts_own_directory() {
    let Some(env) = TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm")) else { return };
    let at = |path: &str| env.root().join(path);
    let big = noise(5_000_000);
    fs::create_dir_all(at("shared/deep")).unwrap();
    fs::create_dir(at("fixed")).unwrap();
    fs::create_dir(at("back")).unwrap();
    fs::write(at("shared/big"), &big).unwrap();
    fs::write(at("fixed/file"), "fixed\n").unwrap();
    fs::write(at("single"), "single\n").unwrap();
    fs::set_permissions(at("shared/big"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("shared/out")).unwrap();
    let script = "set -e
        sha256sum < /shared/big
        stat -c %a /shared/big
        readlink /shared/out
        cat /fixed/file /single
        cp /shared/big /shared/deep/copy
        mkdir /shared/made; echo made > /shared/made/file; chmod 600 /shared/made/file
        ln /shared/made/file /shared/made/link
        mv /shared/deep /shared/moved
        echo more >> /single
        if echo x > /fixed/new; then exit 3; fi
        if rm /fixed/file; then exit 4; fi
        mount | grep -c 'fuse.fcvm'
        cp /shared/big /back/big";
    let output = env
        .run(&["-v", "./shared:/shared", "--map", "./fixed:/fixed:ro,cache=always"])
        .args(["-v", "./back:/back:cache=exclusive"])
        .args(["--mount", "type=bind,src=./single,dst=/single", "hello", "sh", "-c", script])
        .run();
    output.assert_code(0);
    let sum = sha256(&big[..]);
    let sum = sum.trim_start_matches("sha256:");
    assert_eq!(output.stdout(), format!("{sum}  -\n640\n/etc/passwd\nfixed\nsingle\n4\n"));
    assert_eq!(output.stderr.matches("Read-only file system").count(), 2, "{}", output.stderr);
    assert_eq!(fs::read(at("shared/moved/copy")).unwrap(), big);
    // What was to be written back when it suits is there with the container's end.
    assert_eq!(fs::read(at("back/big")).unwrap(), big);
    let made = fs::metadata(at("shared/made/file")).unwrap();
    assert_eq!(made.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(at("shared/made/link")).unwrap(), "made\n");
    assert_eq!(fs::read_to_string(at("single")).unwrap(), "single\nmore\n");
    env.assert_nothing_left();
}

#[test]
fn vm_a_volume_outlives_its_vms_and_both_sides_see_changes() {
    let Some(env) = TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm")) else { return };
    let at = |path: &str| env.root().join(path);
    fs::create_dir(at("live")).unwrap();
    fs::write(at("live/file"), "one").unwrap();
    let wait = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
    env.run(&["-d", "--name=web", "-v", "data:/bin-copy", "-v", "seeded:/bin", "-v", "./live:/live"])
        .args([
            "-v",
            "/scratch",
            "--mount",
            "type=tmpfs,target=/memory,tmpfs-size=1m",
            "hello",
            "sh",
            "-c",
            wait,
        ])
        .run()
        .assert_code(0);
    let seeded = fcvm(&env, &["volume", "inspect", "seeded", "--format", "{{.Mountpoint}}"]).ok();
    // What the image has at the place of a new volume is in the volume.
    assert!(Path::new(&seeded).join("busybox").exists(), "{:?}", fs::read_dir(&seeded).unwrap().count());
    shell(&env, "echo kept > /bin-copy/file; echo x > /scratch/x; echo x > /memory/x");
    let mounts: serde_json::Value =
        serde_json::from_str(&fcvm(&env, &["inspect", "web", "--format", "{{json .Mounts}}"]).ok()).unwrap();
    let mut kinds: Vec<_> =
        mounts.as_array().unwrap().iter().map(|mount| mount["Type"].to_string()).collect();
    kinds.sort();
    assert_eq!(kinds, ["\"bind\"", "\"tmpfs\"", "\"volume\"", "\"volume\"", "\"volume\""]);

    assert_eq!(shell(&env, "cat /live/file"), "one");
    fs::write(at("live/new"), "").unwrap();
    fs::write(at("live/file"), "two and more").unwrap();
    // It is seen within a second; the loop has no other end.
    let seen = "until [ -e /live/new ] && grep -q more /live/file; do :; done; cat /live/file";
    assert_eq!(shell(&env, seen), "two and more");
    shell(&env, "echo guest > /live/file; rm /live/new");
    assert_eq!(fs::read_to_string(at("live/file")).unwrap(), "guest\n");
    assert!(!at("live/new").exists());

    // A lock of the host's holds in the guest, and one of the guest's on the host.
    let lock = fs::File::create(at("live/lock")).unwrap();
    lock.lock().unwrap();
    // The image has no flock(1), the machine has; there volumes have numbers.
    let machine = "/run/fcvm/volumes/2";
    let attempt = format!("cd {machine} && flock -n --conflict-exit-code 99 lock echo taken; echo $?");
    let attempt = || fcvm(&env, &["exec", "--vm", "web", "sh", "-c", &attempt]).ok();
    assert_eq!(attempt(), "99");
    lock.unlock().unwrap();
    assert_eq!(attempt(), "taken\n0");
    let mut holder = env
        .fcvm()
        .args(["exec", "--vm", "-i", "-w", machine, "web", "flock", "lock", "sh", "-c", "echo mine; cat"])
        .stdin(Stdio::piped())
        .spawn();
    let input = holder.stdin();
    holder.wait_for_stdout("mine");
    assert!(lock.try_lock().is_err());
    drop(input);
    holder.wait().assert_code(0);
    // The kernel tells of a file's end when it suits.
    lock.lock().unwrap();
    drop(lock);

    let used = fcvm(&env, &["volume", "rm", "data"]);
    used.assert_code(125);
    assert!(used.stderr.contains("volume `data` is in use by a VM"), "{}", used.stderr);
    fcvm(&env, &["rm", "-f", "web"]).assert_code(0);
    let kept = env.run(&["-v", "data:/data:ro", "hello", "cat", "/data/file"]).run();
    kept.assert_stdout("kept");
    fcvm(&env, &["volume", "rm", "data", "seeded"]).assert_code(0);
}

#[test]
fn vm_a_killed_server_is_an_error_to_who_uses_the_volume() {
    let Some(env) = TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm")) else { return };
    fs::create_dir(env.root().join("live")).unwrap();
    let script = "echo begun; until ! ls /live >/dev/null 2>&1; do :; done; ls /live; echo $?";
    let running = env.run(&["-v", "./live:/live", "hello", "sh", "-c", script]).spawn();
    running.wait_for_stdout("begun");
    let (server, _) =
        env.processes().into_iter().find(|(_, name)| name == "fcvm-volume").expect("a volume has a server");
    let pid = rustix::process::Pid::from_raw(server).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // Who uses the volume gets errors; the container goes on.
    let output = running.wait();
    output.assert_code(0);
    assert!(output.stdout().ends_with("1\n"), "{}", output.stdout());
    assert!(output.stderr.contains("/live"), "{}", output.stderr);
}

/// Users and groups that the suite becomes.
const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\ndaemon:x:1:1::/:/bin/sh\nbin:x:2:2::/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\ndaemon:x:1:\nbin:x:2:\n";
/// How many cases pass, and are skipped: those that mount anew, and one of which the kernel does not tell the limit.
const JUDGED: (usize, usize) = (384, 14);

#[test]
fn root_vm_a_map_is_what_posix_says() {
    if !needs_root() {
        return;
    }
    let Some(env) = TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm")) else { return };
    let Some(program) = program(env!("CARGO_TARGET_TMPDIR"), "pjdfstest") else { return };
    let program = program.to_str().unwrap();
    let links = ["which", "mount", "umount"].map(|name| Entry::symlink(&format!("bin/{name}"), "busybox"));
    let layer =
        links.into_iter().fold(Layer::new().busybox().program(program).program("/bin/sleep"), Layer::with);
    let file = |path: &str, text: &str| Entry::file(path, text);
    let layer = layer.with(file("etc/passwd", PASSWD)).with(file("etc/group", GROUP));
    env.import("posix", &layer.with(file("posix.toml", PJDFSTEST)).to_tar());
    fs::create_dir(env.root().join("shared")).unwrap();
    let options = ["--privileged", "--map", "./shared:/data"];
    let suite = ["posix", program, "-c", "/posix.toml", "-p", "/data"];
    let judged = env.run(&options).args(suite).run();
    let said = judged.stdout();
    let those = |what: &str| said.lines().filter(|line| line.trim().ends_with(what)).count();
    assert_eq!(
        (judged.code(), those(" ok"), those(" skipped")),
        (0, JUDGED.0, JUDGED.1),
        "{said}{}",
        judged.stderr
    );
    assert_eq!(fs::read_dir(env.root().join("shared")).unwrap().count(), 0, "something was left");
    env.assert_nothing_left();
}

#[test]
fn vm_a_project_is_cloned_and_built_on_a_map() {
    if !needs_programs(&["git", "gcc", "make"]) {
        return;
    }
    let Some(env) = TestEnv::for_vms(env!("CARGO_BIN_EXE_fcvm")) else { return };
    // The host's own programs, which are all below one directory there.
    let links = ["bin", "lib", "lib64"].map(|name| Entry::symlink(name, &format!("usr/{name}")));
    let layer = links.into_iter().fold(Layer::new(), Layer::with);
    env.import("empty", &layer.with(Entry::file("etc/passwd", PASSWD)).to_tar());
    let source = env.root().join("source");
    fs::create_dir(&source).unwrap();
    fs::create_dir(env.root().join("work")).unwrap();
    let parts: Vec<_> = (0..8).map(|number| format!("part{number}")).collect();
    for part in &parts {
        fs::write(source.join(format!("{part}.c")), format!("int {part}(void) {{ return 7; }}\n")).unwrap();
    }
    let declared: String = parts.iter().map(|part| format!("int {part}(void);\n")).collect();
    let sum: Vec<_> = parts.iter().map(|part| format!("{part}()")).collect();
    let main = format!("{declared}int main(void) {{ return {}; }}\n", sum.join(" + "));
    fs::write(source.join("main.c"), main).unwrap();
    let objects: Vec<_> = parts.iter().map(|part| format!("{part}.o")).collect();
    let rule = format!("CC = gcc\nproject: main.o {}\n\tgcc -o $@ $^\n", objects.join(" "));
    fs::write(source.join("Makefile"), rule).unwrap();
    let script =
        "git init -q . && git add . && git -c user.name=a -c user.email=a@example.com commit -q -m first";
    assert!(Command::new("sh").args(["-c", script]).current_dir(&source).status().unwrap().success());

    let maps = ["--map=/usr:/usr:ro,cache=always", "--map=./source:/source:ro", "--map=./work:/work"];
    let script =
        "cd /work && git -c safe.directory='*' clone -q /source project && cd project && make -s -j2 &&
        ! git -c safe.directory='*' status --short | grep -v '\\.o$\\|project$'; ./project";
    let built = env.run(&maps).args(["empty", "sh", "-c", script]).run();
    assert_eq!(built.code(), 56, "{}", built.stderr);
    // What came of it is the host's, too.
    let status = Command::new(env.root().join("work/project/project")).status().unwrap();
    assert_eq!(status.code(), Some(56));
    env.assert_nothing_left();
}
