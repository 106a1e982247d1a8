//! Standard input on its way to the container.

use std::{io::Read as _, thread};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
};

/// Copies our standard input to a stream, and its end. Reading a terminal or a
/// pipe cannot be called off, so a thread does it, which ends with the process;
/// it reads only as fast as the container takes.
pub(super) async fn copy(mut stream: impl AsyncWrite + Unpin) {
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(2);
    let reader = thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match stdin.read(&mut buffer) {
                Ok(read @ 1..) if sender.blocking_send(buffer[..read].to_vec()).is_ok() => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(_) => return,
                Err(error) => return tracing::warn!(%error, "standard input cannot be read"),
            }
        }
    });
    if let Err(error) = reader {
        return tracing::warn!(%error, "standard input is not forwarded");
    }
    while let Some(chunk) = chunks.recv().await {
        if let Err(error) = stream.write_all(&chunk).await {
            return tracing::debug!(%error, "the container takes no more input");
        }
        if chunks.is_empty()
            && let Err(error) = stream.flush().await
        {
            return tracing::debug!(%error, "the container takes no more input");
        }
    }
    if let Err(error) = stream.shutdown().await {
        tracing::debug!(%error, "the end of the input was not delivered");
    }
}
