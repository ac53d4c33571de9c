//! Tables as large as the address space needs, with memory only where they are used.
//!
//! An array reserves the address space of all its elements at once, so elements never move, and
//! makes memory ready in *blocks* (16 KiB, or a page if that is larger) when a part is first
//! needed. Ready memory reads as zeros, which is a valid value of every [`Zeroable`] type; so a
//! committed element exists without having been written.
//!
//! ```text
//! base                                      bitmaps                 end of the reservation
//! | block 0 | block 1 |  ...  | block n-1  | mapped | committed |
//! ```
//!
//! Which blocks are usable is in a bitmap at the end of the reservation, beside a second one of the
//! blocks that are mapped: a block can be mapped and not committed when the system refused the
//! second of the two steps and then also refused to undo the first. The next attempt goes on from
//! there.
//!
//! **Invariants.** (1) A set bit in `committed` means that its block is Ready, and it is set after
//! that, with `Release`; readers load it with `Acquire`. It is cleared only by `release`, which has
//! the array for itself. (2) A bit in `mapped` is set exactly while the block is Prepared or Ready;
//! it is protected by the lock. (3) An array with `len > 0` owns its reservation, and both bitmaps
//! are Ready; or its part of an [`ArraySpace`], where its bitmaps lie apart from the blocks. (4) The reservation was
//! made by the `Os` with the number `os`, and only this array changes the state of its blocks.
//!
//! **Locking.** [`commit`](ReservedArray::commit) takes the array's own lock of rank `OffHeap`.
//! Reading takes none and may run at the same time.
//!
//! **First touches.** What is ready has no memory before it is touched, and a page that is read first costs two
//! faults: one that shows the page of zeros which all processes share, and another one when somebody writes.
//! Who commits a few elements is about to write them, often after a look, so their page is written to here;
//! and so are the first words of the bitmaps. Of larger parts nobody knows which pages will be written, or when.
//!
//! # Safety
//! This file is trusted to make references only to committed elements, and to change the reservation
//! only by the `Os` that made it (4), which it compares: O1 of the contract of ranges. Elements that several
//! threads change have an atomic type: `get` gives `&T`, and only `get_mut` gives `&mut T`.
#![allow(unsafe_code)]

mod space;

pub use space::{ArraySize, ArraySpace};

use core::marker::PhantomData;
use core::ops::Range;

use crate::addr::{Addr, AddrRange, Bytes, PageCount};
use crate::os::{Category, Operation, Os, OsError};
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
use crate::sync::{Lock, Rank};

/// The least size of a block.
const BLOCK_BYTES: usize = 16 << 10;

/// Types for which memory that is all zeros is a valid value.
///
/// # Safety
/// It is, and the type needs no dropping.
pub unsafe trait Zeroable {}

macro_rules! zeroable {
    ($($type:ty),*) => {
        $(
            // SAFETY: a number, and zero is one of its values.
            unsafe impl Zeroable for $type {}
        )*
    };
}

zeroable!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);
zeroable!(bool, AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize);
zeroable!(Addr, Bytes, PageCount);

// SAFETY: zeros are the null pointer.
unsafe impl<T> Zeroable for AtomicPtr<T> {}
// SAFETY: zeros in every element are a valid value of each.
unsafe impl<T: Zeroable, const N: usize> Zeroable for [T; N] {}

/// An array of fixed length of which only the parts in use have memory.
pub struct ReservedArray<T> {
    base: Addr,
    len: usize,
    /// log2 of the bytes in a block.
    block_shift: u32,
    blocks: usize,
    /// Where the two bitmaps begin.
    bitmaps: Addr,
    end: Addr,
    category: Category,
    /// The number of the `Os` that the reservation is from.
    os: u64,
    /// Whether the reservation is an [`ArraySpace`]'s.
    in_space: bool,
    /// Held while blocks change state.
    changing: Lock<()>,
    _elements: PhantomData<T>,
}

impl<T: Zeroable> ReservedArray<T> {
    const SIZE: usize = {
        assert!(size_of::<T>() != 0, "elements without a size need no memory");
        size_of::<T>()
    };

