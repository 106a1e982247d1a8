//! The server's side.

use std::{
    env,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    process::ExitCode,
    thread,
};

use fuse_pipe::{
    passthrough::{self, GuestGid, GuestUid, Passthrough, State, Watch},
    server::{self, confine::confine},
    stream::Stream,
};

use super::{Answer, LANE, LONGEST, NAME, Order, SAVE, Task, namespace};
use crate::{
    process::messages,
    volume::{Cache, Ids, Options},
};

/// Whether this process was started to serve a volume.
#[must_use]
pub fn is_server() -> bool {
    env::args_os().next().is_some_and(|name| name == NAME)
}

/// Serves a volume until its owner wants it no more.
#[must_use]
pub fn serve() -> ExitCode {
    // It was started as `/proc/self/exe`, which is no name.
    if let Err(error) = rustix::thread::set_name(c"fcvm-volume") {
        tracing::debug!(%error, "the process keeps its name");
    }
    crate::output::init_child_logging();
    let stdin = io::stdin();
    let socket = stdin.as_fd();
    let worked = work(socket).or_else(|error| answer(socket, &Answer::Failed(error.to_string())));
    match worked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::debug!(%error, "the owner has gone");
            ExitCode::FAILURE
        }
    }
}

fn answer(socket: BorrowedFd<'_>, answer: &Answer) -> io::Result<()> {
    messages::send(socket, &serde_json::to_vec(answer)?, &[])
}

fn work(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut buffer = vec![0; LONGEST];
    let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (length, descriptors) = messages::receive(socket, &mut buffer)?.ok_or_else(gone)?;
    let Order { path, task, namespace, resumes } = serde_json::from_slice(&buffer[..length])?;
    let state = descriptors.into_iter().next().filter(|_| resumes).map(read).transpose()?;
    if namespace {
        namespace::make()?;
        answer(socket, &Answer::Made)?;
        messages::receive(socket, &mut buffer)?.ok_or_else(gone)?;
        namespace::enter()?;
    }
    match task {
        Task::Remove => {
            fs::remove_dir_all(&path)?;
            answer(socket, &Answer::Ready)
        }
        Task::Serve(options) => {
            let options = for_passthrough(&options);
            // One descriptor a file that the guest knows.
            if let Err(error) = server::raise_file_limit() {
                tracing::warn!(%error, "the limit of open files stays as it is");
            }
            // What could not be given up, it warns of.
            confine(&path, &options).map_err(io::Error::other)?;
            let files = match state {
                Some(state) => Passthrough::resume(&path, options, &state)?,
                None => Passthrough::new(&path, options)?,
            };
            answer(socket, &Answer::Ready)?;
            lanes(socket, &server::Server::new(files))
        }
    }
}

fn for_passthrough(options: &Options) -> passthrough::Options {
    passthrough::Options {
        cache: match options.cache {
            Cache::Auto => passthrough::Cache::Auto,
            Cache::Always => passthrough::Cache::Always,
            Cache::None => passthrough::Cache::Never,
            Cache::Exclusive => passthrough::Cache::Exclusive,
        },
        access: if options.read_only {
            passthrough::Access::ReadOnly
        } else {
            passthrough::Access::ReadWrite
        },
        ids: match options.ids {
            Ids::Auto | Ids::Same | Ids::Ranges => passthrough::Ids::Same,
            Ids::Squash { uid, gid } => passthrough::Ids::Squash { uid: GuestUid(uid), gid: GuestGid(gid) },
        },
        watch: if options.unwatched { Watch::Off } else { Watch::On },
    }
}

/// What another server knew.
fn read(descriptor: OwnedFd) -> io::Result<State> {
    let mut bytes = Vec::new();
    File::from(descriptor).read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// What this one knows.
fn save(server: &server::Server, descriptor: OwnedFd) -> io::Result<()> {
    let bytes = postcard::to_stdvec(&server.save()).map_err(io::Error::other)?;
    File::from(descriptor).write_all(&bytes)
}

fn lanes(socket: BorrowedFd<'_>, server: &server::Server) -> io::Result<()> {
    let mut what = [LANE];
    while let Some((_, descriptors)) = messages::receive(socket, &mut what)? {
        let Some(descriptor) = descriptors.into_iter().next() else { continue };
        if what == [SAVE] {
            let saved = save(server, descriptor);
            answer(
                socket,
                &saved.map_or_else(|error| Answer::Failed(error.to_string()), |()| Answer::Ready),
            )?;
            continue;
        }
        let server = server.clone();
        thread::Builder::new().name("lane".into()).spawn(move || lane(&server, descriptor))?;
    }
    Ok(())
}

fn lane(server: &server::Server, descriptor: OwnedFd) {
    let served = Stream::new(descriptor).map_err(Into::into).and_then(|stream| server.serve(stream));
    if let Err(error) = served {
        // What a guest does wrong is for whoever looks into it.
        tracing::debug!(error = &error as &dyn std::error::Error, "a lane ended");
    }
}
