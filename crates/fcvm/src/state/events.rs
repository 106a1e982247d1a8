//! What happens to VMs, as lines of a log: each change of a record that users want to hear of.
//!
//! The log is `events.jsonl` beside the records, one JSON object a line; at [`MAX_LENGTH`] it becomes
//! `events.jsonl.1`, in place of the one before. It is written with the lock of the records held.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{HealthStatus, ProcessType, Registry, StateError, Status, VmId, VmName, VmState};

const FILE: &str = "events.jsonl";
/// Bytes of the log, and as many of the one before it.
const MAX_LENGTH: u64 = 1 << 20;
/// No event's line is longer.
const MAX_LINE: u64 = 64 << 10;

/// Something happened to a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmEvent {
    /// When.
    pub time: Timestamp,
    /// What.
    pub event: EventKind,
    /// The VM's id.
    pub id: VmId,
    /// Its name.
    pub name: VmName,
    /// Its image as the user wrote it.
    pub image: String,
    /// Of `exited`: the container's status, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// Of `exited`: why it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Of `renamed`: the name before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_name: Option<VmName>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It is on record.
    Created,
    /// Its container runs, perhaps once more.
    Started,
    /// Its check succeeds, or it has none and runs.
    Healthy,
    /// Its check fails.
    Unhealthy,
    /// Its guest does not answer.
    NotResponding,
    /// Its guest answers again.
    Responding,
    /// It has another name.
    Renamed,
    /// Its container has ended, or it died.
    Exited,
    /// Nothing of it is left.
    Removed,
}

impl EventKind {
    /// All there are.
    pub const ALL: [Self; 9] = [
        Self::Created,
        Self::Started,
        Self::Healthy,
        Self::Unhealthy,
        Self::NotResponding,
        Self::Responding,
        Self::Renamed,
        Self::Exited,
        Self::Removed,
    ];

    /// As the log has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::NotResponding => "not_responding",
            Self::Responding => "responding",
            Self::Renamed => "renamed",
            Self::Exited => "exited",
            Self::Removed => "removed",
        }
    }
}

/// The events that lie between two records of a VM.
fn between(old: Option<&VmState>, new: Option<&VmState>) -> Vec<VmEvent> {
    let Some(state) = new.or(old) else { return Vec::new() };
    let time = Timestamp::now();
    let event = |event| VmEvent {
        time,
        event,
        id: state.id.clone(),
        name: state.name.clone(),
        image: state.image.clone(),
        exit_code: None,
        error: None,
        old_name: None,
    };
    let (Some(old), Some(new)) = (old, new) else {
        return vec![event(if new.is_some() { EventKind::Created } else { EventKind::Removed })];
    };
    let mut events = Vec::new();
    if old.name != new.name {
        events.push(VmEvent { old_name: Some(old.name.clone()), ..event(EventKind::Renamed) });
    }
    if new.started.is_some() && old.started != new.started {
        events.push(event(EventKind::Started));
    }
    if old.responding != new.responding {
        let kind = if new.responding { EventKind::Responding } else { EventKind::NotResponding };
        events.push(event(kind));
    }
    if old.health_status != new.health_status {
        match new.health_status {
            HealthStatus::Healthy => events.push(event(EventKind::Healthy)),
            HealthStatus::Unhealthy => events.push(event(EventKind::Unhealthy)),
            HealthStatus::Starting | HealthStatus::Stopped => {}
        }
    }
    let told = old.exit_code.is_some() || old.error.is_some() || old.status == Status::Exited;
    let ended = new.exit_code.is_some() || new.error.is_some() || new.status == Status::Exited;
    if ended && !told {
        let (exit_code, error) = (new.exit_code, new.error.clone());
        events.push(VmEvent { exit_code, error, ..event(EventKind::Exited) });
    }
    events
}

impl Registry {
    /// Writes down what lies between two records of a VM; to be called with the lock held. The log
    /// is a service: what cannot be written is missing in it, and nothing else fails.
    pub(super) fn tell(&self, old: Option<&VmState>, new: Option<&VmState>) {
        // Nobody's VM: it is for later ones.
        if old.or(new).is_some_and(|vm| vm.process_type == ProcessType::Prepare) {
            return;
        }
        let events = between(old, new);
        if events.is_empty() {
            return;
        }
        if let Err(error) = append(&self.states(), &events) {
            tracing::warn!(%error, "an event is missing in the log of events");
        }
    }

    /// The log of events.
    #[must_use]
    pub fn events(&self) -> EventLog {
        EventLog { directory: self.states() }
    }
}

