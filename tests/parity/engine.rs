//! The host's Podman and fcvm, with the same images.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use fcvm_testkit::{
    Compression, Entry, Fcvm, Image, Layer, Output, TestEnv, needs_programs, needs_root, skip,
};
use serde_json::json;

use super::{case::Case, copy_cases};

/// What a restricted host allows a container. fcvm's guests are no such host.
const LIMITS: [(&str, &str); 2] =
    [("nofile", "--ulimit=nofile=1024:1024"), ("nproc", "--ulimit=nproc=1000:1000")];

/// Both engines, with the images `idle` (busybox, without a command) and `conf` (with all that an
/// image can say).
#[derive(Debug)]
pub(crate) struct Place {
    env: TestEnv,
    /// Whether containers of `idle` start warm where they can.
    warm: bool,
}

impl Place {
    pub(crate) fn new() -> Option<Self> {
        if !needs_root() || !needs_programs(&["podman", "runc"]) {
            return None;
        }
        let env = TestEnv::set_up(env!("CARGO_BIN_EXE_fcvm"))?;
        let [graph, run] = ["graph", "run"].map(|name| env.root().join("podman").join(name));
        let config = format!("[storage]\ndriver = \"overlay\"\ngraphroot = {graph:?}\nrunroot = {run:?}\n");
        env.file("storage.conf", config);
        let place = Self { env, warm: false };
        place.load("idle", &image());
        let config = json!({
            "Entrypoint": ["sh", "-c", r#"echo "$0" "$@"; pwd; id -u; echo "$OWN $PATH""#],
            "Cmd": ["by", "the image"],
            "Env": ["OWN=image", "PATH=/bin:/own"],
            "WorkingDir": "/srv",
            "User": "web",
        });
        place.load("conf", &image().config(config));
        for (name, text) in super::run_cases::FILES {
            place.env.file(name, text);
        }
        let tried = place.podman(&["run", "--rm"]).args(options(&[])).args(["idle", "true"]).run();
        if tried.code() != 0 {
            skip(format!("the host's Podman runs no containers: {}", tried.stderr.trim()));
            return None;
        }
        Some(place)
    }

    /// Gives both an image.
    fn load(&self, name: &str, image: &Image) {
        let archive = self.env.root().join(name);
        image.write_docker_archive(&archive, &format!("localhost/{name}:latest"));
        let load = ["load", "-q", "-i", archive.to_str().unwrap()];
        self.podman(&load).run().assert_code(0);
        self.env.fcvm().args(["image", "load", "-i"]).arg(&archive).run().assert_code(0);
    }

    /// Prepares VMs for containers of `idle` with these options each.
    pub(crate) fn prepare(&mut self, kinds: &[&[&str]]) {
        self.warm = !kinds.is_empty();
        for kind in kinds {
            self.fcvm(&["podman", "prepare"]).args(*kind).arg("idle").run().assert_code(0);
        }
    }

    fn podman(&self, arguments: &[&str]) -> Fcvm {
        let program = self.env.program_in_env("podman").env_remove("FCVM_RUNTIME_DIR");
        let program = program.env("CONTAINERS_STORAGE_CONF", self.env.root().join("storage.conf"));
        host_variables(program).arg("--runtime=runc").args(arguments)
    }

    fn fcvm(&self, arguments: &[&str]) -> Fcvm {
        // A guest that panicked under emulation is booted once more, which a warning tells.
        let command = host_variables(self.env.fcvm()).env("RUST_LOG", "error").args(arguments);
        if self.warm { command.env_remove("FCVM_NO_SNAPSHOT").env("FCVM_NO_PREPARE", "1") } else { command }
    }

    /// A subcommand of each, as it is.
    fn command(&self, name: &str, case: &Case) -> [Fcvm; 2] {
        let given: Vec<_> = case.options.iter().map(String::as_str).collect();
        let (podman, fcvm) = match name {
            "run" => {
                // In the foreground fcvm leaves nothing.
                let detached = given.contains(&"-d");
                let rm: &[&str] = if detached { &["run"] } else { &["run", "--rm"] };
                (self.podman(rm).args(options(&given)), self.fcvm(&["podman", "run"]))
            }
            name => (self.podman(&[name]), self.fcvm(&[name])),
        };
        [podman, fcvm].map(|command| command.args(&case.options).args(&case.rest))
    }

    fn outcome(&self, name: &str, case: &Case) -> [Output; 2] {
        self.command(name, case).map(|command| match &case.input {
            None => command.run(),
            Some(bytes) => {
                let mut running = command.stdin(Stdio::piped()).spawn();
                let (mut stdin, bytes) = (running.stdin(), bytes.clone());
                // A command that does not read to the end is as good.
                let writer = thread::spawn(move || drop(stdin.write_all(&bytes)));
                let output = running.wait();
                writer.join().unwrap();
                output
            }
        })
    }

    /// Insists on equal outcomes of all the cases; all that differ are told at once.
    pub(crate) fn compare(&self, name: &str, cases: &[Case]) {
        let mut wrong = String::new();
        for case in cases {
            let [podman, fcvm] = self.outcome(name, case);
            let lines = case.judge(&podman, &fcvm);
            if !lines.is_empty() {
                writeln!(wrong, "{name} {:?} {:?}", case.options, case.rest).unwrap();
                lines.iter().for_each(|line| writeln!(wrong, "    {line}").unwrap());
            }
        }
        println!("measured: {} cases of {name}", cases.len());
        assert!(wrong.is_empty(), "\n{wrong}");
    }

    /// The same, each with a command of its own, one after the other.
    pub(crate) fn live(&self, cases: &[(&str, Case)]) {
        let mut wrong = String::new();
        for (name, case) in cases {
            let [podman, fcvm] = self.outcome(name, case);
            for line in case.judge(&podman, &fcvm) {
                writeln!(wrong, "{name} {:?} {:?}\n    {line}", case.options, case.rest).unwrap();
            }
        }
        println!("measured: {} cases of a life", cases.len());
        assert!(wrong.is_empty(), "\n{wrong}");
    }

    /// Starts a container in both.
    pub(crate) fn run_both(&self, options: &[&str], rest: &[&str]) {
        for output in self.outcome("run", &Case::new(options, rest)) {
            output.assert_code(0);
        }
    }

    /// A command of both that must succeed.
    pub(crate) fn both(&self, arguments: &[&str]) {
        self.podman(arguments).run().assert_code(0);
        self.fcvm(arguments).run().assert_code(0);
    }
}

impl Place {
    /// Insists that both copy the same to the same places.
    pub(crate) fn compare_copies(&self) {
        for (name, content) in copy_cases::FILES {
            let path = self.env.root().join("in").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        self.run_both(&["-d", "--name=vm", "-w", "/srv"], &["idle", "sh", "-c", copy_cases::SCRIPT]);
        let until = "until test -e /ready; do sleep 0.1; done";
        self.both(&["exec", "vm", "sh", "-c", until]);
        let outs = ["out-podman", "out-fcvm"].map(|name| self.env.root().join(name));
        outs.iter().for_each(|out| fs::create_dir(out).unwrap());
        let mut wrong = String::new();
        for (from, to) in copy_cases::CASES {
            let [podman, fcvm] = [(&outs[0], true), (&outs[1], false)].map(|(out, podman)| {
                let [from, to] = [from, to].map(|text| text.replace("OUT", out.to_str().unwrap()));
                let arguments = ["cp", from.as_str(), to.as_str()];
                let output = if podman { self.podman(&arguments) } else { self.fcvm(&arguments) }.run();
                let mut tree = Vec::new();
                walk(out, out, &mut tree);
                let shown = if podman { self.podman(&SHOW_IN_VM) } else { self.fcvm(&SHOW_IN_VM) }.run();
                (output.code(), tree, shown.stdout(), output.stderr)
            });
            if (podman.0, &podman.1, &podman.2) != (fcvm.0, &fcvm.1, &fcvm.2) {
                writeln!(wrong, "cp {from} {to}\n    Podman: {podman:?}\n    fcvm:   {fcvm:?}").unwrap();
            }
        }
        println!("measured: {} cases of cp", copy_cases::CASES.len());
        assert!(wrong.is_empty(), "\n{wrong}");
    }
}

const SHOW_IN_VM: [&str; 5] = ["exec", "vm", "sh", "-c", copy_cases::SHOW];

/// What is in a directory of the host: path, mode, content.
fn walk(root: &Path, directory: &Path, tree: &mut Vec<String>) {
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = match () {
            () if metadata.is_symlink() => format!("-> {}", fs::read_link(&path).unwrap().display()),
            () if metadata.is_file() => fs::read_to_string(&path).unwrap(),
            () => String::new(),
        };
        let name = path.strip_prefix(root).unwrap().display();
        tree.push(format!("{name} {:o} {content}", metadata.mode()));
        if metadata.is_dir() {
            walk(root, &path, tree);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.podman(&["rm", "--all", "--force", "--time=0"]).run());
        drop(self.fcvm(&["rm", "--all", "--force"]).run());
        // Overlay keeps its directory mounted.
        let mounted = self.env.root().join("podman/graph/overlay");
        drop(Command::new("umount").arg("-q").arg(mounted).status());
    }
}

/// What is asked of Podman besides, so that it has what fcvm has.
fn options(given: &[&str]) -> Vec<&'static str> {
    let limits = LIMITS.iter().filter(|(name, _)| !given.iter().any(|option| option.contains(name)));
    ["--network=none", "--log-driver=k8s-file"].into_iter().chain(limits.map(|(_, limit)| *limit)).collect()
}

fn host_variables(command: Fcvm) -> Fcvm {
    command.env("HOST_A", "of the host").env("PRE_ONE", "1").env("PRE_TWO", "2").env("LEAK", "x")
}

fn image() -> Image {
    let users = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n";
    let more = Layer::new()
        .with(Entry::directory("srv"))
        .with(Entry::file("etc/passwd", users).mode(0o644))
        .with(Entry::file("etc/group", "root:x:0:\nwww:x:34:\nlog:x:40:web\n").mode(0o644))
        .with(Entry::file("plain", "no program").mode(0o644))
        .with(Entry::file("no-format", "neither ELF nor a script"))
        .with(Entry::file("no-interpreter", "#!/nosuch\n"));
    Image::new().layer(&Layer::new().busybox(), Compression::None).layer(&more, Compression::None)
}
