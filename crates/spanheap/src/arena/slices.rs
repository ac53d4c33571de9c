//! Slices and strings in an arena.
//!
//! A slice whose length is not known beforehand is built at the top of the arena: as long as nobody else takes memory
//! there, it grows where it is. What its last growth was too generous with is given back.
//!
//! # Safety
//! R1 and R2 of the arena: blocks are as large as their slices, and all elements are written before a reference is made.
#![allow(unsafe_code)]

use super::error::ArenaError;
use super::{Arena, assert_no_destructor, granted, owed};
use core::alloc::Layout;
use core::mem::needs_drop;
use core::ptr::NonNull;

/// The layout of a slice.
#[inline(always)]
fn layout_of<T>(len: usize) -> Result<Layout, ArenaError> {
    Layout::array::<T>(len).map_err(|_| ArenaError::TooLarge)
}

/// Elements that are being written; the first `len` are.
struct Growing<'a, 'env, T> {
    arena: &'a Arena<'env>,
    start: NonNull<T>,
    len: usize,
    capacity: usize,
}

impl<'a, 'env, T> Growing<'a, 'env, T> {
    fn new(arena: &'a Arena<'env>, capacity: usize) -> Result<Self, ArenaError> {
        let start = arena.try_block(layout_of::<T>(capacity)?)?.cast();
        let capacity = if size_of::<T>() == 0 { usize::MAX } else { capacity };
        Ok(Growing { arena, start, len: 0, capacity })
    }

    #[inline]
    fn push(&mut self, value: T) -> Result<(), ArenaError> {
        if self.len == self.capacity {
            self.grow()?;
        }
        // SAFETY: within the capacity.
        let place = unsafe { self.start.add(self.len) };
        // SAFETY: R1.
        unsafe { place.write(value) };
        self.len += 1;
        Ok(())
    }

    #[cold]
    fn grow(&mut self) -> Result<(), ArenaError> {
        let capacity = self.len.checked_mul(2).ok_or(ArenaError::TooLarge)?.max(4);
        let layout = layout_of::<T>(capacity)?;
        let old = self.capacity * size_of::<T>();
        // SAFETY: M2: the block is ours, and has that size.
        if !(old > 0 && unsafe { self.arena.memory.resize(self.start.cast(), old, layout.size()) })
        {
            let new = self.arena.try_block(layout)?.cast::<T>();
            // SAFETY: the elements are written, and the new block is another one with room for more.
            unsafe { new.copy_from_nonoverlapping(self.start, self.len) };
            if old > 0 {
                // SAFETY: M2: the block is ours, has that size, and is not used any more.
                unsafe { self.arena.memory.give_back(self.start.cast(), old) };
            }
            self.start = new;
        }
        self.capacity = capacity;
        Ok(())
    }

    /// The slice, and the rest of its block is given back if that is at the top.
    fn finish(self) -> &'a mut [T] {
        let (old, new) = (self.capacity.wrapping_mul(size_of::<T>()), self.len * size_of::<T>());
        if new < old && size_of::<T>() > 0 {
            // SAFETY: M2: the block is ours and has that size.
            let _ = unsafe { self.arena.memory.resize(self.start.cast(), old, new) };
        }
        // SAFETY: R1, R2: that many elements are written.
        unsafe { NonNull::slice_from_raw_parts(self.start, self.len).as_mut() }
    }
}

