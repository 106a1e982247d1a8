//! Showing a log, to its end or to the VM's.

use std::{io, path::Path, time::Duration};

use jiff::Timestamp;

use super::{
    reader::Reader,
    record::{Record, time_text},
    select::Selection,
};
use crate::{
    state::{Event, StateError, VmState, Watch},
    vm::log::Source,
};

/// How a log is shown.
#[derive(Debug, Clone, Default)]
pub struct Show {
    /// What of it.
    pub selection: Selection,
    /// With times before the lines.
    pub timestamps: bool,
    /// With this before the lines.
    pub name: Option<String>,
}

/// A log could not be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// It could not be read, or what was read not be written.
    #[error("failed to show the log")]
    Io(#[from] io::Error),
    /// It could not be followed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Show {
    /// Gives `write` the bytes as the container wrote them; a `false` of it ends the showing.
    /// With a VM, goes on until that has ended or the time is over.
    ///
    /// # Errors
    /// Where the log cannot be read or `write` fails.
    pub fn show(
        &self,
        directory: &Path,
        follow: Option<&VmState>,
        write: &mut dyn FnMut(Source, &[u8]) -> io::Result<bool>,
    ) -> Result<(), LogError> {
        // Before the first look, so that no change comes between.
        let watch = follow.map(|vm| Watch::new(vm, directory.to_owned())).transpose()?;
        let (reader, skip) = self.selection.begin(directory)?;
        let mut shower = Shower { show: self, reader, skip, open: [false; 2], line: Vec::new() };
        loop {
            // The last look is after the end, of whatever comes first.
            let ended = match &watch {
                None => true,
                Some(watch) => {
                    if !shower.rest(write)? {
                        return Ok(());
                    }
                    let left = self.selection.until.map(left_until);
                    left == Some(Duration::ZERO) || watch.wait(left)? != Event::Changed
                }
            };
            if ended {
                shower.rest(write)?;
                return Ok(());
            }
        }
    }
}

fn left_until(time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}

struct Shower<'a> {
    show: &'a Show,
    reader: Reader,
    /// Of which sources the rest of a line is left out.
    skip: [bool; 2],
    /// Which sources are in the middle of a line.
    open: [bool; 2],
    line: Vec<u8>,
}

impl Shower<'_> {
    /// Shows what is there.
    fn rest(&mut self, write: &mut dyn FnMut(Source, &[u8]) -> io::Result<bool>) -> io::Result<bool> {
        while let Some((_, line)) = self.reader.line()? {
            let Some(record) = Record::parse(line).filter(|record| self.show.selection.has(record)) else {
                continue;
            };
            let at = record.source.index();
            if self.skip[at] {
                self.skip[at] = !record.whole;
                continue;
            }
            self.line.clear();
            if !self.open[at] {
                if let Some(name) = &self.show.name {
                    self.line.extend_from_slice(format!("{name} ").as_bytes());
                }
                if self.show.timestamps {
                    self.line.extend_from_slice(format!("{} ", time_text(record.time)).as_bytes());
                }
            }
            self.open[at] = !record.whole;
            self.line.extend_from_slice(record.text);
            if record.whole {
                self.line.push(b'\n');
            }
            if !write(record.source, &self.line)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;

    use super::*;
    use crate::vm::log::Log;

    fn shown(directory: &Path, show: &Show) -> [String; 2] {
        let mut outputs = [Vec::new(), Vec::new()];
        let mut write = |source: Source, bytes: &[u8]| {
            outputs[source.index()].extend_from_slice(bytes);
            Ok(true)
        };
        show.show(directory, None, &mut write).unwrap();
        outputs.map(|output| String::from_utf8(output).unwrap())
    }

    fn tail(lines: usize) -> Show {
        Show { selection: Selection { tail: Some(lines), ..Selection::default() }, ..Show::default() }
    }

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::create(directory.path(), 1 << 20);
        log.append(Source::Stdout, b"one\ntw");
        log.append(Source::Stderr, b"err");
        log.append(Source::Stdout, b"o\n\nthree");
        log.append(Source::Stderr, b"or\nagain\n");
        let all = ["one\ntwo\n\nthree".to_owned(), "error\nagain\n".to_owned()];
        assert_eq!(shown(directory.path(), &Show::default()), all);
        // Lines in order of their beginnings: one, two, error, (empty), three, again.
        for (lines, out, err) in [
            (0, "", ""),
            (1, "", "again\n"),
            (2, "three", "again\n"),
            (3, "\nthree", "again\n"),
            (4, "\nthree", "error\nagain\n"),
            (5, "two\n\nthree", "error\nagain\n"),
            (6, &all[0], &all[1]),
            (100, &all[0], &all[1]),
        ] {
            assert_eq!(shown(directory.path(), &tail(lines)), [out, err], "{lines}");
        }
        let named = Show { timestamps: true, name: Some("web".into()), ..tail(2) };
        let [out, err] = shown(directory.path(), &named);
        for (text, end) in [(out, "Z three"), (err, "Z again\n")] {
            assert!(text.starts_with("web 20") && text.ends_with(end), "{text}");
            assert_eq!(text.matches("web").count(), 1);
        }
    }

    #[test]
    fn times_bound_what_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let lines = ["10:00:00Z stdout F a", "11:00:00Z stdout F b", "12:00:00Z stderr F c"];
        let lines = lines.map(|line| format!("2026-11-21T{line}\n")).concat();
        std::fs::write(directory.path().join("container.log"), format!("junk\n{lines}")).unwrap();
        let at = |hour: i64| Some("2026-11-21T00:00:00Z".parse::<Timestamp>().unwrap() + hour.hours());
        for (since, until, tail, expected) in [
            (None, None, None, ["a\nb\n", "c\n"]),
            (at(11), None, None, ["b\n", "c\n"]),
            (None, at(11), None, ["a\nb\n", ""]),
            (at(11), at(11), None, ["b\n", ""]),
            (at(13), None, None, ["", ""]),
            (None, at(11), Some(1), ["b\n", ""]),
        ] {
            let show = Show { selection: Selection { tail, since, until }, ..Show::default() };
            assert_eq!(shown(directory.path(), &show), expected, "{show:?}");
        }
    }
}
