//! [`GcVec`]: a growable array whose elements lie in the heap.
//!
//! What the collector sees of it and why that is right is in [`crate::buffer`]. Here is what the elements
//! mean.
//!
//! | file | what |
//! |---|---|
//! | `vec` | the vector; one element, the end, room |
//! | `bulk` | operations on many elements |
//!
//! # Safety
//! - X1. The first `len` elements are initialised, and `len` is at most the capacity.
//! - X2. Pointer words behind them are null, so what was removed is retained by nobody.
#![allow(unsafe_code)]

mod bulk;

use crate::buffer::Buffer;
use crate::mutator::Mutator;
use crate::trace::{Trace, Tracer};
use core::fmt;
use core::hash::{Hash, Hasher};
use core::mem::{offset_of, size_of};
use core::ops::Deref;
use spanheap_core::heap::OutOfMemory;
use spanheap_core::span::layout::Shape;

/// A `Vec` whose elements lie in the heap.
///
/// What it holds counts for the heap's goal and its limit to the byte, is scanned in pieces, and needs no
/// destructor. It can be a local value in a closure, a field of an object that does not change any more, or
/// changed by all threads in a [`GcMutex`](crate::GcMutex) or [`GcRwLock`](crate::GcRwLock), where taking the
/// lock costs nothing that grows with its length.
///
/// - It is read as the slice that it dereferences to. Methods that change it take the mutator.
/// - Elements are `Copy`, and their `Gc`s lie at fixed words: numbers, `Gc<T>`, `Option<Gc<T>>`, `Gc<str>`,
///   tuples, arrays and structs of these. Other types are refused by the compiler:
///
/// ```compile_fail
/// # use spanheap::{GcVec, Heap};
/// Heap::new().enter(|mc| {
///     let mut names = GcVec::new();
///     names.push(mc, String::from("has a destructor")); // not `Copy`
/// });
/// ```
///
/// ```compile_fail,E0080
/// # use spanheap::{Gc, GcVec, Heap, Trace};
/// #[derive(Clone, Copy, Trace)]
/// enum Value<'gc> { Number(f64), Text(Gc<'gc, str>) } // has a `Gc` or not
/// Heap::new().enter(|mc| GcVec::new().push(mc, Value::Text(mc.alloc_str("one"))));
/// ```
///
/// - Where memory is short, methods that may need more panic, and leave everything as it was; those that begin
///   with `try_` return [`OutOfMemory`].
///
/// ```
/// use spanheap::{Gc, GcMutex, GcVec, Heap, Trace};
///
/// #[derive(Trace)]
/// struct Branch<'gc> {
///     leaves: GcMutex<'gc, GcVec<'gc, Gc<'gc, str>>>,
/// }
///
/// Heap::new().enter(|mc| {
///     let branch = mc.alloc(Branch { leaves: GcMutex::new(GcVec::new()) });
///     let mut leaves = branch.leaves.lock(mc);
///     leaves.extend(mc, ["maple", "oak", "ash"].map(|leaf| mc.alloc_str(leaf)));
///     leaves.sort(mc);
///     assert_eq!(leaves.iter().map(|leaf| leaf.len()).collect::<Vec<_>>(), [3, 5, 3]);
///     assert_eq!(leaves.pop(mc).as_deref(), Some("oak"));
/// });
/// ```
pub struct GcVec<'gc, T> {
    buffer: Buffer<'gc, T>,
    len: usize,
}

impl<T> GcVec<'_, T> {
    /// An empty array without storage.
    pub const fn new() -> Self {
        GcVec { buffer: Buffer::empty(), len: 0 }
    }

    /// How many elements there is room for before more storage is needed.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// The elements.
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: X1. They change only through `&mut`; the collector only reads.
        unsafe { core::slice::from_raw_parts(self.buffer.start().as_ptr(), self.len) }
    }
}

