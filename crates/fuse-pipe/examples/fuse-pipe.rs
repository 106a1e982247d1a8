//! Both ends of a pipe on one host: `fuse-pipe DIRECTORY MOUNTPOINT [auto|always|never|exclusive] [LANES]`
//! mounts a directory elsewhere, until it is unmounted. For trials, tests and benchmarks.

#![expect(clippy::print_stderr, reason = "a program says what is wrong")]

use std::{env, os::unix::net::UnixStream, path::PathBuf, process::ExitCode, thread};

use fuse_pipe::{
    client::{Audience, Client, Ended, Options},
    passthrough::{Access, Cache, Passthrough},
    server::Server,
    stream::Stream,
};

const USAGE: &str = "usage: fuse-pipe DIRECTORY MOUNTPOINT [auto|always|never|exclusive] [LANES]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args_os().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or(USAGE)?);
    let mountpoint = PathBuf::from(arguments.next().ok_or(USAGE)?);
    let cache = match arguments.next().as_deref().and_then(|word| word.to_str()) {
        None | Some("auto") => Cache::Auto,
        Some("always") => Cache::Always,
        Some("never") => Cache::Never,
        Some("exclusive") => Cache::Exclusive,
        Some(_) => return Err(USAGE.into()),
    };
    let lanes = arguments.next().map_or(Ok(2), |lanes| lanes.to_string_lossy().parse::<usize>())?;
    let server = Server::new(Passthrough::new(&directory, cache, Access::ReadWrite)?);
    let mut streams = Vec::new();
    for _ in 0..lanes {
        let (ours, theirs) = UnixStream::pair()?;
        let (server, theirs) = (server.clone(), Stream::new(theirs)?);
        thread::spawn(move || {
            if let Err(error) = server.serve(theirs) {
                eprintln!("error: {error}");
            }
        });
        streams.push(Stream::new(ours)?);
    }
    let options = Options { audience: Audience::Everyone, ..Options::default() };
    let mounted = Client::mount(&mountpoint, streams, &options)?;
    match mounted.wait() {
        Ended::Unmounted => Ok(()),
        ended => Err(ended.to_string().into()),
    }
}
