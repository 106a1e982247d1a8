//! Looking again for a while, before a thread sleeps.
//!
//! On short requests waking a CPU costs more than all the rest: some 30 to 60 µs, most of them in a
//! virtual machine, and that at each thread that a request passes. A thread that looks again and again
//! instead keeps its CPU awake, and answers at once. It does that only where it pays:
//!
//! ```text
//!   budget 0 ----- eight short waits in a row -----> budget = limit
//!      ^                                               |      ^
//!      '-- halved until it is nothing <--- a miss -----'      '--- a hit
//! ```
//! - A look that finds something before the budget is used up is a hit, else a miss; each miss halves the
//!   budget. Without one the thread sleeps at once, so that an idle mount uses no CPU.
//! - Between two looks it leaves the CPU to whoever waits for it. Where that is a thread that looks, too, or
//!   that answers what is waited for, it is back soon. Where it comes back late somebody has other work for
//!   the CPU: then none is idle, and to wake on one that is busy costs little anyway. That is a miss, too.
//! - Who was woken for nothing sleeps again at once: another lane was faster.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use rustix::thread::sched_yield;

/// How long a thread may look again before it sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spin {
    /// It sleeps at once.
    Never,
    /// As long as this, where it pays.
    UpTo(Duration),
}

impl Default for Spin {
    fn default() -> Self {
        Self::UpTo(Duration::from_micros(100))
    }
}

/// That many waits that looking would have spared.
const SHORT_WAITS: u8 = 8;
/// A budget below this part of the limit is none.
const SMALLEST: u32 = 8;

/// How often it paid, and how often not.
#[derive(Debug, Default)]
pub(crate) struct Spins {
    hit: AtomicU64,
    missed: AtomicU64,
}

impl Spins {
    /// Hits.
    pub(crate) fn hit(&self) -> u64 {
        self.hit.load(Relaxed)
    }

    /// Misses.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }
}

/// What one has learned who waits again and again.
#[derive(Debug)]
pub(crate) struct Spinner {
    limit: Duration,
    budget: Duration,
    short_waits: u8,
}

impl Spinner {
    pub(crate) fn new(spin: Spin) -> Self {
        let limit = match spin {
            Spin::UpTo(limit) => limit,
            Spin::Never => Duration::ZERO,
        };
        Self { limit, budget: Duration::ZERO, short_waits: 0 }
    }

    /// What `look` finds: at once, after some more looks, or else what `wait` waits for; `None` where that says
    /// that there is nothing to wait for any more. Both put it into `place`.
    pub(crate) fn obtain<P: ?Sized, T, E>(
        &mut self,
        spins: &Spins,
        place: &mut P,
        mut look: impl FnMut(&mut P) -> Result<Option<T>, E>,
        wait: impl FnOnce(&mut P) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        if !self.budget.is_zero() {
            match self.spin(place, &mut look)? {
                Looked::AtOnce(found) => return Ok(Some(found)),
                Looked::Hit(found) => {
                    spins.hit.fetch_add(1, Relaxed);
                    self.hit();
                    return Ok(Some(found));
                }
                Looked::Missed => {
                    spins.missed.fetch_add(1, Relaxed);
                    self.missed();
                }
                Looked::NoCpu(found) => {
                    spins.missed.fetch_add(1, Relaxed);
                    self.missed();
                    if found.is_some() {
                        return Ok(found);
                    }
                }
            }
        }
        let asleep = Instant::now();
        let found = wait(place)?;
        if found.is_some() {
            self.slept(asleep.elapsed());
        }
        Ok(found)
    }

