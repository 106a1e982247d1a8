//! A container that is made before it is known what it is to run.
//!
//! ```text
//!  podman run --runtime=/run/fcvm/crun ──> conmon ──> crun create: this program by another name
//!      all that a container has but for its program        |── its bundle ──> the agent: Stage::Waits
//!                        a snapshot is made here, and any number of machines go on from it
//!      ToGuest::Run ──> config.json has the program        <── go ───────────|
//!                                                          | becomes crun
//! ```
//! So the program is run as Podman and the OCI runtime run any: what fails, fails in their words. A run of the same
//! container after its end comes the same way, and gets the same program at once.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    io::{Read as _, Write as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::symlink,
        net::UnixStream,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};
use fcvm_proto::{Identity, Network, Program};
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
    sync::watch,
};

use crate::{exec::RUNTIME, guest::restored, log};

/// This program, where Podman takes it for the OCI runtime.
pub(crate) const WRAPPER: &str = "/run/fcvm/crun";
/// Where it asks the agent.
const SOCKET: &str = "/run/fcvm/crun.sock";
/// Longest path of a bundle.
const MAX_PATH: u64 = 4096;
/// The answer.
const GO: u8 = b'.';

/// What a container is to be, once that is known.
#[derive(Debug, Clone)]
pub(crate) struct Purpose {
    pub(crate) program: Program,
    /// Whose container it is by now.
    pub(crate) identity: Identity,
    pub(crate) network: Network,
}

/// Lets the runtime wait.
#[derive(Debug)]
pub(crate) struct Gate {
    listener: UnixListener,
    purpose: watch::Receiver<Option<Purpose>>,
}

/// A runtime that waits to make a container.
#[derive(Debug)]
pub(crate) struct Waiting {
    stream: tokio::net::UnixStream,
    bundle: PathBuf,
}

impl Gate {
    /// # Errors
    /// Where the runtime would not find it.
    pub(crate) fn open(purpose: watch::Receiver<Option<Purpose>>) -> anyhow::Result<Self> {
        let path = Path::new(SOCKET);
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        let listener = UnixListener::bind(path).context("failed to listen to the runtime")?;
        Ok(Self { listener, purpose })
    }

    /// Has Podman's next call of the runtime come here.
    ///
    /// # Errors
    /// Where it would not.
    pub(crate) fn shut(&self) -> anyhow::Result<()> {
        // The agent's file is that of the initial file system, which nobody sees any more.
        lead_to("/proc/1/exe").context("failed to put itself in the runtime's place")
    }

    /// The next runtime that is to make the container.
    ///
    /// # Errors
    /// Where it does not say which.
    pub(crate) async fn asked(&self) -> anyhow::Result<Waiting> {
        let (mut stream, _) = self.listener.accept().await?;
        let mut bundle = Vec::new();
        loop {
            match stream.read_u8().await? {
                0 => break,
                byte if bundle.len() as u64 <= MAX_PATH => bundle.push(byte),
                _ => bail!("the runtime's bundle has no path"),
            }
        }
        Ok(Waiting { stream, bundle: OsString::from_vec(bundle).into() })
    }

    /// What the container is to be, once the host has said it.
    ///
    /// # Errors
    /// Never as long as the agent lives.
    pub(crate) async fn purpose(&self) -> anyhow::Result<Purpose> {
        let mut purpose = self.purpose.clone();
        let known = purpose.wait_for(Option::is_some).await?.clone();
        known.context("the container has no purpose")
    }
}

impl Waiting {
    /// Makes the container what it is to be, and lets the runtime go on.
    ///
    /// # Errors
    /// Where it would not become that.
    pub(crate) async fn go(mut self, purpose: &Purpose) -> anyhow::Result<()> {
        // What comes after this is the runtime's, without a detour.
        lead_to(RUNTIME).context("failed to give the runtime its place back")?;
        let path = self.bundle.join("config.json");
        let failed = || format!("failed to change `{}`", path.display());
        let mut config = serde_json::from_slice(&fs::read(&path).with_context(failed)?)?;
        if let Some(workdir) = &purpose.program.workdir {
            is_there(&config, workdir)?;
        }
        let hostname = &purpose.identity.hostname;
        change(&mut config, &purpose.program, hostname)?;
        fs::write(&path, config.to_string()).with_context(failed)?;
        if let Some(id) = self.bundle.parent().and_then(Path::file_name).and_then(OsStr::to_str) {
            restored::write_for(id, &purpose.identity, &purpose.network)?;
        }
        self.stream.write_u8(GO).await.context("the runtime does not wait any more")
    }
}

/// Makes what Podman takes for the runtime another program.
fn lead_to(program: &str) -> io::Result<()> {
    let next = format!("{WRAPPER}.next");
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(program, &next)?;
    fs::rename(next, WRAPPER)
}

/// Refuses a directory that the container has not: what becomes of that is Podman's to say.
fn is_there(config: &Value, directory: &str) -> anyhow::Result<()> {
    let root = config["root"]["path"].as_str().context("the container has no root")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(root, flags, Mode::empty()).context("failed to open the container's root")?;
    match openat2(&root, directory, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(_) => Ok(()),
        Err(_) => Err(NotPrepared { directory: directory.to_owned() }.into()),
    }
}

