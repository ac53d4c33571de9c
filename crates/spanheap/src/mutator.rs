//! [`Mutator`]: what a closure does with its heap.
//!
//! # Safety
//! Writes values into slots that the core has handed out, and makes `Gc`s of them (G1 in `gc.rs`): the
//! slots are large enough and aligned because [`Describe`] describes the very type that is written.
#![allow(unsafe_code)]

use crate::gc::{Gc, Invariant};
use crate::root::{Root, RootedPointer};
use crate::rootable::Rootable;
use crate::trace::{Trace, Tracer};
use crate::zeroable::Zeroable;
use core::marker::PhantomData;
use core::ptr::NonNull;
use spanheap_core::heap::OutOfMemory;
use spanheap_core::mutator::Mutator as CoreMutator;
use spanheap_core::mutator::SliceSlot;
use spanheap_core::span::layout::{DropFn, Shape, TypeInfo};

/// The handle of an open closure on its heap: it allocates, makes roots, and lets cells be changed.
///
/// It is given to the closure of [`Heap::enter`](crate::Heap::enter) and stays on its thread.
#[repr(transparent)]
pub struct Mutator<'gc> {
    core: CoreMutator,
    _brand: Invariant<'gc>,
}

/// The description of a type, as a constant.
pub(crate) struct Describe<T>(PhantomData<T>);

impl<T: Trace> Describe<T> {
    pub(crate) const INFO: TypeInfo = TypeInfo::new(
        core::any::type_name::<T>,
        size_of::<T>(),
        align_of::<T>(),
        T::SHAPE,
        trace_values::<T>,
        if core::mem::needs_drop::<T>() { Some(drop_values::<T> as DropFn) } else { None },
    )
    .exact(T::EXACT);
}

/// Reports the pointers of `count` values of `T`.
///
/// # Safety
/// See `TraceFn`.
unsafe fn trace_values<T: Trace>(object: *const u8, count: usize, tracer: &mut Tracer<'_>) {
    // SAFETY: the caller says that `count` values are there.
    let values = unsafe { core::slice::from_raw_parts(object.cast::<T>(), count) };
    for value in values {
        value.trace(tracer);
    }
}

/// Drops `count` values of `T`.
///
/// # Safety
/// See `DropFn`.
unsafe fn drop_values<T>(object: *mut u8, count: usize) {
    let values = core::ptr::slice_from_raw_parts_mut(object.cast::<T>(), count);
    // SAFETY: the caller says that the values are there and that nobody uses them any more.
    unsafe { values.drop_in_place() };
}

impl<'gc> Mutator<'gc> {
    /// Brands a mutator.
    pub(crate) fn brand(core: &CoreMutator) -> &Mutator<'gc> {
        // SAFETY: the wrapper is transparent and adds a marker only; the caller gives it to a closure that
        // takes any brand.
        unsafe { &*core::ptr::from_ref(core).cast::<Mutator<'gc>>() }
    }

    /// The runtime's mutator.
    #[inline(always)]
    pub(crate) fn core(&self) -> &CoreMutator {
        &self.core
    }

    /// Moves `value` into the heap.
    ///
    /// # Panics
    /// When there is no room: see [`Mutator::try_alloc`].
    #[inline(always)]
    #[track_caller]
    pub fn alloc<T: Trace + Send + Sync + 'gc>(&self, value: T) -> Gc<'gc, T> {
        // SAFETY: as in `try_alloc`.
        let Some(slot) = (unsafe { self.core.find_slot(&Describe::<T>::INFO) }) else {
            self.refused();
        };
        let object = slot.cast::<T>();
        // SAFETY: the slot is uninitialised memory for a `T`, and ours. (Always inlined, and written right here: each
        // function that a large value passes through may copy it once more, and have no stack for that.)
        unsafe { object.write(value) };
        // SAFETY: the object is initialised.
        unsafe { self.core.publish(slot) };
        // SAFETY: G1 holds: the object was made in the open closure.
        unsafe { Gc::from_pointer(object) }
    }

