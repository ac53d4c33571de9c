//! The cells and locks of the standard library, and `Arc`: only for contents that are `'static`,
//! and so hold no `Gc`.
//!
//! # Why not for pointers
//! A pointer in an object may be changed while the collector runs, and two things have to happen
//! then that these types know nothing of:
//!
//! 1. *The old pointer is reported.* The collector marks what was reachable when its cycle began.
//!    If a pointer is taken out of an object before that object was scanned, and put where it has
//!    been already, nobody else would find it. `GcCell` and `GcMutex` tell the collector; a `Mutex`
//!    does not.
//! 2. *Nobody reads half a change.* The collector reads an object while other threads use it.
//!    `GcCell` is one atomic word; `GcMutex` has the collector take the lock or come back later.
//!    The collector cannot see whether a `RefCell` is just being written to, and a thread that
//!    sleeps with a `Mutex` locked would stop the collector.
//!
//! For numbers, strings and everything else that is no pointer neither matters: the collector does
//! not look. What the bounds of an allocation say about `Sync` holds all the same, so a `Cell` is
//! of use only in objects that stay on one thread.
//!
//! `OnceLock` and `LazyLock` are no exception: what they are given is read by the collector while
//! it is being written.
//!
//! `Arc` is here because its contents may belong to several objects, and to code outside the heap,
//! which no collector could follow.
//!
//! # Safety
//! The contents are `'static`, so they hold no `Gc`, and the types are `'static` themselves:
//! `NoScan` and `LEAF` are the truth.
#![allow(unsafe_code)]

use core::cell::{Cell, OnceCell, RefCell};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak, atomic};

use spanheap_core::span::layout::Shape;

use crate::{Trace, Tracer};

macro_rules! cells {
    ($($name:ident: $($sized:ident)?;)*) => {
        $(
            // SAFETY: see the top of the file.
            unsafe impl<T: 'static $(+ ?$sized)?> Trace for $name<T> {
                const SHAPE: Shape = Shape::NoScan;
    const EXACT: bool = true;
                const LEAF: bool = true;

                #[inline]
                fn trace(&self, _: &mut Tracer<'_>) {}
            }
        )*
    };
}

cells! {
    Cell: Sized;
    RefCell: Sized;
    OnceCell: ;
    Mutex: Sized;
    RwLock: Sized;
    OnceLock: ;
    Arc: Sized;
    Weak: Sized;
}

// SAFETY: see the top of the file; the pointer is a raw one, and leads nowhere as far as we know.
unsafe impl<T: 'static> Trace for atomic::AtomicPtr<T> {
    const SHAPE: Shape = Shape::NoScan;
    const EXACT: bool = true;
    const LEAF: bool = true;

    #[inline]
    fn trace(&self, _: &mut Tracer<'_>) {}
}
