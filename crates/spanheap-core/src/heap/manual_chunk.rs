//! [`ManualChunk`]: a manual span that carries its own description, and so is one word to whoever holds it.
//!
//! A [`ManualSpan`] is five words, and an owner of many of them would need a table for them, in memory that has to
//! come from somewhere. A chunk has the description in its first bytes and the rest for its owner; and a word in
//! there links it to another chunk, so that any number of them is a list without memory of its own.
//!
//! Who writes over the first bytes of a chunk destroys the list. Safe code cannot: it gets the rest.
//!
//! # Safety
//! - M1. A chunk holds the one description of its span, in the first bytes of the span's memory, which nobody else
//!   uses. The chunks that it leads to are its own.
#![allow(unsafe_code)]

use crate::addr::{AddrRange, Bytes};
use crate::heap::ManualSpan;
use core::fmt;
use core::ptr::NonNull;

/// What lies at the beginning of a chunk.
struct Header {
    next: Option<ManualChunk>,
    span: ManualSpan,
}

/// A manual span with its description in it; see the top of the file.
#[repr(transparent)]
#[must_use = "a chunk that nobody holds stays until its heap is dropped"]
pub struct ManualChunk(NonNull<Header>);

impl ManualChunk {
    /// How many bytes the description takes: the rest begins at a multiple of 16.
    pub const HEADER: Bytes = Bytes::new(size_of::<Header>().next_multiple_of(16));

    /// Makes a chunk of a span, whose first bytes are overwritten.
    pub fn new(span: ManualSpan) -> ManualChunk {
        let header = NonNull::new(span.range().base().as_ptr::<Header>());
        let header = header.expect("pages do not lie at address 0");
        // SAFETY: the pages of a manual span are ready, larger than a header, and the holder's alone.
        unsafe { header.write(Header { next: None, span }) };
        ManualChunk(header)
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: M1.
        unsafe { self.0.as_ref() }
    }

    /// Its pages.
    #[inline]
    pub fn range(&self) -> AddrRange {
        self.header().span.range()
    }

    /// What its owner may use: all but the description.
    #[inline]
    pub fn room(&self) -> AddrRange {
        let range = self.range();
        AddrRange::new(range.base() + ManualChunk::HEADER, range.end())
    }

    /// The number of the heap that owns the pages.
    #[inline]
    pub fn heap(&self) -> u64 {
        self.header().span.heap()
    }

    /// Links it to the chunks that begin with `next`; it led to none.
    #[inline]
    pub fn link(&mut self, next: Option<ManualChunk>) {
        debug_assert!(self.header().next.is_none(), "a chunk forgets others");
        // SAFETY: M1.
        unsafe { self.0.as_mut() }.next = next;
    }

    /// The chunk that it leads to, with all behind that. It leads to none afterwards.
    #[inline]
    pub fn unlink(&mut self) -> Option<ManualChunk> {
        // SAFETY: M1.
        unsafe { self.0.as_mut() }.next.take()
    }

    /// The span. The chunk leads to no other one.
    pub fn into_span(self) -> ManualSpan {
        debug_assert!(self.header().next.is_none(), "a chunk forgets others");
        // SAFETY: M1: it is initialised, and with the chunk the only way to it goes away.
        unsafe { self.0.read() }.span
    }
}

impl fmt::Debug for ManualChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManualChunk({:?})", self.range())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::central::tests::World;

    #[test]
    fn a_chunk_is_a_word_that_knows_its_span_and_its_successors() {
        assert_eq!(size_of::<Option<ManualChunk>>(), size_of::<usize>());
        assert!(ManualChunk::HEADER.get() <= 64);
        let world = World::new(None);
        let pages = world.cache().local_pages();
        let mut list = None;
        let mut ranges = Vec::new();
        for count in 1..=5 {
            let span = world.central.alloc_manual(Bytes::new(count * 8192), 8, pages);
            let span = span.expect("memory");
            let range = span.range();
            ranges.push(range);
            let mut chunk = ManualChunk::new(span);
            assert_eq!((chunk.range(), chunk.room().end()), (range, range.end()));
            let room = chunk.room();
            assert_eq!(room.base(), range.base() + ManualChunk::HEADER);
            // SAFETY: the room is ready memory, and the test's.
            unsafe { room.base().as_ptr::<u8>().write_bytes(0xff, room.bytes().get()) };
            chunk.link(list);
            list = Some(chunk);
        }
        while let Some(mut chunk) = list {
            list = chunk.unlink();
            let span = chunk.into_span();
            assert_eq!(Some(span.range()), ranges.pop());
            // SAFETY: the test uses it no more.
            unsafe { world.central.free_manual(span) };
        }
        assert!(ranges.is_empty());
        world.release();
    }
}
