//! Memory of shut ranges, moved aside: mapped elsewhere for as long as nobody may use it.
//!
//! Taking access away from memory, and giving it back, changes an entry of the page tables for each page, which
//! costs forty microseconds for eight mebibytes, each time. The kernel can also move the memory of a mapping to another
//! address, and where both are aligned as a table of pages is ([`UNIT`]) it moves whole tables: a tenth of that. What
//! stays behind is a mapping without memory, of which the protection is changed in no time.
//!
//! ```text
//!   shut:   [ edge |      unit       |      unit       | edge ]        at the range, inaccessible
//!                          |  moved           |
//!                          v                  v
//!                  [      unit       |      unit       ]               somewhere, and nobody is told where
//! ```
//!
//! The edges stay where they are. Memory that is brought back is at its old address, where its mapping fits to its
//! neighbours again, so that none is left over.
//!
//! **What is in it is forfeit.** So whenever anything is refused, or only a part is wanted and there is no memory for a
//! longer list, memory is dropped, and what is opened reads as zeros there.
//!
//! **Addresses are never free** in between: a move that leaves nothing behind would give them to the next `mmap`
//! of the process, and a stale pointer would find what somebody else keeps there. So what is moved aside leaves its
//! mapping behind (`MREMAP_DONTUNMAP`, Linux 5.7), and what is brought back replaces it. Nor is anything replaced on
//! the way there: the kernel unmaps what is at a place before it looks whether it can move, so a move to a place that
//! we had reserved could fail and leave us with addresses that might be somebody's by now.
//!
//! On the way back there is no other way. The kernel looks at the number of mappings before it unmaps the place; behind
//! that there is nothing but want of memory for a table of pages or a record of its own, which it does not refuse, and
//! strict accounting of what is promised to processes, which has just been given back as much as it is asked for.
//! Should it fail there all the same, the place is mapped anew at once, and if that fails as well the process ends.
//!
//! An access in the moment between the move and the change of protection finds zeros. Nobody has a right to it.
//!
//! **Locking.** [`Rank::Mappings`], held across the calls; never together with the list of splits.
//!
//! # Safety
//! As in `os/linux/mod.rs`: the ranges belong to the callers, and what is in them is forfeit. The places were mapped
//! here and are known to nobody else.
#![allow(unsafe_code)]

use libc::{PROT_NONE, PROT_READ, PROT_WRITE};

use super::RESERVATION;
use super::calls;
use crate::addr::{Addr, AddrRange, Bytes};
use crate::fatal::fatal;
use crate::os::feature::{Feature, Latch, is_forbidden};
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sync::{Lock, Rank};

/// What a table of pages maps where pages are small. Elsewhere the moves are right as well, and slower.
const UNIT: Bytes = Bytes::new(2 << 20);

/// Memory that lies elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Aside {
    /// Where it belongs.
    range: AddrRange,
    /// Where it begins now.
    place: Addr,
}

impl Aside {
    /// The part that belongs into `part`, which lies in its range.
    fn part(&self, part: AddrRange) -> Aside {
        Aside { range: part, place: self.place + part.base().bytes_since(self.range.base()) }
    }

    /// Where it lies.
    fn lies(&self) -> AddrRange {
        AddrRange::at(self.place, self.range.bytes())
    }
}

/// All memory that lies aside, in order of where it belongs.
#[derive(Default)]
struct List {
    entries: Vec<Aside>,
}