    /// Says why there is no room.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn refused(&self) -> ! {
        panic!("{}", self.core.refusal())
    }

    /// Moves `value` into the heap, if there is room.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the [hard limit](crate::HeapBuilder::hard_limit) or the system does not allow more
    /// memory. The value is dropped, a cycle is asked for, and the heap goes on. A soft limit refuses nothing.
    /// [`Heap::explain_live`](crate::Heap::explain_live) says which types hold the memory.
    #[inline(always)]
    pub fn try_alloc<T: Trace + Send + Sync + 'gc>(
        &self,
        value: T,
    ) -> Result<Gc<'gc, T>, OutOfMemory> {
        // SAFETY: a closure is open, or there would be no `&self`; the description is the type's own, and
        // the value is written and published below, with nothing in between.
        let slot = unsafe { self.core.alloc(&Describe::<T>::INFO) }?;
        let object = slot.cast::<T>();
        // SAFETY: the slot is uninitialised memory for a `T`, and ours.
        unsafe { object.write(value) };
        // SAFETY: the object is initialised.
        unsafe { self.core.publish(slot) };
        // SAFETY: G1 holds: the object was made in the open closure.
        Ok(unsafe { Gc::from_pointer(object) })
    }

    /// Makes a value in the heap: `make` is called, and what it returns is moved in. A value that needs no
    /// destructor gets its place first, so the compiler can build a large one there and never copy it.
    ///
    /// A panic of `make` is passed on. Its place is garbage then, which nobody looks into.
    ///
    /// # Panics
    /// When there is no room: see [`Mutator::try_alloc_with`].
    #[inline]
    #[track_caller]
    pub fn alloc_with<T: Trace + Send + Sync + 'gc>(&self, make: impl FnOnce() -> T) -> Gc<'gc, T> {
        match self.try_alloc_with(make) {
            Ok(object) => object,
            Err(error) => panic!("{error}"),
        }
    }

    /// Makes a value in the heap, if there is room: see [`Mutator::alloc_with`].
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`]. Whether `make` has been called then is not said.
    #[inline]
    pub fn try_alloc_with<T: Trace + Send + Sync + 'gc>(
        &self,
        make: impl FnOnce() -> T,
    ) -> Result<Gc<'gc, T>, OutOfMemory> {
        if core::mem::needs_drop::<T>() {
            // A slot of such a type belongs to a value whose destructor will run, so the value comes first.
            return self.try_alloc(make());
        }
        // SAFETY: as in `try_alloc`, but for `make` in between, which may allocate and panic. That matters to
        // nobody: until it is published the slot can be reached by no one, and so is never marked and never
        // looked into; without a destructor the sweep does not look into it either.
        let slot = unsafe { self.core.alloc(&Describe::<T>::INFO) }?;
        let object = slot.cast::<T>();
        // SAFETY: the slot is uninitialised memory for a `T`, and ours.
        unsafe { object.write(make()) };
        // SAFETY: the object is initialised.
        unsafe { self.core.publish(slot) };
        // SAFETY: G1 holds: the object was made in the open closure.
        Ok(unsafe { Gc::from_pointer(object) })
    }

    /// Copies a string into the heap.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn alloc_str(&self, text: &str) -> Gc<'gc, str> {
        match self.try_alloc_str(text) {
            Ok(object) => object,
            Err(error) => panic!("{error}"),
        }
    }

    /// Copies a string into the heap, if there is room.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`].
    pub fn try_alloc_str(&self, text: &str) -> Result<Gc<'gc, str>, OutOfMemory> {
        let bytes = self.try_alloc_copy(text.as_bytes())?;
        let bytes = bytes.pointer().as_ptr();
        // SAFETY: a `str` is a `[u8]` that holds UTF-8, and these bytes were copied from one.
        let text = unsafe { NonNull::new_unchecked(bytes as *mut str) };
        // SAFETY: G1 as in `try_alloc`.
        Ok(unsafe { Gc::from_pointer(text) })
    }

    /// Copies a slice into the heap, if there is room.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`].
    pub fn try_alloc_copy<T: Trace + Send + Sync + Copy + 'gc>(
        &self,
        values: &[T],
    ) -> Result<Gc<'gc, [T]>, OutOfMemory> {
        let building = Building::<T>::new(self, values.len())?;
        // SAFETY: the slot has room for all values, and is not part of them.
        unsafe {
            building.start.copy_from_nonoverlapping(NonNull::from(values).cast(), values.len())
        };
        Ok(building.finish(values.len()))
    }

    /// Moves the values of an iterator into the heap, as a slice.
    ///
    /// # Panics
    /// When there is no room, and when the iterator gives another number of values than its length.
    #[inline]
    #[track_caller]
    pub fn alloc_slice<T, I>(&self, values: I) -> Gc<'gc, [T]>
    where
        T: Trace + Send + Sync + 'gc,
        I: IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    {
        match self.try_alloc_slice(values) {
            Ok(object) => object,
            Err(error) => panic!("{error}"),
        }
    }

    /// Moves the values of an iterator into the heap, as a slice, if there is room.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`]; no value has been taken from the iterator then.
    ///
    /// # Panics
    /// When the iterator gives another number of values than its length. A panic of the iterator is passed
    /// on; the values that it has given are dropped with the slice.
    #[inline]
    pub fn try_alloc_slice<T, I>(&self, values: I) -> Result<Gc<'gc, [T]>, OutOfMemory>
    where
        T: Trace + Send + Sync + 'gc,
        I: IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    {
        let values = values.into_iter();
        let len = values.len();
        let mut building = Building::<T>::new(self, len)?;
        values.for_each(|value| {
            assert!(building.done < len, "an iterator gave more values than its length, {len}");
            building.push(value);
        });
        let done = building.done;
        assert!(done == len, "an iterator gave {done} values, and its length was {len}");
        Ok(building.finish(len))
    }

    /// A slice of `len` zeros, or empty cells. Memory that the system has just given, or has taken back and
    /// given again, is zero already and is not written to; so a large slice costs what is used of it.
    ///
    /// ```
    /// # use spanheap::{Gc, GcCell, Heap};
    /// let heap = Heap::new();
    /// heap.enter(|mc| {
    ///     let table: Gc<'_, [GcCell<'_, Option<Gc<'_, u64>>>]> = mc.alloc_zeroed(1000);
    ///     table[7].set(mc, Some(mc.alloc(7)));
    ///     assert_eq!(table.iter().filter(|cell| cell.get().is_some()).count(), 1);
    /// });
    /// ```
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn alloc_zeroed<T: Trace + Zeroable + Send + Sync + 'gc>(
        &self,
        len: usize,
    ) -> Gc<'gc, [T]> {
        match self.try_alloc_zeroed(len) {
            Ok(object) => object,
            Err(error) => panic!("{error}"),
        }
    }

    /// A slice of `len` zeros, or empty cells, if there is room: see [`Mutator::alloc_zeroed`].
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`].
    pub fn try_alloc_zeroed<T: Trace + Zeroable + Send + Sync + 'gc>(
        &self,
        len: usize,
    ) -> Result<Gc<'gc, [T]>, OutOfMemory> {
        // SAFETY: as in `Building::new`.
        let slot = unsafe { self.core.alloc_slice_zeroed(&Describe::<T>::INFO, len) }?;
        // Zeros are values of `T`, and so all of them are initialised.
        Ok(Building::of(self, slot).finish(len))
    }

    /// How many values of `T` fit into the slot of a slice of `len`.
    pub(crate) fn slice_room<T: Trace>(len: usize) -> usize {
        let room = || Describe::<T>::INFO.slice_bytes(len)?.get().checked_div(size_of::<T>());
        room().unwrap_or(len).max(len)
    }

    /// A slot for a slice of `len` values whose elements are found by a mask and need no destructor. It is not
    /// published. Either it is all zeros, or it is uninitialised and holds no pointers.
    pub(crate) fn try_slice_slot<T: Trace + Copy>(
        &self,
        len: usize,
        zeroed: bool,
    ) -> Result<NonNull<u8>, OutOfMemory> {
        const { assert!(!matches!(T::SHAPE, Shape::Opaque)) };
        let info = &Describe::<T>::INFO;
        let slot = match zeroed {
            // SAFETY: a closure is open, the description is the type's own, and zeros hold no pointers; so the
            // object may stay as it is until its caller publishes it. There is no counter.
            true => unsafe { self.core.alloc_slice_zeroed(info, len) },
            // SAFETY: as above, for elements without pointers.
            false => unsafe { self.core.alloc_slice(info, len) },
        };
        Ok(slot?.start)
    }

    /// Retains an object beyond the closure: see [`Root`].
    pub fn root<R: for<'a> Rootable<'a>>(
        &self,
        object: Gc<'gc, <R as Rootable<'gc>>::Root>,
    ) -> Root<R> {
        // SAFETY: the object belongs to this closure's heap, by the brand.
        let record = unsafe { self.core.root(object.pointer().cast()) };
        Root::new(record, RootedPointer::erase::<R>(object.pointer()))
    }

    /// Whether a collection cycle is running, as far as this closure is concerned.
    pub fn is_collecting(&self) -> bool {
        self.core.is_buffering()
    }
}

/// A slice under construction. Code of the user's may run meanwhile: it may allocate, and it may panic.
struct Building<'m, 'gc, T> {
    mc: &'m Mutator<'gc>,
    slot: SliceSlot,
    start: NonNull<T>,
    done: usize,
}

impl<'m, 'gc, T: Trace> Building<'m, 'gc, T> {
    #[inline]
    fn new(mc: &'m Mutator<'gc>, len: usize) -> Result<Self, OutOfMemory> {
        // SAFETY: a closure is open; the description is the type's own. If the object is never published, its
        // counter tells how much of it is initialised, and types without a counter need no drop.
        let slot = unsafe { mc.core.alloc_slice(&Describe::<T>::INFO, len) }?;
        Ok(Building::of(mc, slot))
    }

    fn of(mc: &'m Mutator<'gc>, slot: SliceSlot) -> Self {
        Building { mc, slot, start: slot.start.cast(), done: 0 }
    }

    /// Writes the next value. There is room for it.
    #[inline(always)]
    fn push(&mut self, value: T) {
        // SAFETY: the caller has checked that the slot has room for one more.
        let place = unsafe { self.start.add(self.done) };
        // SAFETY: as above; the place is uninitialised and ours.
        unsafe { place.write(value) };
        self.done += 1;
        if let Some(counter) = self.slot.counter {
            // SAFETY: the counter is a word of the slot, ours until the object is published.
            unsafe { counter.write(self.done) };
        }
    }

    /// Publishes the slice, whose `len` values are initialised.
    #[inline]
    fn finish(self, len: usize) -> Gc<'gc, [T]> {
        if let Some(counter) = self.slot.counter {
            // SAFETY: as in `push`.
            unsafe { counter.write(len) };
        }
        // SAFETY: all values are initialised.
        unsafe { self.mc.core.publish(self.slot.start) };
        let slice = NonNull::slice_from_raw_parts(self.start, len);
        // SAFETY: G1 holds: the object was made in the open closure.
        unsafe { Gc::from_pointer(slice) }
    }
}
