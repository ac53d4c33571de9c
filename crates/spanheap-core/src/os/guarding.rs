//! Making memory fault on purpose: what `fault` and `guard` are for, and what `guard` answers.
//!
//! Both take a range that is Ready or Prepared, return the memory behind it, and leave it Reserved. They
//! differ in what they cost and in what they promise.
//!
//! | | [`Os::fault`](super::Os::fault) | [`Os::guard`](super::Os::guard) |
//! |---|---|---|
//! | an access afterwards | faults, always | faults, or reads zeros: the answer says which |
//! | can be refused | yes | no |
//! | costs mappings | up to two per range, without a bound of ours | none with guard markers, else up to two per range within the heap's share |
//! | back to Prepared | [`Os::map`](super::Os::map), for any category | [`Os::unguard`](super::Os::unguard) |
//! | meant for | whole regions and tables, few of them; undoing `map` | pages in the midst of accessible memory, any number of them |
//!
//! So `fault` is for the owner of a region who wants it back as it was after `reserve`, and can live with a
//! refusal. `guard` is for memory that has been given up while pointers into it may still exist in
//! programs with errors (user arenas): its purpose is to find such errors, it is called in places that
//! cannot fail, and there may be a hundred thousand of these ranges.
//!
//! # The three means of `guard`
//! 1. **Markers**, where the system has them (Linux 6.13): a mark in the page tables, for each page,
//!    without any change of mappings.
//! 2. **Protection**: the range is made inaccessible as a mapping of its own. The heap's
//!    [share](super::splits) of the process's mappings bounds how many there are.
//! 3. **Policy**: the memory is returned and nobody may use the range, but the processor does not watch.
//!    A read finds zeros. What an erroneous write puts there is dropped in `unguard`, so memory is
//!    zeroed when it is used again whatever happened in between.
//!
//! A range of which parts were guarded by different means, or in different calls, can be unguarded in one
//! call, and a guarded range in parts. (A part of a protected range costs mappings, too; that is why
//! `unguard` can be refused.)
//!
//! # Moving
//! What is guarded loses its memory, and the next who needs memory gets a page fault and zeros for each page. Where
//! free addresses are at hand, [`Os::move_memory`](super::Os::move_memory) gives the memory to these instead, and the
//! range is guarded all the same. It moves a [`MOVE_UNIT`] at a time, for which the kernel changes one entry of a
//! table in place of 512.
//!
//! # Safety
//! This file hands ranges on under the contract of [`os`](super).
#![allow(unsafe_code)]

use super::{Backend, Category, Os, OsError, asan, dispatch, dispatch_unsafe};
use crate::addr::{Addr, AddrRange, Bytes};
use crate::sync::atomic::Ordering::Relaxed;

/// What is moved at once, and where it may begin: what a table of pages maps where pages are small. Elsewhere the moves
/// are right as well, and slower.
pub const MOVE_UNIT: Bytes = Bytes::new(2 << 20);

/// What an access to a range does after [`Os::guard`](super::Os::guard).
#[must_use = "an access may not fault"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guarding {
    /// It faults.
    Faults,
    /// A read finds zeros: the system refused to watch, or the heap has used up its share of mappings.
    ReadsZero,
}

impl Guarding {
    /// What an access does to any of two ranges.
    pub fn and(self, other: Guarding) -> Guarding {
        if self == Guarding::Faults { other } else { self }
    }
}