impl List {
    /// What of `range` lies aside.
    fn within(&self, range: AddrRange) -> impl Iterator<Item = Aside> + '_ {
        let first = self.entries.partition_point(|entry| entry.range.end() <= range.base());
        let inside = self.entries[first..].iter().take_while(move |e| e.range.base() < range.end());
        inside.map(move |entry| entry.part(entry.range.intersection(range)))
    }

    /// Takes the first part of `range` out that lies aside. Without memory for a longer list, what is behind it in its
    /// entry is dropped: the second of what is returned.
    fn take(&mut self, range: AddrRange) -> Option<(Aside, Option<Aside>)> {
        let first = self.entries.partition_point(|entry| entry.range.end() <= range.base());
        let entry = *self.entries.get(first).filter(|e| e.range.base() < range.end())?;
        let taken = entry.part(entry.range.intersection(range));
        let before = entry.part(AddrRange::new(entry.range.base(), taken.range.base()));
        let behind = entry.part(AddrRange::new(taken.range.end(), entry.range.end()));
        self.entries.remove(first);
        // There is room for one: that of the entry.
        let mut at = first;
        let mut dropped = None;
        for rest in [before, behind].into_iter().filter(|rest| !rest.range.is_empty()) {
            if self.entries.try_reserve(1).is_ok() {
                self.entries.insert(at, rest);
                at += 1;
            } else {
                dropped = Some(rest);
            }
        }
        Some((taken, dropped))
    }
}

/// What `shut` and `open` know.
pub(super) struct Asides {
    pub(super) moves: Latch,
    list: Lock<List>,
    /// The length of the list, for those who only look.
    entries: AtomicUsize,
    /// How long it may become.
    limit: usize,
}

impl Asides {
    pub(super) fn new(wanted: bool, limit: usize) -> Asides {
        let moves = Latch::new(if wanted { Feature::Untried } else { Feature::Off });
        let list = Lock::new(Rank::Mappings, List { entries: Vec::new() });
        Asides { moves, list, entries: AtomicUsize::new(0), limit }
    }

    pub(super) fn moves(&self) -> Feature {
        self.moves.get()
    }

    fn change<T>(&self, change: impl FnOnce(&mut List) -> T) -> T {
        let mut list = self.list.lock();
        let result = change(&mut list);
        self.entries.store(list.entries.len(), Relaxed);
        result
    }

    fn is_empty(&self) -> bool {
        // `Relaxed`: who owns a range has put it aside, or was told of it by who did.
        self.entries.load(Relaxed) == 0
    }

    /// Moves the memory of the units of an accessible range aside, as far as that can be done.
    pub(super) fn put(&self, range: AddrRange) {
        let whole = range.whole_units(UNIT.get());
        if whole.is_empty() || !self.moves.is_open() {
            return;
        }
        self.change(|list| {
            if list.entries.len() >= self.limit || list.entries.try_reserve(1).is_err() {
                return;
            }
            let Ok(hint) = find_hole(whole.bytes()) else { return };
            let moved = calls::move_away(whole, hint);
            // An invalid argument: the kernel does not know that anything could be left behind.
            self.moves.note(&moved, |errno| is_forbidden(errno) || errno == libc::EINVAL);
            let Ok(place) = moved else { return };
            let at = list.entries.partition_point(|entry| entry.range.base() < whole.base());
            list.entries.insert(at, Aside { range: whole, place });
        });
    }

    /// Brings back what of an accessible range lies aside.
    pub(super) fn bring_back(&self, range: AddrRange) {
        if self.is_empty() {
            return;
        }
        self.change(|list| {
            while let Some((aside, dropped)) = list.take(range) {
                forget(dropped);
                if calls::move_back(aside.lies(), aside.range.base()).is_ok() {
                    continue;
                }
                forget(Some(aside));
                // What was there before may be gone.
                let accessible = PROT_READ | PROT_WRITE;
                let over = |flags| calls::map_over(aside.range, accessible, flags);
                if let Err(errno) = over(RESERVATION).or_else(|_| over(0)) {
                    let range = aside.range;
                    fatal(format_args!("{range:?} was ours, and cannot be mapped: errno {errno}"));
                }
            }
        });
    }

    /// Drops what of a range lies aside.
    pub(super) fn drop_within(&self, range: AddrRange) {
        if self.is_empty() {
            return;
        }
        self.change(|list| {
            while let Some((aside, dropped)) = list.take(range) {
                forget(Some(aside));
                forget(dropped);
            }
        });
    }

