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

/// Copies input to a stream, and its end. Reading a terminal or a pipe cannot be called off, so a
/// thread does it, which ends with the process; it reads only as fast as the program takes.
pub(super) async fn copy(
    mut stream: impl AsyncWrite + Unpin,
    from: OwnedFd,
    keys: Option<DetachKeys>,
) -> End {
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(2);
    let reader = thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut input = File::from(from);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match input.read(&mut buffer) {
                Ok(read @ 1..) if sender.blocking_send(buffer[..read].to_vec()).is_ok() => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(_) => return,
                Err(error) => return tracing::warn!(%error, "the input cannot be read"),
            }
        }
    });
    if let Err(error) = reader {
        tracing::warn!(%error, "the input is not forwarded");
        return End::Over;
    }
    let mut watcher = keys.map(Watcher::new);
    while let Some(mut chunk) = chunks.recv().await {
        if watcher.as_mut().is_some_and(|watcher| watcher.filter(&mut chunk)) {
            return End::Detached;
        }
        if let Err(error) = stream.write_all(&chunk).await {
            tracing::debug!(%error, "the program takes no more input");
            return End::Over;
        }
        if chunks.is_empty()
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
