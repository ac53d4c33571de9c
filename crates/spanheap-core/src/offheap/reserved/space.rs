//! One reservation for several arrays that come and go together.
//!
//! ```text
//! base        first array                 second array
//! | bitmaps | block 0 | block 1 |  ...   | block 0 |  ...                    |
//! '---------------------' ready from the beginning: the bitmaps of all arrays, and some blocks of the first
//! ```
//!
//! Each call of the system for a mapping costs some microseconds, and a small heap is not much more than such calls.
//! So the tables of a heap are reserved in one call, their bitmaps lie together, and all is released in one call.
//!
//! **Invariants.** (1) The parts that arrays were given, and the bitmaps in front, do not overlap. (2) `mapped` and
//! `ready` are what arrays had that have been [given back](ReservedArray::release_into). (3) The reservation is
//! released when all arrays have been given back, and not before.
//!
//! # Safety
//! This file is trusted to change the reservation only by the `Os` that made it, whose number it compares.
#![allow(unsafe_code)]

use core::marker::PhantomData;

use super::{BLOCK_BYTES, Bitmap, ReservedArray, Zeroable};
use crate::addr::{Addr, AddrRange, Bytes};
use crate::os::{Category, Os, OsError};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::{Lock, Rank};

/// What an array takes of a space.
#[derive(Clone, Copy)]
pub struct ArraySize {
    elements: Bytes,
    bitmaps: Bytes,
}

/// A reservation that arrays are made in.
pub struct ArraySpace {
    all: AddrRange,
    /// Where the elements begin, and what is in front of them the bitmaps.
    elements: Addr,
    next_bitmap: Addr,
    next: Addr,
    /// How much of the first array is ready already.
    eager: Bytes,
    category: Category,
    /// The number of the `Os` that the reservation is from.
    os: u64,
    /// Arrays that have not been given back.
    arrays: usize,
    mapped: Bytes,
    ready: Bytes,
}

/// The bytes of a block.
fn block_bytes(os: &Os) -> usize {
    BLOCK_BYTES.max(os.page_size().get())
}

impl ArraySpace {
    /// Reserves room for arrays of these sizes. The first `eager` bytes of the first one, which it must have, are
    /// committed from the beginning. What is mapped counts for `category`.
    ///
    /// # Errors
    /// When the system refuses; nothing has changed then.
    pub fn new(
        os: &Os,
        sizes: &[ArraySize],
        eager: Bytes,
        category: Category,
    ) -> Result<ArraySpace, OsError> {
        let sum = |part: fn(&ArraySize) -> Bytes| sizes.iter().map(part).sum::<Bytes>();
        let up = |bytes: Bytes, to: usize| bytes.checked_align_up(to).expect("an array's size");
        let bitmaps = up(sum(|size| size.bitmaps), os.page_size().get());
        let eager = up(eager, block_bytes(os));
        assert!(sizes.first().is_some_and(|first| eager <= first.elements), "no array of {eager}");
        let whole = bitmaps + sum(|size| size.elements);
        let base = os.reserve(None, whole)?;
        let (all, front) = (AddrRange::at(base, whole), AddrRange::at(base, bitmaps + eager));
        // SAFETY: O1, O2: the reservation was made above, and nobody else knows it.
        unsafe { os.map(front, category) }.inspect_err(|_| {
            // SAFETY: as above.
            unsafe { os.release(all, category, Bytes::ZERO, Bytes::ZERO) };
        })?;
        // SAFETY: as above.
        unsafe { os.used(front, front.bytes()) }.inspect_err(|_| {
            // SAFETY: as above.
            unsafe { os.release(all, category, front.bytes(), Bytes::ZERO) };
        })?;
        let elements = base + bitmaps;
        Ok(ArraySpace {
            all,
            elements,
            next_bitmap: base,
            next: elements,
            eager,
            category,
            os: os.number(),
            arrays: 0,
            mapped: Bytes::ZERO,
            ready: Bytes::ZERO,
        })
    }