impl Os {
    /// Ready or Prepared to Reserved and guarded: the memory behind the range is gone, and from now on an
    /// access faults if the answer says so. `category` and `ready` are as in [`Os::fault`], and the
    /// head of this file says which of the two is for what. Only [`Os::unguard`] and [`Os::release`]
    /// may follow. An empty range faults.
    ///
    /// # Safety
    /// O1 and O2.
    pub unsafe fn guard(&self, range: AddrRange, category: Category, ready: Bytes) -> Guarding {
        assert!(ready <= range.bytes(), "{ready} Ready in {range:?}");
        if self.is_nothing(range) {
            return Guarding::Faults;
        }
        // As in `fault`.
        asan::permit_range(range);
        let guarding = dispatch_unsafe!(self, guard(range, category, ready));
        if guarding == Guarding::ReadsZero {
            self.unguardable.fetch_add(1, Relaxed);
        }
        self.accounting.sub_ready(ready);
        self.accounting.sub_mapped(category, range.bytes());
        guarding
    }

    /// Guarded to Prepared, whatever calls of [`Os::guard`] the parts of the range come from. Counts the
    /// range as mapped for `category`, which must be the one that it was mapped for before. It will read
    /// as zeros once it is Ready.
    ///
    /// # Errors
    /// When the system refuses, which happens only for a part of what was guarded in one call, or
    /// when a sandbox was closed in between. The range stays guarded and the call can be repeated, but
    /// what faulted may read as zeros instead.
    ///
    /// # Safety
    /// O1 and O2.
    pub unsafe fn unguard(&self, range: AddrRange, category: Category) -> Result<(), OsError> {
        if self.is_nothing(range) {
            return Ok(());
        }
        dispatch_unsafe!(self, unguard(range, category))?;
        self.accounting.add_mapped(category, range.bytes());
        Ok(())
    }

    /// Ready to Ready and shut: the memory stays, and from now on an access faults. False if the system refuses, or
    /// the heap has used up half of its share of mappings: then nothing has changed.
    ///
    /// # Safety
    /// O1 and O2.
    pub unsafe fn shut(&self, range: AddrRange) -> bool {
        asan::permit_range(range);
        self.is_nothing(range) || dispatch_unsafe!(self, shut(range))
    }

    /// Shut to Ready, whatever calls of [`Os::shut`] the parts of the range come from. There is anything in it.
    ///
    /// # Errors
    /// When the system refuses, which happens only for a part of what was shut in one call; the range stays shut.
    ///
    /// # Safety
    /// O1 and O2.
    pub unsafe fn open(&self, range: AddrRange) -> Result<(), OsError> {
        if self.is_nothing(range) { Ok(()) } else { dispatch_unsafe!(self, open(range)) }
    }

    /// Whether [`Os::move_memory`] is worth a try.
    pub fn can_move(&self) -> bool {
        dispatch!(self, can_move())
    }

    /// Moves the memory of a [`MOVE_UNIT`] to other addresses. `from` goes from Ready to Reserved and guarded, as in
    /// [`Os::guard`], and the answer says whether an access faults; the unit at `to` goes from Prepared to Ready, and
    /// there is anything in it. Both are mapped for `category`. `None` if the system refuses, or the heap has used
    /// up half of its share of mappings: then nothing has changed but what is in `from`.
    ///
    /// # Panics
    /// When `from` is not a unit, or one of the two does not begin at a multiple of it.
    ///
    /// # Safety
    /// O1 and O2 for `from` and for the unit at `to`, which are not the same.
    pub unsafe fn move_memory(
        &self,
        from: AddrRange,
        to: Addr,
        category: Category,
    ) -> Option<Guarding> {
        let unit = MOVE_UNIT.get();
        let aligned = from.base().is_aligned(unit) && to.is_aligned(unit);
        assert!(aligned && from.bytes() == MOVE_UNIT && from.base() != to, "{from:?} to {to}");
        let to = AddrRange::at(to, MOVE_UNIT);
        // As in `guard` and in `used`.
        asan::permit_range(from);
        asan::permit_range(to);
        let guarding = dispatch_unsafe!(self, move_memory(from, to, category))?;
        if guarding == Guarding::ReadsZero {
            self.unguardable.fetch_add(1, Relaxed);
        }
        self.accounting.sub_mapped(category, from.bytes());
        Some(guarding)
    }
}
