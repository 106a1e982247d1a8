//! Which neighbours are served together with a page that is asked for.

use std::ops::Range;

/// How many runs of addresses one after the other are followed at once: guests have several CPUs.
const STREAMS: usize = 4;

/// More pages than that are never served at once: 4 MiB.
const LARGEST: usize = 1024;

/// Pages that are served at once: few where a guest jumps about, and twice as many each time where it goes
/// on where the last ones ended.
#[derive(Debug)]
pub(crate) struct Windows {
    least: usize,
    most: usize,
    streams: [Stream; STREAMS],
    oldest: usize,
}

/// Where a fault is, seen from the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Where the last ones ended: the neighbours will be wanted.
    On,
    /// Elsewhere: they may be.
    Jump,
}

#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    /// The page after the last window.
    next: usize,
    size: usize,
}

impl Windows {
    /// Both are taken up to the next power of two.
    pub(crate) fn new(least: usize, most: usize) -> Self {
        let least = least.clamp(1, LARGEST).next_power_of_two();
        let most = most.clamp(least, LARGEST).next_power_of_two();
        Self { least, most, streams: [Stream::default(); STREAMS], oldest: 0 }
    }

    /// The pages to serve with `page`, and why these.
    pub(crate) fn around(&mut self, page: usize) -> (Range<usize>, Step) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.size > 0 && stream.next == page) {
            stream.size = (stream.size * 2).min(self.most);
            stream.next = page + stream.size;
            return (page..stream.next, Step::On);
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
    }

    #[test]
    fn a_run_ends_where_a_page_does_not_fit() {
        assert_eq!(run_around(5, 0..8, |page| page != 2 && page != 7), 3..7);
        assert_eq!(run_around(5, 0..8, |_| false), 5..6);
        assert_eq!(run_around(0, 0..8, |_| true), 0..8);
    }
}
