//! Operations that change many elements at once.
//!
//! Each of them asks once whether a collector may be looking, and has its loop in [`Buffer`], where words are written
//! and what they held is handed over: see the top of [`crate::buffer`]. Between two elements no code of the user's runs;
//! where it has to ([`GcVec::retain`], [`GcVec::edit`]), whole operations of the buffer lie between its calls.
//!
//! What does not move one element to the place of another in a simple order works on a copy while somebody looks
//! ([`GcVec::edit`]), and its result is written as one operation, in which elements that are what they were cost nothing
//! but the comparison.
//!
//! # Safety
//! X1 and X2 of the vector.
#![allow(unsafe_code)]

use super::{GcVec, expect};
use crate::buffer::Buffer;
use crate::mutator::Mutator;
use crate::trace::Trace;
use core::cmp::Ordering;
use core::ops::Range;
use spanheap_core::heap::OutOfMemory;

impl<'gc, T: Trace + Copy + Send + Sync + 'gc> GcVec<'gc, T> {
    /// Makes the length `len`, with copies of `value` where elements are missing.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn resize(&mut self, mc: &Mutator<'gc>, len: usize, value: T) {
        self.truncate(mc, len);
        self.reserve(mc, len - self.len);
        // SAFETY: there is room; a value of the closure.
        unsafe { self.buffer.fill(mc, self.len..len, &value) };
        self.len = len;
    }

    /// Appends a copy of a slice.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn extend_from_slice(&mut self, mc: &Mutator<'gc>, values: &[T]) {
        expect(self.try_extend_from_slice(mc, values));
    }

    /// Appends a copy of a slice, if there is memory.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`]; nothing has changed then.
    pub fn try_extend_from_slice(
        &mut self,
        mc: &Mutator<'gc>,
        values: &[T],
    ) -> Result<(), OutOfMemory> {
        self.try_reserve(mc, values.len())?;
        // SAFETY: there is room for all of them, and while this vector is borrowed alone they are not its own.
        unsafe { self.buffer.put_all(mc, self.len, values.as_ptr(), values.len()) };
        self.len += values.len();
        Ok(())
    }

    /// Makes the elements from `index` on copies of those of a slice.
    ///
    /// ```
    /// # use spanheap::{GcVec, Heap};
    /// # Heap::new().enter(|mc| {
    /// let mut numbers = GcVec::from_slice(mc, &[1, 2, 3, 4]);
    /// numbers.copy_from_slice(mc, 1, &[7, 8]);
    /// assert_eq!(*numbers, [1, 7, 8, 4]);
    /// # });
    /// ```
    ///
    /// # Panics
    /// When there are not so many elements.
    #[track_caller]
    pub fn copy_from_slice(&mut self, mc: &Mutator<'gc>, index: usize, values: &[T]) {
        let places = self.as_slice()[index..].len();
        assert!(values.len() <= places, "{} values are copied to {places} elements", values.len());
        // SAFETY: there are so many elements, and while this vector is borrowed alone the values are not its own.
        unsafe { self.buffer.put_all(mc, index, values.as_ptr(), values.len()) };
    }

    /// Makes all elements `value`.
    pub fn fill(&mut self, mc: &Mutator<'gc>, value: T) {
        // SAFETY: elements; a value of the closure.
        unsafe { self.buffer.fill(mc, 0..self.len, &value) };
    }

    /// Turns the order of the elements around.
    pub fn reverse(&mut self, mc: &Mutator<'gc>) {
        // SAFETY: X1.
        unsafe { self.buffer.reverse(mc, self.len) };
    }

    /// Takes the elements of a range away and moves those behind it down.
    ///
    /// ```
    /// # use spanheap::{GcVec, Heap};
    /// # Heap::new().enter(|mc| {
    /// let mut numbers = GcVec::from_slice(mc, &[1, 2, 3, 4]);
    /// numbers.remove_range(mc, 1..3);
    /// assert_eq!(*numbers, [1, 4]);
    /// # });
    /// ```
    ///
    /// # Panics
    /// When the range is not one of elements.
    #[track_caller]
    pub fn remove_range(&mut self, mc: &Mutator<'gc>, range: Range<usize>) {
        let count = self.as_slice()[range.clone()].len();
        // SAFETY: the elements behind the range, and they begin behind its start.
        unsafe { self.buffer.shift(mc, range.end, range.start, self.len - range.end) };
        self.truncate(mc, self.len - count);
    }

    /// Keeps the elements for which `keep` is true, in their order. If it panics, those that it has not seen stay.
    pub fn retain(&mut self, mc: &Mutator<'gc>, mut keep: impl FnMut(&T) -> bool) {
        let mut moving = Moving { vec: self, mc, kept: 0, from: 0 };
        let mut seen = 0;
        while let Some(value) = moving.vec.as_slice().get(seen) {
            if !keep(value) {
                moving.close_gap(seen);
                moving.from = seen + 1;
            }
            seen += 1;
        }
    }

    /// Lets `change` work on the elements as a slice of the usual kind: sort, rotate, fill, iterate with
    /// `&mut`. While a cycle runs this works on a copy, which replaces the elements at the end. When `change`
    /// panics, each element is what it was, or what `change` had made of it.
    ///
    /// ```
    /// # use spanheap::{GcVec, Heap};
    /// # Heap::new().enter(|mc| {
    /// let mut numbers = GcVec::from_slice(mc, &[1, 2, 3, 4]);
    /// numbers.edit(mc, |numbers| numbers.rotate_left(1));
    /// assert_eq!(*numbers, [2, 3, 4, 1]);
    /// # });
    /// ```
    pub fn edit<R>(&mut self, mc: &Mutator<'gc>, change: impl FnOnce(&mut [T]) -> R) -> R {
        if Buffer::<T>::is_plain(mc) {
            // SAFETY: X1; nobody else looks at the elements during this closure (F3).
            return change(unsafe {
                core::slice::from_raw_parts_mut(self.buffer.start().as_ptr(), self.len)
            });
        }
        let mut copy = self.as_slice().to_vec();
        let result = change(&mut copy);
        // SAFETY: as many elements as there are; values of the closure, and not in the heap.
        unsafe { self.buffer.put_all(mc, 0, copy.as_ptr(), copy.len()) };
        result
    }

    /// Sorts the elements; equal ones keep their order.
    pub fn sort(&mut self, mc: &Mutator<'gc>)
    where
        T: Ord,
    {
        self.edit(mc, <[T]>::sort);
    }

    /// Sorts the elements by a comparison; equal ones keep their order.
    pub fn sort_by(&mut self, mc: &Mutator<'gc>, compare: impl FnMut(&T, &T) -> Ordering) {
        self.edit(mc, |values| values.sort_by(compare));
    }

    /// Sorts the elements by a key; equal ones keep their order.
    pub fn sort_by_key<K: Ord>(&mut self, mc: &Mutator<'gc>, key: impl FnMut(&T) -> K) {
        self.edit(mc, |values| values.sort_by_key(key));
    }
}

/// What [`GcVec::retain`] has done so far: the first `kept` elements are where they stay, and those from `from` on have
/// not been moved. Dropped, it closes the gap between the two.
struct Moving<'a, 'gc, T: Trace + Copy + Send + Sync + 'gc> {
    vec: &'a mut GcVec<'gc, T>,
    mc: &'a Mutator<'gc>,
    kept: usize,
    from: usize,
}

impl<T: Trace + Copy + Send + Sync> Moving<'_, '_, T> {
    /// Moves the elements from `from` up to `until` down to those that are kept.
    fn close_gap(&mut self, until: usize) {
        let count = until - self.from;
        if self.kept != self.from {
            // SAFETY: both are elements.
            unsafe { self.vec.buffer.shift(self.mc, self.from, self.kept, count) };
        }
        self.kept += count;
        self.from = until;
    }
}

impl<T: Trace + Copy + Send + Sync> Drop for Moving<'_, '_, T> {
    fn drop(&mut self) {
        self.close_gap(self.vec.len);
        self.vec.truncate(self.mc, self.kept);
    }
}
