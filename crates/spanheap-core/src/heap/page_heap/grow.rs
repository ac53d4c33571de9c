//! Growth: address space from the system, by arenas; memory in it, by chunks.
//!
//! Growth goes upwards through the current reservation. It has three steps that may each be refused:
//! the new chunks themselves, their side tables, the page allocator's own tables. Each step has a cursor
//! of its own, so that a growth which stopped half way is simply taken up again.
//!
//! A heap asks for what follows its last reservation. If something else lies there it tries some of the
//! process's hints, and in the end it takes what it gets: a heap in several pieces is no worse, only its
//! largest object is.
//!
//! # Safety
//! Arena records are made here and live until [`PageHeap::release`].
#![allow(unsafe_code)]

use super::{Inner, PageHeap, Refused, tables};
use crate::addr::{ARENA_BYTES, Addr, AddrRange, Bytes, CHUNK_BYTES, PAGE_BYTES, PageCount};
use crate::offheap::Persistent;
use crate::os::{Category, Os, OsError, asan};
use crate::pages::MAX_GROWN_CHUNKS;
use crate::span::arena::{TABLE_BYTES, TABLES, table_bytes_for};
use crate::span::{HeapArena, map};
use crate::sync::atomic::Ordering;

/// How many places are tried before the system chooses one.
const HINTS: usize = 4;

impl PageHeap {
    /// Makes the page allocator larger by at least `n` pages in a row, and `extra` bytes to align them.
    pub(super) fn grow(
        &self,
        inner: &mut Inner,
        os: &Os,
        memory: &Persistent,
        n: PageCount,
        extra: Bytes,
    ) -> Result<(), Refused> {
        let bytes = n.get().checked_mul(PAGE_BYTES).and_then(|b| b.checked_add(extra.get()));
        let bytes = bytes.and_then(|b| Bytes::new(b).checked_align_up(ARENA_BYTES));
        match bytes {
            Some(b) if b.get() <= MAX_GROWN_CHUNKS * CHUNK_BYTES => {}
            _ => return Err(Refused::TooLarge),
        }
        if self.is_over_limit(os, n.bytes() + tables_beside(inner, n, extra)) {
            return Err(Refused::Limit);
        }
        let ask = (n.bytes() + extra).checked_align_up(CHUNK_BYTES).ok_or(Refused::TooLarge)?;
        if inner.growth.bytes() < ask {
            self.reserve_arenas(inner, os, memory, ask)?;
        }
        self.extend(inner, os, ask)?;
        Ok(())
    }

    /// Gets address space for at least `ask` more bytes, in one piece with what is left if possible.
    fn reserve_arenas(
        &self,
        inner: &mut Inner,
        os: &Os,
        memory: &Persistent,
        ask: Bytes,
    ) -> Result<(), Refused> {
        let bytes = ask.checked_align_up(ARENA_BYTES).ok_or(Refused::TooLarge)?;
        let range = reserve(os, inner.growth.end(), bytes)?;
        let base = range.base();
        let adjoins = base == inner.growth.end();
        // What a system has no memory for is refused here, before anything is made for it.
        let needed = if adjoins { ask - inner.growth.bytes() } else { ask };
        let mapped = match adjoins {
            true => map_up_to(inner, os, inner.growth.end()),
            false => Ok(()),
        };
        let front = AddrRange::at(base, needed);
        // SAFETY: O1, O2: the range was reserved above, and nobody else knows it.
        let mapped = mapped.and_then(|()| unsafe { os.map(front, Category::Heap) });
        if let Err(error) = mapped {
            // SAFETY: as above.
            unsafe { os.release(range, Category::Heap, Bytes::ZERO, Bytes::ZERO) };
            return Err(error.into());
        }
        // What is left of the old reservation becomes free pages. It may be mapped in part by now, so it
        // is not given up when that is refused: nobody would account for it in the end.
        let rest = match adjoins {
            true => Bytes::ZERO,
            false => inner.growth.bytes(),
        };
        let records = match map::can_hold(range.end().arena()) {
            true if rest == Bytes::ZERO => Ok(()),
            true => self.extend(inner, os, rest),
            false => Err(Refused::TooLarge),
        };
        let records =
            records.and_then(|()| self.make_records(os, memory, range).map_err(Refused::from));
        if let Err(refused) = records {
            // SAFETY: as above: no arena has been published for it.
            unsafe { os.release(range, Category::Heap, needed, Bytes::ZERO) };
            return Err(refused);
        }
        let mut first = inner.growth.base();
        if !adjoins {
            first = base;
        }
        inner.growth = AddrRange::new(first, range.end());
        inner.mapped_to = base + needed;
        Ok(())
    }

