//! `fcvm cp`.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use anyhow::{Context as _, bail};
use fcvm_proto::{CONTAINER_ID, ExecRequest, ExecTarget};
use tokio::sync::oneshot;

use super::block_on;
use crate::{
    cli::cp::{Args, Place},
    copy::{CopyError, Overwrite, Packed, pack, unpack},
    output::{Printer, sanitize},
    state::{Registry, RuntimeDir},
    storage::DataDir,
    vm::{self, Ends},
};

/// Bytes of the guest's words about a failure.
const MAX_WORDS: u64 = 64 << 10;

/// The guest's Podman, for the one container that it has: `cp FROM TO`, of which `CONTAINER` is one's beginning.
/// Its id is in the file `$0`.
const GET: &str = r#"exec podman cp "$(cat "$0"):$1" -"#;
const PUT: &str = r#"exec podman cp $2 - "$(cat "$0"):$1""#;
/// By way of a directory, so that Podman decides what becomes of which name.
const PUT_FILES: &str = r#"
stage=$(mktemp -d -p /var/tmp) || exit
trap 'rm -rf "$stage"' EXIT
tar -x -p -C "$stage" && podman cp $2 "$stage/$3" "$(cat "$0"):$1"
"#;

/// Runs `fcvm cp`.
///
/// # Errors
/// Where the VM does not run, or something cannot be copied.
pub fn run(args: Args, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let overwrite = if args.overwrite { Overwrite::Any } else { Overwrite::SameKind };
    let flags = if args.overwrite { "--overwrite" } else { "" };
    let guest = |vm: &str| Guest { registry: &registry, vm: vm.to_owned() };
    match (args.from, args.to) {
        (Place::Vm { .. }, Place::Vm { .. }) => {
            bail!("one of the two is of this machine: copy by way of `-` or a directory")
        }
        (Place::Vm { vm, path }, Place::Stream) => {
            if printer.stdout_is_terminal() {
                bail!("an archive is not for a terminal: redirect standard output");
            }
            guest(&vm).script(GET, &[&path], None, io::stdout().as_fd().try_clone_to_owned()?, None)?;
        }
        (Place::Vm { vm, path }, Place::Host(to)) => guest(&vm).get(&path, &to, overwrite)?,
        (Place::Stream, Place::Vm { vm, path }) => {
            let stdin = io::stdin().as_fd().try_clone_to_owned()?;
            guest(&vm).script(PUT, &[&path, flags], Some(stdin), nowhere()?, None)?;
        }
        (Place::Host(from), Place::Vm { vm, path }) => guest(&vm).put(&from, &path, flags)?,
        (Place::Host(_) | Place::Stream, Place::Host(_) | Place::Stream) => {
            bail!("one of the two is in a VM: VM:PATH")
        }
    }
    Ok(ExitCode::SUCCESS)
}

struct Guest<'a> {
    registry: &'a Registry,
    vm: String,
}

impl Guest<'_> {
    /// From the container to this machine.
    fn get(&self, path: &str, to: &Path, overwrite: Overwrite) -> anyhow::Result<()> {
        let contents = path == "." || path.ends_with("/.");
        let wanted = if contents { path.trim_end_matches('.') } else { path };
        let name = Path::new(path.trim_end_matches("/.")).file_name().map(PathBuf::from);
        // Of the container's root.
        let (name, contents) = match name {
            Some(name) => (name, contents),
            None => (PathBuf::new(), true),
        };
        let (archive, end) = io::pipe()?;
        let to = to.to_owned();
        let (give_up, given_up) = oneshot::channel();
        let unpacking = thread::spawn(move || {
            let mut archive = archive;
            let unpacked = unpack(&mut archive, &name, &to, contents, overwrite);
            match &unpacked {
                // What is behind the archive's end; or the guest has failed, and is about to say why.
                Ok(()) | Err(CopyError::Empty | CopyError::Archive(_)) => {
                    io::copy(&mut archive, &mut io::sink()).map_err(CopyError::Archive)?;
                }
                // Podman waits for ever for whoever does not take it.
                Err(_) if give_up.send(()).is_err() => tracing::debug!("the guest has ended already"),
                Err(_) => {}
            }
            unpacked
        });
        let sent = self.script(GET, &[wanted], None, OwnedFd::from(end), Some(given_up));
        together(sent, unpacking)
    }

    /// From this machine to the container.
    fn put(&self, from: &Path, path: &str, flags: &str) -> anyhow::Result<()> {
        let what = Packed::find(from)?;
        let name = if what.contents { format!("{}/.", what.name) } else { what.name.clone() };
        let (source, archive) = io::pipe()?;
        let packing = thread::spawn(move || pack(&what, io::BufWriter::new(archive)));
        let taken =
            self.script(PUT_FILES, &[path, flags, &name], Some(OwnedFd::from(source)), nowhere()?, None);
        together(taken, packing)
    }

    /// Runs a script in the VM; where it fails, its words are the error. One that is given up is killed.
    fn script(
        &self,
        script: &str,
        arguments: &[&str],
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        given_up: Option<oneshot::Receiver<()>>,
    ) -> anyhow::Result<()> {
        let vm = self.registry.find(&self.vm)?;
        let words =
            ["sh", "-c", script, CONTAINER_ID].iter().chain(arguments).map(ToString::to_string).collect();
        let mut request = ExecRequest::new(vm::exec_id()?, ExecTarget::Machine, words);
        request.interactive = stdin.is_some();
        let (said, stderr) = io::pipe()?;
        let listening = thread::spawn(move || {
            let mut words = Vec::new();
            (&said).take(MAX_WORDS).read_to_end(&mut words)?;
            io::copy(&mut &said, &mut io::sink())?;
            io::Result::Ok(words)
        });
        let ends = Ends { stdin, stdout, stderr: OwnedFd::from(stderr), detach_keys: None };
        let status = block_on(async {
            tokio::select! {
                status = vm::exec(&vm, self.registry, &request, ends) => status.map(Some),
                () = given_up_by(given_up) => Ok(None),
            }
        })??;
        let Some(status) = status else { return Ok(()) };
        if status == 0 {
            return Ok(());
        }
        let words = listening.join().map_err(|_| anyhow::anyhow!("the guest's words are lost"))??;
        let words = sanitize(String::from_utf8_lossy(&words).trim());
        bail!("{}", words.strip_prefix("Error: ").unwrap_or(&words))
    }
}

/// The result of both ends: what fails in the guest makes the other end fail, and a reason of ours is
/// the first.
fn together(
    guest: anyhow::Result<()>,
    ours: thread::JoinHandle<Result<(), CopyError>>,
) -> anyhow::Result<()> {
    let ours = ours.join().map_err(|_| anyhow::anyhow!("the copying thread failed"))?;
    match (guest, ours) {
        (Ok(()), ours) => Ok(ours?),
        // It got no archive, or could not hand it over any more.
        (Err(error), Ok(()) | Err(CopyError::Empty | CopyError::Archive(_))) => Err(error),
        (Err(error), Err(CopyError::Read { source, .. })) if source.kind() == io::ErrorKind::BrokenPipe => {
            Err(error)
        }
        (Err(_), Err(error)) => Err(error.into()),
    }
}

async fn given_up_by(given_up: Option<oneshot::Receiver<()>>) {
    if let Some(given_up) = given_up
        && given_up.await.is_ok()
    {
        return;
    }
    // Nobody will.
    std::future::pending().await
}

fn nowhere() -> anyhow::Result<OwnedFd> {
    let null = File::options().write(true).open("/dev/null").context("failed to open `/dev/null`")?;
    Ok(null.into())
}
