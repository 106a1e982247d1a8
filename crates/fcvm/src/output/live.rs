//! A text that is shown anew in its place.

use std::io::{self, IsTerminal as _, Write as _};

use super::terminal_size;

/// Standard output as a terminal that shows one text, replaced again and again. The cursor is hidden
/// meanwhile, and back once this is dropped.
#[derive(Debug)]
pub struct Live(());

impl Live {
    /// Nothing where standard output is no terminal that can do it.
    ///
    /// # Errors
    /// Where it cannot be written to.
    pub fn on_terminal() -> io::Result<Option<Self>> {
        let able = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
        if !able || !io::stdout().is_terminal() {
            return Ok(None);
        }
        write("\x1b[?25l\x1b[2J")?;
        Ok(Some(Self(())))
    }

    /// Shows a text in place of the one before, as much of it as the terminal has room for now.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn show(&self, text: &str) -> io::Result<()> {
        let (rows, columns) = terminal_size().map_or((24, 80), |size| (size.rows, size.columns));
        write(&frame(text, rows.into(), columns.into()))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Err(error) = write("\x1b[?25h") {
            tracing::debug!(%error, "the terminal is gone");
        }
    }
}

/// From the upper left corner; what an earlier text had beyond this one is erased. No line is so long
/// that the terminal would break it, and the last row stays free for the cursor.
fn frame(text: &str, rows: usize, columns: usize) -> String {
    let lines = text.lines().take(rows.saturating_sub(1));
    let lines = lines.map(|line| format!("{}\x1b[K\r\n", line.chars().take(columns).collect::<String>()));
    format!("\x1b[H{}\x1b[J", lines.collect::<String>())
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_to_the_terminal() {
        assert_eq!(frame("ab\ncd", 24, 80), "\x1b[Hab\x1b[K\r\ncd\x1b[K\r\n\x1b[J");
        assert_eq!(frame("äbc\nd\ne", 3, 2), "\x1b[Häb\x1b[K\r\nd\x1b[K\r\n\x1b[J");
        assert_eq!(frame("a", 0, 0), "\x1b[H\x1b[J");
    }
}