impl<'gc, T: Trace + Copy + Send + Sync + 'gc> GcVec<'gc, T> {
    /// An empty array with room for `capacity` elements at least.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn with_capacity(mc: &Mutator<'gc>, capacity: usize) -> Self {
        expect(GcVec::try_with_capacity(mc, capacity))
    }

    /// An empty array with room for `capacity` elements at least, if there is memory.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`].
    pub fn try_with_capacity(mc: &Mutator<'gc>, capacity: usize) -> Result<Self, OutOfMemory> {
        let buffer = Buffer::try_new(mc, Buffer::<T>::roomy(capacity), false)?;
        Ok(GcVec { buffer, len: 0 })
    }

    /// A copy of a slice.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn from_slice(mc: &Mutator<'gc>, values: &[T]) -> Self {
        expect(GcVec::try_from_slice(mc, values))
    }

    /// A copy of a slice, if there is memory.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`].
    pub fn try_from_slice(mc: &Mutator<'gc>, values: &[T]) -> Result<Self, OutOfMemory> {
        let mut new = GcVec::new();
        new.try_extend_from_slice(mc, values)?;
        Ok(new)
    }

    /// The values of an iterator.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn from_iter(mc: &Mutator<'gc>, values: impl IntoIterator<Item = T>) -> Self {
        let mut new = GcVec::new();
        new.extend(mc, values);
        new
    }

    /// Makes room for `additional` more elements.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn reserve(&mut self, mc: &Mutator<'gc>, additional: usize) {
        expect(self.try_reserve(mc, additional));
    }

    /// Makes room for `additional` more elements, if there is memory.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`]; nothing has changed then.
    #[inline]
    pub fn try_reserve(&mut self, mc: &Mutator<'gc>, additional: usize) -> Result<(), OutOfMemory> {
        if additional > self.capacity() - self.len {
            self.grow(mc, additional)?;
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, mc: &Mutator<'gc>, additional: usize) -> Result<(), OutOfMemory> {
        // Elements without a size end at the largest number; others at the largest size, by a refusal.
        assert!(size_of::<T>() != 0, "a GcVec cannot count more elements than {}", usize::MAX);
        let needed = self.len.saturating_add(additional);
        let doubled = self.capacity().saturating_mul(2);
        let smallest = if size_of::<T>() == 1 { 16 } else { 4 };
        self.set_capacity(mc, needed.max(doubled).max(smallest))
    }

    /// Moves to a buffer with room for `capacity` elements, which are not less than there are.
    fn set_capacity(&mut self, mc: &Mutator<'gc>, capacity: usize) -> Result<(), OutOfMemory> {
        let capacity = Buffer::<T>::roomy(capacity);
        // SAFETY: X1.
        let new = unsafe { self.buffer.try_copy(mc, self.len, capacity) }?;
        self.buffer.replace_by(mc, new);
        Ok(())
    }

    /// Gives up storage that is not used, as far as a smaller slot does. Where memory is short, nothing changes.
    pub fn shrink_to_fit(&mut self, mc: &Mutator<'gc>) {
        if Buffer::<T>::roomy(self.len) < self.capacity() {
            // A refusal leaves everything as it is, and that is a vector with room to spare.
            let _ = self.set_capacity(mc, self.len);
        }
    }

    /// Puts an element at the end.
    ///
    /// # Panics
    /// When there is no room.
    #[inline]
    #[track_caller]
    pub fn push(&mut self, mc: &Mutator<'gc>, value: T) {
        expect(self.try_push(mc, value));
    }

    /// Puts an element at the end, if there is memory.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`]; nothing has changed then.
    #[inline]
    pub fn try_push(&mut self, mc: &Mutator<'gc>, value: T) -> Result<(), OutOfMemory> {
        if self.len == self.capacity() {
            self.grow(mc, 1)?;
        }
        // SAFETY: there is room; a value of the closure.
        unsafe { self.buffer.put(mc, self.len, &value) };
        self.len += 1;
        Ok(())
    }

    /// Takes the last element away.
    #[inline]
    pub fn pop(&mut self, mc: &Mutator<'gc>) -> Option<T> {
        let last = *self.as_slice().last()?;
        self.truncate(mc, self.len - 1);
        Some(last)
    }

    /// Puts an element at `index` and moves those from there on up by one.
    ///
    /// # Panics
    /// When `index` is greater than the length, and when there is no room.
    #[track_caller]
    pub fn insert(&mut self, mc: &Mutator<'gc>, index: usize, value: T) {
        expect(self.try_insert(mc, index, value));
    }

    /// Puts an element at `index` and moves those from there on up by one, if there is memory.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`]; nothing has changed then.
    ///
    /// # Panics
    /// When `index` is greater than the length.
    #[track_caller]
    pub fn try_insert(
        &mut self,
        mc: &Mutator<'gc>,
        index: usize,
        value: T,
    ) -> Result<(), OutOfMemory> {
        assert!(index <= self.len, "index {index} lies behind the end, {}", self.len);
        self.try_reserve(mc, 1)?;
        // SAFETY: there is room for one more.
        unsafe { self.buffer.shift(mc, index, index + 1, self.len - index) };
        // SAFETY: as above; a value of the closure.
        unsafe { self.buffer.put(mc, index, &value) };
        self.len += 1;
        Ok(())
    }

    /// Takes the element at `index` away and moves those behind it down by one.
    ///
    /// # Panics
    /// When there is no such element.
    #[track_caller]
    pub fn remove(&mut self, mc: &Mutator<'gc>, index: usize) -> T {
        let value = self.as_slice()[index];
        // SAFETY: the elements behind `index`, and there is one at `index`.
        unsafe { self.buffer.shift(mc, index + 1, index, self.len - index - 1) };
        self.truncate(mc, self.len - 1);
        value
    }

    /// Takes the element at `index` away and puts the last one in its place.
    ///
    /// # Panics
    /// When there is no such element.
    #[track_caller]
    pub fn swap_remove(&mut self, mc: &Mutator<'gc>, index: usize) -> T {
        let (value, last) = (self.as_slice()[index], self.as_slice()[self.len - 1]);
        // SAFETY: there is an element at `index`.
        unsafe { self.buffer.put(mc, index, &last) };
        self.truncate(mc, self.len - 1);
        value
    }

    /// Puts `value` in the place of the element at `index`, and returns that.
    ///
    /// # Panics
    /// When there is no such element.
    #[inline]
    #[track_caller]
    pub fn set(&mut self, mc: &Mutator<'gc>, index: usize, value: T) -> T {
        let old = self.as_slice()[index];
        // SAFETY: there is an element at `index`.
        unsafe { self.buffer.put(mc, index, &value) };
        old
    }

    /// Exchanges two elements.
    ///
    /// # Panics
    /// When one of them does not exist.
    #[track_caller]
    pub fn swap(&mut self, mc: &Mutator<'gc>, a: usize, b: usize) {
        let value = self.as_slice()[b];
        let other = self.set(mc, a, value);
        self.set(mc, b, other);
    }

    /// Takes away all elements from `len` on. The storage stays.
    #[inline]
    pub fn truncate(&mut self, mc: &Mutator<'gc>, len: usize) {
        if len < self.len {
            let old = core::mem::replace(&mut self.len, len);
            // SAFETY: they were elements until the line before.
            unsafe { self.buffer.clear(mc, len..old) };
        }
    }

    /// Takes away all elements. The storage stays.
    pub fn clear(&mut self, mc: &Mutator<'gc>) {
        self.truncate(mc, 0);
    }

    /// Appends the values of an iterator. If it panics, those stay that it had given.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn extend(&mut self, mc: &Mutator<'gc>, values: impl IntoIterator<Item = T>) {
        expect(self.try_extend(mc, values));
    }

    /// Appends the values of an iterator, if there is memory.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`]. What was appended before is taken away again.
    pub fn try_extend(
        &mut self,
        mc: &Mutator<'gc>,
        values: impl IntoIterator<Item = T>,
    ) -> Result<(), OutOfMemory> {
        let (values, before) = (values.into_iter(), self.len);
        self.try_reserve(mc, values.size_hint().0)?;
        for value in values {
            if let Err(full) = self.try_push(mc, value) {
                self.truncate(mc, before);
                return Err(full);
            }
        }
        Ok(())
    }

    /// The elements of a type without `Gc`s, to be changed in place. For other types this does not compile; see
    /// [`GcVec::edit`].
    ///
    /// ```compile_fail,E0080
    /// # use spanheap::{GcVec, Heap};
    /// # Heap::new().enter(|mc| {
    /// let mut items = GcVec::from_slice(mc, &[mc.alloc(1), mc.alloc(2)]);
    /// items.as_mut_slice().swap(0, 1); // behind the collector's back
    /// # });
    /// ```
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        const {
            assert!(
                Buffer::<T>::POINTERS == 0,
                "elements that hold a `Gc` are changed with a mutator: use `GcVec::edit`"
            );
        };
        // SAFETY: X1; the collector does not look at elements without pointers.
        unsafe { core::slice::from_raw_parts_mut(self.buffer.start().as_ptr(), self.len) }
    }
}

/// What a method that may not fail does with a refusal.
#[inline]
#[track_caller]
pub(crate) fn expect<R>(result: Result<R, OutOfMemory>) -> R {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

// SAFETY: the buffer's one pointer is reported; elements are found there.
unsafe impl<'gc, T> Trace for GcVec<'gc, T> {
    const SHAPE: Shape =
        Shape::NoScan.with(offset_of!(Self, buffer), <Buffer<'gc, T> as Trace>::SHAPE);
    const EXACT: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.buffer.trace(tracer);
    }
}

impl<T> Default for GcVec<'_, T> {
    fn default() -> Self {
        GcVec::new()
    }
}

impl<T> Deref for GcVec<'_, T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T> AsRef<[T]> for GcVec<'_, T> {
    fn as_ref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<'a, T> IntoIterator for &'a GcVec<'_, T> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.as_slice().iter()
    }
}

impl<T: fmt::Debug> fmt::Debug for GcVec<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_slice(), f)
    }
}

impl<T: PartialEq> PartialEq for GcVec<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl<T: Eq> Eq for GcVec<'_, T> {}

impl<T: Hash> Hash for GcVec<'_, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}
