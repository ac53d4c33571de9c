//! [`Zeroable`]: types for which memory of zeros is a value.
//!
//! A slice of them can be had without writing it: fresh memory is zero already, and the heap knows which
//! is.
//!
//! # Safety
//! Nothing unsafe is done here; the trait is unsafe to implement.
#![allow(unsafe_code)]

use crate::cell::GcCell;
use crate::gc::Gc;
use crate::shared_arena::ArenaGc;
use core::sync::atomic::{
    AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicPtr, AtomicU8,
    AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
};

/// A type of which memory of zeros is a value that nobody minds to be handed: numbers, `bool`, `None` of an
/// optional [`Gc`] or [`ArenaGc`], empty [`GcCell`]s, arrays of them.
///
/// # Safety
/// Any number of values may be made by filling memory with zeros.
pub unsafe trait Zeroable {}

macro_rules! zeroable {
    ($($ty:ty),* $(,)?) => {
        // SAFETY: zero is a number, or `false`, or a null pointer.
        $(unsafe impl Zeroable for $ty {})*
    };
}

zeroable!(
    u8,
    u16,
    u32,
    u64,
    u128,
    usize,
    i8,
    i16,
    i32,
    i64,
    i128,
    isize,
    f32,
    f64,
    bool,
    (),
    AtomicBool,
    AtomicU8,
    AtomicU16,
    AtomicU32,
    AtomicU64,
    AtomicUsize,
    AtomicI8,
    AtomicI16,
    AtomicI32,
    AtomicI64,
    AtomicIsize,
);

// SAFETY: null is a value of an atomic pointer.
unsafe impl<T> Zeroable for AtomicPtr<T> {}
// SAFETY: an array is its elements.
unsafe impl<T: Zeroable, const N: usize> Zeroable for [T; N] {}
// SAFETY: a `Gc` of a sized type is a pointer that is not null, so null stands for `None`.
unsafe impl<T> Zeroable for Option<Gc<'_, T>> {}
// SAFETY: an `ArenaGc` of a sized type is such a pointer, too.
unsafe impl<T> Zeroable for Option<ArenaGc<'_, T>> {}
// SAFETY: the word of an empty cell is zero: see `GcWord::to_addr`.
unsafe impl<'gc, T> Zeroable for GcCell<'gc, Option<ArenaGc<'gc, T>>> {}
// SAFETY: as above.
unsafe impl<'gc, T> Zeroable for GcCell<'gc, Option<Gc<'gc, T>>> {}
