//! Which other pages are served together with one that is asked for.

use std::ops::Range;

/// How many runs of addresses one after the other are followed at once: guests have several CPUs.
const STREAMS: usize = 4;

/// More pages than that are never served at once: 4 MiB.
const LARGEST: usize = 1024;

/// Jumps over the same distance, one after the other, that make the next ones sure enough.
const SAME_JUMPS: u32 = 3;

/// Pages that are given in advance at most to a guest that jumps over the same distance.
const FORESEEN: usize = 16;

/// Pages that are served at once: few where a guest jumps about, and twice as many each time where it goes
/// on where the last ones ended.
#[derive(Debug)]
pub(crate) struct Windows {
    least: usize,
    most: usize,
    streams: [Stream; STREAMS],
    oldest: usize,
    stride: Stride,
}

/// Where a fault is, seen from the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Where the last ones ended: the neighbours will be wanted.
    On,
    /// Elsewhere: they may be.
    Jump,
    /// As far from the last ones as these from the ones before: `ahead` pages more will be, each `by` pages
    /// from the one before, and no neighbours.
    Stride { by: isize, ahead: usize },
}

#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    /// The page after the last window.
    next: usize,
    size: usize,
}

/// What jumps have in common.
#[derive(Debug, Default)]
struct Stride {
    /// The last page that was given.
    last: usize,
    by: isize,
    /// Jumps over that distance.
    seen: u32,
    ahead: usize,
}

impl Stride {
    /// The pages that are given in advance with this one, to which a guest has jumped: their distance and number.
    fn jump(&mut self, page: usize, least: usize, most: usize) -> Option<(isize, usize)> {
        let by = page.wrapping_sub(self.last).cast_signed();
        if by != self.by {
            *self = Self { last: page, by, seen: 1, ahead: 0 };
            return None;
        }
        self.seen = self.seen.saturating_add(1);
        self.last = page;
        // Who passes less than a window's pages may well want them.
        if self.seen < SAME_JUMPS || by.unsigned_abs() < 2 * least || most == 1 {
            return None;
        }
        self.ahead = (self.ahead * 2).clamp(1, FORESEEN.min(most));
        self.last = page.wrapping_add_signed(by.wrapping_mul(self.ahead.cast_signed()));
        Some((by, self.ahead))
    }
}

impl Windows {
    /// Both are taken up to the next power of two.
    pub(crate) fn new(least: usize, most: usize) -> Self {
        let least = least.clamp(1, LARGEST).next_power_of_two();
        let most = most.clamp(least, LARGEST).next_power_of_two();
        Self { least, most, streams: [Stream::default(); STREAMS], oldest: 0, stride: Stride::default() }
    }

    /// The pages to serve with `page`, and why these.
    pub(crate) fn around(&mut self, page: usize) -> (Range<usize>, Step) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.size > 0 && stream.next == page) {
            stream.size = (stream.size * 2).min(self.most);
            stream.next = page + stream.size;
            return (page..stream.next, Step::On);
        }
        if let Some((by, ahead)) = self.stride.jump(page, self.least, self.most) {
            return (page..page + 1, Step::Stride { by, ahead });
        }
        let start = page - page % self.least;
        let stream = Stream { next: start + self.least, size: self.least };
        self.streams[self.oldest] = stream;
        self.oldest = (self.oldest + 1) % STREAMS;
        (start..stream.next, Step::Jump)
    }
}

/// The longest run of pages around `page` in `window` of which `fits` is true; `page` is in it in any case.
pub(crate) fn run_around(page: usize, window: Range<usize>, fits: impl Fn(usize) -> bool) -> Range<usize> {
    let before = (window.start..page).rev().take_while(|page| fits(*page)).count();
    let after = (page + 1..window.end).take_while(|page| fits(*page)).count();
    page - before..page + 1 + after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_on_gets_more_and_who_jumps_does_not() {
        let mut windows = Windows::new(4, 16);
        assert_eq!(windows.around(6), (4..8, Step::Jump));
        assert_eq!(windows.around(8), (8..16, Step::On));
        assert_eq!(windows.around(101), (100..104, Step::Jump));
        assert_eq!(windows.around(16), (16..32, Step::On));
        assert_eq!(windows.around(32), (32..48, Step::On));
        assert_eq!(windows.around(104), (104..112, Step::On));
        assert_eq!(windows.around(0), (0..4, Step::Jump));
    }

    #[test]
    fn a_window_of_one_is_one() {
        let mut windows = Windows::new(1, 1);
        assert_eq!(windows.around(6).0, 6..7);
        assert_eq!(windows.around(7).0, 7..8);
        for page in [107, 207, 307, 407, 507] {
            assert_eq!(windows.around(page), (page..page + 1, Step::Jump));
        }
    }

    #[test]
    fn jumps_over_the_same_distance_are_foreseen() {
        let mut windows = Windows::new(4, 64);
        for page in [10_000, 10_064, 10_128] {
            assert_eq!(windows.around(page), (page..page + 4, Step::Jump));
        }
        let mut page: usize = 10_192;
        for ahead in [1, 2, 4, 8, 16, 16] {
            assert_eq!(windows.around(page), (page..page + 1, Step::Stride { by: 64, ahead }));
            page += 64 * (ahead + 1);
        }
        // Another distance is another matter, downwards as well.
        assert_eq!(windows.around(9_000), (9_000..9_004, Step::Jump));
        assert_eq!(windows.around(8_980), (8_980..8_984, Step::Jump));
        assert_eq!(windows.around(8_960), (8_960..8_964, Step::Jump));
        assert_eq!(windows.around(8_940), (8_940..8_941, Step::Stride { by: -20, ahead: 1 }));
        assert_eq!(windows.around(8_900), (8_900..8_901, Step::Stride { by: -20, ahead: 2 }));
    }

    #[test]
    fn who_goes_down_page_by_page_gets_neighbours() {
        let mut windows = Windows::new(4, 64);
        for page in (3..100).rev().step_by(4) {
            assert_eq!(windows.around(page), (page - 3..page + 1, Step::Jump));
        }
    }

    #[test]
    fn a_run_ends_where_a_page_does_not_fit() {
        assert_eq!(run_around(5, 0..8, |page| page != 2 && page != 7), 3..7);
        assert_eq!(run_around(5, 0..8, |_| false), 5..6);
        assert_eq!(run_around(0, 0..8, |_| true), 0..8);
    }
}
