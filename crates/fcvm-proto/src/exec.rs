//! Messages of the exec ports: one more command in a guest that runs.
//!
//! ```text
//! host                                                  guest
//!   Exec:  ExecRequest -------------------------------->
//!          <---------------------------------- Accepted
//!   ExecStdin, ExecStdout, ExecStderr: the request's id, then bytes
//!          <----------------------------------- Started
//!          Signal, Resize ----------------------------->
//!          <---------------------- Ended, after all output
//! ```
//! Each stream has flow control of its own: a reader that stops stops its own output, and a command
//! that does not read its input still hears of signals. With a terminal there is no error output. The
//! end of the `Exec` stream kills the command, unless it was started detached or is left to itself.

use serde::{Deserialize, Serialize};

use crate::Failure;

/// Bytes of an [`ExecRequest::id`].
pub const EXEC_ID_LEN: usize = 16;

/// The first message of an exec stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Chosen by the host at random: the streams of the command begin with it.
    pub id: [u8; EXEC_ID_LEN],
    /// Where the command runs.
    pub target: ExecTarget,
    /// The command and its arguments; not empty.
    pub command: Vec<String>,
    /// Environment beyond the target's own: name, value.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute; the target's own where absent.
    pub workdir: Option<String>,
    /// `USER[:GROUP]`, names or numbers; the target's own where absent.
    pub user: Option<String>,
    /// All capabilities, in the container.
    pub privileged: bool,
    /// A terminal of that size for the command.
    pub terminal: Option<TerminalSize>,
    /// Whether the host opens a [`Port::ExecStdin`](crate::Port::ExecStdin) stream.
    pub interactive: bool,
    /// The command goes on when the stream ends; it has no streams of its own.
    pub detach: bool,
}

impl ExecRequest {
    /// A command with nothing of its own: no input, no terminal, the target's environment.
    #[must_use]
    pub fn new(id: [u8; EXEC_ID_LEN], target: ExecTarget, command: Vec<String>) -> Self {
        Self {
            id,
            target,
            command,
            env: Vec::new(),
            workdir: None,
            user: None,
            privileged: false,
            terminal: None,
            interactive: false,
            detach: false,
        }
    }
}

/// Where a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecTarget {
    /// In the container.
    Container,
    /// In the VM, beside the container, as root of all.
    Machine,
}

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Host to guest, after the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecOrder {
    /// A signal for the command, by its Linux number.
    Signal(i32),
    /// The host's terminal has another size.
    Resize(TerminalSize),
    /// The host wants to leave: the command is to go on without it.
    Detach,
}

/// Guest to host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecEvent {
    /// The streams are expected.
    Accepted,
    /// The command runs.
    Started,
    /// The command ended with this status; all it had written has been sent.
    Ended(u8),
    /// There is no command.
    Failed(Failure),
    /// The answer to `Detach`: the end of the streams means nothing any more.
    Detached,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FailureKind, frame};

    /// These bytes are the protocol. If this fails you changed the wire format: raise `PROTOCOL`.
    #[test]
    fn exec_bytes_are_frozen() {
        let request = ExecRequest {
            id: [9; EXEC_ID_LEN],
            target: ExecTarget::Machine,
            command: vec!["c".into()],
            env: vec![("a".into(), "b".into())],
            workdir: Some("/".into()),
            user: None,
            privileged: true,
            terminal: Some(TerminalSize { rows: 24, columns: 80 }),
            interactive: true,
            detach: false,
        };
        let mut expected = vec![9; EXEC_ID_LEN];
        expected.extend([1, 1, 1, b'c', 1, 1, b'a', 1, b'b', 1, 1, b'/', 0, 1, 1, 24, 80, 1, 0]);
        assert_eq!(frame::encode(&request).unwrap()[frame::HEADER..], expected);
        let orders: [(ExecOrder, &[u8]); 3] = [
            (ExecOrder::Signal(15), &[0, 30]),
            (ExecOrder::Resize(TerminalSize { rows: 1, columns: 2 }), &[1, 1, 2]),
            (ExecOrder::Detach, &[2]),
        ];
        for (order, body) in orders {
            assert_eq!(frame::encode(&order).unwrap()[frame::HEADER..], *body);
        }
        let failure = Failure { kind: FailureKind::NotFound, message: "f".into() };
        let events: [(ExecEvent, &[u8]); 5] = [
            (ExecEvent::Accepted, &[0]),
            (ExecEvent::Started, &[1]),
            (ExecEvent::Ended(7), &[2, 7]),
            (ExecEvent::Failed(failure), &[3, 4, 1, b'f']),
            (ExecEvent::Detached, &[4]),
        ];
        for (event, body) in events {
            assert_eq!(frame::encode(&event).unwrap()[frame::HEADER..], *body);
        }
    }
}