fn append(directory: &Path, events: &[VmEvent]) -> io::Result<()> {
    let path = directory.join(FILE);
    let mut lines = Vec::new();
    for event in events {
        serde_json::to_writer(&mut lines, event)?;
        lines.push(b'\n');
    }
    if fs::metadata(&path).is_ok_and(|file| file.len() + lines.len() as u64 > MAX_LENGTH) {
        fs::rename(&path, older(&path))?;
    }
    let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
    let length = file.metadata()?.len();
    file.write_all(&lines).inspect_err(|_| {
        // Half a line would spoil the next.
        if let Err(error) = file.set_len(length) {
            tracing::debug!(%error, "half an event is left");
        }
    })
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

/// The log of events, to be read.
#[derive(Debug, Clone)]
pub struct EventLog {
    directory: PathBuf,
}

impl EventLog {
    /// Gives `see` the events of the log in their order, and with `follow` those that come, until
    /// `see` returns `false`, the time is over or nobody reads `reader` any more.
    ///
    /// # Errors
    /// Where the log cannot be read or watched, or `see` fails.
    pub fn read(
        &self,
        follow: Option<Follow<'_>>,
        see: &mut dyn FnMut(VmEvent) -> io::Result<bool>,
    ) -> Result<(), StateError> {
        let path = self.directory.join(FILE);
        let watching = |source| StateError::Watch { path: path.clone(), source };
        // Before the first look, so that no change comes between.
        let changes = follow.as_ref().map(|_| watch(&self.directory)).transpose().map_err(watching)?;
        let reading = |source| StateError::Events { path: path.clone(), source };
        let mut reader = Tail::new(&path).map_err(reading)?;
        loop {
            if !reader.rest(see).map_err(reading)? {
                return Ok(());
            }
            let (Some(changes), Some(follow)) = (&changes, &follow) else { return Ok(()) };
            if !wait(changes, follow).map_err(watching)? {
                return reader.rest(see).map(|_| ()).map_err(reading);
            }
        }
    }
}

/// How long a log is followed.
#[derive(Debug, Clone, Copy)]
pub struct Follow<'a> {
    /// Until then; without it for ever.
    pub until: Option<Timestamp>,
    /// Until this has no reader.
    pub reader: BorrowedFd<'a>,
}

fn watch(directory: &Path) -> io::Result<OwnedFd> {
    fs::create_dir_all(directory)?;
    let changes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(&changes, directory, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
    Ok(changes)
}

/// Waits for a change; `false` where nothing is to be waited for any more.
fn wait(changes: &OwnedFd, follow: &Follow<'_>) -> io::Result<bool> {
    loop {
        let left = follow.until.map(|until| until.duration_since(Timestamp::now()));
        let left = left.map(|left| Duration::try_from(left).unwrap_or(Duration::ZERO));
        let left = left.map(|left| Timespec::try_from(left).map_err(io::Error::other)).transpose()?;
        let mut ends = [PollFd::new(changes, PollFlags::IN), PollFd::new(&follow.reader, PollFlags::empty())];
        match poll(&mut ends, left.as_ref()) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(0) => return Ok(false),
            Ok(_) if !ends[1].revents().is_empty() => return Ok(false),
            Ok(_) => {
                let mut events = [0; 4096];
                while rustix::io::read(changes, &mut events).is_ok_and(|read| read > 0) {}
                return Ok(true);
            }
        }
    }
}

/// Reads a log that grows and is replaced by a new one.
struct Tail {
    path: PathBuf,
    /// What was begun, with the file's number.
    current: Option<(BufReader<File>, u64)>,
    line: Vec<u8>,
}

impl Tail {
    /// From the beginning, that of the older log.
    fn new(path: &Path) -> io::Result<Self> {
        let mut tail = Self { path: path.to_owned(), current: None, line: Vec::new() };
        tail.current = match open(&older(path))? {
            Some(older) => Some(older),
            None => open(path)?,
        };
        Ok(tail)
    }

    /// What there is; `false` where `see` wants no more.
    fn rest(&mut self, see: &mut dyn FnMut(VmEvent) -> io::Result<bool>) -> io::Result<bool> {
        loop {
            let Some((reader, number)) = &mut self.current else {
                self.current = open(&self.path)?;
                if self.current.is_none() {
                    return Ok(true);
                }
                continue;
            };
            // Looked at before the last read: what is written to a log is written before it is replaced.
            let replaced = fs::metadata(&self.path).is_ok_and(|now| now.ino() != *number);
            let read = reader.take(MAX_LINE).read_until(b'\n', &mut self.line)?;
            if self.line.ends_with(b"\n") {
                // Of a newer fcvm there may be kinds that this one does not know.
                if let Ok(event) = serde_json::from_slice(&self.line)
                    && !see(event)?
                {
                    return Ok(false);
                }
                self.line.clear();
            } else if read == 0 && replaced {
                self.line.clear();
                self.current = open(&self.path)?;
            } else if read == 0 {
                // A line that is cut is being written.
                return Ok(true);
            } else if self.line.len() as u64 >= MAX_LINE {
                self.line.clear();
            } else {
                let back = i64::try_from(self.line.len()).unwrap_or(0);
                reader.seek(SeekFrom::Current(-back))?;
                self.line.clear();
                return Ok(true);
            }
        }
    }
}

