//! Sets of address ranges.
//!
//! The ranges are kept in order in a [`ReservedArray`], so they are found by binary search and lie
//! beside each other. A set has few ranges as a rule: address space is handed out upwards, and a range
//! that touches its neighbours is joined with them. To insert in front moves what is behind.
//!
//! **Invariants.** (1) Ranges are not empty, rise, and do not touch: neighbours have been joined. (2)
//! `total` is the sum of their lengths. (3) The first `len` elements are committed, and after
//! [`commit`](AddrRanges::commit) one more is.
//!
//! Making room is a step of its own, so that an owner who adds ranges as the last of several things can
//! have the system's refusal before the first of them.
//!
//! **Locking.** None: whoever has `&mut` has the set.

use super::{ArraySize, ArraySpace, ReservedArray};
use crate::addr::{Addr, AddrRange, Bytes};
use crate::os::{Category, Os, OsError};

/// A sorted, coalesced set of address ranges.
pub struct AddrRanges {
    /// Base and end of each range; the elements below `len` are in use.
    ranges: ReservedArray<[Addr; 2]>,
    len: usize,
    total: Bytes,
}

impl AddrRanges {
    /// An empty set that can come to hold `capacity` ranges. Their memory counts for `category`.
    ///
    /// # Errors
    /// When the system refuses the address space.
    pub fn new(os: &Os, capacity: usize, category: Category) -> Result<AddrRanges, OsError> {
        let ranges = ReservedArray::new(os, capacity, category)?;
        Ok(AddrRanges { ranges, len: 0, total: Bytes::ZERO })
    }

    /// The same in a space, of which it takes [`AddrRanges::size`].
    ///
    /// # Panics
    /// When the space was made for something else.
    pub fn within(space: &mut ArraySpace, os: &Os, capacity: usize) -> AddrRanges {
        AddrRanges { ranges: space.array(os, capacity), len: 0, total: Bytes::ZERO }
    }

    /// What a set that can come to hold `capacity` ranges takes of a space.
    pub fn size(os: &Os, capacity: usize) -> ArraySize {
        ReservedArray::<[Addr; 2]>::size(os, capacity)
    }

    /// Gives a set back to the space that it was made in, and leaves an empty one without capacity.
    ///
    /// # Panics
    /// When it was made elsewhere.
    pub fn release_into(&mut self, space: &mut ArraySpace) {
        self.ranges.release_into(space);
        (self.len, self.total) = (0, Bytes::ZERO);
    }

    /// Gives everything back and leaves an empty set without capacity.
    ///
    /// # Panics
    /// When `os` is not the one that the set was made with.
    pub fn release(&mut self, os: &Os) {
        self.ranges.release(os);
        (self.len, self.total) = (0, Bytes::ZERO);
    }

    /// Makes room for one more range.
    ///
    /// # Errors
    /// When the system refuses.
    ///
    /// # Panics
    /// When the set has reached its capacity.
    pub fn commit(&self, os: &Os) -> Result<(), OsError> {
        self.ranges.commit(os, 0..self.len + 1)
    }

    /// Calls `visit` with the memory that the set has.
    pub fn for_each_ready(&self, visit: &mut dyn FnMut(AddrRange)) {
        self.ranges.for_each_ready(visit);
    }

    /// How many ranges there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The sum of the lengths of all ranges.
    pub fn total(&self) -> Bytes {
        self.total
    }

    /// The range at `index`, counted from the lowest.
    ///
    /// # Panics
    /// When there are not so many.
    #[inline]
    pub fn get(&self, index: usize) -> AddrRange {
        assert!(index < self.len, "range {index} of {}", self.len);
        let [base, end] = *self.ranges.get(index);
        AddrRange::new(base, end)
    }

    fn set(&mut self, index: usize, range: AddrRange) {
        *self.ranges.get_mut(index) = [range.base(), range.end()];
    }

