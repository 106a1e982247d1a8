//! What a test owns.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    thread,
};

use tempfile::TempDir;

use crate::{
    Fcvm, Layer, Output, Running, World, assets, busybox,
    engine::{Engine, engine, firecracker},
    leaks, prepared, skip,
};

/// A data directory, a directory for sockets and every process that uses them.
///
/// Dropped, its processes are killed; where the test did not fail, it fails now
/// if a command left anything behind.
#[derive(Debug)]
pub struct TestEnv {
    fcvm: PathBuf,
    root: TempDir,
    data: PathBuf,
    /// Apart from the rest: paths of sockets must be short.
    sockets: TempDir,
    /// What its VMs run on, or why they cannot.
    engine: Result<&'static Engine, &'static str>,
    /// What is before its commands.
    before: Vec<String>,
    /// Whether its VMs may go on from what is prepared.
    warm: bool,
}

/// Where the programs under test were built: the parent of the program's directory.
pub(crate) fn target_directory(fcvm: &Path) -> PathBuf {
    fs::canonicalize(fcvm).unwrap().ancestors().nth(2).unwrap().to_owned()
}

impl TestEnv {
    /// An empty data directory. `fcvm` is the program: `env!("CARGO_BIN_EXE_fcvm")`.
    #[must_use]
    pub fn new(fcvm: &str) -> Self {
        let parent = target_directory(fcvm.as_ref()).join("tmp");
        fs::create_dir_all(&parent).unwrap();
        let directory = |parent: &Path| tempfile::Builder::new().prefix("fcvm-").tempdir_in(parent).unwrap();
        let root = directory(&parent);
        let data = root.path().join("data");
        fs::create_dir(&data).unwrap();
        let engine = engine(&target_directory(fcvm.as_ref()));
        Self {
            fcvm: fcvm.into(),
            data,
            root,
            sockets: directory("/tmp".as_ref()),
            engine,
            before: Vec::new(),
            warm: false,
        }
    }

    /// A data directory that is set up and has the image `hello`, which is
    /// busybox. Nothing, with a word why, where VMs cannot run here.
    #[must_use]
    pub fn for_vms(fcvm: &str) -> Option<Self> {
        let env = Self::set_up(fcvm)?;
        env.import("hello", &Layer::new().busybox().to_tar());
        Some(env)
    }

    /// The same as [`for_vms`](Self::for_vms), where VMs of the usual kinds do not boot, but go on from what
    /// was prepared for all tests. What is not prepared boots. There is the image `idle` besides, which has a user
    /// `web` (33) of the groups 34 and `log` (40), whose home is `/srv`, and a file `/plain` that is no program.
    #[must_use]
    pub fn for_warm_vms(fcvm: &str) -> Option<Self> {
        let mut env = Self::set_up(fcvm)?;
        let engine = env.engine.unwrap();
        prepared::link(&env.fcvm, engine, &env.data);
        env.warm = true;
        Some(env)
    }

    /// A data directory that is set up and has no images.
    #[must_use]
    pub fn set_up(fcvm: &str) -> Option<Self> {
        Self::new(fcvm).ready()
    }

    /// The same as [`for_vms`](Self::for_vms), with Firecracker whatever the other tests run on.
    #[must_use]
    pub fn for_firecracker(fcvm: &str) -> Option<Self> {
        let engine = firecracker(&target_directory(fcvm.as_ref()));
        let mut env = Self::new(fcvm);
        env.engine = engine;
        let env = env.ready()?;
        env.import("hello", &Layer::new().busybox().to_tar());
        Some(env)
    }

    fn ready(self) -> Option<Self> {
        let env = self;
        let ready = busybox::find()
            .and_then(|_| env.engine.map(drop).map_err(str::to_owned))
            .and_then(|()| assets::link(&env.fcvm, &env.data).map_err(str::to_owned));
        match ready {
            Ok(()) => Some(env),
            Err(reason) => {
                skip(reason);
                None
            }
        }
    }

