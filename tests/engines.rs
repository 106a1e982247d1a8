//! Images of this machine's Podman, and of a Docker engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use fcvm_testkit::{Fcvm, Layer, TestEnv, needs_programs, needs_root};

const FCVM: &str = env!("CARGO_BIN_EXE_fcvm");

/// A Podman with a storage of its own.
struct Podman<'a> {
    env: &'a TestEnv,
    storage: PathBuf,
}

impl<'a> Podman<'a> {
    fn new(env: &'a TestEnv) -> Self {
        let place = |name: &str| env.root().join("podman").join(name).display().to_string();
        let text = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            place("root"),
            place("run")
        );
        fs::create_dir_all(env.root().join("podman")).unwrap();
        Self { env, storage: env.file("storage.conf", text) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.args(arguments).env("CONTAINERS_STORAGE_CONF", &self.storage);
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let out = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// An image whose command says something, in a format; its id.
    fn image(&self, name: &str, word: &str, format: &str) -> String {
        let rootfs = self.env.file("rootfs.tar", Layer::new().busybox().to_tar());
        self.run(&["import", &rootfs.display().to_string(), "localhost/base"]);
        let text = format!("FROM localhost/base\nENV WORD={word}\nCMD [\"sh\", \"-c\", \"echo $WORD\"]\n");
        let file = self.env.file("Containerfile", text);
        let build = ["build", "--quiet", "--pull-never", "--format", format, "--tag", name, "--file"];
        self.run(&[&build[..], &[&file.display().to_string()]].concat());
        let id = self.run(&["image", "inspect", "--format", "{{.Id}}", name]);
        format!("sha256:{id}")
    }

    /// `fcvm …` that asks this Podman.
    fn fcvm(&self, arguments: &[&str]) -> Fcvm {
        self.env.fcvm().args(arguments).env("CONTAINERS_STORAGE_CONF", &self.storage)
    }

    fn pull(&self, image: &str, policy: &str) -> String {
        let out = self.fcvm(&["image", "pull", "--quiet", "--policy", policy, image]).run();
        out.assert_code(0);
        out.stdout().trim().to_owned()
    }
}

fn can_run() -> bool {
    needs_root() && needs_programs(&["podman"])
}

#[test]
fn root_podmans_images_are_taken_as_they_are_now() {
    if !can_run() {
        return;
    }
    let env = TestEnv::new(FCVM);
    let podman = Podman::new(&env);
    let first = podman.image("localhost/web", "one", "oci");
    for name in ["containers-storage:localhost/web", "containers-storage:web", "localhost/web", "web"] {
        assert_eq!(podman.pull(name, "missing"), first, "{name}");
    }
    assert_eq!(podman.pull(&format!("containers-storage:{first}"), "missing"), first);
    let listed = env.fcvm().args(["image", "ls", "--json"]).run().ok();
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    let names: Vec<_> = listed.iter().map(|image| &image["names"]).collect();
    assert_eq!(names, [&serde_json::json!(["localhost/web:latest"])]);

    let second = podman.image("localhost/web", "two", "oci");
    assert_ne!(first, second);
    assert_eq!(podman.pull("web", "never"), first, "not asked");
    assert_eq!(podman.pull("web", "missing"), second);
    // Gone there, still here.
    podman.run(&["image", "rm", "--force", "localhost/web"]);
    assert_eq!(podman.pull("web", "missing"), second);
    let gone = podman.fcvm(&["image", "pull", "containers-storage:localhost/web"]).run();
    gone.assert_code(125);
    assert!(gone.stderr.contains("Podman has no image `localhost/web`"), "{}", gone.stderr);

    // What was made here wins.
    let own = Layer::new().busybox().to_tar();
    env.import("own", &own);
    let imported = podman.pull("own", "missing");
    let theirs = podman.image("localhost/own", "three", "oci");
    assert_eq!(podman.pull("own", "missing"), imported);
    assert_eq!(podman.pull("containers-storage:own", "missing"), theirs);
    assert_eq!(podman.pull("own", "missing"), imported);
    let cache = fs::read_dir(env.data().join("cache")).unwrap().count();
    assert_eq!(cache, 0, "nothing of what was saved is left");
}

#[test]
fn root_an_image_of_dockers_format_keeps_its_id() {
    if !can_run() {
        return;
    }
    let env = TestEnv::new(FCVM);
    let podman = Podman::new(&env);
    let id = podman.image("localhost/docker", "x", "docker");
    assert_eq!(podman.pull("localhost/docker", "missing"), id);
}

#[test]
fn without_podman_only_its_own_transport_fails() {
    let env = TestEnv::new(FCVM);
    let fcvm = |image: &str| env.fcvm().args(["image", "pull", image]).env("PATH", env.root()).run();
    let explicit = fcvm("containers-storage:x");
    explicit.assert_code(125);
    assert!(explicit.stderr.contains("`podman` is not installed"), "{}", explicit.stderr);
    assert!(explicit.stderr.contains("hint: install Podman"), "{}", explicit.stderr);
    let name = fcvm("localhost/x");
    name.assert_code(125);
    assert!(name.stderr.contains("no image `localhost/x`"), "{}", name.stderr);
}

/// Podman's service, which speaks Docker's language.
struct Service {
    child: Child,
    socket: PathBuf,
}

impl Service {
    fn start(podman: &Podman<'_>) -> Self {
        let socket = podman.env.root().join("docker.sock");
        let address = format!("unix://{}", socket.display());
        let mut child = podman
            .command(&["--log-level=info", "system", "service", "--time=0", &address])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        // It listens when it says so.
        let mut lines = stderr.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("API service listening")), "it ended");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, socket }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn root_an_engines_images_come_by_its_api() {
    if !can_run() {
        return;
    }
    let env = TestEnv::new(FCVM);
    let podman = Podman::new(&env);
    let first = podman.image("docker.io/library/web", "one", "docker");
    let service = Service::start(&podman);
    let pull = |image: &str| {
        let host = format!("unix://{}", service.socket.display());
        env.fcvm().args(["image", "pull", "--quiet", image]).env("DOCKER_HOST", host).run()
    };
    for name in ["docker-daemon:web", "docker-daemon:docker.io/library/web:latest"] {
        let out = pull(name);
        out.assert_code(0);
        assert_eq!(out.stdout().trim(), first, "{name}");
    }
    assert_eq!(pull(&format!("docker-daemon:{first}")).stdout().trim(), first);
    let second = podman.image("docker.io/library/web", "two", "docker");
    assert_eq!(pull("docker-daemon:web").stdout().trim(), second);
    let absent = pull("docker-daemon:docker.io/library/absent");
    absent.assert_code(125);
    assert!(absent.stderr.contains("has no image `docker.io/library/absent`"), "{}", absent.stderr);
    drop(service);
}

#[test]
fn root_vm_a_local_name_runs_what_podman_has() {
    if !can_run() {
        return;
    }
    let Some(env) = TestEnv::for_vms(FCVM) else { return };
    let podman = Podman::new(&env);
    podman.image("localhost/x", "from-podman", "oci");
    let out = podman.fcvm(&["podman", "run", "localhost/x"]).run();
    out.assert_code(0);
    out.assert_stdout("from-podman");
}
