//! The peers: documents in a bump allocator, and in boxes on another allocator than the program's.
//!
//! Boxes on mimalloc are those of `allocator-api2`, which have an allocator of their own and are filled by one copy. A
//! program with mimalloc as its only allocator would give it the decoder's lists besides, which are made once.
//! A string is a box of bytes there.
//!
//! # Safety
//! `Mimalloc` passes each request on to mimalloc with the layout that it got, so blocks are what was asked for, stay
//! until they are given back, and are given back with their layout. Bytes of a string were copied from one.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

use allocator_api2_02::alloc::{AllocError, Allocator};
use allocator_api2_02::boxed::Box;
use bumpalo::Bump;
use mimalloc::MiMalloc;

use super::document::{Kind, Look, Member, Place, Scratch, Value};
use super::variants::{Named, Variant, request, timed};
use crate::bench::histogram::Histogram;

/// Why peers are missing, if they are.
pub(super) const ABSENT: Option<&str> = None;

/// All peers.
pub(super) fn variants() -> Vec<Named> {
    vec![
        Named::new("bumpalo", Reset { bump: Bump::new(), scratch: Scratch::new() }),
        Named::new("bumpalo-new", Fresh { scratch: Scratch::new() }),
        Named::new("mimalloc", OnMimalloc { scratch: Scratch::new() }),
    ]
}

/// Documents in a bump allocator.
pub(super) struct InBump<'b>(std::marker::PhantomData<&'b ()>);

impl<'b> Kind for InBump<'b> {
    type Text = &'b str;
    type Array = &'b [Value<InBump<'b>>];
    type Object = &'b [Member<InBump<'b>>];
}

impl<'b> Place for &'b Bump {
    type Kind = InBump<'b>;

    #[inline]
    fn text(&mut self, text: &str) -> &'b str {
        self.alloc_str(text)
    }

    #[inline]
    fn array(
        &mut self,
        values: &mut Vec<Value<InBump<'b>>>,
        from: usize,
    ) -> &'b [Value<InBump<'b>>] {
        let array = self.alloc_slice_copy(&values[from..]);
        values.truncate(from);
        array
    }

    #[inline]
    fn object(
        &mut self,
        members: &mut Vec<Member<InBump<'b>>>,
        from: usize,
    ) -> &'b [Member<InBump<'b>>] {
        let object = self.alloc_slice_copy(&members[from..]);
        members.truncate(from);
        object
    }
}

impl<'b> Look for &'b Bump {
    #[inline]
    fn read<'a>(&self, text: &'a &'b str) -> &'a str {
        text
    }

    #[inline]
    fn values<'a>(&self, array: &'a &'b [Value<InBump<'b>>]) -> &'a [Value<InBump<'b>>] {
        array
    }

    #[inline]
    fn members<'a>(&self, object: &'a &'b [Member<InBump<'b>>]) -> &'a [Member<InBump<'b>>] {
        object
    }
}

/// One bump allocator, reset after each request.
struct Reset {
    bump: Bump,
    scratch: Scratch<InBump<'static>>,
}

impl Variant for Reset {
    fn serve(&mut self, text: &str, requests: u64, times: &mut Histogram) -> u64 {
        timed(requests, times, || {
            let found = self.scratch.lend(|scratch| request(&mut &self.bump, text, scratch));
            self.bump.reset();
            found
        })
    }
}

/// A bump allocator for each request.
struct Fresh {
    scratch: Scratch<InBump<'static>>,
}

impl Variant for Fresh {
    fn serve(&mut self, text: &str, requests: u64, times: &mut Histogram) -> u64 {
        timed(requests, times, || {
            let bump = Bump::new();
            self.scratch.lend(|scratch| request(&mut &bump, text, scratch))
        })
    }
}

/// An allocator for boxes.
#[derive(Clone, Copy)]
pub(super) struct Mimalloc;

