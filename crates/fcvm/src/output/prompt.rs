//! Questions to the user, on the terminal.

use std::io::{self, IsTerminal as _, Read, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// No answer is longer.
const MAX_ANSWER: usize = 64 << 10;
const END_OF_TEXT: u8 = 0x03;
const END_OF_TRANSMISSION: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const KILL_LINE: u8 = 0x15;
const DELETE: u8 = 0x7f;

/// The user could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum PromptError {
    #[error("cannot ask for `{what}`: standard input is no terminal")]
    NoTerminal { what: String },
    #[error("failed to ask for `{what}`")]
    Failed { what: String, source: io::Error },
    #[error("no `{what}` was given")]
    Nothing { what: String },
    #[error("interrupted")]
    Interrupted,
}

impl PromptError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        matches!(self, Self::NoTerminal { .. })
            .then(|| "give --username, and --password-stdin with the password on standard input".into())
    }
}

/// Asks for a line.
///
/// # Errors
/// Where there is no terminal, or no answer.
pub fn ask(question: &str) -> Result<String, PromptError> {
    let what = || subject(question);
    let failed = |source| PromptError::Failed { what: what(), source };
    check_terminal(question)?;
    write_error(question);
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(failed)?;
    match line.trim() {
        "" => Err(PromptError::Nothing { what: what() }),
        line => Ok(line.to_owned()),
    }
}

/// Asks for what must not be seen. The terminal is as it was afterwards, also where the user
/// presses Ctrl-C, which is why it is read key by key.
///
/// # Errors
/// As of [`ask`], and where the user presses Ctrl-C.
pub fn ask_secret(question: &str) -> Result<String, PromptError> {
    let what = || subject(question);
    check_terminal(question)?;
    // Before the question: whoever sees it may answer.
    let silent = Silent::set().map_err(|source| PromptError::Failed { what: what(), source })?;
    write_error(question);
    let answer = read_keys(io::stdin().lock(), &what());
    drop(silent);
    write_error("\n");
    answer
}

fn check_terminal(question: &str) -> Result<(), PromptError> {
    if io::stdin().is_terminal() { Ok(()) } else { Err(PromptError::NoTerminal { what: subject(question) }) }
}

/// To standard error: standard output is data. One that is closed shows no question.
fn write_error(text: &str) {
    if let Err(error) = io::stderr().write_all(text.as_bytes()) {
        tracing::debug!(%error, "standard error is gone");
    }
}

fn subject(question: &str) -> String {
    question.trim_end_matches([':', ' ']).to_lowercase()
}

fn read_keys(mut keys: impl Read, what: &str) -> Result<String, PromptError> {
    let failed = |source| PromptError::Failed { what: what.to_owned(), source };
    let mut answer = Vec::new();
    let mut key = [0];
    loop {
        let count = keys.read(&mut key).map_err(failed)?;
        match key[0] {
            _ if count == 0 => break,
            b'\n' | b'\r' | END_OF_TRANSMISSION => break,
            END_OF_TEXT => return Err(PromptError::Interrupted),
            KILL_LINE => answer.clear(),
            BACKSPACE | DELETE => {
                // A character, not a byte of it.
                while answer.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            byte if answer.len() < MAX_ANSWER => answer.push(byte),
            _ => {}
        }
    }
    if answer.is_empty() {
        return Err(PromptError::Nothing { what: what.to_owned() });
    }
    String::from_utf8(answer).map_err(|_| failed(io::ErrorKind::InvalidData.into()))
}

/// The terminal while it shows nothing.
struct Silent {
    before: Termios,
}

impl Silent {
    fn set() -> io::Result<Self> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &modes)?;
        Ok(Self { before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before) {
            tracing::warn!(%error, "the terminal may not show what is typed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_as_a_terminal_takes_them() {
        for (keys, expected) in [
            (&b"secret\n"[..], "secret"),
            (b"secret\rrest", "secret"),
            (b"a b:c", "a b:c"),
            (b"wrong\x15right\n", "right"),
            ("eé\x7f\x08x\n".as_bytes(), "x"),
            (b"\x7f\x7fx\x04y", "x"),
        ] {
            assert_eq!(read_keys(keys, "password").unwrap(), expected, "{keys:?}");
        }
        assert!(matches!(read_keys(&b"ab\x03"[..], "password"), Err(PromptError::Interrupted)));
        assert!(matches!(read_keys(&b"\n"[..], "password"), Err(PromptError::Nothing { .. })));
        assert!(matches!(read_keys(&b"\xff\n"[..], "password"), Err(PromptError::Failed { .. })));
        let long = vec![b'x'; MAX_ANSWER + 9];
        assert_eq!(read_keys(&long[..], "password").unwrap().len(), MAX_ANSWER);
    }
}