    /// The same, with another data directory: one on a file system of its own, say.
    #[must_use]
    pub fn with_data(mut self, data: PathBuf) -> Self {
        for entry in fs::read_dir(&self.data).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_type().unwrap().is_symlink() {
                let target = fs::read_link(entry.path()).unwrap();
                std::os::unix::fs::symlink(target, data.join(entry.file_name())).unwrap();
            }
        }
        self.data = data;
        self
    }

    /// The same, with its commands on another host.
    #[must_use]
    pub fn on(mut self, world: &World) -> Self {
        self.before = world.enter();
        self
    }

    /// What is before its commands.
    pub(crate) fn before(&self) -> &[String] {
        &self.before
    }

    /// What says how its VMs start: few tests want another VM prepared beside theirs.
    pub(crate) fn start(&self) -> &'static str {
        if self.warm { "FCVM_NO_PREPARE" } else { "FCVM_NO_SNAPSHOT" }
    }

    /// Gives it kernel, base disk and initrd of its own, to be damaged.
    pub fn unshare_assets(&self) {
        assets::unshare(&self.data);
    }

    /// A directory for files of the test.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The directory of sockets.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.sockets.path().join("run")
    }

    /// The directory where that of sockets lies: short, and empty but for it.
    #[must_use]
    pub fn sockets(&self) -> &Path {
        self.sockets.path()
    }

    /// The program under test.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.fcvm
    }

    /// Writes a file of the test's own; its path.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// `fcvm …`
    #[must_use]
    pub fn fcvm(&self) -> Fcvm {
        Fcvm::new(self, self.fcvm.as_os_str())
    }

    /// Another program, which runs `fcvm` in its turn, in the same environment.
    #[must_use]
    pub fn program_in_env(&self, program: &str) -> Fcvm {
        Fcvm::new(self, OsStr::new(program))
    }

    /// `fcvm podman run …`
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Fcvm {
        self.fcvm().args(["podman", "run"]).args(self.options()).args(arguments)
    }

    /// What the engine wants of every `fcvm podman run`, which [`run`](Self::run) adds.
    #[must_use]
    pub fn options(&self) -> &'static [&'static str] {
        self.engine.map_or(&[], |engine| &engine.options)
    }

    /// What the engine wants of every `fcvm exec`.
    #[must_use]
    pub fn exec_options(&self) -> &'static [&'static str] {
        self.engine.map_or(&[], |engine| &engine.exec_options)
    }

    /// What the engine wants of every command.
    pub(crate) fn variables(&self) -> &'static [(&'static str, OsString)] {
        self.engine.map_or(&[], |engine| &engine.variables)
    }

    /// What the engine needs of the kernel, where it needs something.
    #[must_use]
    pub fn kernel_parameters(&self) -> Option<&'static str> {
        let options = self.options();
        let at = options.iter().position(|option| *option == "--kernel-args")?;
        options.get(at + 1).copied()
    }

    /// A variable that its commands have because of the engine.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&'static OsStr> {
        self.variables().iter().find(|(of, _)| *of == name).map(|(_, value)| value.as_os_str())
    }

    /// `fcvm podman run hello sh -c SCRIPT`
    #[must_use]
    pub fn shell(&self, script: &str) -> Fcvm {
        self.run(&["hello", "sh", "-c", script])
    }

    /// Makes an image of a root file system.
    pub fn import(&self, name: &str, rootfs: &[u8]) {
        let tarball = self.file("import.tar", rootfs);
        self.fcvm().args(["image", "import", name]).arg(&tarball).run().assert_code(0);
        fs::remove_file(tarball).unwrap();
    }

    /// `fcvm ls --json`
    #[must_use]
    pub fn list(&self) -> Vec<serde_json::Value> {
        serde_json::from_str(&self.fcvm().args(["ls", "--json"]).run().ok()).unwrap()
    }

    /// What a command left that it should not have: processes, mounts, loop
    /// devices, sockets, files; each in a line.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        leaks::find(&self.data, self.sockets.path())
    }

    /// Insists that no command left anything.
    pub fn assert_nothing_left(&self) {
        let left = self.leftovers();
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    }

    /// The processes of this environment, by their numbers and names.
    #[must_use]
    pub fn processes(&self) -> Vec<(i32, String)> {
        leaks::processes(self.sockets.path())
    }

    /// Kills a command, and waits for the end of whatever it had started, which has nobody else
    /// to wait for it.
    #[must_use]
    pub fn kill(&self, running: Running) -> Output {
        // Looked for before they die: a process that is dying can no longer be told from others,
        // and holds its sockets still.
        running.freeze();
        let others = self.all_but(running.pid());
        let output = running.kill();
        others.iter().for_each(leaks::wait_until_gone);
        output
    }

    /// Kills a process that stands still, and waits for the end of all the others here, which end
    /// by that.
    pub fn kill_all_with(&self, pid: i32) {
        self.kill_all_with_but(pid, pid);
    }

    /// The same, where another one need not end by that.
    pub fn kill_all_with_but(&self, pid: i32, spared: i32) {
        let all = self.all_but(spared);
        let itself = leaks::open(pid);
        leaks::kill(pid);
        all.iter().chain(&itself).for_each(leaks::wait_until_gone);
    }

    fn all_but(&self, pid: i32) -> Vec<OwnedFd> {
        let processes = self.processes().into_iter().filter(|(other, _)| *other != pid);
        processes.filter_map(|(pid, _)| leaks::open(pid)).collect()
    }

    /// The hypervisors that run here.
    #[must_use]
    pub fn hypervisors(&self) -> Vec<i32> {
        let is_one = |pid: &i32| {
            let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            program.file_name().is_some_and(|name| {
                name.as_bytes().starts_with(b"qemu-system-") || name.as_bytes().starts_with(b"firecracker")
            })
        };
        self.processes().into_iter().map(|(pid, _)| pid).filter(is_one).collect()
    }

    /// Kills the hypervisors that run here, and waits for their ends.
    pub fn kill_hypervisors(&self) {
        let pids = self.hypervisors();
        assert!(!pids.is_empty(), "there is no hypervisor to kill");
        let open: Vec<_> = pids.iter().filter_map(|pid| leaks::open(*pid)).collect();
        pids.into_iter().for_each(leaks::kill);
        open.iter().for_each(leaks::wait_until_gone);
    }

    /// Waits until none of its processes is left.
    pub fn wait_for_processes(&self) {
        leaks::wait_for_processes(self.sockets.path());
    }
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        let left = if thread::panicking() { Vec::new() } else { self.leftovers() };
        leaks::kill_processes(self.sockets.path());
        if !thread::panicking() {
            assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        }
    }
}
