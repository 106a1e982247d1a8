//! A bit for each page.

use std::ops::Range;

/// Bits, all clear at first.
#[derive(Debug, Clone)]
pub(crate) struct Bitmap(Vec<u64>);

impl Bitmap {
    pub(crate) fn new(bits: usize) -> Self {
        Self(vec![0; bits.div_ceil(64)])
    }

    pub(crate) fn get(&self, bit: usize) -> bool {
        self.0.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// Sets a range; how many of it were clear.
    pub(crate) fn set(&mut self, range: Range<usize>) -> usize {
        self.change(range, |word, mask| {
            let fresh = !*word & mask;
            *word |= mask;
            fresh.count_ones()
        })
    }

    /// Clears a range; how many of it were set.
    pub(crate) fn clear(&mut self, range: Range<usize>) -> usize {
        self.change(range, |word, mask| {
            let gone = *word & mask;
            *word &= !mask;
            gone.count_ones()
        })
    }

    /// Whether any of a range is set.
    pub(crate) fn any(&self, range: Range<usize>) -> bool {
        pieces(range).any(|(index, mask)| self.0.get(index).is_some_and(|word| word & mask != 0))
    }

    fn change(&mut self, range: Range<usize>, change: impl Fn(&mut u64, u64) -> u32) -> usize {
        let mut count = 0;
        for (index, mask) in pieces(range) {
            if let Some(word) = self.0.get_mut(index) {
                count += change(word, mask) as usize;
            }
        }
        count
    }
}

/// The words that a range is in, and its bits in each.
fn pieces(range: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    let Range { start, end } = range;
    let words = if start < end { start / 64..end.div_ceil(64) } else { 0..0 };
    words.map(move |index| {
        let first = start.saturating_sub(index * 64);
        let past = (end - index * 64).min(64);
        (index, (u64::MAX << first) & (u64::MAX >> (64 - past)))
    })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn it_is_as_a_list_of_booleans(steps in vec((any::<bool>(), 0_usize..300, 0_usize..300), 0..40)) {
            let (mut bitmap, mut list) = (Bitmap::new(300), vec![false; 300]);
            for (set, a, b) in steps {
                let range = a.min(b)..a.max(b);
                let changed = list[range.clone()].iter().filter(|bit| **bit != set).count();
                prop_assert_eq!(bitmap.any(range.clone()), list[range.clone()].iter().any(|bit| *bit));
                let counted = if set { bitmap.set(range.clone()) } else { bitmap.clear(range.clone()) };
                prop_assert_eq!(counted, changed);
                list[range].fill(set);
            }
            for (bit, set) in list.iter().enumerate() {
                prop_assert_eq!(bitmap.get(bit), *set);
            }
        }
    }
}
