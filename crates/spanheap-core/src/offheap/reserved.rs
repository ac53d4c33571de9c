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
//! are Ready.
//!
//! **Locking.** [`commit`](ReservedArray::commit) takes the array's own lock of rank `OffHeap`.
//! Reading takes none and may run at the same time.
//!
//! # Safety
//! This file is trusted to make references only to committed elements. Elements that several
//! threads change have an atomic type: `get` gives `&T`, and only `get_mut` gives `&mut T`.
#![allow(unsafe_code)]

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
        os.map(bitmap_range, category).inspect_err(|_| {
            os.release(all, category, Bytes::ZERO, Bytes::ZERO);
        })?;
        os.used(bitmap_range, bitmaps).inspect_err(|_| {
            os.release(all, category, bitmaps, Bytes::ZERO);
        })?;
        Ok(array)
    }

    /// Makes the elements in `range` usable, with the value zero if they were not before. Elements
    /// around them may become usable too. May run while other threads read.
    ///
    /// # Errors
    /// When the system refuses. What is committed stays committed, and the call can be repeated.
    ///
    /// # Panics
    /// When the range ends behind the array.
    pub fn commit(&self, os: &Os, range: Range<usize>) -> Result<(), OsError> {
        self.check_range(&range);
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
                BlockState::Mapped => self.commit_mapped(os, run.clone())?,
                BlockState::Reserved => self.commit_reserved(os, run.clone())?,
            }
            at = run.end;
        }
        Ok(())
    }

    /// Gives everything back and leaves an array of length zero. `os` is the one of the other
    /// calls.
    pub fn release(&mut self, os: &Os) {
        if self.base.is_null() {
            return;
        }
        let bitmaps = self.end.bytes_since(self.bitmaps);
        let count = |bitmap| (0..self.blocks).filter(|&block| self.bit(bitmap, block)).count();
        let mapped = Bytes::new(count(Bitmap::Mapped) << self.block_shift) + bitmaps;
        let ready = Bytes::new(count(Bitmap::Committed) << self.block_shift) + bitmaps;
        os.release(AddrRange::new(self.base, self.end), self.category, mapped, ready);
        (self.len, self.blocks) = (0, 0);
        (self.base, self.bitmaps, self.end) = (Addr::NULL, Addr::NULL, Addr::NULL);
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

    fn commit_reserved(&self, os: &Os, blocks: Range<usize>) -> Result<(), OsError> {
        let range = self.range_of(&blocks);
        os.map(range, self.category)?;
        os.used(range, range.bytes()).inspect_err(|_| {
            // If even that is refused, the blocks stay mapped, are counted as such, and wait for
            // the next attempt.
            if os.fault(range, self.category, Bytes::ZERO).is_err() {
                self.set_bits(Bitmap::Mapped, blocks.clone());
            }
        })?;
        self.set_bits(Bitmap::Mapped, blocks.clone());
        self.set_bits(Bitmap::Committed, blocks);
        Ok(())
    }

    fn commit_mapped(&self, os: &Os, blocks: Range<usize>) -> Result<(), OsError> {
        let range = self.range_of(&blocks);
        os.used(range, range.bytes())?;
        self.set_bits(Bitmap::Committed, blocks);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::SimOs;

    const LEN: usize = 20_000;

    fn mapped(os: &Os) -> usize {
        os.accounting().mapped(Category::PageTables).get()
    }

    #[test]
    fn a_committed_part_is_zero_and_the_rest_costs_nothing() {
        for page in [4096, 16384, 65536] {
            let sim = SimOs::builder().page_size(Bytes::new(page)).build();
            let os = Os::simulated(sim.clone());
            let mut array = ReservedArray::<u64>::new(&os, LEN, Category::PageTables).unwrap();
            let (block, empty) = (page.max(BLOCK_BYTES), mapped(&os));
            assert_eq!(empty, page, "one page of bitmaps");
            assert!(!array.is_committed(0) && !array.is_committed(LEN - 1));

            // One element on either side of a block's end.
            let edge = block / 8;
            array.commit(&os, edge - 1..edge + 1).unwrap();
            assert_eq!(mapped(&os), empty + 2 * block);
            assert!(array.is_committed(0) && array.is_committed((2 * edge - 1).min(LEN - 1)));
            assert!(array.slice(edge - 1..edge + 1).iter().all(|&x| x == 0));
            *array.get_mut(edge) = 7;

            // What is committed already is neither counted nor cleared again.
            let calls = sim.calls();
            array.commit(&os, 0..edge + 1).unwrap();
            assert_eq!((mapped(&os), sim.calls()), (empty + 2 * block, calls));
            array.commit(&os, 0..LEN).unwrap();
            assert_eq!(mapped(&os), empty + (8 * LEN).next_multiple_of(block));
            assert_eq!(os.accounting().ready().get(), mapped(&os));
            assert_eq!((*array.get(edge), *array.get(LEN - 1)), (7, 0));

            array.release(&os);
            array.release(&os);
            assert_eq!((array.len(), mapped(&os)), (0, 0));
            assert_eq!(os.accounting().reserved(), Bytes::ZERO);
            sim.assert_all_released();
        }
    }

    #[test]
    fn an_element_across_two_blocks_needs_both() {
        let os = Os::simulated(SimOs::builder().build());
        let mut array = ReservedArray::<[u64; 3]>::new(&os, LEN, Category::PageTables).unwrap();
        let across = BLOCK_BYTES / 24;
        assert_ne!(BLOCK_BYTES % 24, 0);
        array.commit(&os, 0..across).unwrap();
        assert!(array.is_committed(across - 1) && !array.is_committed(across));
        array.commit(&os, across..across + 1).unwrap();
        assert_eq!(array.get(across), &[0; 3]);
        array.release(&os);
    }

    /// Every history of refusals: the n-th call alone, or all from the n-th on until the system
    /// recovers.
    #[test]
    fn a_refusal_at_any_call_can_be_repeated() {
        for (n, lasting) in (1..=12).flat_map(|n| [(n, false), (n, true)]) {
            let sim = SimOs::builder().build();
            let os = Os::simulated(sim.clone());
            let arm = |n| if lasting { sim.set_fail_from(n) } else { sim.set_fail_call(n) };
            arm(Some(n));
            let array = ReservedArray::<u32>::new(&os, LEN, Category::PageTables);
            let mut array = array.unwrap_or_else(|_| {
                assert_eq!(os.accounting().reserved(), Bytes::ZERO, "call {n} failed in new");
                arm(None);
                ReservedArray::new(&os, LEN, Category::PageTables).unwrap()
            });
            let mut expected = [false; LEN];
            for range in [5000..5001, 0..1, 0..LEN, 3..9000] {
                let before = os.accounting().ready().get();
                if array.commit(&os, range.clone()).is_err() {
                    arm(None);
                    // A single refusal is undone; only one that lasts can leave a block mapped.
                    let ready = os.accounting().ready().get();
                    assert!(lasting || mapped(&os) == ready, "call {n} left a block mapped");
                    assert!(ready >= before, "call {n} took something back");
                    assert!(
                        expected.iter().enumerate().all(|(i, &was)| !was || array.is_committed(i))
                    );
                    array.commit(&os, range.clone()).unwrap();
                }
                expected[range].fill(true);
                assert!((0..LEN).all(|i| !expected[i] || *array.get(i) == 0));
            }
            assert_eq!(mapped(&os), (4 * LEN).next_multiple_of(BLOCK_BYTES) + 4096);
            assert_eq!(os.accounting().ready().get(), mapped(&os));
            array.release(&os);
            assert_eq!(os.accounting().reserved(), Bytes::ZERO);
            sim.assert_all_released();
        }
    }

    #[test]
    fn a_block_that_stayed_mapped_is_counted_and_released() {
        let sim = SimOs::builder().build();
        let os = Os::simulated(sim.clone());
        let mut array = ReservedArray::<u8>::new(&os, LEN, Category::PageTables).unwrap();
        // Of map, used and fault the last two fail.
        sim.set_fail_from(Some(sim.calls() + 2));
        assert_eq!(array.commit(&os, 0..1).unwrap_err().op(), Operation::Used);
        assert!(!array.is_committed(0));
        assert_eq!(mapped(&os), 4096 + BLOCK_BYTES);
        assert_eq!(os.accounting().ready().get(), 4096);
        array.release(&os);
        assert_eq!((mapped(&os), os.accounting().reserved()), (0, Bytes::ZERO));
        sim.assert_all_released();
    }

    #[test]
    fn readers_see_whole_blocks_while_others_commit() {
        let os = Os::native();
        let mut array =
            ReservedArray::<AtomicUsize>::new(&os, 1 << 18, Category::PageTables).unwrap();
        std::thread::scope(|s| {
            for step in [1, 2] {
                let (array, os) = (&array, &os);
                s.spawn(move || {
                    for i in (0..array.len()).step_by(step * 512) {
                        array.commit(os, i..i + 1).unwrap();
                        array.get(i).fetch_add(1, Relaxed);
                    }
                });
            }
            let mut last = 0;
            while last < array.len() {
                if array.is_committed(last) {
                    assert!(array.get(last).load(Relaxed) <= 2);
                    last += 512;
                }
            }
        });
        let sum: usize = array.slice(0..array.len()).iter().map(|x| x.load(Relaxed)).sum();
        assert_eq!(sum, (1 << 18) / 512 + (1 << 18) / 1024);
        assert_eq!(mapped(&os), (8 << 18) + os.page_size().get());
        array.release(&os);
        assert_eq!(os.accounting().reserved(), Bytes::ZERO);
    }

    #[test]
    fn an_array_larger_than_the_address_space_is_refused() {
        let os = Os::native();
        for len in [usize::MAX, 1 << 44, usize::MAX / 8 - 100] {
            assert!(ReservedArray::<u64>::new(&os, len, Category::PageTables).is_err());
        }
        assert_eq!(os.accounting().reserved(), Bytes::ZERO);
        assert!(ReservedArray::<u64>::new(&os, 0, Category::PageTables).unwrap().is_empty());
    }

    fn one_element() -> (Os, ReservedArray<u8>) {
        let os = Os::simulated(SimOs::builder().build());
        let array = ReservedArray::new(&os, 100_000, Category::PageTables).unwrap();
        array.commit(&os, 50_000..50_001).unwrap();
        (os, array)
    }

    #[test]
    #[should_panic(expected = "element 100000 of an array of 100000")]
    fn an_index_behind_the_end_is_a_panic() {
        one_element().1.get(100_000);
    }

    #[test]
    #[should_panic(expected = "element 99999 of 100000 is not committed")]
    fn an_element_that_is_not_committed_is_a_panic() {
        one_element().1.get_mut(99_999);
    }

    #[test]
    #[should_panic(expected = "elements 50000..90000 of 100000 are not all committed")]
    fn a_slice_that_is_not_committed_is_a_panic() {
        one_element().1.slice(50_000..90_000);
    }

    #[test]
    #[should_panic(expected = "elements 5..100001 of an array of 100000")]
    fn a_commit_behind_the_end_is_a_panic() {
        let (os, array) = one_element();
        let _ = array.commit(&os, 5..100_001);
    }
}
