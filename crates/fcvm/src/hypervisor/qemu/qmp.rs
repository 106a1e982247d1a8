//! QEMU's control protocol (QMP): JSON lines over a socket, commands answered in their order, and events.

use std::{
    io::{self, Write as _},
    os::unix::net::UnixStream as StdStream,
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, mpsc, watch},
    time::timeout,
};
use tracing::Instrument as _;

use crate::{
    hypervisor::{HypervisorError, Stop},
    output::sanitize,
};

/// Enters command mode.
const BEGIN: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n";
/// Longest line taken from QEMU.
const MAX_LINE: u64 = 1 << 20;
/// How long a command may take; those that take long only begin something.
const PATIENCE: Duration = Duration::from_secs(60);

/// What QEMU sends that matters to us; all else is another variant or field.
#[derive(Debug, Deserialize)]
struct Message {
    event: Option<String>,
    #[serde(default)]
    data: EventData,
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Failure>,
}

#[derive(Debug, Default, Deserialize)]
struct EventData {
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    desc: String,
}

/// What comes of a command.
type Answer = Result<Value, String>;

/// The connection to one machine's QEMU.
#[derive(Debug)]
pub(super) struct Qmp {
    /// Held from a command to its answer.
    talk: Mutex<(OwnedWriteHalf, mpsc::Receiver<Answer>)>,
    /// Whether the guest's processors run, as far as that has been told.
    running: watch::Receiver<bool>,
}

impl Qmp {
    /// Takes a new connection, and passes on why the machine stops.
    ///
    /// # Errors
    /// Where the connection is none.
    pub(super) fn start(mut stream: StdStream, stop: watch::Sender<Option<Stop>>) -> io::Result<Self> {
        // A new socket takes so much at once, also before somebody reads.
        stream.write_all(BEGIN)?;
        stream.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        let (answers, answered) = mpsc::channel(1);
        let (runs, running) = watch::channel(false);
        tokio::spawn(listen(read, stop, answers, runs).in_current_span());
        Ok(Self { talk: Mutex::new((write, answered)), running })
    }

    /// Has a command done; its answer.
    ///
    /// # Errors
    /// Where QEMU refuses, does not answer or is gone.
    pub(super) async fn execute(
        &self,
        command: &'static str,
        arguments: Value,
    ) -> Result<Value, HypervisorError> {
        let failed = |why: String| HypervisorError::Qmp { command, why };
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        let talk = async {
            let mut talk = self.talk.lock().await;
            let (write, answers) = &mut *talk;
            write.write_all(line.as_bytes()).await.map_err(|error| error.to_string())?;
            answers.recv().await.ok_or("QEMU is gone")?
        };
        match timeout(PATIENCE, talk).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(failed("it takes too long".into())),
        }
    }

    /// Loads the state behind a descriptor of QEMU's, and waits until the machine runs.
    ///
    /// # Errors
    /// As of [`execute`](Self::execute). Where the state is none, QEMU ends.
    pub(super) async fn load(&self, descriptor: i32) -> Result<(), HypervisorError> {
        let command = "migrate-incoming";
        self.execute(command, json!({ "uri": format!("fd:{descriptor}") })).await?;
        let mut running = self.running.clone();
        let runs = running.wait_for(|running| *running).await;
        runs.map_err(|_| HypervisorError::Qmp { command, why: "QEMU is gone".into() })?;
        Ok(())
    }
}

/// Reads all that QEMU says until it goes.
async fn listen(
    read: OwnedReadHalf,
    stop: watch::Sender<Option<Stop>>,
    answers: mpsc::Sender<Answer>,
    running: watch::Sender<bool>,
) {
    let mut lines = BufReader::new(read);
    let mut line = Vec::new();
    let mut begun = false;
    loop {
        line.clear();
        match (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            Ok(0) => return,
            Err(error) => return tracing::debug!(target: "qemu", %error, "control connection broke"),
        }
        let answer = match serde_json::from_slice::<Message>(&line) {
            Ok(Message { event: Some(event), data, .. }) => {
                tracing::debug!(target: "qemu", event, reason = data.reason, "event");
                match event.as_str() {
                    "SHUTDOWN" => {
                        stop.send_replace(Some(reason(data.reason.unwrap_or_default())));
                    }
                    "RESUME" => drop(running.send_replace(true)),
                    "STOP" => drop(running.send_replace(false)),
                    _ => {}
                }
                continue;
            }
            Ok(Message { error: Some(error), .. }) => Err(sanitize(&error.desc)),
            Ok(Message { answer: Some(answer), .. }) => Ok(answer),
            // Its greeting.
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(target: "qemu", %error, "unreadable control message");
                continue;
            }
        };
        // The first is that to our greeting, and nobody's.
        if std::mem::replace(&mut begun, true) && answers.send(answer).await.is_err() {
            return;
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

    const GREETING: &str = "{\"QMP\":{\"version\":{}}}\n{\"return\":{}}\n";

    #[tokio::test]
    async fn a_panic_and_a_power_off_are_told_apart() {
        for (cause, expected) in [
            ("guest-reset", Stop::Reset),
            ("guest-shutdown", Stop::PoweredOff),
            ("host-signal", Stop::Other("host-signal".into())),
        ] {
            let (near, mut far) = StdStream::pair().unwrap();
            let (stop, mut stopped) = watch::channel(None);
            let _qmp = Qmp::start(near, stop).unwrap();
            let event = format!(
                "{{\"event\":\"SHUTDOWN\",\"data\":{{\"guest\":true,\"reason\":\"{cause}\"}}}}\nnonsense\n"
            );
            far.write_all([GREETING, &event].concat().as_bytes()).unwrap();
            stopped.changed().await.unwrap();
            assert_eq!(*stopped.borrow(), Some(expected));
        }
    }

    #[tokio::test]
    async fn a_command_has_its_own_answer_whatever_comes_between() {
        let (near, far) = StdStream::pair().unwrap();
        let qmp = Qmp::start(near, watch::channel(None).0).unwrap();
        let server = async {
            far.set_nonblocking(true).unwrap();
            let (read, mut write) = UnixStream::from_std(far).unwrap().into_split();
            let mut lines = BufReader::new(read).lines();
            write.write_all(GREETING.as_bytes()).await.unwrap();
            assert!(lines.next_line().await.unwrap().unwrap().contains("qmp_capabilities"));
            for answer in [
                "{\"event\":\"STOP\"}\n{\"return\":{\"number\":1}}\n",
                "{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\\u001b\"}}\n{\"event\":\"RESUME\"}\n",
                "{\"return\":{}}\n",
            ] {
                lines.next_line().await.unwrap().unwrap();
                write.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let client = async {
            assert_eq!(qmp.execute("first", json!({})).await.unwrap(), json!({ "number": 1 }));
            let refused = qmp.execute("second", json!({})).await.unwrap_err();
            assert_eq!(refused.to_string(), "QEMU did not do `second`: no\\u{1b}");
            qmp.load(6).await.unwrap();
        };
        tokio::join!(server, client);
        let gone = qmp.execute("last", json!({})).await.unwrap_err();
        assert!(gone.to_string().starts_with("QEMU did not do `last`: "), "{gone}");
    }
}
