//! The side tables' memory: made ready as the heap grows, returned with the pages that they describe.
//!
//! ```text
//!   reserved --ready()--> ready <--fetch() / put_away()--> prepared ("away") --release()--> gone
//! ```
//!
//! A **block** is the part of an arena that one physical page of each table describes: 512 KiB where a physical
//! page has 4 KiB. A block all of whose pages have been returned to the system needs no side tables:
//! their lines are zero (H2), and new memory is zero, too. So they go with it, which matters: tables
//! are a thirty-second of the heap, and a heap that was once large would keep all of them. They come back
//! before a page of the block is handed out.
//!
//! **First touches.** A page of a table that is read before it is written to gets the system's page of zeros first. The
//! write then replaces that, and interrupts every other processor on which the process runs: 20 microseconds in place
//! of one. Allocating reads bits before it sets some, and so does marking. So whoever takes pages without memory writes to
//! the tables of their block first ([`PageHeap::touch_tables`]).
//!
//! Where physical pages are so large that a block would be more than a chunk, or returned memory does not
//! read as zeros, tables stay.
//!
//! # Locking
//! All of this happens under the page heap's lock.
//!
//! Walks that take no lock (a lookup, the marker's rescan, the reclaimer) may still read the line of a page
//! that has just left its span. It reads as zeros while it is away, too, since prepared memory can be read.
//!
//! # Safety
//! Nobody relies on the lines of a page that belongs to no span, and they stay mapped (A1, A2).
#![allow(unsafe_code)]

use super::{Inner, PageHeap};
use crate::addr::{ARENA_BYTES, Addr, AddrRange, Bytes, CHUNK_BYTES, GRANULE_BYTES, PAGE_BYTES};
use crate::os::{Category, Os, OsError, asan};
use crate::pages::ChunkView;
use crate::span::arena::{ALL_TABLES, TABLES, Table, table_bytes_for};
use crate::span::{HeapArena, bits, map};
use crate::sync::atomic::Ordering;
use core::hint::black_box;

/// The bytes of heap that one physical page of a table describes.
pub(super) fn block(os: &Os) -> Bytes {
    Bytes::new(os.page_size().get() * GRANULE_BYTES * 8)
}

/// The tables in which a page's first cycle sets bits; few heaps use the fourth one.
const TOUCHED: [Table; 3] = [Table::Even, Table::Odd, Table::Scanned];

/// In a smaller heap the tables get their memory as they are used, and it has few of them.
const SMALL: Bytes = Bytes::new(4 << 20);

/// The bytes of heap whose side tables are made ready together: whole chunks and whole blocks.
fn unit(os: &Os) -> Bytes {
    block(os).max(Bytes::new(CHUNK_BYTES))
}

/// The record of the arena at or around `addr`.
fn arena_of(addr: Addr) -> &'static HeapArena {
    // SAFETY: callers name grown memory, or the growth range, of a heap that lives: its arenas are published.
    unsafe { &*map::find(addr) }
}

/// The number of the block at `addr` in its arena.
pub(super) fn number(os: &Os, addr: Addr) -> usize {
    addr.bytes_since(addr.align_down(ARENA_BYTES)).get() / block(os).get()
}

/// Whether all pages of a block, which lies in one chunk, have been returned to the system.
pub(super) fn is_returned(view: &ChunkView<'_>, block: AddrRange) -> bool {
    let first = block.base().bytes_since(block.base().align_down(CHUNK_BYTES)).get() / PAGE_BYTES;
    let words = first / 64..(first + block.bytes().get() / PAGE_BYTES) / 64;
    view.scavenged[words].iter().all(|&word| word == u64::MAX)
}