/// A container that was made as any is not what this one would be.
#[derive(Debug)]
pub(crate) struct NotPrepared {
    directory: String,
}

impl std::fmt::Display for NotPrepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the image has no directory `{}`", self.directory)
    }
}

impl std::error::Error for NotPrepared {}

/// Gives an OCI configuration its program and its host name.
fn change(config: &mut Value, program: &Program, hostname: &str) -> anyhow::Result<()> {
    let process = config.get_mut("process").and_then(Value::as_object_mut);
    let process = process.context("the container has no process")?;
    process.insert("args".into(), json!(program.arguments));
    if let Some(workdir) = &program.workdir {
        process.insert("cwd".into(), json!(workdir));
    }
    let env = process.entry("env").or_insert_with(|| json!([]));
    let env = env.as_array_mut().context("the container's environment is no list")?;
    let hostname_variable = ("HOSTNAME".to_owned(), hostname.to_owned());
    for (name, value) in [&hostname_variable].into_iter().chain(&program.env) {
        let variable = json!(format!("{name}={value}"));
        let is_it = |other: &Value| {
            other.as_str().and_then(|other| other.split_once('=')).is_some_and(|(other, _)| other == name)
        };
        match env.iter_mut().find(|other| is_it(other)) {
            Some(other) => *other = variable,
            None => env.push(variable),
        }
    }
    config["hostname"] = json!(hostname);
    Ok(())
}

/// Whether this process is started in the runtime's place.
pub(crate) fn is_wrapper() -> bool {
    env::args_os().next().is_some_and(|name| Path::new(&name).file_name() == Path::new(WRAPPER).file_name())
}

/// The runtime's place: where a container is to be made it waits first; then it is the runtime.
pub(crate) fn wrap() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if let Some(bundle) = bundle(&arguments)
        && let Err(error) = wait(bundle)
    {
        log::console(&format!("fc-agent: nobody says what the container is to run: {error}"));
        return ExitCode::FAILURE;
    }
    let error = Command::new(RUNTIME).args(arguments).exec();
    log::console(&format!("fc-agent: failed to become `{RUNTIME}`: {error}"));
    ExitCode::FAILURE
}

/// Where the container is described that these arguments of the runtime make.
fn bundle(arguments: &[OsString]) -> Option<&OsStr> {
    let create = arguments.iter().position(|argument| argument == "create")?;
    let mut rest = arguments[create..].iter();
    while let Some(argument) = rest.next() {
        if argument == "--bundle" || argument == "-b" {
            return rest.next().map(OsString::as_os_str);
        }
        if let Some(path) = argument.as_bytes().strip_prefix(b"--bundle=") {
            return Some(OsStr::from_bytes(path));
        }
    }
    None
}

fn wait(bundle: &OsStr) -> io::Result<()> {
    let mut agent = UnixStream::connect(SOCKET)?;
    agent.write_all(bundle.as_bytes())?;
    agent.write_all(&[0])?;
    let mut answer = [0];
    agent.read_exact(&mut answer)?;
    if answer == [GO] { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_that_of_a_container_that_is_made() {
        let find = |text: &str| {
            let arguments: Vec<_> = text.split(' ').map(OsString::from).collect();
            bundle(&arguments).map(|path| path.to_str().unwrap().to_owned())
        };
        for (text, expected) in [
            ("--log=/l --log-format=json create --bundle /b --pid-file /p id", Some("/b")),
            ("create --pid-file /p -b /b id", Some("/b")),
            ("create --bundle=/b id", Some("/b")),
            ("create id", None),
            ("start --bundle /b id", None),
            ("--version", None),
        ] {
            assert_eq!(find(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_container_becomes_what_is_asked_and_stays_the_rest() {
        let mut config = json!({
            "hostname": "old",
            "root": { "path": "/" },
            "process": {
                "args": ["fcvm"],
                "cwd": "/srv",
                "env": ["PATH=/bin", "HOSTNAME=old", "A=image", "AB=x"],
                "user": { "uid": 33 },
            },
        });
        let mut program = Program {
            arguments: vec!["sh".into(), "-c".into()],
            env: vec![("A".into(), "run=1".into()), ("B".into(), String::new())],
            workdir: None,
            terminal: None,
        };
        change(&mut config, &program, "new").unwrap();
        let process = &config["process"];
        assert_eq!(process["args"], json!(["sh", "-c"]));
        assert_eq!(process["env"], json!(["PATH=/bin", "HOSTNAME=new", "A=run=1", "AB=x", "B="]));
        assert_eq!((&process["cwd"], &process["user"]["uid"]), (&json!("/srv"), &json!(33)));
        assert_eq!(config["hostname"], "new");
        // As it would be set by hand.
        program.env = vec![("HOSTNAME".into(), "mine".into())];
        program.workdir = Some("/tmp".into());
        change(&mut config, &program, "third").unwrap();
        assert_eq!(config["process"]["env"][1], "HOSTNAME=mine");
        assert_eq!(config["process"]["cwd"], "/tmp");
        assert!(is_there(&config, "/tmp").is_ok());
        for bad in ["/etc/passwd", "/nowhere", "/../nowhere"] {
            assert!(is_there(&config, bad).is_err(), "{bad}");
        }
        assert!(change(&mut Value::Null, &program, "x").is_err());
    }
}
