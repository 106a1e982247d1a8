//! Input on its way to a program.

use std::{fs::File, io::Read as _, os::fd::OwnedFd, thread};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
};

use super::detach_keys::{DetachKeys, Watcher};

/// How input ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is at its end, or the program takes no more.
    Over,
    /// The user leaves.
    Detached,
}

/// What comes from the reading thread.
pub(super) enum Typed {
    Bytes(Vec<u8>),
    /// The keys by which the user leaves. The thread has ended: what is typed now is for others.
    Keys,
}

/// Copies input to a stream, and its end.
pub(super) async fn copy(
    mut stream: impl AsyncWrite + Unpin,
    from: OwnedFd,
    keys: Option<DetachKeys>,
) -> End {
    let mut typed = reader(from, keys);
    while let Some(typed_now) = typed.recv().await {
        let Typed::Bytes(chunk) = typed_now else { return End::Detached };
        if let Err(error) = stream.write_all(&chunk).await {
            tracing::debug!(%error, "the program takes no more input");
            return End::Over;
        }
        if typed.is_empty()
            && let Err(error) = stream.flush().await
        {
            tracing::debug!(%error, "the program takes no more input");
            return End::Over;
        }
    }
    if let Err(error) = stream.shutdown().await {
        tracing::debug!(%error, "the end of the input was not delivered");
    }
    End::Over
}

/// What is read. Reading a terminal or a pipe cannot be called off, so a thread does it, which ends with the process;
/// it reads only as fast as the program takes. Nothing is where there can be no thread.
pub(super) fn reader(from: OwnedFd, keys: Option<DetachKeys>) -> mpsc::Receiver<Typed> {
    let (sender, typed) = mpsc::channel(2);
    let started = thread::Builder::new().name("stdin".into()).spawn(move || read(from, keys, &sender));
    if let Err(error) = started {
        tracing::warn!(%error, "the input is not forwarded");
    }
    typed
}

fn read(from: OwnedFd, keys: Option<DetachKeys>, typed: &mpsc::Sender<Typed>) {
    let mut input = File::from(from);
    let mut watcher = keys.map(Watcher::new);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => {
                let mut chunk = buffer[..read].to_vec();
                let left = watcher.as_mut().is_some_and(|watcher| watcher.filter(&mut chunk));
                if typed.blocking_send(Typed::Bytes(chunk)).is_err() {
                    return;
                }
                if left {
                    // Nobody may be there any more to leave.
                    drop(typed.blocking_send(Typed::Keys));
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return tracing::warn!(%error, "the input cannot be read"),
        }
    }
}