    /// The next array. It is to be given back by [`ReservedArray::release_into`].
    ///
    /// # Panics
    /// When the space was made for other arrays, or by another system.
    pub fn array<T: Zeroable>(&mut self, os: &Os, len: usize) -> ReservedArray<T> {
        assert!(os.number() == self.os, "a space of another system's memory");
        let size = ReservedArray::<T>::size(os, len);
        let (base, bitmaps) = (self.next, self.next_bitmap);
        let (next, next_bitmap) = (base + size.elements, bitmaps + size.bitmaps);
        let fits = next <= self.all.end() && next_bitmap <= self.elements;
        assert!(fits, "no room for an array of {len} elements");
        let block_shift = block_bytes(os).trailing_zeros();
        let array = ReservedArray {
            base,
            len,
            block_shift,
            blocks: size.elements.get() >> block_shift,
            bitmaps,
            end: next_bitmap,
            category: self.category,
            os: self.os,
            in_space: true,
            changing: Lock::new(Rank::OffHeap, ()),
            _elements: PhantomData,
        };
        if len > 0 {
            array.touch_bitmaps();
        }
        let eager = 0..core::mem::take(&mut self.eager).get() >> block_shift;
        array.set_bits(Bitmap::Mapped, eager.clone());
        array.set_bits(Bitmap::Committed, eager);
        (self.next, self.next_bitmap) = (next, next_bitmap);
        self.arrays += 1;
        array
    }

    /// Calls `visit` with the memory of the bitmaps; arrays tell of their blocks.
    pub fn for_each_ready(&self, visit: &mut dyn FnMut(AddrRange)) {
        if !self.all.is_empty() {
            visit(AddrRange::new(self.all.base(), self.elements));
        }
    }

    /// Gives everything back. Once is enough.
    ///
    /// # Panics
    /// When an array has not been given back, or when `os` is not the one that the space was made with.
    pub fn release(&mut self, os: &Os) {
        if self.all.is_empty() {
            return;
        }
        assert!(os.number() == self.os, "a space of another system's memory");
        assert!(self.arrays == 0, "{} arrays are still in use", self.arrays);
        // What no array was made of is still as it was made.
        let bitmaps = self.elements.bytes_since(self.all.base()) + self.eager;
        let all = core::mem::replace(&mut self.all, AddrRange::at(Addr::NULL, Bytes::ZERO));
        // SAFETY: O1: the number was compared. O2: all arrays have been given back (3).
        unsafe { os.release(all, self.category, self.mapped + bitmaps, self.ready + bitmaps) };
    }
}

impl<T: Zeroable> ReservedArray<T> {
    /// What an array of `len` elements takes of a space.
    ///
    /// # Panics
    /// When there are not so many addresses.
    pub fn size(os: &Os, len: usize) -> ArraySize {
        assert!(align_of::<T>() <= os.page_size().get(), "alignment above the page size");
        let elements = len.checked_mul(Self::SIZE).map(Bytes::new);
        let elements = elements.and_then(|bytes| bytes.checked_align_up(block_bytes(os)));
        let elements = elements.expect("an array that fits into the address space");
        let words = (elements.get() / block_bytes(os)).div_ceil(u64::BITS as usize);
        ArraySize { elements, bitmaps: Bytes::new(2 * words * size_of::<AtomicU64>()) }
    }

    /// Gives an array back to the space that it was made in, and leaves one of length zero.
    ///
    /// # Panics
    /// When it was made elsewhere.
    pub fn release_into(&mut self, space: &mut ArraySpace) {
        if self.base.is_null() {
            return;
        }
        assert!(self.in_space && space.all.contains(self.base), "an array of another space");
        let (mapped, ready) = self.forget();
        space.mapped += mapped;
        space.ready += ready;
        space.arrays -= 1;
    }
}

impl<T> ReservedArray<T> {
    /// Zeros over zeros: see "First touches".
    pub(super) fn touch_bitmaps(&self) {
        for bitmap in [Bitmap::Mapped, Bitmap::Committed] {
            self.word(bitmap, 0).store(0, Relaxed);
        }
    }