    fn spin<P: ?Sized, T, E>(
        &self,
        place: &mut P,
        look: &mut impl FnMut(&mut P) -> Result<Option<T>, E>,
    ) -> Result<Looked<T>, E> {
        if let Some(found) = look(place)? {
            return Ok(Looked::AtOnce(found));
        }
        let start = Instant::now();
        let mut before = start;
        while before - start < self.budget {
            sched_yield();
            let found = look(place)?;
            let now = Instant::now();
            if now - before > self.limit {
                return Ok(Looked::NoCpu(found));
            }
            if let Some(found) = found {
                return Ok(Looked::Hit(found));
            }
            before = now;
        }
        Ok(Looked::Missed)
    }

    fn hit(&mut self) {
        self.budget = self.limit;
    }

    fn missed(&mut self) {
        self.budget /= 2;
        if self.budget < self.limit / SMALLEST {
            self.budget = Duration::ZERO;
        }
    }

    /// The time includes the waking of this thread and of others, which looking would have spared: hence four times the
    /// limit.
    fn slept(&mut self, time: Duration) {
        if !self.budget.is_zero() || time > self.limit * 4 {
            self.short_waits = 0;
            return;
        }
        self.short_waits += 1;
        if self.short_waits == SHORT_WAITS {
            (self.short_waits, self.budget) = (0, self.limit);
        }
    }
}

/// What came of looking again and again.
enum Looked<T> {
    /// There was something before.
    AtOnce(T),
    Hit(T),
    Missed,
    /// Somebody else wanted the CPU, and had it for long; there may be something by now.
    NoCpu(Option<T>),
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(64);

    fn earned() -> Spinner {
        let mut spinner = Spinner::new(Spin::UpTo(LIMIT));
        for _ in 0..SHORT_WAITS {
            assert_eq!(spinner.budget, Duration::ZERO);
            spinner.slept(LIMIT);
        }
        spinner
    }

    #[test]
    fn short_waits_in_a_row_earn_the_budget_and_misses_lose_it() {
        let mut spinner = earned();
        assert_eq!(spinner.budget, LIMIT);
        spinner.missed();
        assert_eq!(spinner.budget, LIMIT / 2);
        spinner.hit();
        assert_eq!(spinner.budget, LIMIT);
        (0..4).for_each(|_| spinner.missed());
        assert_eq!(spinner.budget, Duration::ZERO);
    }

    #[test]
    fn a_long_wait_starts_the_count_anew() {
        let mut spinner = Spinner::new(Spin::UpTo(LIMIT));
        for wait in [LIMIT; 7].into_iter().chain([LIMIT * 5]).chain([LIMIT; 7]) {
            spinner.slept(wait);
        }
        assert_eq!(spinner.budget, Duration::ZERO);
    }

    #[test]
    fn who_may_not_never_does() {
        let mut spinner = Spinner::new(Spin::Never);
        (0..100).for_each(|_| spinner.slept(Duration::ZERO));
        assert_eq!(spinner.budget, Duration::ZERO);
    }

    #[test]
    fn what_comes_while_it_looks_is_a_hit() {
        let (mut spinner, spins, mut looks) = (earned(), Spins::default(), 0);
        let look = |(): &mut ()| {
            looks += 1;
            Ok::<_, ()>((looks == 2).then_some(5))
        };
        assert_eq!(spinner.obtain(&spins, &mut (), look, |()| unreachable!()), Ok(Some(5)));
        assert_eq!((spins.hit(), spins.missed()), (1, 0));
    }

    #[test]
    fn who_comes_back_late_loses_budget_and_not_what_came_meanwhile() {
        for (looks_needed, waits) in [(2, false), (3, true)] {
            let mut spinner = earned();
            // However soon it is back, that is late.
            spinner.limit = Duration::ZERO;
            let mut looks = 0;
            let look = |(): &mut ()| {
                looks += 1;
                Ok::<_, ()>((looks == looks_needed).then_some("looked"))
            };
            let expected = if waits { "waited" } else { "looked" };
            let found = spinner.obtain(&Spins::default(), &mut (), look, |()| Ok(Some("waited")));
            assert_eq!(found, Ok(Some(expected)));
            assert_eq!(spinner.budget, LIMIT / 2);
        }
    }
}
