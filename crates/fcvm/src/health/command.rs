//! A check that is a command in the container.

use std::time::Duration;

use fcvm_link::{
    Opener, Stream,
    channel::{Receiver, Sender},
};
use fcvm_proto::{ExecEvent, ExecRequest, ExecTarget, FailureKind, Port, exec::EXEC_ID_LEN};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, split},
    time::timeout,
};

use super::{MAX_OUTPUT, Outcome, too_long};
use crate::output::sanitize;

/// Runs the command. Dropped, or after its time, the guest kills it.
pub(super) async fn run(command: &[String], limit: Duration, opener: &Opener) -> Outcome {
    match attempt(command, limit, opener).await {
        Some(outcome) => outcome,
        None => Outcome::Unknown,
    }
}

/// `None` where the guest does not answer.
async fn attempt(command: &[String], limit: Duration, opener: &Opener) -> Option<Outcome> {
    let mut id = [0; EXEC_ID_LEN];
    crate::random::fill(&mut id).ok()?;
    let request = ExecRequest::new(id, ExecTarget::Container, command.to_vec());
    let (read, write) = split(opener.open(Port::Exec).await.ok()?);
    let mut events = Receiver::<ExecEvent, _>::new(read);
    // Its end is the command's.
    let mut orders = Sender::<ExecRequest, _>::new(write);
    orders.send(&request).await.ok()?;
    let Some(ExecEvent::Accepted) = events.receive().await.ok()? else { return None };
    let outputs = async {
        let streams =
            tokio::try_join!(named(opener, Port::ExecStdout, &id), named(opener, Port::ExecStderr, &id));
        let Ok((stdout, stderr)) = streams else { return String::new() };
        let (mut stdout, stderr) = tokio::join!(beginning(stdout), beginning(stderr));
        stdout.extend(stderr);
        stdout.truncate(MAX_OUTPUT);
        sanitize(String::from_utf8_lossy(&stdout).trim_end())
    };
    let ended = async {
        loop {
            match events.receive().await {
                Ok(Some(ExecEvent::Accepted | ExecEvent::Started | ExecEvent::Detached)) => {}
                Ok(Some(ExecEvent::Ended(status))) => return Some(Ok(status)),
                Ok(Some(ExecEvent::Failed(failure))) => return Some(Err(failure)),
                Ok(None) | Err(_) => return None,
            }
        }
    };
    let Ok((output, ended)) = timeout(limit, async { tokio::join!(outputs, ended) }).await else {
        return Some(too_long(limit));
    };
    Some(match ended? {
        Ok(status) => Outcome::Done(status, output),
        // It ends, or has not quite begun.
        Err(failure) if failure.kind == FailureKind::NotRunning => Outcome::Unknown,
        Err(failure) => Outcome::Done(1, sanitize(&failure.message)),
    })
}

async fn named(opener: &Opener, port: Port, id: &[u8]) -> Result<Stream, ()> {
    let mut stream = opener.open(port).await.map_err(drop)?;
    stream.write_all(id).await.map_err(drop)?;
    stream.flush().await.map_err(drop)?;
    Ok(stream)
}

/// The first bytes of a stream; the others go nowhere.
async fn beginning(mut stream: Stream) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        let room = MAX_OUTPUT - kept.len();
        kept.extend_from_slice(&chunk[..read.min(room)]);
    }
    kept
}
