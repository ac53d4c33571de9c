//! Ephemerons: objects that hold a value for as long as a key lives elsewhere.
//!
//! An ephemeron points to its key weakly, and to its value only if the key is reached some other way. So
//! it is an object of its own with a trace function of its own, which reports both words to the sink as what
//! they are ([`Tracer::ephemeron`]). What holds an ephemeron points to it as to any object.
//!
//! The third word belongs to the collector. An ephemeron that it meets before its key waits, and is linked
//! through this word into the chain of those that wait, so waiting needs no memory.
//!
//! # Invariants
//! - E1. Key and value never change but once, in [`EphemeronCell::clear`], by the collector, when a cycle has
//!   decided that the key is dead. So a closure that holds the key finds the value.
//! - E2. The key is cleared before the value: whoever finds the key afterwards finds the value.
//! - E3. The link is used only by the collector, while it marks, under the lock of its chains.
//!
//! # Safety
//! The trace function views an object as what its description says it is.
#![allow(unsafe_code)]

use super::layout::{Shape, TypeInfo};
use super::tracer::Tracer;
use crate::addr::Addr;
use crate::sync::atomic::{AtomicUsize, Ordering};
use core::ptr::NonNull;

/// An ephemeron, as it lies in the heap.
#[repr(C)]
#[derive(Debug)]
pub struct EphemeronCell {
    key: AtomicUsize,
    value: AtomicUsize,
    next: AtomicUsize,
}

impl EphemeronCell {
    /// The description of ephemerons.
    pub const INFO: TypeInfo = TypeInfo::new(
        || "ephemeron",
        size_of::<EphemeronCell>(),
        align_of::<EphemeronCell>(),
        Shape::Opaque,
        trace,
        None,
    )
    .exact(true);

    /// An ephemeron of two objects.
    pub fn new(key: Addr, value: Addr) -> EphemeronCell {
        debug_assert!(!key.is_null() && !value.is_null());
        EphemeronCell {
            key: AtomicUsize::new(key.get()),
            value: AtomicUsize::new(value.get()),
            next: AtomicUsize::new(0),
        }
    }

    /// The word of the key: an address, or 0 when the key has died. A mutator reads it as it reads a weak
    /// pointer.
    #[inline]
    pub fn key_word(&self) -> &AtomicUsize {
        &self.key
    }

    /// The key, null when it has died.
    #[inline]
    pub fn key(&self) -> Addr {
        // Acquire: the key's contents were published by whoever made the ephemeron.
        Addr::new(self.key.load(Ordering::Acquire))
    }

    /// The value, null when the key has died.
    #[inline]
    pub fn value(&self) -> Addr {
        // Acquire: as above.
        Addr::new(self.value.load(Ordering::Acquire))
    }

    /// Forgets key and value, the key first (E2).
    pub(crate) fn clear(&self) {
        self.key.store(0, Ordering::Release);
        self.value.store(0, Ordering::Release);
    }

    /// The ephemeron that waits behind this one (E3).
    pub(crate) fn next(&self) -> Addr {
        Addr::new(self.next.load(Ordering::Relaxed))
    }

    /// Links this ephemeron in front of another one (E3).
    pub(crate) fn set_next(&self, next: Addr) {
        self.next.store(next.get(), Ordering::Relaxed);
    }
}

/// Reports ephemerons.
///
/// # Safety
/// See [`super::TraceFn`].
unsafe fn trace(object: *const u8, count: usize, tracer: &mut Tracer<'_>) {
    debug_assert!(count == 1);
    // SAFETY: the caller says that an ephemeron is there.
    let cell = unsafe { &*object.cast::<EphemeronCell>() };
    // SAFETY: E1 and E2 of the tracer: key and value are objects of the heap, or null.
    unsafe { tracer.ephemeron(cell) };
}

impl EphemeronCell {
    /// The ephemeron at `at`.
    ///
    /// # Safety
    /// An initialised object of this description lies there, and stays for as long as `'a`.
    pub(crate) unsafe fn at<'a>(at: Addr) -> Option<&'a EphemeronCell> {
        let pointer = NonNull::new(at.as_ptr::<EphemeronCell>())?;
        // SAFETY: the caller's promise.
        Some(unsafe { pointer.as_ref() })
    }
}
