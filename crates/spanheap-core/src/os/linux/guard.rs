//! `guard` and `unguard` on Linux: markers, else protection within the heap's share of mappings, else
//! neither. Why there are three is said in `os/guarding.rs`.
//!
//! ```text
//! guard:    install markers?                       -> Faults
//!           drop the contents
//!           share left, and mprotect to none?      -> Faults
//!                                                  -> ReadsZero
//! unguard:  make the parts accessible that were protected
//!           remove markers, if there ever were any
//!           drop the contents, if an access was possible
//! shut:     move what is large enough aside (`aside.rs`)
//!           share half left, and mprotect to none?  -> true
//! open:     make it accessible, bring back what lies aside
//! ```
//!
//! Which means a range was guarded by is not written down per range. Protected parts are in the list of
//! splits. For the others, two flags say whether the means was ever used; removing markers where there
//! are none, and dropping contents that are zeros, does no harm.
//!
//! **Locked memory** (`mlockall`). The kernel refuses markers on it, and refuses to drop its pages. So it is
//! cleared by hand and protected; the memory stays with the process, which has asked for that.
//!
//! **A sandbox that closes in between.** If markers were installed and may no longer be removed, the
//! range is mapped anew, which takes the markers away.
//!
//! **Locking.** The list of splits has a lock, [`Rank::Mappings`], held across the calls that change
//! protections, so that the list and the kernel agree.
//!
//! # Safety
//! As in `os/linux/mod.rs`.
#![allow(unsafe_code)]

use libc::{PROT_NONE, PROT_READ, PROT_WRITE};

use super::aside::Asides;
use super::calls::{self, advice};
use super::moved::Moved;
use super::{NativeOs, RESERVATION};
use crate::addr::{AddrRange, Bytes};
use crate::os::feature::{Feature, Latch, is_forbidden};
use crate::os::splits::{self, NoRoom, Splits};
use crate::os::{Category, Guarding, Operation, OsError};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use crate::sync::{Lock, Rank};

/// What `guard` knows.
pub(super) struct Guards {
    markers: Latch,
    /// Whether a range was ever guarded by markers.
    ever_marked: AtomicBool,
    /// Whether a range was ever given up to policy.
    ever_open: AtomicBool,
    /// Memory of shut ranges.
    pub(super) asides: Asides,
    /// Memory that has come from elsewhere.
    pub(super) moved: Moved,
    splits: Lock<Splits>,
    /// The length of `splits`, for those who only look.
    entries: AtomicUsize,
    /// How long `guard` may make it.
    limit: usize,
}

impl Guards {
    pub(super) fn new(markers: bool, moves: bool, limit: usize) -> Guards {
        let markers = match (markers, calls::knows_advice(advice::GUARD_INSTALL)) {
            (false, _) => Feature::Off,
            (true, Ok(())) => Feature::Untried,
            (true, Err(errno)) => Feature::Refused(errno),
        };
        Guards {
            markers: Latch::new(markers),
            ever_marked: AtomicBool::new(false),
            ever_open: AtomicBool::new(false),
            // Each is a mapping more, besides those of its entry.
            asides: Asides::new(moves, limit / 2),
            moved: Moved::new(),
            splits: Lock::new(Rank::Mappings, Splits::new()),
            entries: AtomicUsize::new(0),
            limit,
        }
    }

    pub(super) fn markers(&self) -> Feature {
        self.markers.get()
    }

    /// The mappings that the entries may cost, and what they do cost at most.
    pub(super) fn mappings(&self) -> (usize, usize) {
        let cost = splits::MAPPINGS_PER_ENTRY;
        (self.limit * cost, (self.entries() + self.moved.len()) * cost)
    }

    /// How many entries the list has.
    pub(super) fn entries(&self) -> usize {
        self.entries.load(Relaxed)
    }

    /// How many entries there may be, and units of memory that has been moved.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A range was given up to policy.
    pub(super) fn note_open(&self) {
        self.ever_open.store(true, Relaxed);
    }

    /// Changes the list, and what the others see of it.
    fn change<T>(&self, change: impl FnOnce(&mut Splits) -> T) -> T {
        let mut splits = self.splits.lock();
        let result = change(&mut splits);
        self.entries.store(splits.len(), Relaxed);
        result
    }

    /// Makes a range inaccessible by `act`, and enters it.
    pub(super) fn enter(
        &self,
        range: AddrRange,
        limit: Option<usize>,
        act: impl FnOnce() -> Result<(), i32>,
    ) -> Result<(), i32> {
        self.change(|splits| {
            splits.insert(range, limit).map_err(|NoRoom| libc::ENOMEM)?;
            act().inspect_err(|_| {
                // The range was not entered before, being accessible; and the list has just had room.
                let _ = splits.remove(range);
            })
        })
    }

