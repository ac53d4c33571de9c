//! `move_memory` on Linux: the memory of a unit goes to other addresses of the heap, and its own become inaccessible.
//!
//! ```text
//!   before:  [ from: memory         ] ... [ to: mapped, no memory ]
//!   mremap:  [ from: mapped, empty  ] ... [ to: memory            ]     MREMAP_FIXED | MREMAP_DONTUNMAP
//!   then:    [ from: inaccessible   ]
//! ```
//!
//! Both are aligned as what a table of pages maps, so the kernel moves the table, which takes as long as telling the
//! other processors of it. An access to `from` between the two steps finds zeros; nobody has a right to it.
//!
//! # Foreign mappings
//! A mapping of anonymous memory remembers at which address its memory was first, and merges with a neighbour only if
//! that one's was beside it. So what was moved is a mapping of its own, at whatever address it lies, until it is mapped
//! anew. The units that are *foreign* in this sense are listed here, and together with the ranges in the list of splits
//! there are never more of them than half of the heap's share, because of a move. When the memory of a foreign unit
//! moves on, what it leaves behind is mapped anew and is foreign no more; so memory that goes round and round
//! costs as many mappings as there are units of it.
//!
//! # When it fails
//! The kernel unmaps the destination before it moves, and can fail behind that. Then there is a hole among our addresses,
//! in which the next mapping of the process may come to lie. So nothing is moved where there is a reason for the kernel
//! to fail that late: a limit on the addresses or the data of the process, under which what was just
//! given up need not be had again, or strict accounting of what is promised to processes, where another one may be quicker. What is
//! left is a unit that consists of several mappings, because the program has given advice about a part of it. Kernels
//! before 6.17 fail at once then; later ones move mapping by mapping, and may fail in the midst, when the process has as many
//! as it may. So the kernel is asked whether there is a hole, which is mapped page by page, with a flag that lets it
//! replace nothing; and what has come already is given back, since the unit is to have no memory. (Whoever
//! else maps addresses that he does not choose gets them from the other end of the address space, not from the hole.)
//! When a hole cannot be mapped the process ends, since it would go on with addresses that may be somebody's.
//!
//! # Locked memory
//! The flag that leaves the old mapping behind unlocks it, all of it and not just the unit. So before each move the
//! destination is asked to give up its memory, of which it has none: for locked memory the kernel refuses that, and
//! then nothing is moved. (Memory that was locked range by range, and this one not, is not found out.)
//!
//! # Locking
//! [`Rank::Mappings`] around the list, and never together with that of the splits.
//!
//! # Safety
//! As in `os/linux/mod.rs`.
#![allow(unsafe_code)]

use libc::{PROT_NONE, PROT_READ, PROT_WRITE};

use super::guard::Guards;
use super::{Known, NativeOs, RESERVATION, calls};
use crate::addr::{Addr, AddrRange};
use crate::fatal::fatal;
use crate::os::feature::is_forbidden;
use crate::os::{Category, Guarding};
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sync::{Lock, Rank};

/// How the kernel accounts for what it promises.
static OVERCOMMIT: Known = Known::new("/proc/sys/vm/overcommit_memory");

/// The number that says that it promises no more than it has.
const STRICT: usize = 2;

/// Where the units lie that are foreign, in order.
pub(super) struct Moved {
    units: Lock<Vec<Addr>>,
    /// How many they are, for those who only look.
    count: AtomicUsize,
}

impl Moved {
    pub(super) const fn new() -> Moved {
        Moved { units: Lock::new(Rank::Mappings, Vec::new()), count: AtomicUsize::new(0) }
    }

    /// How many units are foreign.
    pub(super) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Addr>) -> T) -> T {
        let mut units = self.units.lock();
        let result = change(&mut units);
        self.count.store(units.len(), Relaxed);
        result
    }

    /// Enters a unit that gets the memory of `from`, unless that makes the list longer than `limit`, or longer than
    /// there is memory: whether it is there now, and whether it was.
    fn enter(&self, unit: Addr, from: Addr, limit: usize) -> (bool, bool) {
        self.change(|units| {
            // It leaves the list when its memory does.
            let limit = limit + usize::from(units.binary_search(&from).is_ok());
            match units.binary_search(&unit) {
                Ok(_) => (true, true),
                Err(_) if units.len() >= limit || units.try_reserve(1).is_err() => (false, false),
                Err(at) => {
                    units.insert(at, unit);
                    (true, false)
                }
            }
        })
    }

    /// Takes a unit out; whether it was there.
    fn take(&self, unit: Addr) -> bool {
        self.change(|units| units.binary_search(&unit).map(|at| units.remove(at)).is_ok())
    }

    /// What lies in a range was mapped anew, or is gone.
    pub(super) fn forget(&self, range: AddrRange) {
        // `Relaxed`: who owns the range has entered its units, or was told of it by who did.
        if self.count.load(Relaxed) != 0 {
            self.change(|units| units.retain(|&unit| !range.contains(unit)));
        }
    }
}

impl NativeOs {
    pub(in crate::os) fn can_move(&self) -> bool {
        self.guards.asides.moves.is_open()
            && OVERCOMMIT.get().is_some_and(|how| how != STRICT)
            && !calls::is_limited()
    }

