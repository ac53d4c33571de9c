//! Putting values into a shared arena: what its own methods and those of a writer have in common.
//!
//! An arena hands out *room*: aligned, of any contents, with the description of what they are for written before them
//! where the collector will look for it. The value is moved in, and from then on it is what a new object of the heap
//! is: it can be reached by nobody but the open closure. The collector need not be told of it, as it is of an object:
//! no sweep frees values.
//!
//! Code of the user's may run between both, the iterator of a slice for example, which may allocate from the same
//! arena and may panic. Room that was handed out and never got its value is waste: nobody has its address, so
//! it is never marked and never looked into, and it goes with the arena.
//!
//! # Safety
//! - Room is for exactly the type that is written into it: one function asks with the description of `T` and writes
//!   values of `T`.
//! - P1, P2 of `pointer.rs`: `ArenaGc`s are made here.
#![allow(unsafe_code)]

use super::pointer::ArenaGc;
use crate::SharedArenaError;
use crate::mutator::Describe;
use crate::trace::Trace;
use crate::zeroable::Zeroable;
use core::marker::PhantomData;
use core::ptr::NonNull;
use spanheap_core::span::layout::TypeInfo;

/// Where room comes from: an arena under its lock, or a writer.
///
/// # Safety
/// What is returned is room for `len` values of the type that `info` describes, one behind the other: in an arena
/// of the heap in which the closure branded `'gc` is open, aligned, nobody else's, and there until that closure ends.
pub(super) unsafe trait Place<'gc> {
    /// Room for values; zeros if `zeroed`, else what is in it is anything.
    #[track_caller]
    fn room(
        &self,
        info: &'static TypeInfo,
        len: usize,
        zeroed: bool,
    ) -> Result<NonNull<u8>, SharedArenaError>;
}

/// Values in an arena are freed with it, and nobody calls anything then.
struct WithoutDestructor<T>(PhantomData<T>);

impl<T> WithoutDestructor<T> {
    const CHECKED: () = assert!(
        !core::mem::needs_drop::<T>(),
        "values in a shared arena have no destructors, since it is freed without looking at them; \
         put this one into the heap with `Mutator::alloc` and its `Gc` into the arena"
    );
}

#[inline(always)]
#[track_caller]
pub(super) fn alloc<'gc, T: Trace + Send + Sync + 'gc>(
    place: &impl Place<'gc>,
    value: T,
) -> Result<ArenaGc<'gc, T>, SharedArenaError> {
    const { WithoutDestructor::<T>::CHECKED };
    let start = place.room(&Describe::<T>::INFO, 1, false)?;
    // SAFETY: room for a `T`, and ours.
    unsafe { start.cast::<T>().write(value) };
    // SAFETY: P1, P2: the value is initialised.
    Ok(unsafe { ArenaGc::from_pointer(start.cast::<T>()) })
}

#[inline]
#[track_caller]
pub(super) fn alloc_with<'gc, T: Trace + Send + Sync + 'gc>(
    place: &impl Place<'gc>,
    make: impl FnOnce() -> T,
) -> Result<ArenaGc<'gc, T>, SharedArenaError> {
    const { WithoutDestructor::<T>::CHECKED };
    let start = place.room(&Describe::<T>::INFO, 1, false)?;
    // SAFETY: room for a `T`, and ours, whatever `make` does.
    unsafe { start.cast::<T>().write(make()) };
    // SAFETY: P1, P2: the value is initialised.
    Ok(unsafe { ArenaGc::from_pointer(start.cast::<T>()) })
}

#[inline]
#[track_caller]
pub(super) fn alloc_copy<'gc, T: Trace + Copy + Send + Sync + 'gc>(
    place: &impl Place<'gc>,
    values: &[T],
) -> Result<ArenaGc<'gc, [T]>, SharedArenaError> {
    let start = place.room(&Describe::<T>::INFO, values.len(), false)?;
    // SAFETY: room for as many values, and not part of them.
    unsafe {
        start.cast::<T>().copy_from_nonoverlapping(NonNull::from(values).cast(), values.len())
    };
    let slice = NonNull::slice_from_raw_parts(start.cast::<T>(), values.len());
    // SAFETY: P1, P2: all values are initialised.
    Ok(unsafe { ArenaGc::from_pointer(slice) })
}

#[inline]
#[track_caller]
pub(super) fn alloc_str<'gc>(
    place: &impl Place<'gc>,
    text: &str,
) -> Result<ArenaGc<'gc, str>, SharedArenaError> {
    let bytes = alloc_copy(place, text.as_bytes())?.pointer().as_ptr();
    // SAFETY: a `str` is a `[u8]` that holds UTF-8, and these bytes were copied from one.
    let text = unsafe { NonNull::new_unchecked(bytes as *mut str) };
    // SAFETY: P1, P2 as for the bytes.
    Ok(unsafe { ArenaGc::from_pointer(text) })
}

/// # Panics
/// When the iterator gives another number of values than its length.
#[inline]
#[track_caller]
pub(super) fn alloc_slice<'gc, T: Trace + Send + Sync + 'gc>(
    place: &impl Place<'gc>,
    values: impl ExactSizeIterator<Item = T>,
) -> Result<ArenaGc<'gc, [T]>, SharedArenaError> {
    const { WithoutDestructor::<T>::CHECKED };
    let len = values.len();
    let start = place.room(&Describe::<T>::INFO, len, false)?;
    let mut done = 0;
    for value in values {
        assert!(done < len, "an iterator gave more values than its length, {len}");
        // SAFETY: there is room for `len` values, of which `done` are there.
        let at = unsafe { start.cast::<T>().add(done) };
        // SAFETY: as above; the room is ours, whatever the iterator does.
        unsafe { at.write(value) };
        done += 1;
    }
    assert!(done == len, "an iterator gave {done} values, and its length was {len}");
    let slice = NonNull::slice_from_raw_parts(start.cast::<T>(), len);
    // SAFETY: P1, P2: all values are initialised.
    Ok(unsafe { ArenaGc::from_pointer(slice) })
}

#[inline]
#[track_caller]
pub(super) fn alloc_zeroed<'gc, T: Trace + Zeroable + Send + Sync + 'gc>(
    place: &impl Place<'gc>,
    len: usize,
) -> Result<ArenaGc<'gc, [T]>, SharedArenaError> {
    const { WithoutDestructor::<T>::CHECKED };
    let start = place.room(&Describe::<T>::INFO, len, true)?;
    let slice = NonNull::slice_from_raw_parts(start.cast::<T>(), len);
    // SAFETY: P1, P2: the room is zeros, and zeros are values of `T`.
    Ok(unsafe { ArenaGc::from_pointer(slice) })
}
