//! Values by index, kept as runs of equal ones: the pages of a simulated block, most of which are alike.
//!
//! **Invariants.** (1) A run begins at 0, unless there are no values. (2) Two runs that follow each other
//! differ.

use std::collections::BTreeMap;
use std::ops::Range;

/// `len` values.
pub(super) struct Runs<T> {
    /// By the index of their first value.
    runs: BTreeMap<usize, T>,
    len: usize,
}

impl<T: Copy + PartialEq> Runs<T> {
    /// So many times the same value.
    pub(super) fn new(value: T, len: usize) -> Runs<T> {
        let first = (len > 0).then_some((0, value));
        Runs { runs: first.into_iter().collect(), len }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The runs that a range touches, cut off at its ends.
    pub(super) fn iter(&self, range: Range<usize>) -> impl Iterator<Item = (Range<usize>, T)> + '_ {
        debug_assert!(range.end <= self.len);
        let around = self.runs.range(..=range.start).next_back().map_or(0, |(&first, _)| first);
        let mut runs = self.runs.range(around.min(range.end)..range.end).peekable();
        core::iter::from_fn(move || {
            let (&first, &value) = runs.next().filter(|_| !range.is_empty())?;
            let end = runs.peek().map_or(range.end, |&(&next, _)| next);
            Some((first.max(range.start)..end, value))
        })
    }

    /// Changes the values of a range, run by run.
    pub(super) fn change(
        &mut self,
        range: Range<usize>,
        mut how: impl FnMut(Range<usize>, &mut T),
    ) {
        let old: Vec<(Range<usize>, T)> = self.iter(range.clone()).collect();
        let behind = self.iter(range.end..self.len.min(range.end + 1)).next();
        for (run, _) in &old {
            self.runs.remove(&run.start);
        }
        let mut last = range
            .start
            .checked_sub(1)
            .and_then(|before| self.runs.range(..=before).next_back().map(|(_, &value)| value));
        let changed = old.into_iter().map(|(run, mut value)| {
            how(run.clone(), &mut value);
            (run.start, value)
        });
        for (first, value) in changed.chain(behind.map(|(run, value)| (run.start, value))) {
            self.runs.remove(&first);
            if last != Some(value) {
                self.runs.insert(first, value);
                last = Some(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Random;

    #[test]
    fn runs_are_a_vector() {
        let mut random = Random::new(0x2145);
        for len in [1, 2, 40] {
            let (mut runs, mut twin) = (Runs::new(0u8, len), vec![0u8; len]);
            for _ in 0..3000 {
                let first = random.below(len + 1);
                let range = first..first + random.below(len + 1 - first);
                let (add, odd) = (random.below(3) as u8, random.one_in(2));
                let how = |value: u8| if odd { (value + add) % 3 } else { add };
                runs.change(range.clone(), |_, value| *value = how(*value));
                twin[range.clone()].iter_mut().for_each(|value| *value = how(*value));
                let mut seen = Vec::new();
                for (run, value) in runs.iter(0..len) {
                    assert!(run.start == seen.len() && !run.is_empty());
                    assert!(seen.last() != Some(&value), "two runs of {value}");
                    seen.resize(run.end, value);
                }
                assert_eq!(seen, twin);
                let part: usize = runs.iter(range.clone()).map(|(run, _)| run.len()).sum();
                assert_eq!(part, range.len());
            }
        }
    }
}
