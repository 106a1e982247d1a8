//! Directories and files of the host, in clones: open where they were open, and nobody else's.

use super::*;

/// Has a volume's file open, and one of its directories as its own; tells them which VM it is.
const USER: &str = "mkdir -p /data/sub; cd /data/sub; exec 3>> /data/log
    while :; do echo $(cat /proc/sys/kernel/hostname) >&3; : > here; sleep 0.1; done";

/// Waits until the VM of that host name has told so in a file.
fn told(log: &std::path::Path, hostname: &str) {
    let lines = || {
        let log = fs::read_to_string(log).unwrap_or_default();
        log.lines().filter(|line| *line == hostname).count()
    };
    let before = lines();
    while lines() < before + 2 {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A directory of the host with one named `site` in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let site = fs::canonicalize(directory.path()).unwrap().join("site");
    fs::create_dir(&site).unwrap();
    (directory, site)
}

/// A VM with that directory, a file that it may only read, and a named volume.
fn start_with_volumes(env: &TestEnv, site: &std::path::Path, name: &str, script: &str) {
    fs::write(site.join("page"), "old").unwrap();
    let one = site.with_file_name("one");
    fs::write(&one, "one").unwrap();
    let map = format!("--map={}:/data", site.display());
    let one = format!("--map={}:/etc/one:ro", one.display());
    let volumes = [&*map, &one, "--volume=kept:/kept", "-d", "--name", name, "-m", "256m"];
    env.run(&volumes).args(["hello", "sh", "-c", script]).run().assert_code(0);
}

#[test]
fn vm_what_was_open_is_open_in_clones() {
    let Some(env) = vm() else { return };
    let (directory, site) = place();
    start_with_volumes(&env, &site, "source", USER);
    let log = site.join("log");
    let hostname = |vm: &str| inspect(&env, vm, "{{.id}}")[..12].to_owned();
    told(&log, &hostname("source"));
    assert_eq!(exec(&env, "source", "echo mine > /kept/file; cat /data/page /etc/one"), "oldone");
    snapshot(&env, "source", "warm");
    told(&log, &hostname("source"));

    // What the host does meanwhile is seen; what the guest had kept is not taken for it.
    fs::write(site.join("page"), "changed").unwrap();
    fs::write(site.join("new"), "new").unwrap();
    for name in ["a", "b"] {
        clone(&env, "warm", name);
        told(&log, &hostname(name));
        let script =
            "cat /data/page /data/new /etc/one /kept/file; ls /proc/1/cwd/; echo $(hostname) > /kept/by";
        assert_eq!(exec(&env, name, script), "changednewonemine\nhere");
        assert_eq!(exec(&env, "source", "cat /kept/by"), hostname(name));
        let refused = fcvm(&env, &["exec", name, "sh", "-c", "echo x > /etc/one"]);
        refused.assert_code(1);
        assert!(refused.stderr.contains("Read-only"), "{}", refused.stderr);
    }
    // One that is gone is told of before anything starts.
    fs::rename(&site, directory.path().join("elsewhere")).unwrap();
    let refused = fcvm(&env, &["snapshot", "run", "--snapshot", "warm"]);
    refused.assert_code(125);
    assert!(refused.stderr.contains(&*site.to_string_lossy()), "{}", refused.stderr);
    fs::rename(directory.path().join("elsewhere"), &site).unwrap();
    let exported =
        env.fcvm().args(["snapshot", "export", "warm", "-o"]).arg(directory.path().join("a")).run();
    exported.assert_code(125);
    assert!(exported.stderr.contains("volumes of this host"), "{}", exported.stderr);

    // A clone of a clone; and two of a fork.
    snapshot(&env, "a", "again");
    clone(&env, "again", "c");
    fcvm(&env, &["fork", "c", "-n", "2", "--name", "kid"]).assert_code(0);
    for name in ["a", "c", "kid-1", "kid-2", "source"] {
        told(&log, &hostname(name));
    }
    let in_use = fcvm(&env, &["volume", "rm", "kept"]);
    in_use.assert_code(125);
    remove(&env, &["source", "a", "b", "c", "kid-1", "kid-2"], &["warm", "again"]);
    fcvm(&env, &["volume", "rm", "kept"]).assert_code(0);
}

#[test]
fn vm_a_volume_in_full_use_loses_nothing() {
    let Some(env) = vm() else { return };
    // Each file's content tells whether it is whole.
    let script =
        "n=0; while :; do n=$((n+1)); seq 1 2000 > /data/f$n.new && mv /data/f$n.new /data/f$n; done";
    let (_directory, site) = place();
    start_with_volumes(&env, &site, "source", script);
    let whole: String = (1..=2000).map(|line| format!("{line}\n")).collect();
    let files = || {
        let all = fs::read_dir(&site).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        all.filter(|name| name.starts_with('f') && !name.ends_with(".new")).collect::<BTreeSet<_>>()
    };
    let more = || {
        let before = files().len();
        while files().len() < before + 3 {
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    more();
    for round in 0..4 {
        snapshot(&env, "source", &format!("warm-{round}"));
        more();
    }
    fcvm(&env, &["rm", "-f", "source"]).assert_code(0);
    for name in files() {
        assert_eq!(fs::read_to_string(site.join(&name)).unwrap(), whole, "{name}");
        fs::remove_file(site.join(name)).unwrap();
    }
    // In a clone the files that were made since are its own.
    clone(&env, "warm-3", "clone");
    more();
    fcvm(&env, &["rm", "-f", "clone"]).assert_code(0);
    for name in files() {
        assert_eq!(fs::read_to_string(site.join(&name)).unwrap(), whole, "{name}");
    }
    remove(&env, &[], &["warm-0", "warm-1", "warm-2", "warm-3"]);
}

#[test]
fn vm_a_clone_of_a_disk_has_its_volumes() {
    let Some(env) = vm() else { return };
    let (_directory, site) = place();
    start_with_volumes(&env, &site, "source", USER);
    let hostname = |vm: &str| inspect(&env, vm, "{{.id}}")[..12].to_owned();
    exec(&env, "source", "echo mine > /kept/file");
    fcvm(&env, &["snapshot", "create", "source", "--tag", "disk", "--disk-only"]).assert_code(0);
    told(&site.join("log"), &hostname("source"));
    clone(&env, "disk", "clone");
    told(&site.join("log"), &hostname("clone"));
    assert_eq!(exec(&env, "clone", "cat /kept/file /etc/one /data/page"), "mine\noneold");
    remove(&env, &["source", "clone"], &["disk"]);
}

#[test]
fn vm_a_volume_that_only_one_vm_changes_is_in_no_snapshot() {
    let Some(env) = vm() else { return };
    let directory = tempfile::tempdir().unwrap();
    let map = format!("--map={}:/data:cache=exclusive", directory.path().display());
    env.run(&[&map, "-d", "--name", "source", "-m", "256m", "hello", "sh", "-c", COUNTER])
        .run()
        .assert_code(0);
    for more in [&[][..], &["--disk-only"]] {
        let refused = env.fcvm().args(["snapshot", "create", "source", "--tag", "none"]).args(more).run();
        refused.assert_code(125);
        assert!(refused.stderr.contains("cache=exclusive"), "{}", refused.stderr);
        assert!(refused.stderr.contains("hint: "), "{}", refused.stderr);
    }
    follow(&env, "source", 1);
    assert!(snapshots(&env).is_empty());
    remove(&env, &["source"], &[]);
}
