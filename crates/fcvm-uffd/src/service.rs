//! Serves one VM: the thread that it has to itself.
//!
//! ```text
//!        .------------------------------------------------------------------------------.
//!        v                                                                              |
//!      poll --- uffd ---> turn: read events; what is given back; then faults -----------+
//!        |                                                                              |
//!        +--- nothing --> a piece of the working set in advance, or: recording is over -+
//!        |                                                                              |
//!        +--- bell -----> orders ----------- STOP --> stopped                           |
//!        +--- pidfd ----> died                                                          |
//!        '--- socket ---> the VMM ends: its pidfd will tell; else it deserted us -------'
//! ```
//! A failure in any of these ends the service; who has started it kills the VM.

use std::{
    os::fd::AsFd as _,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use crate::{
    Failure, Memory, WorkingSet,
    bitmap::Bitmap,
    eager::Seats,
    events::{Event, Reader},
    install::{Installed, Pages, Source},
    options::Options,
    recording::{Recorder, Recording},
    statistics::add,
    time::timespec,
    vm::{FINISH, STOP, Vm},
    windows::{Step, Windows, run_around},
};

/// How long a VMM that has closed its socket may take to end.
const GRACE: Duration = Duration::from_secs(1);
/// How often faults that must wait are tried without a pause.
const EAGER_TRIES: u32 = 100;
/// The pause after that. No event tells when the kernel is ready.
const PAUSE: Duration = Duration::from_millis(1);
/// How many turns are made without a look at anything but the uffd.
const TURNS: u32 = 64;
/// Bytes given in advance between two looks for faults.
const PIECE: u64 = 256 << 10;
/// Zeros cost no memory: that many pages are given at once.
const ZEROS_AT_ONCE: usize = 64;

/// Why there is no more to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Died,
    Stopped,
}

pub(crate) struct Service<'a> {
    vm: &'a Vm,
    pages: Pages<'a>,
    windows: Windows,
    reader: Reader,
    events: Vec<Event>,
    /// Faults that must wait for pages to be given back.
    waiting: Vec<usize>,
    tries: u32,
    seats: &'a Seats,
    eager: Duration,
    recording: &'a Recording,
    recorder: Option<Recorder>,
    advance: Option<Advance>,
    /// The VMM has closed its socket, or its memory is gone: until when it is to end.
    leaving: Option<Instant>,
    gone: bool,
}

/// How far the working set has been given.
struct Advance {
    set: Arc<WorkingSet>,
    range: usize,
    page: usize,
    /// Its pages.
    members: Bitmap,
}

#[derive(Default)]
struct Ready {
    uffd: bool,
    orders: bool,
    died: bool,
    hung_up: bool,
}

impl<'a> Service<'a> {
    pub(crate) fn new(
        vm: &'a Vm,
        memory: &'a Memory,
        recording: &'a Recording,
        seats: &'a Seats,
        options: &Options,
    ) -> Self {
        let size = vm.layout.page_size();
        let windows = if size == crate::memory::SMALL {
            Windows::new(options.least_window, options.most_window)
        } else {
            Windows::new(1, 1)
        };
        let (recorder, set) = recording.begin(vm.id);
        let advance = set.map(|set| {
            let mut members = Bitmap::new((memory.len() / size) as usize);
            for range in set.ranges() {
                members.set((range.start / size) as usize..range.end.div_ceil(size) as usize);
            }
            let page = set.ranges().first().map_or(0, |range| (range.start / size) as usize);
            Advance { set, range: 0, page, members }
        });
        Self {
            vm,
            pages: Pages::new(vm, memory),
            windows,
            reader: Reader::new(),
            events: Vec::new(),
            waiting: Vec::new(),
            tries: 0,
            seats,
            eager: options.eager,
            recording,
            recorder,
            advance,
            leaving: None,
            gone: false,
        }
    }

    /// Serves until the VM has died, or this is told to stop.
    pub(crate) fn serve(&mut self) -> Result<Over, Failure> {
        let over = self.serve_until_over()?;
        self.finish_recording();
        Ok(over)
    }

    fn serve_until_over(&mut self) -> Result<Over, Failure> {
        loop {
            let ready = self.wait()?;
            if ready.orders {
                let orders = self.vm.take_orders();
                if orders & FINISH != 0 {
                    self.finish_recording();
                }
                if orders & STOP != 0 {
                    return Ok(Over::Stopped);
                }
            }
            if ready.died {
                return Ok(Over::Died);
            }
            if ready.hung_up && self.leaving.is_none() {
                self.leaving = Some(Instant::now() + GRACE);
            }
            if let Some(deadline) = self.leaving
                && deadline <= Instant::now()
            {
                return Err(Failure::Deserted);
            }
            if ready.uffd || !self.waiting.is_empty() {
                self.turns()?;
            } else if self.advance.is_some() && !self.gone {
                self.advance()?;
            } else if self.recorder.as_ref().is_some_and(Recorder::is_over) {
                self.finish_recording();
            }
            if self.gone && self.vm.peer.pidfd().is_none() {
                return Ok(Over::Died);
            }
        }
    }

