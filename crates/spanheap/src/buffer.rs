//! [`Buffer`]: the storage of a growable container, an object in the heap.
//!
//! A container of this crate ([`GcVec`](crate::GcVec), [`GcHashMap`](crate::GcHashMap)) is a small value: a
//! pointer to its buffer, and some lengths. The buffer is a slice like any other: its bytes are counted
//! exactly, the collector scans it by its words, in pieces if it is large, and it needs no destructor. When a
//! container grows it gets a new buffer, and the old one is garbage.
//!
//! # Who reads and who writes
//! The *container* changes only through `&mut`. Whoever has that has the container to himself: it is a
//! local value of a closure, or in an object that is not published yet, or under a lock that he holds and
//! that the collector then cannot take. So the pointer to the buffer is a plain word.
//!
//! The *buffer* is an object of its own, and the collector scans it when it has been marked, without asking
//! for any lock. So while a collector may be at work, the words of elements in which pointers lie are
//! written atomically, and what they held before goes to the barrier buffer: for each such word the
//! snapshot's pointer is either still there when the collector comes, or has been handed over. That holds for
//! everything that overwrites: replacing, clearing, and moving elements within the buffer, where an element
//! could slip from a part that is not scanned yet into one that is. The collector never reads other words, so
//! these are written plainly. The exchange need not be one atomic step, as it is in a
//! [`GcCell`](crate::GcCell): there is only one writer, so nobody else overwrites the same word.
//!
//! An operation on many elements asks once whether anybody looks. If so, it writes them one after the other like this
//! ([`Shading`]), and each word's old value is handed over, though the vector may still hold it at another place:
//! turned around or sorted while it is scanned, an element could be where the collector has been when it comes, and
//! where it comes when it has been there. Only a word that is to hold what it holds already loses nothing.
//!
//! A closure without a write barrier runs while no collector scans, from its beginning to its end, and
//! writes plainly.
//!
//! # Why nothing is lost
//! Snapshot: what the snapshot reaches through the container it reaches through the pointer to a buffer B.
//! Who takes the lock to change the container hands over B (the barrier of the lock). So B is marked
//! whatever becomes of the container, and the pointers in B are found by scanning it or have been handed over
//! when they were overwritten. A new buffer may be black, which is never scanned: what is written into it
//! the closure holds, and all that a closure holds is marked by the end of the cycle. The old buffer is handed
//! over once more when it is replaced; that is not needed with the containers and locks that there are, and
//! costs a push for each growth.
//!
//! # Safety
//! - F1. `start` is null, and the capacity 0 (or anything, for elements without a size), or it is the first
//!   element of a slice of `capacity` elements in the heap of the brand, which the closure holds that has
//!   the container.
//! - F2. Pointer words of all elements up to the capacity hold null or the address of an object of that heap, at
//!   all times. (Elements are `Copy`, so they have no interior that changes by itself.)
//! - F3. While the closure has the write barrier, pointer words change as said above.
#![allow(unsafe_code)]

use crate::gc::Invariant;
use crate::mutator::Mutator;
use crate::trace::{Trace, Tracer};
use core::marker::PhantomData;
use core::mem::{MaybeUninit, offset_of};
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering};
use spanheap_core::addr::{Addr, WORD_BYTES};
use spanheap_core::heap::OutOfMemory;
use spanheap_core::mutator::Shading;
use spanheap_core::span::layout::Shape;

/// Storage for elements of `T` in the heap; see the top of the file. It does not know how many there are.
pub(crate) struct Buffer<'gc, T> {
    start: Option<NonNull<T>>,
    capacity: usize,
    /// Invariant, as a cell is: what is put in through one type is taken out through the same.
    _holds: PhantomData<fn(T) -> T>,
    _brand: Invariant<'gc>,
}

// SAFETY: sharing the buffer shares its elements, and so does sending it, since the buffer itself may be
// reached by others no more than by one.
unsafe impl<T: Send + Sync> Send for Buffer<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Buffer<'_, T> {}

impl<T> Buffer<'_, T> {
    /// No storage.
    pub(crate) const fn empty() -> Self {
        let capacity = if size_of::<T>() == 0 { usize::MAX } else { 0 };
        Buffer { start: None, capacity, _holds: PhantomData, _brand: PhantomData }
    }

    /// How many elements there is room for.
    #[inline(always)]
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Where the elements are.
    #[inline(always)]
    pub(crate) fn start(&self) -> NonNull<T> {
        self.start.unwrap_or(NonNull::dangling())
    }
}

