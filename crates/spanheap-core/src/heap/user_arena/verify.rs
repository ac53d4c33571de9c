//! What a look at the whole heap sees of user arenas: records, pages, ends, headers and bits of each chunk.
//!
//! # Safety
//! Headers are read while no closure is open; the memory of a chunk that is not quarantined is there.
#![allow(unsafe_code)]

use super::Arenas;
use super::registry::record;
use crate::addr::{Addr, Bytes, GRANULE_BYTES, PageCount};
use crate::heap::verify::Verified;
use crate::span::chunk::Header;
use crate::span::{Chunk, Span, map};
use core::ptr::NonNull;

const STRUCTURE: &str = "user arenas";

impl Arenas {
    /// Looks at every chunk of the heap numbered `heap`. On the collector's thread, while no closure is open.
    pub(crate) fn verify(&self, heap: u64, found: &mut Verified) {
        self.for_each(|at| {
            let chunk = record(at);
            found.chunks += 1;
            // SAFETY: the span of a chunk with pages is described.
            let span = unsafe { &*chunk.span() };
            let range = chunk.range();
            let is_own = span.chunk().is_some_and(|own| core::ptr::eq(own, chunk))
                && span.info().range() == range;
            if !is_own || !span.is_arena() {
                found.find(STRUCTURE, range.base(), format_args!("the span is another one"));
                return;
            }
            pages(heap, at, span, found);
            ends(chunk, found);
            if !span.is_quarantined() && !chunk.is_beside() {
                headers(chunk, found);
            }
        });
    }
}

/// Whether the page map names the span of the chunk.
fn pages(heap: u64, at: NonNull<Chunk>, span: &Span, found: &mut Verified) {
    let info = span.info();
    for page in (0..info.pages.get()).map(|page| info.base + PageCount::new(page)) {
        // SAFETY: M2: arenas live as long as their heap.
        let arena = unsafe { map::find(page).as_ref() }.filter(|arena| arena.heap() == heap);
        let named = arena.map(|arena| arena.span(page.page_in_arena()).cast_const());
        if named != Some(core::ptr::from_ref(span)) {
            let number = record(at).number();
            let what = format_args!("does not name the chunk of user arena {number}");
            return found.find("page map", page, what);
        }
    }
}

/// Whether the two ends lie where they may (C1).
fn ends(chunk: &Chunk, found: &mut Verified) {
    let (range, low, high) = (chunk.range(), chunk.low(), chunk.high());
    let fit = match chunk.is_beside() {
        true => low == range.end() && high == range.end(),
        false => {
            range.base() <= low
                && low <= high.align_down(GRANULE_BYTES)
                && high <= range.end()
                && low.is_aligned(GRANULE_BYTES)
        }
    };
    if !fit {
        let what = format_args!("values up to {low} and from {high} on in {range:?}");
        found.find(STRUCTURE, range.base(), what);
    }
}

/// Whether the headers end where the values do (C2).
fn headers(chunk: &Chunk, found: &mut Verified) {
    let (mut at, low): (Addr, Addr) = (chunk.range().base(), chunk.low());
    while at < low {
        // SAFETY: the memory is there, and it is a row of headers and values, unless it is broken.
        let stride = unsafe { Header::read(at) }.map_or(Bytes::new(GRANULE_BYTES), |header| {
            found.values += 1;
            header.stride()
        });
        if stride > low.bytes_since(at) {
            let what = format_args!("a value of {stride} bytes reaches beyond the last one, {low}");
            return found.find(STRUCTURE, at, what);
        }
        at = at + stride;
    }
}