    /// A range has been made accessible, or is gone.
    pub(super) fn leave(&self, range: AddrRange) {
        self.asides.drop_within(range);
        // `Relaxed`: who owns the range has entered it, or was told of it by who did.
        if self.entries.load(Relaxed) != 0 {
            // Without memory for a longer list, the entry stays whole and covers what is accessible now.
            // That counts one entry too little, and is harmless to `unguard`.
            let _ = self.change(|splits| splits.remove(range));
        }
    }

    /// Tries to install markers. `None` means that there are none in the range; the answer `ReadsZero`,
    /// that some could be neither completed nor removed.
    fn mark(&self, range: AddrRange) -> Option<Guarding> {
        if !self.markers.is_open() {
            return None;
        }
        self.ever_marked.store(true, Relaxed);
        let result = calls::advise(range, advice::GUARD_INSTALL);
        self.markers.note(&result, is_forbidden);
        match result {
            Ok(()) => Some(Guarding::Faults),
            // The kernel may have stopped half way, between a mapping that takes markers and one that
            // does not.
            Err(_) => self.unmark(range).err().map(|_| Guarding::ReadsZero),
        }
    }

    /// Takes markers away, if there can be any.
    fn unmark(&self, range: AddrRange) -> Result<(), i32> {
        if !self.ever_marked.load(Relaxed) {
            return Ok(());
        }
        calls::advise(range, advice::GUARD_REMOVE).or_else(|_| {
            self.enter(range, None, || {
                let over = |flags| calls::map_over(range, PROT_NONE, flags);
                over(RESERVATION).or_else(|_| over(0))
            })?;
            self.unprotect(range)
        })
    }

    /// Whether the range is protected now; not if that makes the list, with what was moved, longer than `limit`.
    fn protect(&self, range: AddrRange, limit: usize) -> bool {
        let protect = || {
            calls::protect(range, PROT_NONE).inspect_err(|_| {
                // The range may consist of several mappings, of which the first have been changed.
                let _ = calls::protect(range, PROT_READ | PROT_WRITE);
            })
        };
        let limit = limit.saturating_sub(self.moved.len());
        self.enter(range, Some(limit), protect).is_ok()
    }

    /// Makes those parts accessible that are not.
    fn unprotect(&self, range: AddrRange) -> Result<(), i32> {
        if self.entries.load(Relaxed) == 0 {
            return Ok(());
        }
        self.change(|splits| {
            for part in splits.within(range) {
                calls::protect(part, PROT_READ | PROT_WRITE).inspect_err(|_| {
                    let done = AddrRange::new(range.base(), part.end());
                    for part in splits.within(done) {
                        let _ = calls::protect(part, PROT_NONE);
                    }
                })?;
            }
            let _ = splits.remove(range);
            Ok(())
        })
    }
}

/// The operations; their equals are in `sim/mod.rs`.
impl NativeOs {
    pub(in crate::os) unsafe fn guard(
        &self,
        range: AddrRange,
        _: Category,
        _ready: Bytes,
    ) -> Guarding {
        self.guards.asides.drop_within(range);
        if let Some(marked) = self.guards.mark(range) {
            // What was shut need not be a mapping of its own any more.
            let _ = self.guards.unprotect(range);
            return marked;
        }
        if self.guards.unprotect(range).is_err() {
            // It was shut, and stays so; its memory goes if it can go.
            let _ = self.discard(range);
            return Guarding::Faults;
        }
        // SAFETY: the range is Ready or Prepared, so it can be read and written, and its contents are
        // forfeit.
        unsafe { self.drop_contents(range) };
        if self.guards.protect(range, self.guards.limit) {
            return Guarding::Faults;
        }
        self.guards.note_open();
        Guarding::ReadsZero
    }

    pub(in crate::os) unsafe fn unguard(
        &self,
        range: AddrRange,
        category: Category,
    ) -> Result<(), OsError> {
        let marked = self.guards.ever_marked.load(Relaxed);
        self.guards
            .unprotect(range)
            .and_then(|()| self.guards.unmark(range))
            .map_err(|errno| OsError::new(Operation::Unguard, range.bytes(), errno))?;
        if marked && !self.guards.markers.is_open() {
            // Mapped anew, perhaps, and then without a name.
            self.names.mapped(range, category);
        }
        if self.guards.ever_open.load(Relaxed) {
            // SAFETY: the range is accessible by now; nobody uses it, or has a right to what is in it.
            unsafe { self.drop_contents(range) };
        }
        Ok(())
    }

    pub(in crate::os) unsafe fn shut(&self, range: AddrRange) -> bool {
        self.guards.asides.put(range);
        let shut = self.guards.protect(range, self.guards.limit / 2);
        if !shut {
            self.guards.asides.bring_back(range);
        }
        shut
    }

    pub(in crate::os) unsafe fn open(&self, range: AddrRange) -> Result<(), OsError> {
        let opened = self.guards.unprotect(range);
        opened.map_err(|errno| OsError::new(Operation::Unguard, range.bytes(), errno))?;
        self.guards.asides.bring_back(range);
        Ok(())
    }
}
