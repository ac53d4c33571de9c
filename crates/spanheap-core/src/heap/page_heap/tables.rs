//! The side tables' memory: made ready as the heap grows, returned with the chunks that they describe.
//!
//! ```text
//!   reserved --ready()--> ready <--fetch() / put_away()--> prepared ("away") --release()--> gone
//! ```
//!
//! A chunk all of whose pages have been returned to the system needs no side tables: their lines are zero
//! (H2), and new memory is zero, too. So they go with it, which matters: they are a thirty-second of the
//! heap, and a heap that was once large would keep all of them. They come back before a page of the chunk
//! is handed out. Only where tables are made ready by single chunks, and returned memory reads as zeros.
//!
//! # Locking
//! All of this happens under the page heap's lock.
//!
//! Walks that take no lock (a lookup, the marker's rescan, the reclaimer) may still read the line of a page
//! that has just left its span. It reads as zeros while it is away, too, since prepared memory can be read.
//!
//! # Safety
//! Nobody writes to the lines of a page that belongs to no span (A1, A2).
#![allow(unsafe_code)]

use super::{Inner, PageHeap};
use crate::addr::{ARENA_BYTES, Addr, AddrRange, Bytes, CHUNK_BYTES, GRANULE_BYTES};
use crate::os::{Category, Os, OsError, asan};
use crate::span::arena::{ALL_TABLES, TABLES, table_bytes_for};
use crate::span::{HeapArena, map};

/// The bytes of heap whose side tables are made ready together: a chunk, or as much as fills a
/// physical page of each table.
fn unit(os: &Os) -> Bytes {
    Bytes::new(CHUNK_BYTES.max(os.page_size().get() * GRANULE_BYTES * 8))
}

/// The record of the arena at or around `addr`.
fn arena_of(addr: Addr) -> &'static HeapArena {
    // SAFETY: callers name grown memory, or the growth range, of a heap that lives: its arenas are published.
    unsafe { &*map::find(addr) }
}

/// The chunks that `range` touches.
fn chunks(range: AddrRange) -> impl Iterator<Item = AddrRange> {
    let mut at = range.base().align_down(CHUNK_BYTES);
    core::iter::from_fn(move || {
        let chunk = AddrRange::at(at, Bytes::new(CHUNK_BYTES));
        at = chunk.end();
        (chunk.base() < range.end()).then_some(chunk)
    })
}

/// The number of a chunk in its arena.
fn number(chunk: AddrRange) -> usize {
    chunk.base().bytes_since(chunk.base().align_down(ARENA_BYTES)).get() / CHUNK_BYTES
}

/// Makes the side tables of `part`, which begins with a chunk, ready. Each table of each unit takes two steps,
/// mapping and readying; the arena remembers how many have been done, so a refusal leaves everything in
/// order for the next attempt.
pub(super) fn ready(os: &Os, part: AddrRange) -> Result<(), OsError> {
    let mut arena = part.base().align_down(ARENA_BYTES);
    while arena < part.end() {
        let end = part.end().min(arena + Bytes::new(ARENA_BYTES));
        ready_in_arena(os, arena, end.bytes_since(arena))?;
        arena = arena + Bytes::new(ARENA_BYTES);
    }
    Ok(())
}

/// The same for the first `bytes` of the arena at `base`.
fn ready_in_arena(os: &Os, base: Addr, bytes: Bytes) -> Result<(), OsError> {
    let arena = arena_of(base);
    let unit = unit(os);
    let goal = bytes.get().div_ceil(unit.get()) * TABLES * 2;
    while arena.table_steps() < goal {
        let step = arena.table_steps();
        let part = AddrRange::at(base + Bytes::new(step / (TABLES * 2) * unit.get()), unit);
        let range = arena.table_range(ALL_TABLES[step / 2 % TABLES], part);
        match step % 2 {
            // SAFETY: O1: a part of the tables that were reserved for this arena, changed under the
            // heap's lock. O2: nobody uses lines of pages that have not been grown (A1).
            0 => unsafe { os.map(range, Category::SideTables) }?,
            // SAFETY: as above.
            _ => unsafe { os.used(range, range.bytes()) }?,
        }
        arena.add_table_step();
    }
    Ok(())
}

/// Makes the tables of every chunk that `run` touches ready again, if they are away. When the system
/// refuses, some may have come back and some not.
pub(super) fn fetch(inner: &mut Inner, os: &Os, run: AddrRange) -> Result<(), OsError> {
    if inner.chunks_away == 0 {
        return Ok(());
    }
    for chunk in chunks(run) {
        let arena = arena_of(chunk.base());
        while let Some(table) = arena.first_table_away(number(chunk)) {
            let range = arena.table_range(table, chunk);
            // SAFETY: O1: tables of this heap, changed under its lock.
            unsafe { os.used(range, range.bytes()) }?;
            arena.set_table_away(number(chunk), table, false);
            inner.chunks_away -= usize::from(arena.first_table_away(number(chunk)).is_none());
        }
    }
    Ok(())
}

/// Returns the tables of the chunk around `page` to the system, if the whole chunk has been.
pub(super) fn put_away(inner: &mut Inner, os: &Os, page: Addr) {
    let chunk = AddrRange::at(page.align_down(CHUNK_BYTES), Bytes::new(CHUNK_BYTES));
    let Some(view) = inner.pages.chunk(page.chunk()) else { return };
    let is_empty = view.scavenged.iter().all(|&word| word == u64::MAX);
    let arena = arena_of(chunk.base());
    let is_away = arena.first_table_away(number(chunk)).is_some();
    let is_worth_it = os.zero_after_unused() && unit(os).get() == CHUNK_BYTES;
    if !is_empty || is_away || !is_worth_it {
        return;
    }
    for table in ALL_TABLES {
        let range = arena.table_range(table, chunk);
        // SAFETY: O1: tables of this heap, changed under its lock. O2: all pages of the chunk are free, so
        // nobody writes to their lines; and who reads them finds zeros before and after (H2).
        unsafe { os.unused(range, range.bytes()) };
        // So reading them is no mistake.
        asan::permit_range(range);
        arena.set_table_away(number(chunk), table, true);
    }
    inner.chunks_away += 1;
}

impl PageHeap {
    /// Bytes of side tables that have gone back to the system with their chunks.
    pub fn returned_tables(&self) -> Bytes {
        let away: usize = self.arenas().map(HeapArena::tables_away).sum();
        Bytes::new(away * table_bytes_for(Bytes::new(CHUNK_BYTES)).get())
    }
}

/// Returns the side tables of an arena to the system for good.
///
/// # Safety
/// Nobody uses the tables any more, and this is done once. `os` is the one that made them.
pub(super) unsafe fn release(os: &Os, arena: &HeapArena) {
    let part = table_bytes_for(unit(os)).get();
    let mapped = Bytes::new(arena.table_steps().div_ceil(2) * part);
    let ready = Bytes::new((arena.table_steps() / 2 - arena.tables_away()) * part);
    // SAFETY: O1: the tables were reserved for this arena. O2: the caller's promise.
    unsafe { os.release(arena.tables(), Category::SideTables, mapped, ready) };
}
