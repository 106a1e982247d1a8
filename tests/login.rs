//! Logging in to registries and out of them.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
};

use fcvm_testkit::{RegistryOptions, TestEnv, needs_programs};
use serde_json::{Value, json};

const FCVM: &str = env!("CARGO_BIN_EXE_fcvm");

#[test]
fn a_login_is_checked_before_it_is_kept() {
    let env = TestEnv::new(FCVM);
    let Some(registry) = RegistryOptions::new().login("me", "a secret").start(env.root()) else { return };
    let address = registry.address();
    let file = env.root().join("auth.json");
    let fcvm = |arguments: &[&str]| env.fcvm().args(arguments).env("REGISTRY_AUTH_FILE", &file);
    let password = |text: &str| File::open(env.file("password", text)).unwrap();

    let refused = fcvm(&["login", "-u", "me", "--password-stdin", address]).stdin(password("wrong\n")).run();
    refused.assert_code(125);
    assert!(refused.stderr.contains(&format!("failed to log in to `{address}`")), "{}", refused.stderr);
    assert!(!refused.stderr.contains("wrong") && !file.exists(), "{}", refused.stderr);
    fcvm(&["login", "--get-login", address]).run().assert_code(125);

    fcvm(&["login", "-u", "me", "--password-stdin", address])
        .stdin(password("a secret\r\n"))
        .run()
        .assert_code(0);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept, json!({ "auths": { address: { "auth": "bWU6YSBzZWNyZXQ=" } } }));
    assert_eq!(fcvm(&["login", "--get-login", address]).run().ok().trim(), "me");
    // What is kept is asked about, and no terminal is needed.
    let again = fcvm(&["login", address]).run();
    again.assert_code(0);
    assert!(again.stderr.contains("already logged in"), "{}", again.stderr);

    fcvm(&["logout", address]).run().assert_code(0);
    fcvm(&["logout", address]).run().assert_code(125);
    fcvm(&["login", "-u", "me", "-p", "a secret", address]).run().assert_code(0);
    fcvm(&["logout", "--all"]).run().assert_code(0);
    let kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept, json!({ "auths": {} }));
    let other = env.root().join("other.json");
    fcvm(&["login", "-u", "me", "-p", "a secret", "--authfile"])
        .arg(&other)
        .arg(address)
        .run()
        .assert_code(0);
    assert!(other.exists());

    let asked = fcvm(&["login", address]).run();
    asked.assert_code(125);
    assert!(asked.stderr.contains("standard input is no terminal"), "{}", asked.stderr);
    fcvm(&["login", "-p", "x"]).run().assert_code(2);
    fcvm(&["login", "a b"]).run().assert_code(2);
}

#[test]
fn a_password_is_asked_for_on_the_terminal() {
    if !needs_programs(&["script", "stty"]) {
        return;
    }
    let env = TestEnv::new(FCVM);
    let Some(registry) = RegistryOptions::new().login("me", "a secret").start(env.root()) else { return };
    let session = |keys: &str| {
        let command = format!("{FCVM} login {}; echo \"status $?\"; stty -a", registry.address());
        let mut child = std::process::Command::new("script")
            .args(["--quiet", "--command", &command, "/dev/null"])
            .env("REGISTRY_AUTH_FILE", env.root().join("auth.json"))
            .env("FCVM_DATA_DIR", env.data())
            .env("FCVM_RUNTIME_DIR", env.runtime())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut seen = Vec::new();
        let mut until = |text: &str| {
            let mut byte = [0];
            while !seen.ends_with(text.as_bytes()) && stdout.read(&mut byte).unwrap() == 1 {
                seen.push(byte[0]);
            }
        };
        until("Username: ");
        stdin.write_all(b"me\n").unwrap();
        until("Password: ");
        stdin.write_all(keys.as_bytes()).unwrap();
        until("never said");
        child.wait().unwrap();
        String::from_utf8_lossy(&seen).into_owned()
    };
    for (keys, status) in [("a secretx\u{7f}\n", 0), ("a sec\u{3}", 130)] {
        // Each from the beginning.
        fs::remove_file(env.root().join("auth.json")).ok();
        let seen = session(keys);
        assert!(seen.contains(&format!("status {status}")), "{seen}");
        assert!(!seen.contains("a sec"), "{seen}");
        for mode in ["echo", "icanon", "isig"] {
            assert!(seen.split_whitespace().any(|word| word == mode), "{mode}: {seen}");
        }
    }
}