    /// Reserves an array of `len` elements, none of them committed. What it maps counts for
    /// `category`.
    ///
    /// # Errors
    /// When the system refuses, or when so many elements do not fit in the address space; nothing
    /// has changed then.
    pub fn new(os: &Os, len: usize, category: Category) -> Result<ReservedArray<T>, OsError> {
        assert!(align_of::<T>() <= os.page_size().get(), "alignment above the page size");
        let block = BLOCK_BYTES.max(os.page_size().get());
        let mut array = ReservedArray {
            base: Addr::NULL,
            len,
            block_shift: block.trailing_zeros(),
            blocks: 0,
            bitmaps: Addr::NULL,
            end: Addr::NULL,
            category,
            os: os.number(),
            in_space: false,
            changing: Lock::new(Rank::OffHeap, ()),
            _elements: PhantomData,
        };
        if len == 0 {
            return Ok(array);
        }
        let wanted = Bytes::new(len.saturating_mul(Self::SIZE));
        let refused = OsError::new(Operation::Reserve, wanted, libc::ENOMEM);
        let elements = wanted.checked_align_up(block).ok_or(refused)?;
        array.blocks = elements.get() >> array.block_shift;
        let bitmaps = Bytes::new(2 * array.words() * size_of::<AtomicU64>());
        let bitmaps = bitmaps.checked_align_up(os.page_size().get()).ok_or(refused)?;
        let whole = elements.get().checked_add(bitmaps.get()).ok_or(refused)?;
        array.base = os.reserve(None, Bytes::new(whole))?;
        array.bitmaps = array.base + elements;
        array.end = array.bitmaps + bitmaps;
        let bitmap_range = AddrRange::new(array.bitmaps, array.end);
        let all = AddrRange::new(array.base, array.end);
        // SAFETY: O1, O2: the reservation was made above, and nobody else knows it.
        unsafe { os.map(bitmap_range, category) }.inspect_err(|_| {
            // SAFETY: as above.
            unsafe { os.release(all, category, Bytes::ZERO, Bytes::ZERO) };
        })?;
        // SAFETY: as above.
        unsafe { os.used(bitmap_range, bitmaps) }.inspect_err(|_| {
            // SAFETY: as above.
            unsafe { os.release(all, category, bitmaps, Bytes::ZERO) };
        })?;
        array.touch_bitmaps();
        Ok(array)
    }

    /// Makes the elements in `range` usable, with the value zero if they were not before. Elements
    /// around them may become usable too. May run while other threads read.
    ///
    /// # Errors
    /// When the system refuses. What is committed stays committed, and the call can be repeated.
    ///
    /// # Panics
    /// When the range ends behind the array, or when `os` is not the one that the array was made with.
    pub fn commit(&self, os: &Os, range: Range<usize>) -> Result<(), OsError> {
        self.check_range(&range);
        self.check_os(os);
        if range.is_empty() {
            return Ok(());
        }
        let blocks = self.blocks_of(&range);
        let _changing = self.changing.lock();
        let mut at = blocks.start;
        while at < blocks.end {
            // A run of blocks in the same state is one call to the system.
            let state = self.state(at);
            let length = (at..blocks.end).take_while(|&block| self.state(block) == state).count();
            let run = at..at + length;
            match state {
                BlockState::Committed => {}
                BlockState::Mapped => self.commit_mapped(os, run.clone(), &range)?,
                BlockState::Reserved => self.commit_reserved(os, run.clone(), &range)?,
            }
            at = run.end;
        }
        Ok(())
    }

    /// Gives everything back and leaves an array of length zero.
    ///
    /// # Panics
    /// When `os` is not the one that the array was made with, or when the array was made in a space.
    pub fn release(&mut self, os: &Os) {
        if self.base.is_null() {
            return;
        }
        self.check_os(os);
        assert!(!self.in_space, "the array belongs to a space");
        let bitmaps = self.end.bytes_since(self.bitmaps);
        let all = AddrRange::new(self.base, self.end);
        let (mapped, ready) = self.forget();
        // SAFETY: O1 by (4). O2: references to elements borrow the array, and `&mut self` says that
        // there are none; the array has forgotten the place.
        unsafe { os.release(all, self.category, mapped + bitmaps, ready + bitmaps) };
    }

    /// The number of elements, committed or not.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address of the first element; elements follow each other without gaps. For loops that
    /// have made sure of their range once and want no check per element.
    #[inline]
    pub fn base(&self) -> Addr {
        self.base
    }

