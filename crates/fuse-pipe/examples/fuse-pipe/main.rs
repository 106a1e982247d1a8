//! Both ends of a pipe, or one of them, for trials, tests and benchmarks.
//!
//! ```text
//! fuse-pipe DIRECTORY MOUNTPOINT     both: a directory elsewhere, by a process between
//! fuse-pipe serve DIRECTORY SOCKET   the server; each client's lanes are connections
//! fuse-pipe mount SOCKET MOUNTPOINT  the client
//! ```
//! A signal that asks it to end unmounts and removes the socket.

mod arguments;
mod listener;

use std::{
    fs,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::ExitCode,
    sync::mpsc,
    thread,
};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use fuse_pipe::{
    Spin,
    client::{self, Client, Ended},
    passthrough::{self, Passthrough},
    server::Server,
    stream::Stream,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::arguments::{Arguments, Command};

fn main() -> ExitCode {
    let done = run(Arguments::parse());
    let code = if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    listener::report(done);
    code
}

fn run(arguments: Arguments) -> Result<()> {
    // From here on they end nothing by themselves.
    let signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("failed to take signals")?;
    match arguments.command {
        Some(Command::Serve { directory, socket, serve, waiting, access }) => {
            listen(&directory, &socket, serve.options(access), waiting.spin(), signals)
        }
        Some(Command::Mount { socket, mountpoint, mount, waiting, access }) => {
            let connect = |_| -> Result<Stream> {
                let stream = UnixStream::connect(&socket)
                    .with_context(|| format!("failed to connect to `{}`", socket.display()))?;
                Ok(Stream::new(stream)?)
            };
            let streams = (0..mount.lanes.get()).map(connect).collect::<Result<_>>()?;
            hold(&mountpoint, streams, &mount.options(access, waiting), signals)
        }
        None => {
            let (Some(directory), Some(mountpoint)) = (arguments.directory, arguments.mountpoint) else {
                bail!("a directory and a mountpoint are needed");
            };
            let options = arguments.serve.options(arguments.access);
            let server = server(&directory, options, arguments.waiting.spin())?;
            let connect = |_| -> Result<Stream> {
                let (ours, theirs) = UnixStream::pair()?;
                let (server, theirs) = (server.clone(), Stream::new(theirs)?);
                thread::spawn(move || listener::report(server.serve(theirs).map_err(Into::into)));
                Ok(Stream::new(ours)?)
            };
            let streams = (0..arguments.mount.lanes.get()).map(connect).collect::<Result<_>>()?;
            hold(&mountpoint, streams, &arguments.mount.options(arguments.access, arguments.waiting), signals)
        }
    }
}

fn server(directory: &Path, options: passthrough::Options, spin: Spin) -> Result<Server> {
    let files = Passthrough::new(directory, options);
    let files = files.with_context(|| format!("failed to serve `{}`", directory.display()))?;
    Ok(Server::new(files).with_spin(spin))
}

/// Serves all who connect, until a signal comes.
fn listen(
    directory: &Path,
    socket: &Path,
    options: passthrough::Options,
    spin: Spin,
    mut signals: Signals,
) -> Result<()> {
    // Each client gets a server of its own; whether there can be one is seen before there is a client.
    server(directory, options, spin)?;
    let listener =
        UnixListener::bind(socket).with_context(|| format!("failed to listen at `{}`", socket.display()))?;
    let directory = directory.to_owned();
    thread::spawn(move || listener::serve_all(&listener, move || server(&directory, options, spin)));
    signals.forever().next();
    fs::remove_file(socket).with_context(|| format!("failed to remove `{}`", socket.display()))
}

/// Mounts, and waits for a signal or for the mount's end.
fn hold(
    mountpoint: &Path,
    streams: Vec<Stream>,
    options: &client::Options,
    mut signals: Signals,
) -> Result<()> {
    let mounted = Client::mount(mountpoint, streams, options)
        .with_context(|| format!("failed to mount at `{}`", mountpoint.display()))?;
    let (told, ends) = mpsc::channel();
    let (ending, by_signal) = (mounted.ending(), told.clone());
    thread::spawn(move || told.send(ending.wait()));
    thread::spawn(move || signals.forever().next().map(|_| by_signal.send(Ended::Unmounted)));
    let ended = ends.recv()?;
    // What the kernel has held back is written now.
    mounted.unmount()?;
    match ended {
        Ended::Unmounted => Ok(()),
        ended => Err(ended.into()),
    }
}