    /// Calls `visit` with the parts of a range, in order: each with where its memory lies.
    pub(super) fn for_each_part(&self, range: AddrRange, mut visit: impl FnMut(AddrRange, Addr)) {
        let mut parts = Vec::new();
        if !self.is_empty() {
            parts.extend(self.list.lock().within(range));
        }
        let mut at = range.base();
        for aside in parts {
            visit(AddrRange::new(at, aside.range.base()), at);
            visit(aside.range, aside.place);
            at = aside.range.end();
        }
        visit(AddrRange::new(at, range.end()), at);
    }
}

/// Finds free addresses at a multiple of a unit. They are nobody's: if somebody takes them before they are used, that
/// is his, and the kernel chooses others, to which it may be slower to move.
fn find_hole(bytes: Bytes) -> Result<Addr, i32> {
    let wide = calls::map_new(Addr::NULL, bytes + UNIT, PROT_NONE, RESERVATION)?;
    let wide = AddrRange::at(wide, bytes + UNIT);
    // What is not given back stays reserved, and is of no further use.
    calls::unmap(wide)?;
    Ok(wide.whole_units(UNIT.get()).base())
}

/// Drops memory.
fn forget(aside: Option<Aside>) {
    if let Some(aside) = aside {
        // If it is not taken back nobody owns it any more, but its memory goes.
        let _ = calls::unmap(aside.lies())
            .or_else(|_| calls::advise(aside.lies(), libc::MADV_DONTNEED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(first: usize, count: usize) -> AddrRange {
        let at = |unit: usize| Addr::new(0x4000_0000 + unit * UNIT.get());
        AddrRange::new(at(first), at(first + count))
    }

    /// The list and a place for each unit must tell the same story.
    #[test]
    fn the_list_equals_a_place_for_each_unit() {
        let mut random = 0xa51d_e000_u64;
        println!("seed {random:#x}");
        let mut next = |below: u64| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (random >> 33) % below
        };
        let mut list = List::default();
        let mut places: [Option<Addr>; 64] = [None; 64];
        let mut taken = 0;
        for round in 0..20_000_usize {
            let first = next(64) as usize;
            let range = units(first, (next(6) as usize + 1).min(64 - first));
            let inside = |unit: usize| {
                range.base() <= units(unit, 1).base() && units(unit, 1).end() <= range.end()
            };
            if next(2) == 0
                && (0..64).filter(|&unit| inside(unit)).all(|unit| places[unit].is_none())
            {
                let place = Addr::new(0x8000_0000_0000 + round * 64 * UNIT.get());
                let at = list.entries.partition_point(|entry| entry.range.base() < range.base());
                list.entries.insert(at, Aside { range, place });
                for unit in (0..64).filter(|&unit| inside(unit)) {
                    places[unit] = Some(place + units(unit, 1).base().bytes_since(range.base()));
                }
            } else {
                let found: Vec<Aside> = list.within(range).collect();
                for aside in found {
                    assert_eq!(list.take(range), Some((aside, None)));
                    for unit in (0..64).filter(|&unit| inside(unit)) {
                        let at = units(unit, 1);
                        if aside.range.base() <= at.base() && at.end() <= aside.range.end() {
                            assert_eq!(places[unit].take(), Some(aside.part(at).place));
                            taken += 1;
                        }
                    }
                }
                assert_eq!(list.take(range), None);
                assert!((0..64).filter(|&unit| inside(unit)).all(|unit| places[unit].is_none()));
            }
            let lengths = list.entries.iter().map(|entry| entry.range.bytes().get());
            let known = places.iter().flatten().count();
            assert_eq!(lengths.sum::<usize>(), known * UNIT.get());
            assert!(list.entries.is_sorted_by(|a, b| a.range.end() <= b.range.base()));
        }
        assert!(taken > 1000, "{taken}");
    }
}
