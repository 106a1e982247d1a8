//! Images of this user's Podman.
//!
//! Podman itself is asked: the format of its storage is its own, and a rootless user's storage
//! can be read in that user's namespace only. An image is saved in the format that it has:
//! a conversion would change its configuration, hence its id, and lose what OCI has no
//! place for, like `HEALTHCHECK`.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use serde::Deserialize;

use super::{
    EngineError, Engines, TransportError, docker_archive,
    engine::{EngineImage, SaveFormat, nameless},
    oci,
    tar_index::Archive,
};
use crate::{image::model::DiskSource, output::sanitize};

const PODMAN: &str = "Podman";
const MAX_OUTPUT: u64 = 16 << 20;
const MAX_SAID: usize = 600;
/// What `podman image exists` ends with where there is none.
const ABSENT: i32 = 1;

/// What `podman image inspect` says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    manifest_type: Option<String>,
}

/// The image that Podman means by a name or id; `None` where it has none.
///
/// # Errors
/// Where Podman is not there, or fails.
pub(in crate::image) fn find(engines: &Engines, name: &str) -> Result<Option<EngineImage>, EngineError> {
    let inspected = podman(engines, &["image", "inspect", "--format", "json", "--", name])?;
    if inspected.status.success() {
        let understood = understand(&inspected.out);
        return understood
            .map(Some)
            .ok_or_else(|| EngineError::Answer { engine: PODMAN, name: name.to_owned() });
    }
    // The status is the same for any failure, and words change.
    let exists = podman(engines, &["image", "exists", "--", name])?;
    if exists.status.code() == Some(ABSENT) {
        return Ok(None);
    }
    Err(failed(engines, &inspected.err))
}

/// An image, saved to a nameless file in `cache`.
///
/// # Errors
/// Where Podman fails, or the image is not what it should be.
pub(in crate::image) fn save(
    engines: &Engines,
    image: &EngineImage,
    cache: &Path,
) -> Result<DiskSource, TransportError> {
    let program = program(engines)?;
    let file = nameless(cache)?;
    let spool = |source| TransportError::Spool { path: cache.to_owned(), source };
    let run = |source| EngineError::Run { program: program.to_owned(), source };
    let format = match image.format {
        SaveFormat::OciArchive => "oci-archive",
        SaveFormat::DockerArchive => "docker-archive",
    };
    let mut child = Command::new(program)
        .args(["save", "--quiet", "--format", format, "--", &image.id.hex()])
        .stdin(Stdio::null())
        .stdout(file.try_clone().map_err(spool)?)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(run)?;
    // How long this takes is up to the image; Podman runs as long as we do, and can be interrupted.
    let said = child.stderr.take().map(read).transpose().map_err(run)?.unwrap_or_default();
    let status = child.wait().map_err(run)?;
    if !status.success() {
        return Err(failed(engines, &said).into());
    }
    open(image, file)
}

fn open(image: &EngineImage, file: File) -> Result<DiskSource, TransportError> {
    let archive = Archive::of(format!("containers-storage:{}", image.id.short()).as_ref(), file)?;
    match image.format {
        SaveFormat::OciArchive => oci::read(&archive, None),
        SaveFormat::DockerArchive => docker_archive::read(&archive, None),
    }
}

fn understand(out: &[u8]) -> Option<EngineImage> {
    let [inspected] = <[Inspected; 1]>::try_from(serde_json::from_slice::<Vec<Inspected>>(out).ok()?).ok()?;
    let format = match inspected.manifest_type {
        Some(kind) if kind.starts_with("application/vnd.docker.") => SaveFormat::DockerArchive,
        _ => SaveFormat::OciArchive,
    };
    let id = format!("sha256:{}", inspected.id).parse().ok()?;
    Some(EngineImage { id, names: inspected.repo_tags.unwrap_or_default(), format })
}

fn program(engines: &Engines) -> Result<&Path, EngineError> {
    engines.podman.as_deref().ok_or_else(|| EngineError::NoPodman { program: "podman".into() })
}

fn failed(engines: &Engines, said: &[u8]) -> EngineError {
    let program = engines.podman.clone().unwrap_or_default();
    let said: String = String::from_utf8_lossy(said).trim().chars().take(MAX_SAID).collect();
    EngineError::Failed { program, said: sanitize(&said) }
}

/// What a command said.
struct Said {
    status: ExitStatus,
    out: Vec<u8>,
    err: Vec<u8>,
}

/// Runs Podman for an answer, which must come in time.
fn podman(engines: &Engines, arguments: &[&str]) -> Result<Said, EngineError> {
    let program = program(engines)?;
    let run = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => EngineError::NoPodman { program: program.to_owned() },
        _ => EngineError::Run { program: program.to_owned(), source },
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(run)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let out = in_background(stdout);
    let err = in_background(stderr);
    let answers = [out, err].map(|answer| answer.recv_timeout(engines.answer));
    let [Ok(out), Ok(err)] = answers else {
        end(&mut child);
        return Err(EngineError::TimedOut { engine: PODMAN, limit: engines.answer });
    };
    let status = child.wait().map_err(run)?;
    Ok(Said { status, out: out.map_err(run)?, err: err.map_err(run)? })
}

fn end(child: &mut Child) {
    if let Err(error) = child.kill().and_then(|()| child.wait()) {
        tracing::debug!(%error, "podman could not be killed");
    }
}

fn in_background(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let answer = stream.map_or(Ok(Vec::new()), read);
        // Nobody waits any more where it came too late.
        drop(sender.send(answer));
    });
    receiver
}

fn read(stream: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
    Ok(bytes)
}
