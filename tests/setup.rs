//! `fcvm setup` as a whole. The `slow_` tests make real base disks and kernels:
//! they need mmdebstrap and a way to the distribution's mirror.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use fcvm::{
    setup::{Assets, Machine, Overrides, SetupError, preflight},
    storage::{DataDir, TEMPORARY_PREFIX},
};
use fcvm_testkit::skip;

/// A data directory with an agent of its own.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { directory: tempfile::tempdir().unwrap() };
        fs::write(host.agent(), static_program()).unwrap();
        fs::create_dir(host.root()).unwrap();
        host
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn agent(&self) -> PathBuf {
        self.directory.path().join("fc-agent")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fcvm"));
        command.arg("setup").args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.as_bytes().starts_with(b"FCVM_") {
                command.env_remove(name);
            }
        }
        command.env("FCVM_DATA_DIR", self.root()).env("FCVM_AGENT", self.agent());
        command.env("XDG_CONFIG_HOME", self.directory.path().join("config"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Exit code, standard output, standard error.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn locate(&self) -> Result<Assets, SetupError> {
        let data = DataDir::open(Some(self.root())).unwrap();
        Assets::locate(&data, &Overrides { agent: Some(self.agent()), ..Overrides::default() })
    }

    /// Names of what was not finished.
    fn leftovers(&self) -> Vec<PathBuf> {
        ["kernels", "rootfs", "initrd", "cache"]
            .into_iter()
            .filter_map(|directory| fs::read_dir(self.root().join(directory)).ok())
            .flatten()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name().as_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()))
            .map(|entry| entry.path())
            .collect()
    }

    /// Processes that know this data directory by their environment: mmdebstrap's,
    /// which works in it, hand it down.
    fn processes(&self) -> Vec<String> {
        let known = |file: &Path| {
            fs::read(file).is_ok_and(|bytes| {
                let root = self.root();
                let root = root.as_os_str().as_bytes();
                bytes.windows(root.len()).any(|window| window == root)
            })
        };
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| known(&path.join("environ")))
            .map(|path| fs::read_to_string(path.join("comm")).unwrap_or_default())
            .collect()
    }

    fn mounts(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = self.root().display().to_string();
        mounts.lines().filter(|line| line.contains(&root)).map(str::to_owned).collect()
    }
}

/// The smallest ELF file that passes for a static program of this machine.
fn static_program() -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[0x12..0x14].copy_from_slice(&Machine::HOST.elf().to_le_bytes());
    bytes[0x20] = 64;
    bytes[0x36] = 56;
    bytes[0x38] = 1;
    bytes[64] = 1;
    bytes
}

/// Reads a child's streams while it runs, so that it never waits for us.
fn finish(child: Child) -> thread::JoinHandle<(ExitStatus, String)> {
    thread::spawn(move || {
        let output = child.wait_with_output().unwrap();
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    })
}

/// Whether set-up can be tested here at all.
fn runnable(host: &Host) -> bool {
    let data = DataDir::open(Some(host.root())).unwrap();
    let report = preflight::check(&data, Some(&host.agent()));
    if !report.is_ok() {
        skip(format!("this machine lacks\n{}", report.missing()));
    }
    report.is_ok()
}

#[test]
fn a_plan_is_written_once() {
    let host = Host::new();
    let (code, stdout, _) = host.run(&["--generate-config"]);
    let path = fs::canonicalize(host.root()).unwrap().join("rootfs-plan.toml");
    assert_eq!((code, stdout), (Some(0), format!("{}\n", path.display())));
    let (code, stdout, stderr) = host.run(&["--generate-config"]);
    assert_eq!((code, stdout.as_str()), (Some(125), ""));
    assert!(stderr.contains("exists already") && stderr.contains("hint: --force"), "{stderr}");
    assert_eq!(host.run(&["--generate-config", "--force"]).0, Some(0));
}

#[test]
fn a_wrong_plan_is_named_before_anything_is_done() {
    let host = Host::new();
    let plan = host.directory.path().join("plan.toml");
    let text = fcvm::setup::plan::DEFAULT_PLAN.replace("\"10 GiB\"", "\"1 KiB\"");
    fs::write(&plan, text).unwrap();
    let (code, _, stderr) = host.run(&["--plan", plan.to_str().unwrap()]);
    assert_eq!(code, Some(125));
    assert!(stderr.contains("`scratch.size`") && stderr.contains("plan.toml"), "{stderr}");
}

