//! QEMU's control protocol (QMP): JSON lines over a socket.
//!
//! A machine of ours needs its events: why it stopped tells a guest that
//! powered off from one that panicked.

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::watch,
};

use crate::hypervisor::Stop;

/// Longest line taken from QEMU.
const MAX_LINE: u64 = 1 << 20;

/// What QEMU sends that matters to us; all else is another variant or field.
#[derive(Debug, Deserialize)]
struct Message {
    event: Option<String>,
    #[serde(default)]
    data: EventData,
    error: Option<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
struct EventData {
    reason: Option<String>,
}

/// Enters command mode and passes on why the machine stops, until QEMU goes.
pub(super) async fn listen(stream: UnixStream, stop: watch::Sender<Option<Stop>>) {
    let (read, mut write) = stream.into_split();
    if let Err(error) = write.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").await {
        return tracing::debug!(target: "qemu", %error, "no control connection");
    }
    let mut lines = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            Ok(0) => return,
            Err(error) => return tracing::debug!(target: "qemu", %error, "control connection broke"),
        }
        match serde_json::from_slice::<Message>(&line) {
            Ok(Message { event: Some(event), data, .. }) => {
                tracing::debug!(target: "qemu", event, reason = data.reason, "event");
                if event == "SHUTDOWN" {
                    stop.send_replace(Some(reason(data.reason.unwrap_or_default())));
                }
            }
            Ok(Message { error: Some(error), .. }) => tracing::warn!(target: "qemu", %error, "control error"),
            Ok(_) => {}
            Err(error) => tracing::warn!(target: "qemu", %error, "unreadable control message"),
        }
    }
}

/// `ShutdownCause` of QEMU's `qapi/run-state.json`.
fn reason(cause: String) -> Stop {
    match cause.as_str() {
        "guest-shutdown" => Stop::PoweredOff,
        "guest-reset" | "guest-panic" => Stop::Reset,
        _ => Stop::Other(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_and_a_power_off_are_told_apart() {
        for (cause, expected) in [
            ("guest-reset", Stop::Reset),
            ("guest-shutdown", Stop::PoweredOff),
            ("host-signal", Stop::Other("host-signal".into())),
        ] {
            let (near, far) = UnixStream::pair().unwrap();
            let (stop, stopped) = watch::channel(None);
            let listening = tokio::spawn(listen(near, stop));
            let (_read, mut write) = far.into_split();
            let lines = format!(
                "{{\"QMP\":{{\"version\":{{}}}}}}\n{{\"return\":{{}}}}\n{{\"event\":\"SHUTDOWN\",\"data\":{{\"guest\":true,\"reason\":\"{cause}\"}}}}\nnonsense\n"
            );
            write.write_all(lines.as_bytes()).await.unwrap();
            write.shutdown().await.unwrap();
            drop(_read);
            listening.await.unwrap();
            assert_eq!(*stopped.borrow(), Some(expected));
        }
    }
}
