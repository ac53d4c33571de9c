//! A walk over all spans: what a heap holds according to its side tables alone.
//!
//! The counters that everybody uses are kept up while things happen; this is the long way round, to hold
//! them to.
//!
//! # Safety
//! Span records are read without a lock, so nothing may change meanwhile: the caller's promise.
#![allow(unsafe_code)]

use crate::addr::Bytes;
use crate::mutator::Heap;
use crate::span::bits;

/// What a walk over all spans has found.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Walk {
    /// Bytes of pages that belong to spans.
    pub pages: Bytes,
    /// Allocated objects, those included that wait for their destructor.
    pub objects: u64,
    /// Bytes of their slots.
    pub bytes: Bytes,
}

impl Walk {
    /// Walks over all spans of `heap`.
    ///
    /// # Safety
    /// No closure is open, no cycle runs or begins, and no destructor is owed. (With closures open, what
    /// mutators have taken and not used would count as objects.)
    pub unsafe fn of(heap: &Heap) -> Walk {
        let mut walk = Walk::default();
        let visit = |span: &crate::span::Span| {
            let info = span.info();
            let objects = bits::count(info, span.generation().table());
            walk.pages += info.pages.bytes();
            walk.objects += objects as u64;
            walk.bytes += Bytes::new(objects * info.slot);
        };
        // SAFETY: spans come and go by allocation, sweeping and destructors only.
        unsafe { heap.collector().central().pages().for_each_span(visit) };
        walk
    }
}
