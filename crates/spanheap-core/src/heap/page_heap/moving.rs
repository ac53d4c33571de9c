//! Memory of freed chunks that goes to other addresses.
//!
//! The *addresses* of a freed arena wait in quarantine until a cycle has looked for pointers to them. Its *memory* need
//! not wait with them: by units of 2 MiB, the system moves it to free addresses of the heap that have none.
//!
//! ```text
//!   a unit of a freed chunk:   arena, ready  ------> quarantined, guarded ------> free, returned
//!                                      \ memory
//!   a cold unit:               free, returned ------> free, ready: a warm unit
//! ```
//!
//! Warm units are handed out first when a chunk of that size is wanted. So a program that fills arenas one after the
//! other has the memory of one or two of them, whatever the number of addresses that wait.
//!
//! **Which cold unit.** The lowest that is known of, as everywhere. The search begins where the last one has ended, or at
//! what has come back from quarantine since, and gives up after a thousand chunks; the next one goes on there. Where
//! there is none the heap grows.
//!
//! # Locking
//! A cold unit is claimed under the page heap's lock, and its memory arrives without: meanwhile it is allocated, as far
//! as everybody else can see, and in H1 it counts as having memory already.
//!
//! # Safety
//! As in `quarantine`: the callers vouch for what is moved.
#![allow(unsafe_code)]

use super::quarantine::count_guarded;
use super::{Inner, LocalPages, PageHeap, Taken, soil, tables};
use crate::addr::{Addr, AddrRange, Bytes, CHUNK_BYTES};
use crate::heap::counters::MemoryState;
use crate::offheap::Persistent;
use crate::os::{Category, Guarding, MOVE_UNIT, Os, OsError, asan};
use crate::pages::units::{Search, UNIT_PAGES};
use crate::span::arena::{TABLES, table_bytes_for};

/// How many warm units are remembered.
const REMEMBERED: usize = 64;

const _: () = assert!(UNIT_PAGES.bytes().get() == MOVE_UNIT.get());
const _: () = assert!(CHUNK_BYTES % MOVE_UNIT.get() == 0);

/// What the page heap knows of units.
pub(super) struct Units {
    /// Where memory was moved to, the latest last. Some of it may have been taken, or returned to the system.
    warm: [Addr; REMEMBERED],
    count: usize,
    /// Probably no unit is cold below this.
    cold_from: Addr,
    /// Whether the search has begun at the bottom again since it has last found one.
    has_wrapped: bool,
}

impl Units {
    pub(super) const fn new() -> Units {
        Units {
            warm: [Addr::NULL; REMEMBERED],
            count: 0,
            cold_from: Addr::NULL,
            has_wrapped: false,
        }
    }

    /// Pages at `base` have come back without memory.
    pub(super) fn note_cold(&mut self, base: Addr) {
        self.cold_from = self.cold_from.min(base.align_down(MOVE_UNIT.get()));
        self.has_wrapped = false;
    }

    /// Remembers a warm unit; when there are too many, the oldest is forgotten.
    fn put_warm(&mut self, unit: Addr) {
        if self.count == REMEMBERED {
            self.warm.rotate_left(1);
            self.count -= 1;
        }
        self.warm[self.count] = unit;
        self.count += 1;
    }

    fn take_warm(&mut self) -> Option<Addr> {
        self.count = self.count.checked_sub(1)?;
        Some(self.warm[self.count])
    }
}

impl PageHeap {
    /// Moves the memory of a unit of chunks to other addresses, where it is free, and guards the unit. `None` if that
    /// cannot be done: then nothing has changed.
    ///
    /// # Safety
    /// As [`PageHeap::guard`].
    pub unsafe fn move_out(
        &self,
        os: &Os,
        memory: &Persistent,
        from: AddrRange,
    ) -> Option<Guarding> {
        let mut inner = self.inner.lock();
        let place = self.find_cold(&mut inner, os, memory)?;
        let to = AddrRange::at(place, MOVE_UNIT);
        inner.pages.claim(place, UNIT_PAGES);
        // Those of `from` stay ready.
        let tables = Bytes::new(table_bytes_for(MOVE_UNIT).get() * TABLES);
        if self.is_over_limit(os, tables) || tables::fetch(&mut inner, os, to).is_err() {
            give_up(&mut inner, os, to);
            return None;
        }
        drop(inner);
        // SAFETY: O1: `from` belongs to chunks, and `to` was claimed above; both are whole physical pages. O2: the
        // caller's promise, and nobody uses free pages.
        let moved = unsafe { os.move_memory(from, place, Category::Heap) };
        asan::forbid_range(to);
        if moved.is_some() {
            // There is what was there.
            soil(to);
            asan::forbid_range(from);
            count_guarded(from, true);
            self.totals.shift(MemoryState::Arena, MemoryState::Quarantined, UNIT_PAGES);
            self.totals.shift(MemoryState::Returned, MemoryState::Free, UNIT_PAGES);
        }
        let mut inner = self.inner.lock();
        if moved.is_none() {
            give_up(&mut inner, os, to);
            return None;
        }
        inner.pages.free(place, UNIT_PAGES);
        inner.units.put_warm(place);
        moved
    }

    /// A cold unit; the heap grows if there is none.
    fn find_cold(&self, inner: &mut Inner, os: &Os, memory: &Persistent) -> Option<Addr> {
        let mut has_grown = false;
        loop {
            let from = inner.units.cold_from;
            match inner.pages.find_cold_unit(from) {
                Search::Found(at) => {
                    inner.units.cold_from = at;
                    inner.units.has_wrapped = false;
                    return Some(at);
                }
                Search::GoOn(at) => {
                    inner.units.cold_from = at;
                    return None;
                }
                // Once more from the bottom.
                Search::Nothing if !from.is_null() && !inner.units.has_wrapped => {
                    inner.units.cold_from = Addr::NULL;
                    inner.units.has_wrapped = true;
                }
                Search::Nothing if has_grown => return None,
                Search::Nothing => {
                    let extra = super::beyond_a_page(MOVE_UNIT);
                    self.grow(inner, os, memory, UNIT_PAGES, extra).ok()?;
                    // What is new need not lie above everything else.
                    inner.units.cold_from = Addr::NULL;
                    has_grown = true;
                }
            }
        }
    }

    /// Takes a warm unit, with a record for its span, if there is one.
    pub(super) fn take_warm(
        &self,
        os: &Os,
        memory: &Persistent,
        local: &LocalPages,
    ) -> Result<Option<Taken>, OsError> {
        let mut inner = self.inner.lock();
        while let Some(base) = inner.units.take_warm() {
            if !inner.pages.is_warm_unit(base) {
                continue;
            }
            if let Err(error) = local.fetch_records(&mut inner, os, memory) {
                inner.units.put_warm(base);
                return Err(error);
            }
            inner.pages.claim(base, UNIT_PAGES);
            drop(inner);
            let record = local.take_record().expect("fetched above");
            let dirty_to = soil(AddrRange::at(base, MOVE_UNIT));
            return Ok(Some(Taken { record, base, dirty_to }));
        }
        Ok(None)
    }
}

/// Frees a cold unit that was claimed in vain.
fn give_up(inner: &mut Inner, os: &Os, unit: AddrRange) {
    inner.pages.free(unit.base(), UNIT_PAGES);
    inner.pages.set_scavenged(unit.base(), UNIT_PAGES);
    tables::put_away(inner, os, unit);
}
