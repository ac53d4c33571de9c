//! Types that hold their parts in themselves, so that their shape follows from the shapes of the
//! parts.
//!
//! Where the parts lie is asked of the compiler (`offset_of!`); types whose fields are private are
//! [`Shape::NoScan`] or opaque. An `Option` of a type that is never null has null in the place of
//! its pointer when it is `None`, so it keeps the shape.
//!
//! # Safety
//! Every implementation passes every part of the type's value to `trace`, and folds the shapes of
//! exactly these parts. So it is `EXACT` if the parts are. It is a `LEAF` when all parameters are: then it is `'static`.
#![allow(unsafe_code)]

use core::cmp::Reverse;
use core::mem::offset_of;
use core::num::{Saturating, Wrapping};
use core::ops::{
    Bound, ControlFlow, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive,
};

use spanheap_core::span::layout::Shape;

use crate::{Trace, Tracer};

// SAFETY: see the top of the file. When `T` is `NULLABLE`, `None` has null where `T` has its
// pointer (point 6 of the contract of `Trace`), and the assertion holds the compiler to it.
unsafe impl<T: Trace> Trace for Option<T> {
    const SHAPE: Shape = if T::NULLABLE {
        assert!(size_of::<Option<T>>() == size_of::<T>(), "a nullable type has a niche at null");
        T::SHAPE
    } else {
        Shape::NoScan.maybe(T::SHAPE)
    };
    const LEAF: bool = T::LEAF;
    const EXACT: bool = T::EXACT;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        if let Some(value) = self {
            value.trace(tracer);
        }
    }
}

// SAFETY: see the top of the file.
unsafe impl<T: Trace, E: Trace> Trace for Result<T, E> {
    const SHAPE: Shape = Shape::NoScan.maybe(T::SHAPE).maybe(E::SHAPE);
    const LEAF: bool = T::LEAF && E::LEAF;
    const EXACT: bool = T::EXACT && E::EXACT;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        match self {
            Ok(value) => value.trace(tracer),
            Err(error) => error.trace(tracer),
        }
    }
}

// SAFETY: see the top of the file.
unsafe impl<B: Trace, C: Trace> Trace for ControlFlow<B, C> {
    const SHAPE: Shape = Shape::NoScan.maybe(B::SHAPE).maybe(C::SHAPE);
    const LEAF: bool = B::LEAF && C::LEAF;
    const EXACT: bool = B::EXACT && C::EXACT;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        match self {
            ControlFlow::Break(value) => value.trace(tracer),
            ControlFlow::Continue(value) => value.trace(tracer),
        }
    }
}

// SAFETY: see the top of the file.
unsafe impl<T: Trace> Trace for Bound<T> {
    const SHAPE: Shape = Shape::NoScan.maybe(T::SHAPE);
    const LEAF: bool = T::LEAF;
    const EXACT: bool = T::EXACT;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        match self {
            Bound::Included(value) | Bound::Excluded(value) => value.trace(tracer),
            Bound::Unbounded => {}
        }
    }
}

// SAFETY: see the top of the file.
unsafe impl<T: Trace, const N: usize> Trace for [T; N] {
    const SHAPE: Shape = T::SHAPE.array(size_of::<T>(), N);
    const LEAF: bool = T::LEAF;
    const EXACT: bool = T::EXACT;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.as_slice().trace(tracer);
    }
}

// SAFETY: see the top of the file. A slice has no fixed size, so it has no mask of its own; an
// object that is a slice gets its layout from its element's.
unsafe impl<T: Trace> Trace for [T] {
    const SHAPE: Shape = Shape::NoScan.maybe(T::SHAPE);
    const LEAF: bool = T::LEAF;
    const EXACT: bool = T::EXACT;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        if let Shape::NoScan = T::SHAPE {
            return;
        }
        for value in self {
            value.trace(tracer);
        }
    }
}

/// Structs whose fields are public.
macro_rules! structs {
    ($($name:ident { $($field:tt),* })*) => {
        $(
            // SAFETY: see the top of the file.
            unsafe impl<T: Trace> Trace for $name<T> {
                const SHAPE: Shape = Shape::NoScan
                    $( .with(offset_of!(Self, $field), T::SHAPE) )*;
                const LEAF: bool = T::LEAF;
    const EXACT: bool = T::EXACT;

                #[inline]
                fn trace(&self, tracer: &mut Tracer<'_>) {
                    $( self.$field.trace(tracer); )*
                }
            }
        )*
    };
}

structs! {
    Wrapping { 0 }
    Saturating { 0 }
    Reverse { 0 }
    Range { start, end }
    RangeFrom { start }
    RangeTo { end }
    RangeToInclusive { end }
}

// SAFETY: see the top of the file.
unsafe impl<T: Trace> Trace for RangeInclusive<T> {
    const SHAPE: Shape = Shape::NoScan.maybe(T::SHAPE);
    const LEAF: bool = T::LEAF;
    const EXACT: bool = T::EXACT;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.start().trace(tracer);
        self.end().trace(tracer);
    }
}

// SAFETY: see the top of the file; it has no parts.
unsafe impl Trace for RangeFull {
    const SHAPE: Shape = Shape::NoScan;
    const LEAF: bool = true;
    const EXACT: bool = true;

    #[inline]
    fn trace(&self, _: &mut Tracer<'_>) {}
}

macro_rules! tuples {
    ($($name:ident $index:tt)*) => {
        // SAFETY: see the top of the file.
        unsafe impl<$($name: Trace),*> Trace for ($($name,)*) {
            const SHAPE: Shape = Shape::NoScan
                $( .with(offset_of!(Self, $index), $name::SHAPE) )*;
            const LEAF: bool = true $( && $name::LEAF )*;
            const EXACT: bool = true $( && $name::EXACT )*;

            #[inline]
            fn trace(&self, tracer: &mut Tracer<'_>) {
                $( self.$index.trace(tracer); )*
            }
        }
    };
}

tuples!(A 0);
tuples!(A 0 B 1);
tuples!(A 0 B 1 C 2);
tuples!(A 0 B 1 C 2 D 3);
tuples!(A 0 B 1 C 2 D 3 E 4);
tuples!(A 0 B 1 C 2 D 3 E 4 F 5);
tuples!(A 0 B 1 C 2 D 3 E 4 F 5 G 6);
tuples!(A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7);
tuples!(A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8);
tuples!(A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9);
tuples!(A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10);
tuples!(A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11);
