//! Ranges of addresses, and what can be cut off them.
//!
//! A range is half-open, `[base, end)`, and may be empty; all empty ranges hold the same addresses, and
//! no operation here cares where an empty one stands. Every operation that cuts leaves *one* range:
//! taking a piece out of the middle would leave two, and is a mistake of the caller.

use super::{Addr, Bytes};
use core::fmt;

/// A half-open range of addresses `[base, end)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddrRange {
    base: Addr,
    end: Addr,
}

impl AddrRange {
    /// The range from `base` up to, not including, `end`.
    ///
    /// # Panics
    /// When `end` lies below `base`.
    #[inline]
    pub const fn new(base: Addr, end: Addr) -> AddrRange {
        assert!(base.0 <= end.0, "an address range ends below its base");
        AddrRange { base, end }
    }

    /// The range of `bytes` bytes from `base` on.
    #[inline]
    pub fn at(base: Addr, bytes: Bytes) -> AddrRange {
        AddrRange::new(base, base + bytes)
    }

    /// The first address.
    #[inline]
    pub const fn base(self) -> Addr {
        self.base
    }

    /// The first address behind the range.
    #[inline]
    pub const fn end(self) -> Addr {
        self.end
    }

    /// Length in bytes.
    #[inline]
    pub const fn bytes(self) -> Bytes {
        self.end.bytes_since(self.base)
    }

    /// Whether nothing lies in the range.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.base.0 == self.end.0
    }

    /// Whether `addr` lies in the range.
    #[inline]
    pub const fn contains(self, addr: Addr) -> bool {
        self.base.0 <= addr.0 && addr.0 < self.end.0
    }

    /// Whether some address lies in both ranges.
    #[inline]
    pub const fn intersects(self, other: AddrRange) -> bool {
        !self.intersection(other).is_empty()
    }

    /// What lies in both ranges; it may be empty.
    #[inline]
    pub const fn intersection(self, other: AddrRange) -> AddrRange {
        let base = max(self.base, other.base);
        AddrRange { base, end: max(base, min(self.end, other.end)) }
    }

    /// What lies in the range of whole multiples of `unit`, a power of two; it may be empty.
    pub fn whole_units(self, unit: usize) -> AddrRange {
        let end = self.end.align_down(unit);
        let base = self.base.checked_align_up(unit).unwrap_or(end);
        AddrRange { base: min(base, end), end }
    }

    /// The parts of the range, upwards, that it is cut into at each multiple of `unit`, a power of two.
    pub fn cut_at(self, unit: usize) -> impl Iterator<Item = AddrRange> {
        let mut rest = self;
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let border = rest.base.align_down(unit).0.checked_add(unit);
            let end = border.map_or(rest.end, |border| min(rest.end, Addr(border)));
            let part = AddrRange { base: rest.base, end };
            rest.base = end;
            Some(part)
        })
    }

    /// What is left of this range without `other`; it may be empty.
    ///
    /// # Panics
    /// When something is left on both sides of `other`.
    pub const fn subtract(self, other: AddrRange) -> AddrRange {
        if !self.intersects(other) {
            return self;
        }
        let (below, above) = (self.base.0 < other.base.0, other.end.0 < self.end.0);
        assert!(!(below && above), "a range is cut out of the middle of another");
        if below {
            AddrRange { base: self.base, end: other.base }
        } else if above {
            AddrRange { base: other.end, end: self.end }
        } else {
            AddrRange { base: self.base, end: self.base }
        }
    }

    /// The part of this range that lies below `addr`; it may be empty.
    pub const fn remove_greater_equal(self, addr: Addr) -> AddrRange {
        AddrRange { base: self.base, end: max(self.base, min(self.end, addr)) }
    }

    /// Takes `bytes` off the front, from the first multiple of `align` (a power of two) on. What was
    /// skipped for the alignment is lost with it. `None`, and nothing has changed, when they do not
    /// fit.
    pub fn take_from_front(&mut self, bytes: Bytes, align: usize) -> Option<Addr> {
        let start = self.base.checked_align_up(align)?;
        let rest = start.0.checked_add(bytes.get())?;
        if rest > self.end.0 {
            return None;
        }
        self.base = Addr(rest);
        Some(start)
    }

    /// Takes at least `bytes` off the back, such that what is taken begins at a multiple of `align` (a
    /// power of two). `None`, and nothing has changed, when they do not fit.
    pub fn take_from_back(&mut self, bytes: Bytes, align: usize) -> Option<Addr> {
        let start = Addr(self.end.0.checked_sub(bytes.get())?).align_down(align);
        if start.0 < self.base.0 {
            return None;
        }
        self.end = start;
        Some(start)
    }
}

const fn min(a: Addr, b: Addr) -> Addr {
    if a.0 < b.0 { a } else { b }
}

