//! What will be read next is asked for in time.
//!
//! The pages of a ring are scanned in their order, so it is known which page comes next. Before a page is scanned,
//! the bits of the page behind the next one are asked for; and of the next page, whose bits are there by now, the
//! record of its span, and the objects that are to be scanned if they are few. The processor fetches them while it is
//! busy with the page before.
//!
//! Where they are many, a page is read from its first line to its last, and the processor notices that by
//! itself. Asking for each line was measured, too: random graphs of four million objects were marked 5 % slower.
//!
//! Where objects find their neighbours ([`super::home`]), hardly anything is known of a page before its turn, and nearly
//! all of it is read then, level by level of whatever tree lies there. So all of it is asked for: in binary-trees, with
//! 64 MiB of nodes that stay, a cycle takes a fifth less for it.
//!
//! All of this is a hint. What is read for it is read as anybody may: bits, which are atomic, and the map of pages.
//!
//! # Safety
//! Looks at bits and at the page map for pages that were queued.
#![allow(unsafe_code)]

use super::mark::Marker;
use crate::addr::{Addr, Bytes, PAGE_BITMAP_WORDS, PAGE_BYTES};
use crate::span::{HeapArena, Table, bits, map};
use crate::sync::atomic::Ordering;

/// Bytes of a line of the processor's cache.
const LINE_BYTES: usize = 64;

/// A page with more lines to be read is left to the processor.
const FEW_LINES: u32 = 32;

/// Granules of a line.
const LINE_GRANULES: u32 = 4;

/// The arena of a page that was queued.
#[inline]
fn arena_of(page: Addr) -> &'static HeapArena {
    // SAFETY: queued pages hold objects of this heap.
    unsafe { &*map::find(page) }
}

/// Asks the processor to fetch the line of `at`, if it can be asked.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction reads nothing that the program could notice, from any address.
    unsafe {
        core::arch::x86_64::_mm_prefetch(at.cast(), core::arch::x86_64::_MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks for all of a page.
#[inline]
fn fetch_all(page: Addr) {
    for line in 0..PAGE_BYTES / LINE_BYTES {
        prefetch((page + Bytes::new(line * LINE_BYTES)).as_ptr::<u8>().cast_const());
    }
}

impl Marker<'_> {
    /// Asks for what will be read of the pages behind the one that is scanned now.
    #[inline]
    pub(super) fn fetch_next(&self) {
        if let Some(page) = self.ring.peek(1) {
            let (arena, index) = (arena_of(page), page.page_in_arena());
            // SAFETY: the page of an object has been grown (A1).
            prefetch(unsafe { arena.line(self.table, index) });
            // SAFETY: as above.
            prefetch(unsafe { arena.line(Table::Scanned, index) });
            prefetch(arena.span_place(index));
        }
        if let Some(page) = self.ring.peek(0) {
            self.fetch_objects(page);
        }
    }

    /// Asks for the objects of a page that are marked and not scanned, and for the record of the span.
    #[inline]
    fn fetch_objects(&self, page: Addr) {
        let (arena, index) = (arena_of(page), page.page_in_arena());
        let record = arena.span(index);
        prefetch(record);
        prefetch(record.cast::<u8>().wrapping_add(LINE_BYTES));
        if self.home.is_sociable() {
            fetch_all(page);
            return;
        }
        // SAFETY: the page of an object has been grown (A1).
        let marks = unsafe { arena.line(self.table, index) };
        // SAFETY: as above.
        let scanned = unsafe { arena.line(Table::Scanned, index) };
        // One bit for each line with an object.
        let (mut lines, mut count) = ([0u64; PAGE_BITMAP_WORDS], 0);
        for ((lines, marks), scanned) in lines.iter_mut().zip(marks).zip(scanned) {
            let todo = marks.load(Ordering::Relaxed) & !scanned.load(Ordering::Relaxed);
            *lines = (todo | todo >> 1 | todo >> 2 | todo >> 3) & 0x1111_1111_1111_1111;
            count += lines.count_ones();
        }
        if count > FEW_LINES {
            return;
        }
        for (word, lines) in lines.into_iter().enumerate() {
            bits::for_each_bit(lines, |bit| {
                let line = word * 16 + (bit / LINE_GRANULES) as usize;
                prefetch((page + Bytes::new(line * LINE_BYTES)).as_ptr::<u8>().cast_const());
            });
        }
    }
}
