//! The one way to the terminal.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
};

use indicatif::{MultiProgress, ProgressDrawTarget};

use super::Progress;

/// Writes results to standard output and everything else to standard error.
#[derive(Debug, Clone)]
pub struct Printer {
    colours: bool,
    bars: MultiProgress,
    terminal: bool,
    notes: bool,
}

/// Where bytes go that are passed on as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawOutput {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Printer {
    /// A printer for this process's streams, honouring `NO_COLOR` and `TERM=dumb`.
    #[must_use]
    pub fn from_env() -> Self {
        let terminal = io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self {
            colours: colours_on_stderr(),
            bars: MultiProgress::with_draw_target(target),
            terminal,
            notes: true,
        }
    }

    /// A printer of results, warnings and errors alone.
    #[must_use]
    pub fn quiet() -> Self {
        Self { notes: false, terminal: false, ..Self::from_env() }
    }

    /// Writes a line of results to standard output.
    ///
    /// # Errors
    /// Whatever writing returns; a reader that went away is not an error.
    pub fn data(&self, text: impl Display) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }

    /// Writes bytes as they are, to standard error or standard output; `false` where nobody reads
    /// them any more.
    ///
    /// # Errors
    /// Whatever else writing returns.
    pub fn raw(&self, to: RawOutput, bytes: &[u8]) -> io::Result<bool> {
        let written = match to {
            RawOutput::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes).and_then(|()| out.flush())
            }
            RawOutput::Stderr => io::stderr().lock().write_all(bytes),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            written => written.map(|()| true),
        }
    }

    /// Standard output for bytes that are no text; nothing where it is a terminal.
    #[must_use]
    pub fn bytes(&self) -> Option<impl io::Write + use<>> {
        let out = io::stdout();
        (!out.is_terminal()).then(|| out.lock())
    }

    /// Whether nobody but the user could write to standard input.
    #[must_use]
    pub fn stdin_is_terminal(&self) -> bool {
        io::stdin().is_terminal()
    }

    /// Whether standard output is a terminal.
    #[must_use]
    pub fn stdout_is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Asks the user whether to go on; no answer is a no.
    ///
    /// # Errors
    /// Where standard input cannot be read.
    pub fn confirm(&self, what: impl Display) -> io::Result<bool> {
        self.line(&format!("{what}; go on? [y/N]"));
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    /// Tells the user something on standard error.
    pub fn note(&self, text: impl Display) {
        if self.notes {
            self.line(&text.to_string());
        }
    }

    /// Tells the user that something is odd, and that fcvm goes on.
    pub fn warn(&self, text: impl Display) {
        self.line(&format!("{} {text}", self.paint("warning:", "33")));
    }

    /// Prints an error with its causes, once, and the advice.
    pub fn error(&self, error: &anyhow::Error, hint: Option<&str>) {
        self.line(&format!("{} {}", self.paint("error:", "31"), sanitize(&error.to_string())));
        for cause in error.chain().skip(1) {
            self.line(&format!("  caused by: {}", sanitize(&cause.to_string())));
        }
        if let Some(hint) = hint {
            self.line(&format!("{} {hint}", self.paint("hint:", "36")));
        }
    }

    /// Shows how a piece of work goes on: a bar on a terminal, plain lines otherwise.
    #[must_use]
    pub fn progress(&self, label: impl Into<String>) -> Progress {
        Progress::new(self.clone(), label.into(), self.terminal)
    }

    pub(super) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Writes a line to standard error, above the bars. A closed stream is nobody's problem.
    pub(super) fn line(&self, text: &str) {
        let written = self.bars.suspend(|| writeln!(io::stderr().lock(), "{text}"));
        if let Err(error) = written {
            tracing::debug!(%error, "standard error is gone");
        }
    }

    fn paint(&self, text: &str, colour: &str) -> String {
        if self.colours { format!("\x1b[1;{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

pub(super) fn colours_on_stderr() -> bool {
    let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
    io::stderr().is_terminal()
        && unset("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Makes untrusted text harmless for a terminal: control characters other than
/// newline and tab become their escapes.
#[must_use]
pub fn sanitize(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => clean.push(character),
            c if c.is_control()
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c) =>
            {
                clean.extend(c.escape_default());
            }
            c => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_cannot_reach_the_terminal() {
        assert_eq!(sanitize("a\x1b[31mb\r\u{9b}2J\u{202e}\n\tc"), "a\\u{1b}[31mb\\r\\u{9b}2J\\u{202e}\n\tc");
    }
}