    pub(in crate::os) unsafe fn move_memory(
        &self,
        from: AddrRange,
        to: AddrRange,
        category: Category,
    ) -> Option<Guarding> {
        let (guards, moves) = (&self.guards, &self.guards.asides.moves);
        if !self.can_move() || calls::advise(to, libc::MADV_DONTNEED).is_err() {
            return None;
        }
        // One more for what `from` costs.
        let room = (guards.limit() / 2).saturating_sub(guards.entries() + 1);
        let (is_entered, was_foreign) = guards.moved.enter(to.base(), from.base(), room);
        if !is_entered {
            return None;
        }
        let moved = calls::move_onto(from, to.base());
        // An invalid argument: the kernel does not know that anything could be left behind.
        moves.note(&moved, |errno| is_forbidden(errno) || errno == libc::EINVAL);
        if moved.is_err() {
            if !self.mend(to, category) && !was_foreign {
                guards.moved.take(to.base());
            }
            return None;
        }
        Some(self.close(guards, from, category))
    }

    /// Makes a unit inaccessible that has no memory any more.
    fn close(&self, guards: &Guards, from: AddrRange, category: Category) -> Guarding {
        let is_foreign = guards.moved.take(from.base());
        let closed = guards.enter(from, None, || match is_foreign {
            // The old mapping would be foreign wherever it lies.
            true => calls::map_over(from, PROT_NONE, self.reservation()),
            false => calls::protect(from, PROT_NONE),
        });
        if closed.is_err() {
            guards.note_open();
            return Guarding::ReadsZero;
        }
        if is_foreign {
            // Made accessible, it is to merge with what lies beside it.
            self.names.mapped(from, category);
        }
        Guarding::Faults
    }

    /// Makes a unit what it was, mapped and without memory, after the kernel has failed to move some there; whether
    /// it had unmapped any of it.
    fn mend(&self, unit: AddrRange, category: Category) -> bool {
        let is_torn = !calls::is_mapped(unit);
        if is_torn {
            for page in unit.cut_at(self.page_size.get()) {
                match calls::map_hole(page, PROT_READ | PROT_WRITE, self.reservation()) {
                    // Most of it was not unmapped, or has been moved.
                    Ok(()) | Err(libc::EEXIST) => {}
                    Err(errno) => fatal(format_args!(
                        "{page:?} was ours, and cannot be mapped: errno {errno}"
                    )),
                }
            }
            self.names.mapped(unit, category);
        }
        // A part may have come.
        if calls::advise(unit, libc::MADV_DONTNEED).is_err() {
            fatal(format_args!("the memory of {unit:?} cannot be given back"));
        }
        is_torn
    }

    /// The flags of a mapping that is not charged, if there is such a thing.
    fn reservation(&self) -> core::ffi::c_int {
        if self.uncharged.is_open() { RESERVATION } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Bytes;
    use crate::os::MOVE_UNIT;

    /// A unit that the kernel has unmapped, not at all, in part, or as a whole.
    #[test]
    fn fault_06_a_place_that_was_unmapped_is_mapped_again() {
        let os = NativeOs::new(&crate::os::NativeBuilder::default());
        let wide = os.reserve(None, MOVE_UNIT + MOVE_UNIT).unwrap();
        let unit = AddrRange::at(wide, MOVE_UNIT + MOVE_UNIT).whole_units(MOVE_UNIT.get());
        let unit = AddrRange::at(unit.base(), MOVE_UNIT);
        calls::protect(unit, PROT_READ | PROT_WRITE).unwrap();
        let page = os.page_size;
        let some = AddrRange::at(unit.base() + page, page);
        let (first, second) = (unit.base().as_ptr::<u64>(), some.base().as_ptr::<u64>());
        for hole in [AddrRange::at(unit.base(), Bytes::ZERO), some, unit] {
            // SAFETY: made accessible above, or mapped again, and known to nobody else.
            unsafe { first.write(1) };
            // SAFETY: as above.
            unsafe { second.write(1) };
            if !hole.is_empty() {
                calls::unmap(hole).unwrap();
            }
            assert_eq!(calls::is_mapped(unit), hole.is_empty());
            assert_eq!(os.mend(unit, Category::Heap), !hole.is_empty());
            assert!(calls::is_mapped(unit));
            // SAFETY: as above.
            assert_eq!(unsafe { first.read() }, 0, "there is memory");
            // SAFETY: as above.
            assert_eq!(unsafe { second.read() }, 0, "there is memory");
        }
        calls::unmap(AddrRange::at(wide, MOVE_UNIT + MOVE_UNIT)).unwrap();
    }

    #[test]
    fn the_list_is_in_order_and_no_longer_than_allowed() {
        let at = |unit: usize| Addr::new(unit * MOVE_UNIT.get());
        let moved = Moved::new();
        for unit in [5, 3, 9] {
            assert_eq!(moved.enter(at(unit), at(0), 3), (true, false));
        }
        assert_eq!(moved.enter(at(4), at(0), 3), (false, false));
        assert_eq!(moved.enter(at(9), at(0), 0), (true, true), "it costs nothing more");
        assert!(moved.take(at(5)) && !moved.take(at(5)));
        assert_eq!(moved.enter(at(4), at(0), 3), (true, false));
        assert_eq!(*moved.units.lock(), [3, 4, 9].map(at));
        assert_eq!(moved.enter(at(5), at(4), 3), (true, false), "4 is about to go");
        assert!(moved.take(at(5)));
        moved.forget(AddrRange::new(at(4), at(9)));
        assert_eq!((moved.len(), moved.units.lock().as_slice()), (2, [3, 9].map(at).as_slice()));
    }
}