    /// Leaves an array of length zero, and says how much of the blocks was mapped and ready. References to elements
    /// borrow the array, and `&mut self` says that there are none.
    pub(super) fn forget(&mut self) -> (Bytes, Bytes) {
        let bytes = |bitmap| Bytes::new(self.count(bitmap) << self.block_shift);
        let both = (bytes(Bitmap::Mapped), bytes(Bitmap::Committed));
        (self.len, self.blocks) = (0, 0);
        (self.base, self.bitmaps, self.end) = (Addr::NULL, Addr::NULL, Addr::NULL);
        both
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::SimOs;

    const BLOCK: Bytes = Bytes::new(BLOCK_BYTES);

    #[test]
    fn arrays_in_a_space_are_like_others_and_go_in_one_call() {
        let sim = SimOs::builder().build();
        let os = Os::simulated(sim.clone());
        let (words, bytes) = (5 * BLOCK_BYTES / 8, 3 * BLOCK_BYTES);
        let sizes = [ReservedArray::<u64>::size(&os, words), ReservedArray::<u8>::size(&os, bytes)];
        let mut space = ArraySpace::new(&os, &sizes, BLOCK, Category::PageTables).unwrap();
        let (mut a, mut b) = (space.array::<u64>(&os, words), space.array::<u8>(&os, bytes));
        let page = os.page_size();
        assert_eq!(os.accounting().ready(), BLOCK + page);
        assert!(a.is_committed(0) && !a.is_committed(BLOCK_BYTES / 8) && !b.is_committed(0));
        a.commit(&os, words - 1..words).unwrap();
        b.commit(&os, 0..bytes).unwrap();
        assert_eq!(os.accounting().ready(), Bytes::new(5 * BLOCK_BYTES) + page);
        (*a.get_mut(words - 1), *a.get_mut(0)) = (7, 8);
        (0..bytes).for_each(|i| *b.get_mut(i) = 9);
        assert_eq!((*a.get(words - 1), *a.get(0), *a.get(1)), (7, 8, 0));
        let mut ready = Bytes::ZERO;
        let mut add = |range: AddrRange| ready += range.bytes();
        a.for_each_ready(&mut add);
        b.for_each_ready(&mut add);
        space.for_each_ready(&mut add);
        assert_eq!(ready, os.accounting().ready());
        a.release_into(&mut space);
        b.release_into(&mut space);
        space.release(&os);
        assert_eq!(os.accounting().reserved(), Bytes::ZERO);
        sim.assert_all_released();
    }

    #[test]
    fn a_refused_space_leaves_nothing_behind() {
        for n in 1..=3 {
            let sim = SimOs::builder().fail_call(n).build();
            let os = Os::simulated(sim.clone());
            let size = ReservedArray::<u8>::size(&os, 1);
            let space = ArraySpace::new(&os, &[size], BLOCK, Category::Roots);
            assert!(space.is_err(), "call {n} was not made");
            assert_eq!(os.accounting().reserved(), Bytes::ZERO);
            sim.assert_all_released();
        }
    }

    #[test]
    #[should_panic(expected = "1 arrays are still in use")]
    fn a_space_does_not_go_before_its_arrays() {
        let os = Os::native();
        let size = ReservedArray::<u8>::size(&os, 1);
        let mut space = ArraySpace::new(&os, &[size], Bytes::ZERO, Category::Roots).unwrap();
        let _array = space.array::<u8>(&os, 1);
        space.release(&os);
    }

    #[test]
    #[should_panic(expected = "no room for an array")]
    fn a_space_has_room_for_what_it_was_made_for() {
        let os = Os::native();
        let size = ReservedArray::<u8>::size(&os, 1);
        let mut space = ArraySpace::new(&os, &[size], Bytes::ZERO, Category::Roots).unwrap();
        let _array = space.array::<u8>(&os, BLOCK_BYTES + 1);
    }
}