/// Makes the side tables of `part`, which begins with a chunk, ready. Each table of each unit takes two steps,
/// mapping and readying; the arena remembers how many have been done, so a refusal leaves everything in
/// order for the next attempt.
pub(super) fn ready(os: &Os, part: AddrRange) -> Result<(), OsError> {
    for part in part.cut_at(ARENA_BYTES) {
        let arena = part.base().align_down(ARENA_BYTES);
        ready_in_arena(os, arena, part.end().bytes_since(arena))?;
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

/// Makes the tables of every block that `run` touches ready again, if they are away. When the system
/// refuses, some may have come back and some not.
pub(super) fn fetch(inner: &mut Inner, os: &Os, run: AddrRange) -> Result<(), OsError> {
    if inner.blocks_away == 0 {
        return Ok(());
    }
    let mut at = run.base().align_down(block(os).get());
    while at < run.end() {
        let (arena, number) = (arena_of(at), number(os, at));
        while let Some(table) = arena.first_table_away(number) {
            let range = arena.table_range(table, AddrRange::at(at, block(os)));
            // SAFETY: O1: tables of this heap, changed under its lock.
            unsafe { os.used(range, range.bytes()) }?;
            arena.set_table_away(number, table, false);
            inner.blocks_away -= usize::from(arena.first_table_away(number).is_none());
        }
        at = at + block(os);
    }
    Ok(())
}

/// Returns the tables of the blocks that `range`, a part of an arena, touches to the system, as far as all
/// of their pages have been.
pub(super) fn put_away(inner: &mut Inner, os: &Os, range: AddrRange) {
    if !os.zero_after_unused() || block(os).get() > CHUNK_BYTES {
        return;
    }
    let arena = arena_of(range.base());
    let end = range.end().checked_align_up(block(os).get()).expect("memory of the heap");
    let mut at = range.base().align_down(block(os).get());
    while at < end {
        // Neighbours go in one call for each table.
        let base = at;
        let goes = |at: Addr| {
            let is_away = arena.first_table_away(number(os, at)).is_some();
            let returned = |view| is_returned(&view, AddrRange::at(at, block(os)));
            at < end && !is_away && inner.pages.chunk(at.chunk()).is_some_and(returned)
        };
        while goes(at) {
            at = at + block(os);
        }
        let blocks = AddrRange::new(base, at);
        if blocks.is_empty() {
            at = at + block(os);
            continue;
        }
        for table in ALL_TABLES {
            let part = arena.table_range(table, blocks);
            // SAFETY: O1: tables of this heap, changed under its lock. O2: all pages of the blocks are free,
            // so nobody uses their lines, which are zero, and will be (H2).
            unsafe { os.unused(part, part.bytes()) };
            // A lookup that came too late may still look at a line; it sees zeros, and does not believe them.
            asan::permit_range(part);
        }
        let first = number(os, base);
        for number in first..first + blocks.bytes().get() / block(os).get() {
            ALL_TABLES.into_iter().for_each(|table| arena.set_table_away(number, table, true));
            inner.blocks_away += 1;
        }
    }
}

impl PageHeap {
    /// Returns the tables of what has come back from quarantine, as far as it has not been taken since.
    pub fn put_tables_away(&self, os: &Os, range: AddrRange) {
        let mut inner = self.inner.lock();
        for part in range.cut_at(ARENA_BYTES) {
            put_away(&mut inner, os, part);
        }
    }

    /// Gives memory to the tables of the block in which `page` lies, the first of a run that was just taken. A long
    /// run is one object, whose bits are there.
    pub(super) fn touch_tables(&self, os: &Os, page: Addr) {
        if self.in_use() < SMALL {
            return;
        }
        // In its chunk, so it is grown; where blocks are larger than that, it lies in the same one.
        let block = page.align_down(block(os).get().min(CHUNK_BYTES));
        for table in TOUCHED {
            // Whoever owns a page there may be setting bits: this sets none. The compiler must not know that, or it
            // would read only.
            bits::line(table, block)[0].fetch_or(black_box(0), Ordering::Relaxed);
        }
    }

    /// Bytes of side tables that have gone back to the system with what they describe.
    pub fn returned_tables(&self, os: &Os) -> Bytes {
        let away: usize = self.arenas().map(HeapArena::tables_away).sum();
        Bytes::new(away * os.page_size().get())
    }
}

/// Returns the side tables of an arena to the system for good.
///
/// # Safety
/// Nobody uses the tables any more, and this is done once. `os` is the one that made them.
pub(super) unsafe fn release(os: &Os, arena: &HeapArena) {
    let part = table_bytes_for(unit(os)).get();
    let mapped = Bytes::new(arena.table_steps().div_ceil(2) * part);
    let away = Bytes::new(arena.tables_away() * os.page_size().get());
    let ready = Bytes::new(arena.table_steps() / 2 * part) - away;
    // SAFETY: O1: the tables were reserved for this arena. O2: the caller's promise.
    unsafe { os.release(arena.tables(), Category::SideTables, mapped, ready) };
}