const fn max(a: Addr, b: Addr) -> Addr {
    if a.0 > b.0 { a } else { b }
}

impl fmt::Debug for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.base, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const TOP: usize = 9;

    fn all() -> impl Iterator<Item = AddrRange> {
        (0..=TOP).flat_map(|a| (a..=TOP).map(move |b| AddrRange::new(Addr(a), Addr(b))))
    }

    fn set(range: AddrRange) -> BTreeSet<usize> {
        (range.base.0..range.end.0).collect()
    }

    #[test]
    fn ranges_are_sets_of_addresses() {
        for a in all() {
            assert_eq!(a.is_empty(), set(a).is_empty());
            assert_eq!(a.bytes().get(), set(a).len());
            for addr in 0..=TOP + 1 {
                assert_eq!(a.contains(Addr(addr)), set(a).contains(&addr));
                let below: BTreeSet<_> = set(a).range(..addr).copied().collect();
                assert_eq!(set(a.remove_greater_equal(Addr(addr))), below);
            }
            for b in all() {
                assert_eq!(a.intersects(b), !set(a).is_disjoint(&set(b)));
                assert_eq!(set(a.intersection(b)), &set(a) & &set(b), "{a:?} and {b:?}");
                let left: BTreeSet<_> = set(a).difference(&set(b)).copied().collect();
                let whole = left.iter().zip(left.iter().skip(1)).all(|(x, y)| x + 1 == *y);
                if whole {
                    assert_eq!(set(a.subtract(b)), left, "{a:?} without {b:?}");
                }
            }
        }
    }

    #[test]
    fn a_range_is_cut_at_multiples_of_a_unit() {
        for range in all() {
            for unit in [1, 2, 4, 8, 16] {
                let blocks = (0..=TOP / unit).map(|n| n * unit..(n + 1) * unit);
                let parts = blocks.clone().map(|block| set(range).range(block).copied().collect());
                let parts: Vec<BTreeSet<usize>> =
                    parts.filter(|part: &BTreeSet<_>| !part.is_empty()).collect();
                assert_eq!(range.cut_at(unit).map(set).collect::<Vec<_>>(), parts, "{range:?}");
                let whole: BTreeSet<_> =
                    parts.into_iter().filter(|p| p.len() == unit).flatten().collect();
                assert_eq!(set(range.whole_units(unit)), whole, "{range:?}, units of {unit}");
            }
        }
        let top = AddrRange::new(Addr(usize::MAX - 20), Addr(usize::MAX));
        assert_eq!(top.cut_at(1 << 20).collect::<Vec<_>>(), [top]);
        assert!(top.whole_units(1 << 20).is_empty());
    }

    #[test]
    #[should_panic(expected = "out of the middle")]
    fn a_piece_out_of_the_middle_is_a_panic() {
        let range = |base, end| AddrRange::new(Addr(base), Addr(end));
        let _ = range(0, 10).subtract(range(3, 4));
    }

    #[test]
    fn what_is_taken_was_there_is_aligned_and_is_gone() {
        for whole in all() {
            for bytes in 0..=TOP + 1 {
                for align in [1, 2, 4, 8, 16] {
                    check_taken(whole, Bytes::new(bytes), align);
                }
            }
        }
    }

    fn check_taken(whole: AddrRange, bytes: Bytes, align: usize) {
        let fits = |start: &usize| start % align == 0 && start + bytes.get() <= whole.end.0;
        let mut starts = (whole.base.0..=whole.end.0).filter(fits).map(Addr);
        let (lowest, highest) = (starts.clone().next(), starts.next_back());
        let mut rest = whole;
        assert_eq!(rest.take_from_front(bytes, align), lowest);
        let left = lowest.map_or(whole, |start| AddrRange::new(start + bytes, whole.end));
        assert_eq!(rest, left);
        let mut rest = whole;
        assert_eq!(rest.take_from_back(bytes, align), highest);
        assert_eq!(rest, highest.map_or(whole, |start| AddrRange::new(whole.base, start)));
    }

    #[test]
    fn taking_stops_at_the_ends_of_the_address_space() {
        let mut high = AddrRange::new(Addr(usize::MAX - 20), Addr(usize::MAX));
        assert_eq!(high.take_from_front(Bytes::new(21), 1), None);
        assert_eq!(high.take_from_front(Bytes::new(usize::MAX), 1), None);
        assert_eq!(high.take_from_front(Bytes::new(1), 64), None);
        let mut low = AddrRange::new(Addr(0), Addr(10));
        assert_eq!(low.take_from_back(Bytes::new(11), 1), None);
        assert_eq!(low.take_from_back(Bytes::new(10), 8), Some(Addr::NULL));
    }
}
