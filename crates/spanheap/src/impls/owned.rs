//! `Box` and the collections: types that own memory outside the heap.
//!
//! Their pointers are not in the object, so their shape is opaque, and the collector asks them one
//! by one. The exception is a collection of leaves, which has nothing to tell; whether it is one,
//! they ask `T::LEAF` and not `T::SHAPE`:
//!
//! ```text
//! enum Value<'gc> { Number(f64), Object(Gc<'gc, Object<'gc>>), Tuple(Vec<Value<'gc>>) }
//! Value::SHAPE  needs  Vec<Value>::SHAPE  needs  Value::SHAPE: the compiler refuses.
//! Value::SHAPE  needs  Vec<Value>::SHAPE  needs  Value::LEAF, which is false: it has a lifetime.
//! ```
//!
//! In the body of `trace` the shape may be asked for, and saves a walk over elements that hold
//! nothing.
//!
//! A chain of boxes is traced by recursion, as it is dropped by recursion: both overflow the stack
//! if it is very long. Objects that point to each other with `Gc` are never traced by recursion.
//!
//! # Safety
//! A shared reference to one of these types gives access to its elements and to nothing else that
//! could hold a `Gc` (hashers are `'static`), and an implementation passes all of them to `trace`.
//! The memory that they own changes only through a unique reference, so never while it is traced.
//! They implement `Drop`, but only to drop their elements, which do not if they hold a `Gc`; none
//! of them compares or hashes an element on that way. They are `LEAF`s when all their parameters
//! are: then they are `'static`.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};

use spanheap_core::span::layout::Shape;

use crate::{Trace, Tracer};

// All of these are `EXACT`: what they hold of the object itself is the address of other memory, whatever lies there.

/// The shape of a type that owns values elsewhere, which are leaves or not.
const fn owner_of(leaves: bool) -> Shape {
    if leaves { Shape::NoScan } else { Shape::Opaque }
}

/// Whether no value of the type holds a `Gc`. Not for shapes: see the top of the file.
#[inline(always)]
fn is_empty_handed<T: Trace>() -> bool {
    matches!(T::SHAPE, Shape::NoScan)
}

// SAFETY: see the top of the file.
unsafe impl<T: Trace + ?Sized> Trace for Box<T> {
    const SHAPE: Shape = owner_of(T::LEAF);
    const LEAF: bool = T::LEAF;
    const EXACT: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        (**self).trace(tracer);
    }
}

// SAFETY: see the top of the file.
unsafe impl<T: Trace> Trace for Vec<T> {
    const SHAPE: Shape = owner_of(T::LEAF);
    const LEAF: bool = T::LEAF;
    const EXACT: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.as_slice().trace(tracer);
    }
}

// SAFETY: both sides are 'static: the borrowed one by its lifetime, the owned one by the bound.
unsafe impl<T> Trace for Cow<'static, T>
where
    T: ?Sized + ToOwned<Owned: 'static> + 'static,
{
    const SHAPE: Shape = Shape::NoScan;
    const LEAF: bool = true;
    const EXACT: bool = true;

    #[inline]
    fn trace(&self, _: &mut Tracer<'_>) {}
}

/// Collections of one kind of element.
macro_rules! sequences {
    ($($name:ident)*) => {
        $(
            // SAFETY: see the top of the file.
            unsafe impl<T: Trace> Trace for $name<T> {
                const SHAPE: Shape = owner_of(T::LEAF);
                const LEAF: bool = T::LEAF;
    const EXACT: bool = true;

                fn trace(&self, tracer: &mut Tracer<'_>) {
                    if !is_empty_handed::<T>() {
                        self.iter().for_each(|value| value.trace(tracer));
                    }
                }
            }
        )*
    };
}

sequences!(VecDeque LinkedList BinaryHeap BTreeSet);

// SAFETY: see the top of the file.
unsafe impl<K: Trace, V: Trace> Trace for BTreeMap<K, V> {
    const SHAPE: Shape = owner_of(K::LEAF && V::LEAF);
    const LEAF: bool = K::LEAF && V::LEAF;
    const EXACT: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        if is_empty_handed::<(K, V)>() {
            return;
        }
        for (key, value) in self {
            key.trace(tracer);
            value.trace(tracer);
        }
    }
}

// SAFETY: see the top of the file.
unsafe impl<K: Trace, V: Trace, S: 'static> Trace for HashMap<K, V, S> {
    const SHAPE: Shape = owner_of(K::LEAF && V::LEAF);
    const LEAF: bool = K::LEAF && V::LEAF;
    const EXACT: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        if is_empty_handed::<(K, V)>() {
            return;
        }
        for (key, value) in self {
            key.trace(tracer);
            value.trace(tracer);
        }
    }
}

// SAFETY: see the top of the file.
unsafe impl<T: Trace, S: 'static> Trace for HashSet<T, S> {
    const SHAPE: Shape = owner_of(T::LEAF);
    const LEAF: bool = T::LEAF;
    const EXACT: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        if !is_empty_handed::<T>() {
            self.iter().for_each(|value| value.trace(tracer));
        }
    }
}
