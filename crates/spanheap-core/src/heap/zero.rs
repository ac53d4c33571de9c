//! Zeroed slots: clears what may be dirty, and nothing else.
//!
//! A span knows below which of its addresses somebody may have written ([`crate::span::Span::dirty_to`]). In a
//! fresh span that is nowhere, or up to where its arena has been used before; from the first sweep that
//! frees a slot on it is everywhere.
//!
//! # Safety
//! Slots are written to that the caller has just been given.
#![allow(unsafe_code)]

use crate::addr::{Addr, Bytes};
use crate::span::map;

/// Large slots are cleared in pieces of this size: what was just cleared is still in the cache of a processor
/// when whoever waits for it begins to write.
const PIECE: usize = 256 << 10;

/// Clears the first `bytes` of a slot.
///
/// # Safety
/// The slot was just handed out to the caller, is `bytes` long at least, and has not been written to.
pub unsafe fn clear(slot: Addr, bytes: Bytes) {
    // SAFETY: the slot lies in a published arena of the caller's heap.
    let arena = unsafe { &*map::find(slot) };
    // SAFETY: the slot's span is in use, so the page map names its record, which is not recycled meanwhile.
    let span = unsafe { &*arena.span(slot.page_in_arena()) };
    let end = span.dirty_to().min(slot + bytes);
    let mut at = slot;
    while at < end {
        let piece = PIECE.min(end.bytes_since(at).get());
        // SAFETY: inside the slot, by the caller's promise.
        unsafe { at.as_ptr::<u8>().write_bytes(0, piece) };
        at = at + Bytes::new(piece);
    }
}
