//! Which ranges were made inaccessible inside accessible memory, and what they cost in mappings.
//!
//! A process has a limited number of mappings (65 530 on most systems, for everything in it). A page made
//! inaccessible in the middle of a mapping makes three of one. A heap that does this without a bound
//! takes the mappings away from `mmap`, `mprotect` and the threads of the rest of the program, which
//! then fail for want of "memory". So those who take access away enter their ranges here, and the one
//! that can do without ([`guard`](super::Os::guard)) stops when the heap's share is used up.
//!
//! ```text
//!     accessible |   entry   | accessible | entry | accessible        2 entries: at most 4 mappings more
//! ```
//!
//! **What is counted.** Entries that touch are one, because the system merges their mappings, and an entry
//! of which the middle is taken out is two. So the number of entries is exact; each costs at most two
//! mappings, and less where it lies beside memory that was never accessible, of which nothing is known
//! here.
//!
//! **Invariants.** Entries are in order of address, are not empty, and do not touch.
//!
//! A plain value; its owner has the lock. Growing the list may fail, since it happens when memory is
//! short, and fails without having changed anything.

use crate::addr::AddrRange;

/// The most mappings that one entry costs.
pub(super) const MAPPINGS_PER_ENTRY: usize = 2;

/// What one heap may use of the mappings of a process: one part in so many.
const SHARE: usize = 8;

/// How many entries a heap may have when the system allows `mappings` in a process.
pub(super) const fn entries_allowed(mappings: usize) -> usize {
    mappings / SHARE / MAPPINGS_PER_ENTRY
}

/// The list would become longer than allowed, or than there is memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoRoom;

/// The list.
#[derive(Default)]
pub(super) struct Splits {
    entries: Vec<AddrRange>,
}

impl Splits {
    pub(super) const fn new() -> Splits {
        Splits { entries: Vec::new() }
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Enters a range. It may touch or cover what is there. With a limit, the list does not become longer
    /// than that because of it; joining what is there is always allowed.
    pub(super) fn insert(&mut self, range: AddrRange, limit: Option<usize>) -> Result<(), NoRoom> {
        if range.is_empty() {
            return Ok(());
        }
        let first = self.entries.partition_point(|entry| entry.end() < range.base());
        let behind = self.entries.partition_point(|entry| entry.base() <= range.end());
        if first < behind {
            let base = self.entries[first].base().min(range.base());
            let end = self.entries[behind - 1].end().max(range.end());
            self.entries[first] = AddrRange::new(base, end);
            self.entries.drain(first + 1..behind);
            return Ok(());
        }
        if limit.is_some_and(|limit| self.entries.len() >= limit) {
            return Err(NoRoom);
        }
        self.entries.try_reserve(1).map_err(|_| NoRoom)?;
        self.entries.insert(first, range);
        Ok(())
    }

    /// Takes a range out, of which any part may be entered.
    pub(super) fn remove(&mut self, range: AddrRange) -> Result<(), NoRoom> {
        if range.is_empty() || self.entries.is_empty() {
            return Ok(());
        }
        let first = self.entries.partition_point(|entry| entry.end() <= range.base());
        let behind = self.entries.partition_point(|entry| entry.base() < range.end());
        if first >= behind {
            return Ok(());
        }
        let left = AddrRange::new(self.entries[first].base().min(range.base()), range.base());
        let right = AddrRange::new(range.end(), self.entries[behind - 1].end().max(range.end()));
        let rest = [left, right].into_iter().filter(|part| !part.is_empty());
        if behind - first == 1 {
            // Two parts may come out of one entry.
            self.entries.try_reserve(1).map_err(|_| NoRoom)?;
        }
        self.entries.splice(first..behind, rest);
        Ok(())
    }

    /// The parts of a range that are entered, in order.
    pub(super) fn within(&self, range: AddrRange) -> impl Iterator<Item = AddrRange> + '_ {
        let first = self.entries.partition_point(|entry| entry.end() <= range.base());
        let inside = self.entries[first..].iter().take_while(move |e| e.base() < range.end());
        inside.map(move |entry| entry.intersection(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Addr, Bytes};

    fn pages(first: usize, count: usize) -> AddrRange {
        AddrRange::at(Addr::new(0x10_0000 + first * 4096), Bytes::new(count * 4096))
    }

    /// The list and one flag per page must tell the same story.
    fn check(splits: &Splits, flags: &[bool]) {
        let runs: Vec<AddrRange> = {
            let mut runs = Vec::new();
            let mut at = 0;
            for run in flags.chunk_by(|a, b| a == b) {
                if run[0] {
                    runs.push(pages(at, run.len()));
                }
                at += run.len();
            }
            runs
        };
        assert_eq!(splits.entries, runs);
        assert_eq!(splits.len(), runs.len());
    }

    #[test]
    fn the_list_equals_a_flag_per_page() {
        let mut random = 0x5b11_7500_u64;
        println!("seed {random:#x}");
        let mut next = |below: u64| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (random >> 33) % below
        };
        let mut splits = Splits::new();
        let mut flags = [false; 64];
        for _ in 0..20_000 {
            let first = next(64) as usize;
            let count = (next(6) as usize).min(64 - first);
            let range = pages(first, count);
            if next(2) == 0 {
                splits.insert(range, None).unwrap();
                flags[first..first + count].fill(true);
            } else {
                splits.remove(range).unwrap();
                flags[first..first + count].fill(false);
            }
            check(&splits, &flags);
            let (first, count) = (next(64) as usize, next(20) as usize);
            let expected = flags.iter().skip(first).take(count).filter(|&&flag| flag).count();
            let found: usize = splits.within(pages(first, count)).map(|r| r.bytes().get()).sum();
            assert_eq!(found, expected * 4096);
        }
    }

    #[test]
    fn a_full_list_takes_only_what_joins() {
        let mut splits = Splits::new();
        splits.insert(pages(0, 1), Some(2)).unwrap();
        splits.insert(pages(10, 1), Some(2)).unwrap();
        assert_eq!(splits.insert(pages(20, 1), Some(2)), Err(NoRoom));
        splits.insert(pages(1, 3), Some(2)).unwrap();
        assert_eq!(splits.len(), 2);
        // Without a limit there is no refusal, and then the list is longer than the limit.
        splits.insert(pages(30, 1), None).unwrap();
        assert_eq!(splits.insert(pages(20, 1), Some(2)), Err(NoRoom));
        splits.insert(pages(2, 10), Some(2)).unwrap();
        splits.remove(pages(30, 1)).unwrap();
        assert_eq!(splits.len(), 1);
        splits.insert(pages(20, 1), Some(2)).unwrap();
    }

    #[test]
    fn a_heap_takes_an_eighth_of_the_mappings() {
        assert_eq!(entries_allowed(65_530), 4095);
        assert_eq!(entries_allowed(0), 0);
        assert!(entries_allowed(65_530) * MAPPINGS_PER_ENTRY * SHARE <= 65_530);
    }
}
