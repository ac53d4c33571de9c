//! A span's bits in the side tables: free runs, taking them, giving them back.
//!
//! Allocation never looks at single bits. It asks for a **free run**, a stretch of slots whose
//! allocation bits are clear, sets all of them at once, and then bumps a cursor through the run without
//! looking at any table. What is left of a run when the span changes hands is cleared again. So at any
//! moment, outside of the runs that mutators hold, the allocation table tells the truth, and the cost
//! per object is a fraction of a bit operation.
//!
//! For spans of one page (all classes up to 1280 bytes and many above) the bits of all slots follow from
//! the slot size alone; [`START_BITS`] has them for each class, and a run is a mask of them.
//!
//! # Safety
//! Everything here is about a span that the caller owns, whose lines are ready by A1; each word is
//! accessed atomically.
#![allow(unsafe_code)]

use super::size_class::{CLASS_COUNT, SizeClass};
use super::{Generation, Info, Line, Table, map};
use crate::addr::{Addr, Bytes, GRANULE_BYTES, PAGE_BITMAP_WORDS, PAGE_BYTES, PageCount};
use crate::os::asan;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A stretch of slots `[start, end)` of one span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// The first slot.
    pub start: Addr,
    /// The first address behind the last slot.
    pub end: Addr,
}

/// The bits of all slots of a page.
type Slots = [u64; PAGE_BITMAP_WORDS];

/// The bits of all slots of a page that starts with a slot, by size class.
static START_BITS: [Slots; CLASS_COUNT] = start_bits();

const fn start_bits() -> [Slots; CLASS_COUNT] {
    let mut table = [[0; PAGE_BITMAP_WORDS]; CLASS_COUNT];
    // Class 0 stands for large objects, and 8-byte slots are finer than a granule and never used.
    let mut class = 2;
    while class < CLASS_COUNT {
        let size = match SizeClass::from_index(class) {
            Some(class) => class.size().get(),
            None => PAGE_BYTES,
        };
        let mut offset = 0;
        while offset + size <= PAGE_BYTES {
            let granule = offset / GRANULE_BYTES;
            table[class][granule / 64] |= 1 << (granule % 64);
            offset += size;
        }
        class += 1;
    }
    table
}

/// The line of `table` for the page at `page`, which belongs to a span in use, or to a block in which there is one.
pub(crate) fn line(table: Table, page: Addr) -> &'static Line {
    // SAFETY: a span in use lies in published arenas, whose records live (M1, M2).
    let arena = unsafe { &*map::find(page) };
    // SAFETY: the pages of a span are grown, and so is their block (A1). The line lives as long as the heap; callers do not
    // keep it longer than they own the span.
    unsafe { arena.line(table, page.page_in_arena()) }
}

/// The lines of all pages of a span in `table`, with the address of each page.
pub(crate) fn lines(info: &Info, table: Table) -> impl Iterator<Item = (Addr, &'static Line)> {
    let base = info.base;
    (0..info.pages.get()).map(move |page| {
        let page = base + PageCount::new(page);
        (page, line(table, page))
    })
}

/// The same for the pages on which objects can begin, which are those with bits: the first one, if the span has one
/// object. So whoever sweeps a large object looks at one line, however large it is.
pub(crate) fn object_lines(
    info: &Info,
    table: Table,
) -> impl Iterator<Item = (Addr, &'static Line)> {
    let pages = if info.slots == 1 { 1 } else { info.pages.get() };
    lines(info, table).take(pages)
}

/// Whether the bit of the object at `addr` is set in `table`.
pub(crate) fn is_set(table: Table, addr: Addr) -> bool {
    let (word, bit) = bit_of(table, addr);
    word.load(Ordering::Acquire) & bit != 0
}

/// Sets the bit of the object at `addr`.
pub(crate) fn set(table: Table, addr: Addr) {
    let (word, bit) = bit_of(table, addr);
    word.fetch_or(bit, Ordering::SeqCst);
}

/// Clears the bit of the object at `addr`; true if it was set.
pub(crate) fn clear(table: Table, addr: Addr) -> bool {
    let (word, bit) = bit_of(table, addr);
    word.fetch_and(!bit, Ordering::AcqRel) & bit != 0
}

fn bit_of(table: Table, addr: Addr) -> (&'static AtomicU64, u64) {
    // SAFETY: as in `line`.
    let arena = unsafe { &*map::find(addr) };
    // SAFETY: as in `line`.
    unsafe { arena.bit(table, addr) }
}

/// The first free run at or behind `from`, which is a slot start or the limit of the span.
pub(crate) fn next_free_run(info: &Info, generation: Generation, from: Addr) -> Option<Run> {
    let (table, limit) = (generation.table(), info.limit());
    if from >= limit {
        return None;
    }
    let start = match (info.size_class, info.pages.get()) {
        (Some(class), 1) => first_free(info, &START_BITS[class.index()], table, from)?,
        _ => {
            let mut slot = from;
            while is_set(table, slot) {
                slot = slot + Bytes::new(info.slot);
                if slot >= limit {
                    return None;
                }
            }
            slot
        }
    };
    let end = next_set(info, table, start).unwrap_or(limit);
    Some(Run { start, end })
}

