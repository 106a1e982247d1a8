//! Files between containers and this machine.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Stdio};

use fcvm_testkit::{Output, TestEnv, noise};

fn vm() -> Option<TestEnv> {
    let env = TestEnv::for_warm_vms(env!("CARGO_BIN_EXE_fcvm"))?;
    let script = "mkdir -p /there/deep; echo one > /there/a; ln -s a /there/link; chmod 4750 /there/a; \
                  trap 'exit 0' TERM; while :; do sleep 0.1; done";
    env.run(&["-d", "--name=web", "hello", "sh", "-c", script]).run().assert_code(0);
    Some(env)
}

fn fcvm(env: &TestEnv, arguments: &[&str]) -> Output {
    env.fcvm().args(arguments).run()
}

fn shell(env: &TestEnv, script: &str) -> String {
    fcvm(env, &["exec", "web", "sh", "-c", script]).ok()
}

#[test]
fn vm_files_are_copied_both_ways_as_podman_does() {
    let Some(env) = vm() else { return };
    let at = |path: &str| env.root().join(path);
    let big = noise(3_000_000);
    fs::create_dir_all(at("src/sub")).unwrap();
    fs::write(at("src/sub/big"), &big).unwrap();
    fs::write(at("src/exec"), "#!/bin/sh\necho ran").unwrap();
    fs::set_permissions(at("src/exec"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("exec", at("src/link")).unwrap();

    // Which names lead where is compared with Podman by parity.rs.
    fcvm(&env, &["cp", "src", "web:/new"]).assert_code(0);
    fcvm(&env, &["cp", "src/.", "web:/there"]).assert_code(0);
    assert_eq!(shell(&env, "/new/link; /there/exec"), "ran\nran");
    assert_eq!(shell(&env, "cmp /new/sub/big /there/sub/big && wc -c < /new/sub/big"), "3000000");
    assert_eq!(shell(&env, "stat -c %a:%u /new/exec; readlink /there/link"), "755:0\nexec");
    fcvm(&env, &["cp", "web:/there", "back"]).assert_code(0);
    assert_eq!(fs::read(at("back/sub/big")).unwrap(), big);
    assert_eq!(fs::read_link(at("back/link")).unwrap(), std::path::Path::new("exec"));
    // No file of a guest gets to be set-user-id here.
    assert_eq!(fs::metadata(at("back/a")).unwrap().permissions().mode() & 0o7777, 0o750);
    fs::write(at("a"), "in the way").unwrap();

    // As archives.
    let archive = fcvm(&env, &["cp", "web:/there/a", "-"]);
    archive.assert_code(0);
    let mut entries = tar::Archive::new(&*archive.stdout);
    let names: Vec<_> =
        entries.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert_eq!(names, [std::path::Path::new("a")]);
    let putting = env.fcvm().args(["cp", "-", "web:/srv"]).stdin(Stdio::piped());
    shell(&env, "mkdir -p /srv");
    let mut running = putting.spawn();
    let mut stdin = running.stdin();
    std::io::Write::write_all(&mut stdin, &archive.stdout).unwrap();
    drop(stdin);
    running.wait().assert_code(0);
    assert_eq!(shell(&env, "cat /srv/a"), "one");

    for (arguments, words) in [
        (&["cp", "web:/nosuch", "x"][..], "/nosuch"),
        (&["cp", "nosuch", "web:/x"], "`nosuch`"),
        (&["cp", "web:/there", "a"], "is no directory"),
        // Nobody takes what the guest sends.
        (&["cp", "web:/there", "no/where"], "`no`"),
        (&["cp", "gone:/x", "x"], "no VM `gone`"),
        (&["cp", "a", "b"], "VM:PATH"),
        (&["cp", "web:/a", "web:/b"], "this machine"),
    ] {
        let output = fcvm(&env, arguments);
        output.assert_code(125);
        assert!(
            output.stderr.contains(words) && output.stderr.starts_with("error: "),
            "{arguments:?}: {}",
            output.stderr
        );
    }
    assert!(!at("x").exists());
    fcvm(&env, &["cp", "--overwrite", "web:/there", "a"]).assert_code(0);
    assert!(at("a/deep").is_dir());
    let left: Vec<_> = fs::read_dir(env.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".fcvm")), "{left:?}");
    assert_eq!(
        fcvm(&env, &["exec", "--vm", "web", "sh", "-c", "ls /var/tmp | grep -v systemd; true"]).ok(),
        ""
    );
    fcvm(&env, &["rm", "-f", "web"]).assert_code(0);
    env.assert_nothing_left();
}