fn open(path: &Path) -> io::Result<Option<(BufReader<File>, u64)>> {
    match File::open(path) {
        Ok(file) => {
            let number = file.metadata()?.ino();
            Ok(Some((BufReader::new(file), number)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{
        Life, NewVm,
        testing::{registry, vm},
    };

    fn new(life: Life) -> NewVm {
        NewVm { life, ..vm(Some("web")) }
    }

    fn all(registry: &Registry) -> Vec<VmEvent> {
        let mut events = Vec::new();
        let mut see = |event| {
            events.push(event);
            Ok(true)
        };
        registry.events().read(None, &mut see).unwrap();
        events
    }

    #[test]
    fn names_are_those_of_the_log() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    #[test]
    fn a_life_is_told_from_its_records() {
        let root = tempfile::tempdir().unwrap();
        let registry = registry(root.path());
        let mut claim = registry.claim(new(Life::Detached)).unwrap();
        let run = |state: &mut VmState| {
            state.status = Status::Running;
            state.health_status = HealthStatus::Healthy;
            state.started = Some(Timestamp::now());
        };
        claim.update(run).unwrap();
        claim.update(|state| state.health_status = HealthStatus::Unhealthy).unwrap();
        claim.update(|state| state.responding = false).unwrap();
        claim.update(|state| state.responding = true).unwrap();
        claim.update(|state| state.cpus = 7).unwrap();
        claim.update(|state| state.exit_code = Some(3)).unwrap();
        claim
            .update(|state| {
                state.exit_code = None;
                run(state);
            })
            .unwrap();
        claim.finish(Some(4), None).unwrap();
        let state = registry.list_all().unwrap().remove(0);
        registry.remove_exited(&state).unwrap();
        let events = all(&registry);
        let told: Vec<_> = events.iter().map(|event| (event.event, event.exit_code)).collect();
        use EventKind as E;
        let expected = [
            (E::Created, None),
            (E::Started, None),
            (E::Healthy, None),
            (E::Unhealthy, None),
            (E::NotResponding, None),
            (E::Responding, None),
            (E::Exited, Some(3)),
            (E::Started, None),
            (E::Healthy, None),
            (E::Exited, Some(4)),
            (E::Removed, None),
        ];
        assert_eq!(told, expected);
        assert!(events.iter().all(|event| event.id == state.id));

        // Also of those of which nothing stays.
        registry.claim(new(Life::Foreground)).unwrap().finish(None, Some("why".into())).unwrap();
        let events = all(&registry).split_off(expected.len());
        let told: Vec<_> = events.iter().map(|event| (event.event, event.error.as_deref())).collect();
        assert_eq!(told, [(E::Created, None), (E::Exited, Some("why")), (E::Removed, None)]);
    }

    #[test]
    fn the_log_is_bounded_and_half_a_line_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let registry = registry(root.path());
        let claim = registry.claim(new(Life::Foreground)).unwrap();
        let state = claim.state();
        let event = &between(None, Some(state))[0];
        let lines = 20_000;
        for number in 0..lines {
            append(&registry.states(), &[VmEvent { image: number.to_string(), ..event.clone() }]).unwrap();
        }
        let length = |name: &str| fs::metadata(registry.states().join(name)).map_or(0, |file| file.len());
        assert!(length(FILE) <= MAX_LENGTH && length("events.jsonl.1") <= MAX_LENGTH);
        let mut file = OpenOptions::new().append(true).open(registry.states().join(FILE)).unwrap();
        file.write_all(b"no event\n{\"time\":").unwrap();
        let numbers: Vec<u64> = all(&registry).iter().map(|event| event.image.parse().unwrap()).collect();
        assert!(numbers.len() > 4000, "{}", numbers.len());
        let expected: Vec<_> = (lines - numbers.len() as u64..lines).collect();
        assert_eq!(numbers, expected);
    }

    #[test]
    fn a_log_is_followed_over_its_replacement() {
        let root = tempfile::tempdir().unwrap();
        let registry = registry(root.path());
        let (reader, writer) = std::io::pipe().unwrap();
        let (sender, seen) = std::sync::mpsc::channel();
        let log = registry.events();
        let follower = std::thread::spawn(move || {
            let follow = Follow { until: None, reader: std::os::fd::AsFd::as_fd(&writer) };
            let mut see = |event: VmEvent| Ok(sender.send(event.image).is_ok());
            log.read(Some(follow), &mut see).unwrap();
        });
        let claim = registry.claim(new(Life::Foreground)).unwrap();
        let event = between(None, Some(claim.state())).remove(0);
        for number in 0..10_000 {
            append(&registry.states(), &[VmEvent { image: number.to_string(), ..event.clone() }]).unwrap();
            // So that it is not more than one log behind.
            if number % 1000 == 0 {
                while seen.recv().unwrap() != number.to_string() {}
            }
        }
        while seen.recv().unwrap() != "9999" {}
        // Nobody reads any more.
        drop(reader);
        follower.join().unwrap();
    }
}