    /// Whether element `i` exists and can be used.
    #[inline]
    pub fn is_committed(&self, i: usize) -> bool {
        i < self.len && self.all_committed(&(i..i + 1))
    }

    /// Element `i`.
    ///
    /// # Panics
    /// When there is no such element, or when it is not committed.
    #[inline]
    #[track_caller]
    pub fn get(&self, i: usize) -> &T {
        self.check_element(i);
        // SAFETY: the element is committed, hence Ready and a valid value (1), for as long as
        // `self` is borrowed; it is changed only through `&self` of a type that allows it, or `&mut
        // self`.
        unsafe { &*self.element(i) }
    }

    /// Element `i`, to change.
    ///
    /// # Panics
    /// When there is no such element, or when it is not committed.
    #[inline]
    #[track_caller]
    pub fn get_mut(&mut self, i: usize) -> &mut T {
        self.check_element(i);
        // SAFETY: as in `get`, and `&mut self` excludes every other reference.
        unsafe { &mut *self.element(i) }
    }

    /// The elements in `range`.
    ///
    /// # Panics
    /// When the range ends behind the array, or when part of it is not committed.
    #[track_caller]
    pub fn slice(&self, range: Range<usize>) -> &[T] {
        self.check_range(&range);
        if range.is_empty() {
            return &[];
        }
        let all = self.all_committed(&range);
        assert!(all, "elements {range:?} of {} are not all committed", self.len);
        // SAFETY: all elements are committed; otherwise as in `get`.
        unsafe { core::slice::from_raw_parts(self.element(range.start), range.len()) }
    }

    #[inline]
    fn element(&self, i: usize) -> *mut T {
        (self.base + Bytes::new(i * Self::SIZE)).as_ptr()
    }