    /// The index of the first range whose base is above `addr`; [`AddrRanges::len`] if there is none.
    #[inline]
    pub fn find_succ(&self, addr: Addr) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).base() <= addr { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The range that holds `addr`.
    #[inline]
    pub fn find(&self, addr: Addr) -> Option<AddrRange> {
        let below = self.find_succ(addr).checked_sub(1)?;
        Some(self.get(below)).filter(|range| range.contains(addr))
    }

    /// Whether `addr` lies in one of the ranges.
    #[inline]
    pub fn contains(&self, addr: Addr) -> bool {
        self.find(addr).is_some()
    }

    /// Whether some address of `range` lies in the set.
    pub fn intersects(&self, range: AddrRange) -> bool {
        let first = self.find_addr_greater_equal(range.base());
        first.is_some_and(|first| range.contains(first))
    }

    /// The lowest address in the set that is not below `addr`.
    pub fn find_addr_greater_equal(&self, addr: Addr) -> Option<Addr> {
        let next = self.find_succ(addr);
        if next > 0 && self.get(next - 1).contains(addr) {
            return Some(addr);
        }
        (next < self.len).then(|| self.get(next).base())
    }

    /// The ranges, lowest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = AddrRange> + '_ {
        (0..self.len).map(|index| self.get(index))
    }

    /// From the lowest address of the set to behind the highest.
    pub fn bounds(&self) -> Option<AddrRange> {
        let last = self.len.checked_sub(1)?;
        Some(AddrRange::new(self.get(0).base(), self.get(last).end()))
    }

    /// Adds a range, none of which is in the set. [`AddrRanges::commit`] has succeeded since the last
    /// addition.
    ///
    /// # Panics
    /// When a part of the range is in the set already, or when there is no room.
    pub fn add(&mut self, range: AddrRange) {
        if range.is_empty() {
            return;
        }
        assert!(!self.intersects(range), "the range {range:?} is added and is in the set already");
        let at = self.find_succ(range.base());
        let joins_below = at > 0 && self.get(at - 1).end() == range.base();
        let joins_above = at < self.len && range.end() == self.get(at).base();
        self.total += range.bytes();
        match (joins_below, joins_above) {
            (false, false) => {
                for index in (at..self.len).rev() {
                    *self.ranges.get_mut(index + 1) = *self.ranges.get(index);
                }
                self.set(at, range);
                self.len += 1;
            }
            (true, true) => {
                self.set(at - 1, AddrRange::new(self.get(at - 1).base(), self.get(at).end()));
                for index in at + 1..self.len {
                    *self.ranges.get_mut(index - 1) = *self.ranges.get(index);
                }
                self.len -= 1;
            }
            (true, false) => {
                self.set(at - 1, AddrRange::new(self.get(at - 1).base(), range.end()));
            }
            (false, true) => self.set(at, AddrRange::new(range.base(), self.get(at).end())),
        }
    }

    /// Removes the highest range, or the highest `bytes` of it if it is longer, and returns what was
    /// removed. `None` when the set is empty.
    pub fn remove_last(&mut self, bytes: Bytes) -> Option<AddrRange> {
        let last = self.len.checked_sub(1)?;
        let range = self.get(last);
        if range.bytes() <= bytes {
            self.len = last;
            self.total -= range.bytes();
            return Some(range);
        }
        let cut = range.end() - bytes;
        self.set(last, AddrRange::new(range.base(), cut));
        self.total -= bytes;
        Some(AddrRange::new(cut, range.end()))
    }

    /// Removes every address that is not below `addr`.
    pub fn remove_greater_equal(&mut self, addr: Addr) {
        while let Some(last) = self.len.checked_sub(1) {
            let range = self.get(last);
            let left = range.remove_greater_equal(addr);
            self.total -= range.bytes() - left.bytes();
            if !left.is_empty() {
                self.set(last, left);
                break;
            }
            self.len = last;
        }
    }

    /// Makes `copy` a set of the same ranges, whatever it held before.
    ///
    /// # Errors
    /// When the system refuses memory; `copy` has not changed then.
    ///
    /// # Panics
    /// When the capacity of `copy` is too small.
    pub fn clone_into(&self, os: &Os, copy: &mut AddrRanges) -> Result<(), OsError> {
        copy.ranges.commit(os, 0..self.len)?;
        (copy.len, copy.total) = (self.len, self.total);
        for index in 0..self.len {
            *copy.ranges.get_mut(index) = *self.ranges.get(index);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::SimOs;
    use crate::tests::Random;
    use std::collections::BTreeSet;

    /// The addresses of the twin: few enough that everything touches everything else sometimes.
    const TOP: usize = 256;

    /// A set and its twin, which knows every single address.
    struct Pair {
        os: Os,
        set: AddrRanges,
        twin: BTreeSet<usize>,
    }

    impl Pair {
        fn check(&self) {
            let ranges: Vec<_> = self.set.iter().collect();
            for (below, above) in ranges.iter().zip(ranges.iter().skip(1)) {
                assert!(below.end() < above.base(), "{below:?} touches {above:?}");
            }
            assert!(ranges.iter().all(|range| !range.is_empty()));
            let addresses = ranges.iter().flat_map(|r| r.base().get()..r.end().get());
            assert!(addresses.eq(self.twin.iter().copied()), "{ranges:?}");
            assert_eq!(self.set.total().get(), self.twin.len());
            assert_eq!((self.set.len(), self.set.is_empty()), (ranges.len(), ranges.is_empty()));
        }

        fn ask(&self, addr: usize) {
            let at = Addr::new(addr);
            let bases = self.set.iter().filter(|range| range.base() <= at).count();
            assert_eq!(self.set.find_succ(at), bases);
            assert_eq!(self.set.contains(at), self.twin.contains(&addr));
            let next = self.twin.range(addr..).next().map(|&a| Addr::new(a));
            assert_eq!(self.set.find_addr_greater_equal(at), next);
            let bounds = self.set.bounds().map(|range| (range.base(), range.end()));
            let ends = self.twin.first().zip(self.twin.last());
            assert_eq!(bounds, ends.map(|(&a, &b)| (Addr::new(a), Addr::new(b + 1))));
        }

        fn step(&mut self, random: &mut Random) {
            match random.below(8) {
                0..=4 => {
                    let base = random.below(TOP);
                    let end = (base + random.below(12)).min(TOP);
                    let range = AddrRange::new(Addr::new(base), Addr::new(end));
                    let taken = self.twin.range(base..end).next().is_some();
                    assert_eq!(self.set.intersects(range), taken);
                    if !taken {
                        self.set.commit(&self.os).expect("memory");
                        self.set.add(range);
                        self.twin.extend(base..end);
                    }
                }
                5 | 6 => {
                    let bytes = random.below(20);
                    let last = self.set.len().checked_sub(1).map(|last| self.set.get(last));
                    let removed = self.set.remove_last(Bytes::new(bytes));
                    assert_eq!(removed.is_some(), last.is_some());
                    if let (Some(removed), Some(last)) = (removed, last) {
                        assert_eq!(removed.end(), last.end());
                        assert_eq!(removed.bytes().get(), bytes.min(last.bytes().get()));
                        self.twin.retain(|&a| a < removed.base().get());
                    }
                }
                _ => {
                    let from = TOP - random.below(TOP / 4);
                    self.set.remove_greater_equal(Addr::new(from));
                    self.twin.retain(|&a| a < from);
                }
            }
        }
    }

    #[test]
    fn a_set_of_ranges_is_a_set_of_addresses() {
        let sim = SimOs::builder().build();
        let os = Os::simulated(sim.clone());
        let set = AddrRanges::new(&os, TOP, Category::PageTables).expect("memory");
        let mut copy = AddrRanges::new(&os, TOP, Category::PageTables).expect("memory");
        let mut pair = Pair { os, set, twin: BTreeSet::new() };
        let mut random = Random::new(0xadd4);
        for _ in 0..20_000 {
            pair.step(&mut random);
            pair.check();
            pair.ask(random.below(TOP + 2));
            if random.one_in(50) {
                pair.set.clone_into(&pair.os, &mut copy).expect("memory");
                let before: Vec<_> = pair.set.iter().collect();
                copy.commit(&pair.os).expect("memory");
                copy.add(AddrRange::new(Addr::new(TOP + 1), Addr::new(TOP + 2)));
                assert_eq!(copy.total().get(), pair.set.total().get() + 1);
                assert!(pair.set.iter().eq(before.iter().copied()));
                assert!(copy.iter().take(before.len()).eq(before));
            }
        }
        pair.set.release(&pair.os);
        copy.release(&pair.os);
        sim.assert_all_released();
    }

    #[test]
    #[should_panic(expected = "is in the set already")]
    fn a_range_that_is_there_is_not_added_again() {
        let os = Os::simulated(SimOs::builder().build());
        let mut set = AddrRanges::new(&os, 4, Category::PageTables).expect("memory");
        set.commit(&os).expect("memory");
        set.add(AddrRange::new(Addr::new(10), Addr::new(20)));
        set.commit(&os).expect("memory");
        set.add(AddrRange::new(Addr::new(19), Addr::new(30)));
    }

    #[test]
    fn room_that_is_refused_changes_nothing() {
        let sim = SimOs::builder().build();
        let os = Os::simulated(sim.clone());
        let mut set = AddrRanges::new(&os, 5000, Category::PageTables).expect("memory");
        let mut copy = AddrRanges::new(&os, 5000, Category::PageTables).expect("memory");
        sim.set_fail_from(Some(1));
        assert!(set.commit(&os).is_err());
        sim.set_fail_from(None);
        for n in 0..3000 {
            set.commit(&os).expect("memory");
            set.add(AddrRange::at(Addr::new(2 * n), Bytes::new(1)));
        }
        sim.set_fail_from(Some(1));
        assert!(set.clone_into(&os, &mut copy).is_err());
        assert!(copy.is_empty() && copy.total() == Bytes::ZERO);
        sim.set_fail_from(None);
        set.clone_into(&os, &mut copy).expect("memory");
        assert!(copy.iter().eq(set.iter()));
        set.release(&os);
        copy.release(&os);
        sim.assert_all_released();
    }
}
