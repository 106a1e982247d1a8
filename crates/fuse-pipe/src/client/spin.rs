//! Looking again for a while, before a thread sleeps.
//!
//! On short requests waking a CPU costs more than all the rest: some 30 to 60 µs, most of them in a
//! virtual machine, twice for each request here and twice at the server. A thread that looks again and
//! again instead keeps its CPU awake, and answers at once. It does that only where it pays:
//!
//! ```text
//!   budget 0 ----- eight short waits in a row -----> budget = limit
//!      ^                                               |      ^
//!      '-- halved until it is nothing <--- a miss -----'      '--- a hit
//! ```
//! - A look that finds something before the budget is used up is a hit, else a miss; each miss halves the
//!   budget. Without one the thread sleeps at once, so that an idle mount uses no CPU.
//! - It stops as soon as a thread waits for a CPU. Then none is idle, and to wake on one that is busy costs
//!   little anyway.
//! - Who was woken for nothing sleeps again at once: another lane was faster.

use std::time::{Duration, Instant};

use super::{cpus::Cpus, shared::Counters};

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
        Self::UpTo(Duration::from_micros(50))
    }
}

/// That many waits that looking would have spared.
const SHORT_WAITS: u8 = 8;
/// A budget below this part of the limit is none.
const SMALLEST: u32 = 8;

/// What one thread has learned.
#[derive(Debug)]
pub(super) struct Spinner<'a> {
    limit: Duration,
    budget: Duration,
    short_waits: u8,
    cpus: Option<&'a Cpus>,
}

impl<'a> Spinner<'a> {
    /// It never spins where nothing is known of the CPUs.
    pub(super) fn new(spin: Spin, cpus: Option<&'a Cpus>) -> Self {
        let limit = match spin {
            Spin::UpTo(limit) if cpus.is_some() => limit,
            Spin::UpTo(_) | Spin::Never => Duration::ZERO,
        };
        Self { limit, budget: Duration::ZERO, short_waits: 0, cpus }
    }

    /// What `look` finds: at once, after some more looks, or else what `wait` waits for; `None` where that says
    /// that there is nothing to wait for any more. Both put it into `place`.
    pub(super) fn obtain<P: ?Sized, T, E>(
        &mut self,
        counters: &Counters,
        place: &mut P,
        mut look: impl FnMut(&mut P) -> Result<Option<T>, E>,
        wait: impl FnOnce(&mut P) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        if !self.budget.is_zero() {
            match self.spin(place, &mut look)? {
                Looked::AtOnce(found) => return Ok(Some(found)),
                Looked::Hit(found) => {
                    Counters::add(&counters.spins_hit, 1);
                    self.hit();
                    return Ok(Some(found));
                }
                Looked::Missed => {
                    Counters::add(&counters.spins_missed, 1);
                    self.missed();
                }
                Looked::NoCpu => {}
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
        while start.elapsed() < self.budget {
            if !self.cpus.is_some_and(Cpus::suffice) {
                return Ok(Looked::NoCpu);
            }
            if let Some(found) = look(place)? {
                return Ok(Looked::Hit(found));
            }
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

    /// The time includes the waking, which looking would have spared: hence twice the limit.
    fn slept(&mut self, time: Duration) {
        if !self.budget.is_zero() || time > self.limit * 2 {
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
    /// Somebody else wants the CPU: that says nothing of how soon something comes.
    NoCpu,
}

/// Why a thread woke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// There may be something.
    Ready,
    /// The mount has ended.
    Stop,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(64);

    fn earned(cpus: &Cpus) -> Spinner<'_> {
        let mut spinner = Spinner::new(Spin::UpTo(LIMIT), Some(cpus));
        for _ in 0..SHORT_WAITS {
            assert_eq!(spinner.budget, Duration::ZERO);
            spinner.slept(LIMIT);
        }
        spinner
    }

    #[test]
    fn short_waits_in_a_row_earn_the_budget_and_misses_lose_it() {
        let cpus = Cpus::unlimited();
        let mut spinner = earned(&cpus);
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
        let cpus = Cpus::unlimited();
        let mut spinner = Spinner::new(Spin::UpTo(LIMIT), Some(&cpus));
        for wait in [LIMIT; 7].into_iter().chain([LIMIT * 3]).chain([LIMIT; 7]) {
            spinner.slept(wait);
        }
        assert_eq!(spinner.budget, Duration::ZERO);
    }

    #[test]
    fn who_may_not_never_does() {
        let cpus = Cpus::unlimited();
        for mut spinner in [Spinner::new(Spin::Never, Some(&cpus)), Spinner::new(Spin::default(), None)] {
            (0..100).for_each(|_| spinner.slept(Duration::ZERO));
            assert_eq!(spinner.budget, Duration::ZERO);
        }
    }

    #[test]
    fn what_comes_while_it_looks_is_a_hit() {
        let (cpus, counters) = (Cpus::unlimited(), Counters::default());
        let mut spinner = earned(&cpus);
        let mut looks = 0;
        let look = |(): &mut ()| {
            looks += 1;
            Ok::<_, ()>((looks == 2).then_some(5))
        };
        assert_eq!(spinner.obtain(&counters, &mut (), look, |()| unreachable!()), Ok(Some(5)));
        assert_eq!(counters.read().spins_hit, 1);
    }
}
