//! Our terminal while a program in a guest has it.

use std::io;

use fcvm_proto::TerminalSize;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// What a terminal of a program has where ours is none.
pub const USUAL_SIZE: TerminalSize = TerminalSize { rows: 24, columns: 80 };

/// The terminal of standard input in raw mode: every key is the guest's. As before once this is dropped.
#[derive(Debug)]
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Nothing where standard input is no terminal.
    ///
    /// # Errors
    /// Where the terminal does not do it.
    pub fn set() -> io::Result<Option<Self>> {
        let stdin = rustix::stdio::stdin();
        if !isatty(stdin) {
            return Ok(None);
        }
        let before = tcgetattr(stdin)?;
        let mut modes = before.clone();
        modes.make_raw();
        // What was typed until now is for the program too.
        tcsetattr(stdin, OptionalActions::Drain, &modes)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before) {
            tracing::warn!(%error, "the terminal is left in raw mode: `reset` makes it usable");
        }
    }
}

/// How the terminal of standard input is now.
#[derive(Debug)]
pub struct SavedTerminal(Option<Termios>);

impl SavedTerminal {
    /// Nothing where standard input is no terminal.
    #[must_use]
    pub fn save() -> Self {
        Self(tcgetattr(rustix::stdio::stdin()).ok())
    }

    /// Makes it so again.
    pub fn restore(&self) {
        if let Some(before) = &self.0
            && let Err(error) = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, before)
        {
            tracing::warn!(%error, "the terminal is left in raw mode: `reset` makes it usable");
        }
    }
}

/// The size of the terminal that we have as standard output or input.
#[must_use]
pub fn terminal_size() -> Option<TerminalSize> {
    [rustix::stdio::stdout(), rustix::stdio::stdin()].into_iter().find_map(|fd| {
        let size = tcgetwinsize(fd).ok()?;
        (size.ws_row > 0).then_some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
    })
}