#[test]
fn a_check_reports_and_does_nothing() {
    let host = Host::new();
    let (code, stdout, _) = host.run(&["--check", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let missing = checks.iter().any(|check| check["status"] == "missing");
    assert_eq!(code, Some(i32::from(missing)));
    assert!(checks.iter().any(|check| check["name"] == "fc-agent" && check["status"] == "ok"));
    fs::remove_file(host.agent()).unwrap();
    let (code, stdout, _) = host.run(&["--check"]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("FCVM_AGENT"), "{stdout}");
    assert_eq!(fs::read_dir(host.root()).unwrap().count(), 0);
}

#[test]
fn without_setup_the_error_says_what_to_do() {
    let error = Host::new().locate().unwrap_err();
    assert!(matches!(error, SetupError::Missing { .. }), "{error}");
    assert!(error.hint().unwrap().contains("`fcvm setup`"));
}

/// mmdebstrap hangs up on all of its process group where one of its own dies.
#[test]
fn a_tool_that_fails_hangs_up_on_nobody_else() {
    let host = Host::new();
    if !runnable(&host) {
        return;
    }
    let tools = host.directory.path().join("tools");
    fs::create_dir(&tools).unwrap();
    let tool = tools.join("mmdebstrap");
    fs::write(&tool, "#!/bin/sh\necho 'it fails' >&2\nkill -HUP 0\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let (status, stderr) = finish(host.command(&[]).env("PATH", path).spawn().unwrap()).join().unwrap();
    assert_eq!(status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("mmdebstrap") && stderr.contains("it fails"), "{stderr}");
}

#[test]
fn slow_a_killed_setup_is_finished_by_the_next() {
    let host = Host::new();
    if !runnable(&host) {
        return;
    }
    // Points spread over the whole of it: in apt, in dpkg, while the archive is written.
    for delay in [50, 700, 2_100, 3_900, 6_300, 11_000, 16_500] {
        let child = host.command(&[]).spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let ended = finish(child);
        thread::sleep(Duration::from_millis(delay));
        if let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
            assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
        }
        ended.join().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !host.processes().is_empty() {
            assert!(Instant::now() < deadline, "after {delay} ms: {:?} live on", host.processes());
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(host.mounts(), Vec::<String>::new(), "after {delay} ms");
        match host.locate() {
            Ok(_) | Err(SetupError::Missing { .. }) => {}
            Err(error) => panic!("after {delay} ms: {error}"),
        }
    }
    let (code, _, stderr) = host.run(&[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(host.leftovers(), Vec::<PathBuf>::new());
    let assets = host.locate().unwrap();
    for (what, path) in assets.files() {
        assert!(path.exists(), "{what}");
    }

    // Damage is found and mended, and of the rest nothing is made again.
    let before = fs::metadata(&assets.base).unwrap().modified().unwrap();
    fs::write(&assets.kernel, "damaged").unwrap();
    assert!(matches!(host.locate(), Err(SetupError::Corrupt { .. })));
    let (code, _, stderr) = host.run(&[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(host.locate().unwrap().kernel_digest, assets.kernel_digest);
    assert_eq!(fs::metadata(&assets.base).unwrap().modified().unwrap(), before);

    // Another agent needs another initrd, which no set-up has to make.
    let mut agent = static_program();
    agent.push(0);
    fs::write(host.agent(), agent).unwrap();
    assert_ne!(host.locate().unwrap().initrd, assets.initrd);
    let (code, _, stderr) = host.run(&["--prune"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!assets.initrd.exists() && assets.base.exists());
}

#[test]
fn slow_two_setups_at_once_cost_one() {
    let host = Host::new();
    if !runnable(&host) {
        return;
    }
    let both = [(); 2].map(|()| finish(host.command(&[]).spawn().unwrap()));
    let ends = both.map(|child| child.join().unwrap());
    let all: String = ends.iter().map(|(_, stderr)| stderr.as_str()).collect();
    assert!(ends.iter().all(|(status, _)| status.success()), "{all}");
    assert_eq!(all.matches("another `fcvm setup` is running").count(), 1, "{all}");
    assert_eq!(all.matches("base disk: Debian").count(), 1, "{all}");
    host.locate().unwrap();
}