impl<'gc, T: Trace + Copy + Send + Sync + 'gc> Buffer<'gc, T> {
    /// The words of an element in which pointers lie.
    pub(crate) const POINTERS: u64 = match T::SHAPE {
        Shape::NoScan => 0,
        Shape::Words(mask) => {
            assert!(size_of::<T>() % WORD_BYTES == 0, "pointers lie in whole words");
            mask
        }
        Shape::Opaque => panic!(
            "elements of a GcVec or GcHashMap are scanned without asking them, so their `Gc`s lie at \
             fixed words: no enum that may hold one but `Option<Gc<..>>`, no pointer behind the 64th word. \
             Put such a value in an object of its own and its `Gc` into the container, or use a \
             collection of the standard library in a GcMutex"
        ),
    };

    /// Whether a collector may read elements while this closure is open.
    #[inline(always)]
    fn is_watched(mc: &Mutator<'gc>) -> bool {
        Self::POINTERS != 0 && mc.core().is_buffering()
    }

    /// Whether elements may be changed through a plain reference during this closure.
    #[inline(always)]
    pub(crate) fn is_plain(mc: &Mutator<'gc>) -> bool {
        !Self::is_watched(mc)
    }

    /// A new buffer with room for `capacity` elements. Pointer words are null; if `zeroed`, all bytes are zero.
    pub(crate) fn try_new(
        mc: &Mutator<'gc>,
        capacity: usize,
        zeroed: bool,
    ) -> Result<Self, OutOfMemory> {
        let Some(start) = Self::allocate(mc, capacity, zeroed)? else {
            return Ok(Buffer::empty());
        };
        // SAFETY: F2: pointer words are null, so the object may be found.
        unsafe { mc.core().publish(start.cast()) };
        Ok(Self::at_start(start, capacity))
    }

    fn at_start(start: NonNull<T>, capacity: usize) -> Self {
        Buffer { start: Some(start), capacity, _holds: PhantomData, _brand: PhantomData }
    }

    /// A slot for a buffer, which is not published yet; `None` if none is needed.
    fn allocate(
        mc: &Mutator<'gc>,
        capacity: usize,
        zeroed: bool,
    ) -> Result<Option<NonNull<T>>, OutOfMemory> {
        if size_of::<T>() == 0 || capacity == 0 {
            return Ok(None);
        }
        let slot = mc.try_slice_slot::<T>(capacity, zeroed || Self::POINTERS != 0)?;
        Ok(Some(slot.cast()))
    }

    /// How many elements fit into the slot that `capacity` elements get.
    pub(crate) fn roomy(capacity: usize) -> usize {
        Mutator::slice_room::<T>(capacity)
    }

    /// A new buffer that begins with the first `len` elements of this one.
    ///
    /// # Safety
    /// These elements are initialised, and `len <= capacity`.
    pub(crate) unsafe fn try_copy(
        &self,
        mc: &Mutator<'gc>,
        len: usize,
        capacity: usize,
    ) -> Result<Self, OutOfMemory> {
        debug_assert!(len <= capacity && len <= self.capacity);
        let Some(start) = Self::allocate(mc, capacity, false)? else {
            return Ok(Buffer::empty());
        };
        // SAFETY: F1 here, room for more there, and nobody knows the new slot yet.
        unsafe { start.copy_from_nonoverlapping(self.start(), len) };
        // SAFETY: F2: copies of pointer words, and null behind them.
        unsafe { mc.core().publish(start.cast()) };
        Ok(Self::at_start(start, capacity))
    }

    /// Uses another buffer from here on.
    pub(crate) fn replace_by(&mut self, mc: &Mutator<'gc>, new: Buffer<'gc, T>) {
        let old = core::mem::replace(self, new);
        if let (true, Some(start)) = (mc.core().is_buffering(), old.start) {
            // SAFETY: S1, S2: F1, and the closure has just taken it out of the container.
            unsafe { mc.core().shade(Addr::of(start.as_ptr())) };
        }
    }

    /// The place of an element.
    ///
    /// # Safety
    /// `index <= capacity`.
    #[inline(always)]
    unsafe fn place(&self, index: usize) -> *mut T {
        debug_assert!(index <= self.capacity);
        // SAFETY: the caller's promise.
        unsafe { self.start().as_ptr().add(index) }
    }

    /// Writes the element at `index`, whatever was there.
    ///
    /// # Safety
    /// `index < capacity`. `value` points to as many bytes as a `T` has, aligned, whose pointer words are
    /// null or `Gc`s of this brand, and which are not part of this buffer, or are another element of it.
    #[inline(always)]
    pub(crate) unsafe fn put(&mut self, mc: &Mutator<'gc>, index: usize, value: *const T) {
        // SAFETY: the caller's promise.
        let place = unsafe { self.place(index) };
        if Self::is_watched(mc) {
            // SAFETY: the caller's promise.
            unsafe { Self::put_watched(mc, place, value) };
        } else {
            // SAFETY: the caller's promise; nobody else looks. (`copy`: it may be the very same place.)
            unsafe { place.copy_from(value, 1) };
        }
    }

    /// # Safety
    /// As [`Buffer::put`], with the place of the index.
    unsafe fn put_watched(mc: &Mutator<'gc>, place: *mut T, value: *const T) {
        // SAFETY: S3: `overwrite` does nothing but add to it.
        let mut shading = unsafe { mc.core().shading() };
        // SAFETY: the caller's promise.
        unsafe { Self::overwrite(&mut shading, place, value) };
    }

    /// Moves `count` elements from index `from` on to where index `to` is; the two ranges may overlap. What
    /// was there is overwritten, and what the places held that are left stays there, too.
    ///
    /// # Safety
    /// Both ranges lie within the capacity.
    pub(crate) unsafe fn shift(&mut self, mc: &Mutator<'gc>, from: usize, to: usize, count: usize) {
        // SAFETY: the caller's promise.
        let source = unsafe { self.place(from) };
        // SAFETY: the caller's promise.
        let target = unsafe { self.place(to) };
        if !Self::is_watched(mc) {
            // SAFETY: the caller's promise; nobody else looks.
            unsafe { target.copy_from(source, count) };
            return;
        }
        // What is still to be moved is not overwritten: upwards from the end, downwards from the start.
        let up = to > from;
        let steps = (0..count).map(|step| if up { count - 1 - step } else { step });
        // SAFETY: elements of this buffer (F2), within both ranges.
        unsafe {
            Self::put_all_watched(
                mc,
                steps,
                |at| target.wrapping_add(at),
                |at| source.wrapping_add(at),
            )
        };
    }

    /// Writes the elements from `index` on, whatever was there, as copies of the `count` elements at `values`.
    ///
    /// # Safety
    /// `index + count <= capacity`. As [`Buffer::put`] for each of them, and none is part of this buffer.
    #[inline]
    pub(crate) unsafe fn put_all(
        &mut self,
        mc: &Mutator<'gc>,
        index: usize,
        values: *const T,
        count: usize,
    ) {
        // SAFETY: the caller's promise.
        let target = unsafe { self.place(index) };
        if !Self::is_watched(mc) {
            // SAFETY: the caller's promise; nobody else looks.
            unsafe { target.copy_from_nonoverlapping(values, count) };
            return;
        }
        // SAFETY: the caller's promise.
        unsafe {
            Self::put_all_watched(
                mc,
                0..count,
                |at| target.wrapping_add(at),
                |at| values.wrapping_add(at),
            )
        };
    }

    /// Writes `value` into all elements of the range, whatever was there.
    ///
    /// # Safety
    /// The range lies within the capacity. `value` as with [`Buffer::put`], and it is not part of this buffer.
    #[inline]
    pub(crate) unsafe fn fill(&mut self, mc: &Mutator<'gc>, range: Range<usize>, value: *const T) {
        // SAFETY: the caller's promise.
        let first = unsafe { self.place(range.start) };
        if !Self::is_watched(mc) {
            // SAFETY: the caller's promise; nobody else looks. There is a value of the type, as many bytes as it has.
            let places = unsafe {
                core::slice::from_raw_parts_mut(first.cast::<MaybeUninit<T>>(), range.len())
            };
            // SAFETY: the value has these bytes.
            places.fill(unsafe { value.cast::<MaybeUninit<T>>().read() });
            return;
        }
        // SAFETY: the caller's promise.
        unsafe {
            Self::put_all_watched(mc, 0..range.len(), |at| first.wrapping_add(at), |_| value)
        };
    }

    /// Turns the first `len` elements around.
    ///
    /// # Safety
    /// They are initialised, and `len <= capacity`.
    #[inline]
    pub(crate) unsafe fn reverse(&mut self, mc: &Mutator<'gc>, len: usize) {
        let first = self.start().as_ptr();
        if !Self::is_watched(mc) {
            // SAFETY: the caller's promise; nobody else looks.
            unsafe { core::slice::from_raw_parts_mut(first, len) }.reverse();
            return;
        }
        // SAFETY: S3: `overwrite` does nothing but add to it.
        let mut shading = unsafe { mc.core().shading() };
        for step in 0..len / 2 {
            let (low, high) = (first.wrapping_add(step), first.wrapping_add(len - 1 - step));
            // SAFETY: an element, by the caller's promise.
            let left = unsafe { low.read() };
            // SAFETY: another one.
            let right = unsafe { high.read() };
            // SAFETY: elements of this buffer (F2).
            unsafe { Self::overwrite(&mut shading, low, &right) };
            // SAFETY: as above.
            unsafe { Self::overwrite(&mut shading, high, &left) };
        }
    }

    /// F3 for many elements: writes to each place that `steps` name what is at its source then.
    ///
    /// # Safety
    /// For each step, as [`Buffer::put`] with that place and that source.
    #[inline(never)]
    unsafe fn put_all_watched(
        mc: &Mutator<'gc>,
        steps: impl Iterator<Item = usize>,
        place: impl Fn(usize) -> *mut T,
        source: impl Fn(usize) -> *const T,
    ) {
        // SAFETY: S3: `overwrite` does nothing but add to it.
        let mut shading = unsafe { mc.core().shading() };
        for step in steps {
            // SAFETY: the caller's promise.
            unsafe { Self::overwrite(&mut shading, place(step), source(step)) };
        }
    }

    /// F3: writes an element.
    ///
    /// # Safety
    /// As [`Buffer::put`], with the place of the index.
    #[inline(always)]
    unsafe fn overwrite(shading: &mut Shading<'_>, place: *mut T, value: *const T) {
        let from = value.cast::<MaybeUninit<usize>>();
        let to = place.cast::<MaybeUninit<usize>>();
        for word in 0..size_of::<T>() / WORD_BYTES {
            // SAFETY: a word of the value.
            let from = unsafe { from.add(word) };
            // SAFETY: the same word of the place.
            let to = unsafe { to.add(word) };
            if word < 64 && Self::POINTERS >> word & 1 != 0 {
                // SAFETY: a pointer word of the value holds a pointer or null.
                let new = unsafe { from.cast::<*mut u8>().read() };
                // SAFETY: F2 of the place, and the caller's promise about the value.
                unsafe { Self::exchange(shading, to.cast(), new) };
            } else {
                // SAFETY: a word of the place, which is read by nobody but who has the container.
                unsafe { to.copy_from(from, 1) };
            }
        }
    }

    /// F3: stores into one pointer word. What it holds already is not lost by that, and not handed over.
    ///
    /// # Safety
    /// `field` is a pointer word of an element; `new` is null or an object that the closure holds.
    #[inline(always)]
    unsafe fn exchange(shading: &mut Shading<'_>, field: *mut *mut u8, new: *mut u8) {
        // SAFETY: an aligned word of the buffer, which is written only here as long as anybody else reads.
        let field = unsafe { AtomicPtr::from_ptr(field) };
        let old = field.load(Ordering::Relaxed);
        // Release: whoever loads the pointer sees the object that it points to.
        field.store(new, Ordering::Release);
        let lost = if old == new { core::ptr::null_mut() } else { old };
        // SAFETY: S1: F2. S2: it was just taken out.
        unsafe { shading.add(Addr::of(lost)) };
    }

    /// Makes pointer words of elements that are not used any more null, so that they retain nothing.
    ///
    /// # Safety
    /// The range lies within the capacity.
    #[inline]
    pub(crate) unsafe fn clear(&mut self, mc: &Mutator<'gc>, range: Range<usize>) {
        if Self::POINTERS == 0 {
            return;
        }
        // SAFETY: the caller's promise.
        let first = unsafe { self.place(range.start) };
        if !Self::is_watched(mc) {
            // SAFETY: the caller's promise; nobody else looks.
            unsafe { first.write_bytes(0, range.len()) };
            return;
        }
        // SAFETY: the caller's promise.
        unsafe { Self::clear_watched(mc, first, range.len()) };
    }

    /// F3: makes the pointer words of `count` elements null.
    ///
    /// # Safety
    /// They are elements of this buffer.
    #[inline(never)]
    unsafe fn clear_watched(mc: &Mutator<'gc>, first: *mut T, count: usize) {
        // SAFETY: S3: `exchange` does nothing but add to it.
        let mut shading = unsafe { mc.core().shading() };
        // A number that the compiler knows: for a pointer there is no inner loop.
        let words = (size_of::<T>() / WORD_BYTES).min(64);
        for index in 0..count {
            for word in (0..words).filter(|word| Self::POINTERS >> word & 1 != 0) {
                // SAFETY: the caller's promise.
                let element = unsafe { first.add(index) };
                // SAFETY: a word of the element.
                let field = unsafe { element.cast::<*mut u8>().add(word) };
                // SAFETY: a pointer word; null is nobody's.
                unsafe { Self::exchange(&mut shading, field, core::ptr::null_mut()) };
            }
        }
    }
}

// SAFETY: the one pointer is reported: null, or the start of an object (F1). It changes only through `&mut`,
// which nobody has while a tracer reads. In a type without size it is null.
unsafe impl<T> Trace for Buffer<'_, T> {
    const SHAPE: Shape = Shape::NoScan.with(offset_of!(Self, start), Shape::Words(1));
    const EXACT: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        let target = self.start.map_or(Addr::NULL, |start| Addr::of(start.as_ptr()));
        // SAFETY: E1, E2: F1.
        unsafe { tracer.edge(target) };
    }
}