    #[inline]
    #[track_caller]
    fn check_element(&self, i: usize) {
        if !self.is_committed(i) {
            self.refuse(i);
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn refuse(&self, i: usize) -> ! {
        assert!(i < self.len, "element {i} of an array of {}", self.len);
        panic!("element {i} of {} is not committed", self.len);
    }

    /// What (4) rests on.
    #[track_caller]
    fn check_os(&self, os: &Os) {
        assert!(os.number() == self.os, "an array of another system's memory");
    }

    #[track_caller]
    fn check_range(&self, range: &Range<usize>) {
        let inside = range.start <= range.end && range.end <= self.len;
        assert!(inside, "elements {range:?} of an array of {}", self.len);
    }

    /// The blocks that hold a part of the elements in a range that is not empty.
    #[inline]
    fn blocks_of(&self, range: &Range<usize>) -> Range<usize> {
        let first = (range.start * Self::SIZE) >> self.block_shift;
        let last = (range.end * Self::SIZE - 1) >> self.block_shift;
        first..last + 1
    }

    #[inline]
    fn all_committed(&self, range: &Range<usize>) -> bool {
        self.blocks_of(range).all(|block| self.bit(Bitmap::Committed, block))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BlockState {
    Reserved,
    Mapped,
    Committed,
}

/// The bitmaps, in the order in which they lie behind the elements.
#[derive(Clone, Copy)]
enum Bitmap {
    Mapped,
    Committed,
}

/// The states of blocks, whatever is in them.
impl<T> ReservedArray<T> {
    fn words(&self) -> usize {
        self.blocks.div_ceil(u64::BITS as usize)
    }

    #[inline]
    fn word(&self, bitmap: Bitmap, block: usize) -> &AtomicU64 {
        debug_assert!(block < self.blocks);
        let index = bitmap as usize * self.words() + block / u64::BITS as usize;
        let word = (self.bitmaps + Bytes::new(index * size_of::<AtomicU64>())).as_ptr();
        // SAFETY: the bitmaps are Ready for as long as there are blocks (3), have room for two
        // times `words` words, and are accessed as atomics only.
        unsafe { &*word }
    }

    #[inline]
    fn bit(&self, bitmap: Bitmap, block: usize) -> bool {
        self.word(bitmap, block).load(Acquire) >> (block % u64::BITS as usize) & 1 != 0
    }

    /// How many blocks have their bit set. There are none behind the last block.
    fn count(&self, bitmap: Bitmap) -> usize {
        let words = (0..self.words()).map(|word| self.word(bitmap, word * u64::BITS as usize));
        words.map(|word| word.load(Relaxed).count_ones() as usize).sum()
    }

    /// Calls `visit` with each range of memory that is Ready: the committed blocks, and the
    /// bitmaps if they are the array's own.
    pub fn for_each_ready(&self, visit: &mut dyn FnMut(AddrRange)) {
        let mut block = 0;
        while block < self.blocks {
            let word = self.word(Bitmap::Committed, block).load(Acquire) >> (block % 64);
            if word == 0 {
                block = (block / 64 + 1) * 64;
                continue;
            }
            let first = block + word.trailing_zeros() as usize;
            let is_ready = |&block: &usize| self.bit(Bitmap::Committed, block);
            block = first + (first..self.blocks).take_while(is_ready).count();
            visit(self.range_of(&(first..block)));
        }
        if self.blocks > 0 && !self.in_space {
            visit(AddrRange::new(self.bitmaps, self.end));
        }
    }

    fn set_bits(&self, bitmap: Bitmap, blocks: Range<usize>) {
        for block in blocks {
            let word = self.word(bitmap, block);
            // Only the holder of the lock changes words. The Release is the partner of the Acquire
            // in `bit`: who sees the bit may use the block.
            word.store(word.load(Relaxed) | 1 << (block % u64::BITS as usize), Release);
        }
    }

    fn state(&self, block: usize) -> BlockState {
        if self.bit(Bitmap::Committed, block) {
            BlockState::Committed
        } else if self.bit(Bitmap::Mapped, block) {
            BlockState::Mapped
        } else {
            BlockState::Reserved
        }
    }

    fn range_of(&self, blocks: &Range<usize>) -> AddrRange {
        let bytes = Bytes::new(blocks.len() << self.block_shift);
        AddrRange::at(self.base + Bytes::new(blocks.start << self.block_shift), bytes)
    }

    /// The caller holds the lock and has compared the `Os`, here and in the next function.
    fn commit_reserved(
        &self,
        os: &Os,
        blocks: Range<usize>,
        wanted: &Range<usize>,
    ) -> Result<(), OsError> {
        let range = self.range_of(&blocks);
        // SAFETY: O1 by (4), with the lock. O2: nobody uses blocks that are not committed (1).
        unsafe { os.map(range, self.category) }?;
        // SAFETY: as above.
        unsafe { os.used(range, range.bytes()) }.inspect_err(|_| {
            // If even that is refused, the blocks stay mapped, are counted as such, and wait for
            // the next attempt.
            //
            // SAFETY: as above.
            if unsafe { os.fault(range, self.category, Bytes::ZERO) }.is_err() {
                self.set_bits(Bitmap::Mapped, blocks.clone());
            }
        })?;
        self.touch(os, wanted, &range);
        self.set_bits(Bitmap::Mapped, blocks.clone());
        self.set_bits(Bitmap::Committed, blocks);
        Ok(())
    }

    fn commit_mapped(
        &self,
        os: &Os,
        blocks: Range<usize>,
        wanted: &Range<usize>,
    ) -> Result<(), OsError> {
        let range = self.range_of(&blocks);
        // SAFETY: O1 by (4), with the lock.
        unsafe { os.used(range, range.bytes()) }?;
        self.touch(os, wanted, &range);
        self.set_bits(Bitmap::Committed, blocks);
        Ok(())
    }

    /// Writes a zero to the elements `wanted`, if they lie in one page of `fresh`, which is ready and which nobody
    /// else may use yet: see "First touches".
    fn touch(&self, os: &Os, wanted: &Range<usize>, fresh: &AddrRange) {
        let at = |index: usize| self.base + Bytes::new(index * size_of::<T>());
        let (first, end) = (at(wanted.start), at(wanted.end));
        let page = first.align_down(os.page_size().get());
        if fresh.contains(first) && end <= page + os.page_size() {
            // SAFETY: the byte lies in a block that has been made ready, and whose bit is not set (1): no
            // reference leads there. It is zero, and stays so.
            unsafe { first.as_ptr::<u8>().write_volatile(0) };
        }
    }
}

#[cfg(test)]
mod tests;