/// The first free slot at or behind `from` in a span of one page, whose slots have the bits `slots`. A full span is
/// found to be full by its eight words, and not by its hundreds of slots.
fn first_free(info: &Info, slots: &Slots, table: Table, from: Addr) -> Option<Addr> {
    let words = line(table, info.base);
    let first = from.bytes_since(info.base).get() / GRANULE_BYTES;
    let mut keep = u64::MAX << (first % 64);
    for index in first / 64..PAGE_BITMAP_WORDS {
        let free = slots[index] & !words[index].load(Ordering::Acquire) & keep;
        if free != 0 {
            let granule = index * 64 + free.trailing_zeros() as usize;
            return Some(info.object_at(info.base + Bytes::new(granule * GRANULE_BYTES)));
        }
        keep = u64::MAX;
    }
    None
}

/// The first object behind the free slot at `from`.
fn next_set(info: &Info, table: Table, from: Addr) -> Option<Addr> {
    let limit = info.limit();
    let mut page = from.align_down(PAGE_BYTES);
    let mut first = from.bytes_since(page).get() / GRANULE_BYTES;
    while page < limit {
        let words = line(table, page);
        let mut index = first / 64;
        let mut keep = u64::MAX << (first % 64);
        while index < PAGE_BITMAP_WORDS {
            let word = words[index].load(Ordering::Acquire) & keep;
            if word != 0 {
                let granule = index * 64 + word.trailing_zeros() as usize;
                return Some(info.object_at(page + Bytes::new(granule * GRANULE_BYTES)));
            }
            keep = u64::MAX;
            index += 1;
        }
        first = 0;
        page = page + PageCount::new(1);
    }
    None
}

/// Sets the bits of all slots of `run` in `table`.
pub(crate) fn set_run(info: &Info, table: Table, run: Run) {
    for_each_word(info, table, run, |word, bits| {
        word.fetch_or(bits, Ordering::SeqCst);
    });
}

/// Clears the bits of all slots of `run` in `table`.
pub(crate) fn clear_run(info: &Info, table: Table, run: Run) {
    for_each_word(info, table, run, |word, bits| {
        word.fetch_and(!bits, Ordering::SeqCst);
    });
}

/// Calls `apply` with each word of `table` that has bits of slots of `run`, and with these bits.
fn for_each_word(info: &Info, table: Table, run: Run, mut apply: impl FnMut(&AtomicU64, u64)) {
    if run.start >= run.end {
        return;
    }
    if let (Some(class), 1) = (info.size_class, info.pages.get()) {
        let words = line(table, info.base);
        let first = run.start.bytes_since(info.base).get() / GRANULE_BYTES;
        let last = run.end - Bytes::new(info.slot);
        let behind = last.bytes_since(info.base).get() / GRANULE_BYTES + 1;
        for index in first / 64..behind.div_ceil(64) {
            let low = u64::MAX << (first.saturating_sub(index * 64).min(63));
            let above = behind - index * 64;
            let high = if above >= 64 { u64::MAX } else { (1 << above) - 1 };
            let bits = START_BITS[class.index()][index] & low & high;
            if bits != 0 {
                apply(&words[index], bits);
            }
        }
        return;
    }
    let mut slot = run.start;
    while slot < run.end {
        let (word, bit) = bit_of(table, slot);
        apply(word, bit);
        slot = slot + Bytes::new(info.slot);
    }
}

/// How many bits of the span are set in `table`.
pub(crate) fn count(info: &Info, table: Table) -> usize {
    object_lines(info, table)
        .flat_map(|(_, line)| line)
        .map(|word| word.load(Ordering::Acquire).count_ones() as usize)
        .sum()
}

/// Calls `visit` with the address of each object of the span whose bit is set in `table`.
pub(crate) fn for_each_set(info: &Info, table: Table, mut visit: impl FnMut(Addr)) {
    for (page, line) in object_lines(info, table) {
        for (index, word) in line.iter().enumerate() {
            for_each_bit(word.load(Ordering::Acquire), |bit| {
                let granule = index * 64 + bit as usize;
                visit(info.object_at(page + Bytes::new(granule * GRANULE_BYTES)));
            });
        }
    }
}

/// Calls `visit` with the index of each set bit, lowest first.
#[inline]
pub(crate) fn for_each_bit(mut word: u64, mut visit: impl FnMut(u32)) {
    while word != 0 {
        visit(word.trailing_zeros());
        word &= word - 1;
    }
}

/// Clears all bits of the span in `table`.
pub(crate) fn clear_all(info: &Info, table: Table) {
    for (_, line) in object_lines(info, table) {
        for word in line {
            word.store(0, Ordering::Release);
        }
    }
}

/// Fills the slot at `slot` with `value`.
///
/// # Safety
/// The caller owns the span, `slot` is the start of one of its slots, and no object is there.
pub(crate) unsafe fn fill_slot(info: &Info, slot: Addr, value: u8) {
    asan::permit(slot, Bytes::new(info.slot));
    // SAFETY: the slot lies in the span, and the caller vouches for the rest.
    unsafe { slot.as_ptr::<u8>().write_bytes(value, info.slot) };
}

#[cfg(test)]
mod tests;