    /// Moves `bytes` of the growth range into the page allocator.
    fn extend(&self, inner: &mut Inner, os: &Os, bytes: Bytes) -> Result<(), Refused> {
        let part = AddrRange::at(inner.growth.base(), bytes);
        debug_assert!(part.end() <= inner.growth.end() && part.base().is_aligned(CHUNK_BYTES));
        map_up_to(inner, os, part.end())?;
        tables::ready(os, part)?;
        asan::forbid_range(part);
        inner.pages.grow(os, part)?;
        self.totals.grow(PageCount::new(part.bytes().get() / PAGE_BYTES));
        inner.growth = AddrRange::new(part.end(), inner.growth.end());
        Ok(())
    }

    /// Makes and publishes a record for each arena of a reservation; all or none.
    fn make_records(&self, os: &Os, memory: &Persistent, range: AddrRange) -> Result<(), OsError> {
        let arenas = range.bytes().get() / ARENA_BYTES;
        let tables = Bytes::new(TABLES * TABLE_BYTES * arenas);
        let layout = core::alloc::Layout::array::<HeapArena>(arenas).expect("fewer than 2^21");
        let tables = os.reserve(None, tables)?;
        let records = memory.alloc(os, layout, Category::Metadata).inspect_err(|_| {
            let range = AddrRange::at(tables, Bytes::new(TABLES * TABLE_BYTES * arenas));
            // SAFETY: O1, O2: the range was reserved above, and nobody else knows it.
            unsafe { os.release(range, Category::SideTables, Bytes::ZERO, Bytes::ZERO) };
        })?;
        let records = records.cast::<HeapArena>();
        for index in 0..arenas {
            let base = range.base() + Bytes::new(index * ARENA_BYTES);
            let tables = tables + Bytes::new(index * TABLES * TABLE_BYTES);
            let reserved = if index == 0 { range.bytes() } else { Bytes::ZERO };
            let previous = self.newest.load(Ordering::Relaxed);
            // SAFETY: `index` is below the length of the array that was just allocated.
            let record = unsafe { records.add(index) }.as_ptr();
            // SAFETY: fresh zeroed memory that nobody else knows; the tables were reserved above.
            unsafe { HeapArena::init(record, base, self.number, tables, previous, reserved) };
            map::publish(base.arena(), record, self.number);
            self.newest.store(record, Ordering::Release);
        }
        Ok(())
    }
}

/// Bytes of side tables that growing by `n` pages, and `extra` bytes to align them, takes besides the tables
/// of these pages, which the room that is kept for records has in it.
pub(super) fn tables_beside(inner: &Inner, n: PageCount, extra: Bytes) -> Bytes {
    // What is left of the reservation becomes pages, too, if the next one does not adjoin it.
    let rest = inner.growth.bytes();
    let rest = if rest < n.bytes() + extra { rest } else { Bytes::ZERO };
    Bytes::new(TABLES * table_bytes_for(extra + rest).get())
}

/// A reservation of `bytes`, behind `last` if that is an address and nothing else lies there. A place that
/// was hinted and is taken is left alone: a hint never replaces what is there.
fn reserve(os: &Os, last: Addr, bytes: Bytes) -> Result<AddrRange, OsError> {
    let align = Bytes::new(ARENA_BYTES);
    let mut hint = match last.is_null() {
        true => map::hint(bytes.get()),
        false => map::hint_behind(last, bytes.get()),
    };
    for _ in 0..HINTS {
        let base = os.reserve(Some(hint), bytes)?;
        if base == hint {
            return Ok(AddrRange::at(base, bytes));
        }
        // SAFETY: O1, O2: the range was reserved above, and nobody else knows it.
        unsafe { os.release(AddrRange::at(base, bytes), Category::Heap, Bytes::ZERO, Bytes::ZERO) };
        hint = map::hint(bytes.get());
    }
    Ok(AddrRange::at(os.reserve_aligned(Some(hint), bytes, align)?, bytes))
}

/// Maps the growth range up to `end`, as far as it is not.
fn map_up_to(inner: &mut Inner, os: &Os, end: Addr) -> Result<(), OsError> {
    let from = inner.mapped_to.max(inner.growth.base());
    if from < end {
        // SAFETY: O1: the growth range is a reservation of this heap, changed under its lock. O2: it
        // is not in the page allocator yet, so nothing is in it.
        unsafe { os.map(AddrRange::new(from, end), Category::Heap) }?;
        inner.mapped_to = end;
    }
    Ok(())
}