    fn wait(&self) -> Result<Ready, Failure> {
        let mut descriptors = vec![
            PollFd::new(&self.vm.uffd, if self.gone { PollFlags::empty() } else { PollFlags::IN }),
            PollFd::new(self.vm.bell.descriptor(), PollFlags::IN),
        ];
        let pidfd = self.vm.peer.pidfd();
        if let Some(pidfd) = &pidfd {
            descriptors.push(PollFd::new(pidfd, PollFlags::IN));
        }
        // Its end stays, and would not let this wait again.
        let stream = self.vm.stream.as_ref().filter(|_| self.leaving.is_none());
        if let Some(stream) = stream {
            descriptors.push(PollFd::new(stream, PollFlags::RDHUP));
        }
        let timeout = self.timeout().map(timespec);
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => return Ok(Ready::default()),
            Ok(_) => {}
            Err(errno) => return Err(Failure::Uffd { what: "be waited for", errno }),
        }
        let mut found = descriptors.iter().map(PollFd::revents);
        let mut next = || found.next().unwrap_or(PollFlags::empty());
        let uffd = next();
        if uffd.intersects(PollFlags::ERR | PollFlags::NVAL) && !self.gone {
            return Err(Failure::Blocking);
        }
        let orders = !next().is_empty();
        let died = pidfd.is_some() && !next().is_empty();
        let hung_up = stream.is_some() && !next().is_empty();
        Ok(Ready { uffd: !uffd.is_empty(), orders, died, hung_up })
    }

    /// How long there is nothing to do but wait.
    fn timeout(&self) -> Option<Duration> {
        if !self.waiting.is_empty() {
            return Some(if self.tries < EAGER_TRIES { Duration::ZERO } else { PAUSE });
        }
        if self.advance.is_some() && !self.gone {
            return Some(Duration::ZERO);
        }
        let recorded = self.recorder.as_ref().and_then(Recorder::over_at);
        let soonest = [recorded, self.leaving].into_iter().flatten().min()?;
        Some(soonest.saturating_duration_since(Instant::now()))
    }

    /// Serves what has come, and what comes so soon after it that it is not worth to sleep.
    fn turns(&mut self) -> Result<(), Failure> {
        self.turn()?;
        if self.eager.is_zero() {
            return Ok(());
        }
        let Some(_seat) = self.seats.take() else { return Ok(()) };
        let mut until = Instant::now() + self.eager;
        let mut turns = 1;
        // Not for ever: there is more to look after.
        while turns < TURNS && self.waiting.is_empty() && !self.gone {
            if self.turn()? {
                turns += 1;
                until = Instant::now() + self.eager;
            } else if Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }

    /// Serves what has come, as much as is read at once; whether there was anything.
    fn turn(&mut self) -> Result<bool, Failure> {
        self.events.clear();
        if !self.reader.read(self.vm.uffd.as_fd(), &mut self.events)? && self.waiting.is_empty() {
            return Ok(false);
        }
        let read = Instant::now();
        // What is given back first: a fault that was read with it may have come after it.
        for event in &self.events {
            if let Event::Remove { start, end } = *event {
                self.pages.remove(start, end);
            }
        }
        let mut faults = std::mem::take(&mut self.waiting);
        let held_up = faults.len();
        for event in &self.events {
            if let Event::Fault { address } = *event {
                faults.push(self.vm.layout.page_at(address).ok_or(Failure::Stray { address })?);
            }
        }
        // What this turn has installed, and so woken.
        let mut done: Vec<std::ops::Range<usize>> = Vec::new();
        for (index, page) in faults.iter().copied().enumerate() {
            if !done.iter().any(|pages| pages.contains(&page)) {
                let (installed, pages) = self.fault(page)?;
                match installed {
                    Installed::Done => done.push(pages),
                    Installed::Again => {
                        add(&self.vm.counts.deferred, (faults.len() - index.max(held_up)) as u64);
                        self.waiting.extend(&faults[index..]);
                        break;
                    }
                    Installed::Gone => {
                        self.gone = true;
                        self.leaving.get_or_insert(read + GRACE);
                        return Ok(true);
                    }
                }
            }
            self.vm.counts.fault(read, Instant::now());
        }
        self.tries = if self.waiting.is_empty() { 0 } else { self.tries + 1 };
        Ok(true)
    }

    /// Serves the page that a thread waits for, and its neighbours; which.
    fn fault(&mut self, page: usize) -> Result<(Installed, std::ops::Range<usize>), Failure> {
        if let Some(advance) = &self.advance
            && advance.members.get(page)
            && !self.pages.is_served(page)
        {
            add(&self.vm.counts.prefetch_late, 1);
        }
        let source = self.pages.source(page);
        let alone = (page..page + 1, Step::On);
        let (run, step) = if self.pages.is_served(page) { alone } else { self.neighbours(page, source) };
        let installed = self.install_around(page, run.clone(), step, source)?;
        if installed == Installed::Done {
            self.record(page, &run);
            if let Step::Stride { by, ahead } = step {
                self.foreseen(page, by, ahead)?;
            }
        }
        Ok((installed, run))
    }

    /// Gives pages that will be wanted next, if the guest goes on as it did.
    fn foreseen(&mut self, page: usize, by: isize, ahead: usize) -> Result<(), Failure> {
        let pages = std::iter::successors(page.checked_add_signed(by), |page| page.checked_add_signed(by));
        for page in pages.take(ahead) {
            if self.vm.layout.region_of(page).is_none() {
                break;
            }
            if self.pages.is_served(page) {
                continue;
            }
            match self.pages.install(page..page + 1, self.pages.source(page), None)? {
                Installed::Done => self.record(page, &(page..page + 1)),
                // Whoever wants a page finds that out.
                Installed::Again | Installed::Gone => break,
            }
        }
        Ok(())
    }

    /// Notes pages that were given for a fault, where that is recorded, unless the guest gave them back before.
    fn record(&mut self, page: usize, pages: &std::ops::Range<usize>) {
        if let Some(recorder) = &mut self.recorder
            && !self.pages.is_removed(page)
        {
            let size = self.vm.layout.page_size();
            recorder.push(pages.start as u64 * size..pages.end as u64 * size);
        }
    }

    fn install_around(
        &mut self,
        page: usize,
        run: std::ops::Range<usize>,
        step: Step,
        source: Source,
    ) -> Result<Installed, Failure> {
        if step != Step::Jump || run.len() == 1 || source == Source::Zeros {
            return self.pages.install(run, source, Some(page));
        }
        // Who waits goes on while the neighbours are copied.
        let installed = self.pages.install(page..page + 1, source, Some(page))?;
        for rest in [page + 1..run.end, run.start..page] {
            if installed == Installed::Done {
                // What does not succeed is only not there in advance.
                self.pages.install(rest, source, None)?;
            }
        }
        Ok(installed)
    }

    fn neighbours(&mut self, page: usize, source: Source) -> (std::ops::Range<usize>, Step) {
        let (mut window, step) = self.windows.around(page);
        if source == Source::Zeros && self.vm.layout.page_size() == crate::memory::SMALL {
            let first = page - page % ZEROS_AT_ONCE;
            window = window.start.min(first)..window.end.max(first + ZEROS_AT_ONCE);
        }
        let region = self.vm.layout.region_of(page).map_or(page..page + 1, |(_, pages)| pages);
        let window = window.start.max(region.start)..window.end.min(region.end);
        let fits = |page| !self.pages.is_served(page) && self.pages.source(page) == source;
        (run_around(page, window, fits), step)
    }

    /// Gives a piece of the working set.
    fn advance(&mut self) -> Result<(), Failure> {
        let Some(advance) = &mut self.advance else { return Ok(()) };
        let size = self.vm.layout.page_size();
        let most = (PIECE / size).max(1) as usize;
        let Some(range) = advance.set.ranges().get(advance.range) else {
            self.advance = None;
            return Ok(());
        };
        let end = range.end.div_ceil(size) as usize;
        let region = self.vm.layout.region_of(advance.page).map(|(_, pages)| pages.end);
        let fits = |page| !self.pages.is_served(page) && !self.pages.is_removed(page);
        let piece = match region {
            Some(region) if fits(advance.page) => {
                let source = self.pages.source(advance.page);
                let end = end.min(region).min(advance.page + most);
                let run = run_around(advance.page, advance.page..end, |page| {
                    fits(page) && self.pages.source(page) == source
                });
                Some((run, source))
            }
            _ => None,
        };
        let next = match piece {
            None => advance.page + 1,
            Some((run, source)) => {
                let before = self.given();
                let installed = self.pages.install(run.clone(), source, None)?;
                add(&self.vm.counts.bytes_prefetched, (self.given() - before) * size);
                match installed {
                    Installed::Done => run.end,
                    Installed::Again => return Ok(()),
                    Installed::Gone => {
                        self.gone = true;
                        self.leaving.get_or_insert(Instant::now() + GRACE);
                        return Ok(());
                    }
                }
            }
        };
        if let Some(advance) = &mut self.advance {
            advance.page = next;
            if next >= end {
                advance.range += 1;
                let next = advance.set.ranges().get(advance.range);
                advance.page = next.map_or(0, |range| (range.start / size) as usize);
            }
        }
        Ok(())
    }

    fn given(&self) -> u64 {
        self.vm.counts.pages_copied.load(Relaxed) + self.vm.counts.pages_zeroed.load(Relaxed)
    }

    fn finish_recording(&mut self) {
        if let Some(recorder) = self.recorder.take() {
            self.recording.finish(recorder);
        }
    }
}