// SAFETY: mimalloc keeps blocks until they are given back, and the value has no state, so that copies are the
// same allocator.
unsafe impl Allocator for Mimalloc {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // An empty block is one byte, since a `GlobalAlloc` need not know any that are smaller.
        let (size, align) = (layout.size().max(1), layout.align());
        let layout = Layout::from_size_align(size, align).map_err(|_| AllocError)?;
        // SAFETY: the size is not 0.
        let block = unsafe { MiMalloc.alloc(layout) };
        let block = NonNull::new(block).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(block, size))
    }

    #[inline]
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller says that the block came from `allocate`; mimalloc knows its size by itself.
        unsafe { MiMalloc.dealloc(block.as_ptr(), layout) };
    }
}

/// Documents of boxes on mimalloc.
pub(super) struct InMimalloc;

impl Kind for InMimalloc {
    type Text = Box<[u8], Mimalloc>;
    type Array = Box<[Value<InMimalloc>], Mimalloc>;
    type Object = Box<[Member<InMimalloc>], Mimalloc>;
}

/// Moves the end of a list to a box, as one copy of bytes.
fn boxed<T>(list: &mut Vec<T>, from: usize) -> Box<[T], Mimalloc> {
    let end = &list[from..];
    let mut block = Box::<[T], Mimalloc>::new_uninit_slice_in(end.len(), Mimalloc);
    let start = block.as_mut_ptr().cast::<T>();
    // SAFETY: the block was made for so many values, and is not part of the list.
    unsafe { start.copy_from_nonoverlapping(end.as_ptr(), end.len()) };
    // SAFETY: shorter than it was; the list does not own those behind any more, which are the block's.
    unsafe { list.set_len(from) };
    // SAFETY: all values were written.
    unsafe { block.assume_init() }
}

impl Place for Mimalloc {
    type Kind = InMimalloc;

    #[inline]
    fn text(&mut self, text: &str) -> Box<[u8], Mimalloc> {
        let mut block = Box::<[u8], Mimalloc>::new_uninit_slice_in(text.len(), Mimalloc);
        let start = block.as_mut_ptr().cast::<u8>();
        // SAFETY: the block was made for so many bytes, and is new.
        unsafe { start.copy_from_nonoverlapping(text.as_ptr(), text.len()) };
        // SAFETY: all bytes were written.
        unsafe { block.assume_init() }
    }

    #[inline]
    fn array(
        &mut self,
        values: &mut Vec<Value<InMimalloc>>,
        from: usize,
    ) -> Box<[Value<InMimalloc>], Mimalloc> {
        boxed(values, from)
    }

    #[inline]
    fn object(
        &mut self,
        members: &mut Vec<Member<InMimalloc>>,
        from: usize,
    ) -> Box<[Member<InMimalloc>], Mimalloc> {
        boxed(members, from)
    }
}

impl Look for Mimalloc {
    #[inline]
    fn read<'a>(&self, text: &'a Box<[u8], Mimalloc>) -> &'a str {
        // SAFETY: `Place::text` copied the bytes of a `str`, and a box's bytes do not change here.
        unsafe { std::str::from_utf8_unchecked(text) }
    }

    #[inline]
    fn values<'a>(&self, array: &'a Box<[Value<InMimalloc>], Mimalloc>) -> &'a [Value<InMimalloc>] {
        array
    }

    #[inline]
    fn members<'a>(
        &self,
        object: &'a Box<[Member<InMimalloc>], Mimalloc>,
    ) -> &'a [Member<InMimalloc>] {
        object
    }
}

/// Boxes on mimalloc.
struct OnMimalloc {
    scratch: Scratch<InMimalloc>,
}

impl Variant for OnMimalloc {
    fn serve(&mut self, text: &str, requests: u64, times: &mut Histogram) -> u64 {
        timed(requests, times, || request(&mut Mimalloc, text, &mut self.scratch))
    }
}