impl<'env> Arena<'env> {
    /// Copies a slice into the arena.
    ///
    /// # Panics
    /// When there is no room.
    #[inline]
    #[track_caller]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn alloc_slice_copy<T: Copy>(&self, values: &[T]) -> &mut [T] {
        granted(self.try_alloc_slice_copy(values))
    }

    /// Copies a slice into the arena, if there is room.
    ///
    /// # Errors
    /// As [`Arena::try_alloc`].
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn try_alloc_slice_copy<T: Copy>(&self, values: &[T]) -> Result<&mut [T], ArenaError> {
        let start = self.try_block(Layout::for_value(values))?.cast::<T>();
        // SAFETY: the block is as large as the slice, and new.
        unsafe { start.copy_from_nonoverlapping(NonNull::from(values).cast(), values.len()) };
        // SAFETY: R1, R2.
        Ok(unsafe { NonNull::slice_from_raw_parts(start, values.len()).as_mut() })
    }

    /// Copies a string into the arena.
    ///
    /// # Panics
    /// When there is no room.
    #[inline]
    #[track_caller]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn alloc_str(&self, text: &str) -> &mut str {
        granted(self.try_alloc_str(text))
    }

    /// Copies a string into the arena, if there is room.
    ///
    /// # Errors
    /// As [`Arena::try_alloc`].
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn try_alloc_str(&self, text: &str) -> Result<&mut str, ArenaError> {
        let bytes = self.try_alloc_slice_copy(text.as_bytes())?;
        // SAFETY: the bytes were copied from a string.
        Ok(unsafe { core::str::from_utf8_unchecked_mut(bytes) })
    }

    /// Clones the elements of a slice into the arena.
    ///
    /// # Panics
    /// When there is no room. A panic of `clone` is passed on.
    #[inline]
    #[track_caller]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn alloc_slice_clone<T: Clone>(&self, values: &[T]) -> &mut [T] {
        granted(self.try_alloc_slice_clone(values))
    }

    /// Clones the elements of a slice into the arena, if there is room.
    ///
    /// # Errors
    /// As [`Arena::try_alloc`]; nothing has been cloned then.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn try_alloc_slice_clone<T: Clone>(&self, values: &[T]) -> Result<&mut [T], ArenaError> {
        self.try_alloc_slice_fill_with(values.len(), |index| values[index].clone())
    }

    /// A slice of `len` elements that are made one after the other, from their index.
    ///
    /// # Panics
    /// When there is no room. A panic of `make` is passed on.
    #[inline]
    #[track_caller]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn alloc_slice_fill_with<T>(&self, len: usize, make: impl FnMut(usize) -> T) -> &mut [T] {
        granted(self.try_alloc_slice_fill_with(len, make))
    }

    /// A slice of `len` elements that are made one after the other, if there is room.
    ///
    /// # Errors
    /// As [`Arena::try_alloc`]; `make` has not been called then.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn try_alloc_slice_fill_with<T>(
        &self,
        len: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Result<&mut [T], ArenaError> {
        const { assert_no_destructor::<T>() };
        let start = self.try_block(layout_of::<T>(len)?)?.cast::<T>();
        for index in 0..len {
            // SAFETY: the block has room for `len` elements.
            let place = unsafe { start.add(index) };
            // SAFETY: R1.
            unsafe { place.write(make(index)) };
        }
        // SAFETY: R1, R2.
        Ok(unsafe { NonNull::slice_from_raw_parts(start, len).as_mut() })
    }

    /// A slice of `len` default values.
    ///
    /// # Panics
    /// When there is no room.
    #[inline]
    #[track_caller]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn alloc_slice_fill_default<T: Default>(&self, len: usize) -> &mut [T] {
        granted(self.try_alloc_slice_fill_default(len))
    }

    /// A slice of `len` default values, if there is room.
    ///
    /// # Errors
    /// As [`Arena::try_alloc`].
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn try_alloc_slice_fill_default<T: Default>(
        &self,
        len: usize,
    ) -> Result<&mut [T], ArenaError> {
        self.try_alloc_slice_fill_with(len, |_| T::default())
    }

    /// A slice of what an iterator gives, however much that is. If the iterator knows how much, nothing is copied; if
    /// it does not, and uses the arena itself, elements may have to be copied.
    ///
    /// # Panics
    /// When there is no room. A panic of the iterator is passed on.
    #[inline]
    #[track_caller]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn alloc_slice_fill_iter<T>(&self, values: impl IntoIterator<Item = T>) -> &mut [T] {
        granted(self.try_alloc_slice_fill_iter(values))
    }

    /// A slice of what an iterator gives, if there is room.
    ///
    /// # Errors
    /// As [`Arena::try_alloc`]. The iterator may have given some elements then.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn try_alloc_slice_fill_iter<T>(
        &self,
        values: impl IntoIterator<Item = T>,
    ) -> Result<&mut [T], ArenaError> {
        const { assert_no_destructor::<T>() };
        let values = values.into_iter();
        let mut slice = Growing::<T>::new(self, values.size_hint().0)?;
        for value in values {
            slice.push(value)?;
        }
        Ok(slice.finish())
    }

    /// A slice of values with destructors, which an iterator gives: see [`Arena::alloc_drop`]. The elements are dropped in
    /// their order.
    ///
    /// # Panics
    /// When there is no room, and when the iterator gives another number of values than its length. A panic of the
    /// iterator is passed on; what it has given is dropped with the arena.
    #[inline]
    #[track_caller]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn alloc_drop_slice<T, I>(&self, values: I) -> &mut [T]
    where
        T: 'env,
        I: IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    {
        granted(self.try_alloc_drop_slice(values))
    }

    /// A slice of values with destructors, if there is room.
    ///
    /// # Errors
    /// As [`Arena::try_alloc`]; no value has been taken from the iterator then.
    ///
    /// # Panics
    /// When the iterator gives another number of values than its length, as [`Arena::alloc_drop_slice`].
    #[inline]
    #[track_caller]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn try_alloc_drop_slice<T, I>(&self, values: I) -> Result<&mut [T], ArenaError>
    where
        T: 'env,
        I: IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    {
        let values = values.into_iter();
        let len = values.len();
        let layout = owed::layout_of::<T>(len).ok_or(ArenaError::TooLarge)?;
        let link = self.try_block(layout)?.cast();
        // SAFETY: the block is for a link and `len` values.
        let start = unsafe { owed::values::<T>(link) };
        // SAFETY: D1: there are no values yet.
        unsafe { self.owed.push::<T>(link, 0) };
        let mut done = 0;
        for value in values {
            assert!(done < len, "an iterator gave more values than its length, {len}");
            // SAFETY: the block has room for `len` values.
            let place = unsafe { start.add(done) };
            // SAFETY: R1.
            unsafe { place.write(value) };
            done += 1;
            if needs_drop::<T>() {
                // SAFETY: D1: one more value is initialised.
                unsafe { owed::set_count(link, done) };
            }
        }
        assert!(done == len, "an iterator gave {done} values, and its length was {len}");
        // SAFETY: R1, R2.
        Ok(unsafe { NonNull::slice_from_raw_parts(start, len).as_mut() })
    }
}
