//! Connections become lanes: those of one mount share a server, each mount has one of its own.

use std::{
    collections::HashMap,
    io,
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
};

use anyhow::{Context as _, Result};
use fuse_pipe::{
    hello::{Hello, HelloError, MountId},
    server::Server,
    stream::Stream,
};
use rustix::net::{RecvFlags, recv};

/// The servers of clients that are there.
type Servers = Mutex<HashMap<MountId, Weak<Server>>>;

/// Serves all who connect, for ever.
pub(crate) fn serve_all(listener: &UnixListener, server: impl Fn() -> Result<Server> + Send + Sync) {
    let servers = Servers::default();
    thread::scope(|scope| {
        for connection in listener.incoming() {
            let (servers, server) = (&servers, &server);
            // Whoever connects and says nothing holds up nobody else.
            scope.spawn(move || {
                report(connection.map_err(Into::into).and_then(|c| serve(c, servers, server)))
            });
        }
    });
}

/// Says what has gone wrong.
#[expect(clippy::print_stderr, reason = "a program says what is wrong")]
pub(crate) fn report(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("error: {error:#}");
    }
}

fn serve(connection: UnixStream, servers: &Servers, new: impl Fn() -> Result<Server>) -> Result<()> {
    let mount = mount_of(&connection).context("failed to greet a client")?;
    let server = {
        let mut servers = servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|_, server| server.strong_count() > 0);
        match servers.get(&mount).and_then(Weak::upgrade) {
            Some(server) => server,
            None => {
                let server = Arc::new(new()?);
                servers.insert(mount, Arc::downgrade(&server));
                server
            }
        }
    };
    Ok(server.serve(Stream::new(connection)?)?)
}

/// Whose lane it is; the greeting stays where it is, for the server.
fn mount_of(connection: &UnixStream) -> Result<MountId, HelloError> {
    let mut bytes = [0; Hello::SIZE];
    let (length, _) = recv(connection, &mut bytes, RecvFlags::PEEK | RecvFlags::WAITALL)
        .map_err(|errno| HelloError::Io(errno.into()))?;
    if length < Hello::SIZE {
        return Err(HelloError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Hello::decode(&bytes)?.mount)
}
