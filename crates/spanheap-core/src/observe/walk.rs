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
use crate::span::size_class::{CLASS_COUNT, SizeClass};
use crate::span::{Table, bits};
use crate::sync::atomic::Ordering;

/// What a walk over all spans has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Walk {
    /// Bytes of pages that belong to spans.
    pub pages: Bytes,
    /// Allocated objects, those included that wait for their destructor.
    pub objects: u64,
    /// Bytes of their slots.
    pub bytes: Bytes,
    /// Those of them that wait for their destructor.
    pub owed: u64,
    /// The objects by the index of their size class. Those that have a span each are number 0.
    pub by_class: [u64; CLASS_COUNT],
}

impl Default for Walk {
    fn default() -> Walk {
        let zero = Bytes::ZERO;
        Walk { pages: zero, objects: 0, bytes: zero, owed: 0, by_class: [0; CLASS_COUNT] }
    }
}

impl Walk {
    /// Walks over all spans of `heap`.
    ///
    /// # Safety
    /// No closure is open, no cycle runs or begins, and no destructor runs meanwhile. What mutators
    /// have taken and neither used nor given back counts as objects.
    pub unsafe fn of(heap: &Heap) -> Walk {
        let mut walk = Walk::default();
        let visit = |span: &crate::span::Span| {
            let info = span.info();
            let (mut objects, mut owed) = (0, 0);
            let allocated = bits::lines(info, span.generation().table());
            for ((_, allocated), (_, drops)) in allocated.zip(bits::lines(info, Table::Drops)) {
                for (allocated, drops) in allocated.iter().zip(drops) {
                    // What the drop queue owns has lost its allocation bits and waits all the same.
                    let drops = drops.load(Ordering::Acquire);
                    objects += (allocated.load(Ordering::Acquire) | drops).count_ones() as usize;
                    owed += u64::from(drops.count_ones());
                }
            }
            walk.owed += owed;
            walk.by_class[info.size_class.map_or(0, SizeClass::index)] += objects as u64;
            walk.pages += info.pages.bytes();
            walk.objects += objects as u64;
            walk.bytes += Bytes::new(objects * info.slot);
        };
        // SAFETY: spans come and go by allocation, sweeping and destructors only.
        unsafe { heap.collector().central().pages().for_each_span(visit) };
        walk
    }
}
