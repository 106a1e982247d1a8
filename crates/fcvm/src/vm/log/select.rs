//! Which records are shown.

use std::{collections::VecDeque, io, path::Path};

use jiff::Timestamp;

use super::{
    reader::{Mark, Reader},
    record::Record,
};

/// What of a log is asked for.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only the last lines, so many.
    pub tail: Option<usize>,
    /// Only what came then or later.
    pub since: Option<Timestamp>,
    /// Only what came then or earlier.
    pub until: Option<Timestamp>,
}

/// Where the last lines begin.
#[derive(Debug)]
struct Line {
    mark: Mark,
    /// Which sources are in the middle of an earlier line there.
    open: [bool; 2],
}

impl Selection {
    pub(super) fn has(&self, record: &Record<'_>) -> bool {
        self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time <= until)
    }

    /// A reader that begins where the selection does, and of which sources the rest of an
    /// earlier line is to be left out.
    pub(super) fn begin(&self, directory: &Path) -> io::Result<(Reader, [bool; 2])> {
        let Some(wanted) = self.tail else { return Ok((Reader::new(directory), [false; 2])) };
        let mut reader = Reader::new(directory);
        let mut last = VecDeque::new();
        let mut open = [false; 2];
        let mut end = None;
        while let Some((mark, line)) = reader.line()? {
            let Some(record) = Record::parse(line).filter(|record| self.has(record)) else { continue };
            let at = record.source.index();
            let (before, begins) = (open, !open[at]);
            open[at] = !record.whole;
            end = Some(mark.clone());
            if begins {
                last.push_back(Line { mark, open: before });
                if last.len() > wanted {
                    last.pop_front();
                }
            }
        }
        match (last.pop_front(), end) {
            (Some(Line { mark, open }), _) => Ok((Reader::at(directory, mark), open)),
            // None of them: what comes from now on.
            (None, Some(_)) => Ok((reader, open)),
            (None, None) => Ok((Reader::new(directory), [false; 2])),
        }
    }
}
