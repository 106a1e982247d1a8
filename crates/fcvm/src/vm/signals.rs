//! Signals to fcvm, for the container.

use std::io;

use fcvm_proto::TerminalSize;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use crate::output::terminal_size;

/// What a container may want to hear of. The others are fcvm's own or cannot be caught.
fn forwarded() -> [SignalKind; 6] {
    [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ]
}

/// Signals that came, in order.
#[derive(Debug)]
pub(super) struct Signals {
    numbers: mpsc::Receiver<i32>,
}

impl Signals {
    /// Listens from now on, for as long as the process lives.
    ///
    /// # Errors
    /// Where the handlers cannot be installed.
    pub(super) fn listen() -> io::Result<Self> {
        let (sender, numbers) = mpsc::channel(16);
        for kind in forwarded() {
            let mut stream = signal(kind)?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() && sender.send(kind.as_raw_value()).await.is_ok() {}
            });
        }
        Ok(Self { numbers })
    }

    /// The next signal's number.
    pub(super) async fn next(&mut self) -> i32 {
        match self.numbers.recv().await {
            Some(number) => number,
            // The listening tasks live as long as the runtime.
            None => std::future::pending().await,
        }
    }

    /// Whether it asks the program to end.
    pub(super) fn ends(number: i32) -> bool {
        number == SignalKind::interrupt().as_raw_value() || number == SignalKind::terminate().as_raw_value()
    }
}

/// Sizes of our terminal, as they change.
#[derive(Debug)]
pub(super) struct Sizes {
    changes: Signal,
}

impl Sizes {
    /// Listens from now on.
    ///
    /// # Errors
    /// Where the handler cannot be installed.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { changes: signal(SignalKind::window_change())? })
    }

    /// The next size. Cancel-safe.
    pub(super) async fn next(&mut self) -> TerminalSize {
        loop {
            // The signal comes as long as the runtime lives.
            if self.changes.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
            if let Some(size) = terminal_size() {
                return size;
            }
        }
    }
}
