//! What all containers under a lock have in common: when the collector may read them, and what a mutator does
//! before it changes one.
//!
//! The collector may read the contents only while it holds the lock, and it only *tries* to take it: a
//! locked container is put aside and tried again. For that to be right, a mutator that takes the lock so as to
//! change the contents while a cycle runs first hands the collector all pointers inside (the contents as the
//! snapshot had them), before it can change any. In the marking phase once per cycle is enough: the
//! container then counts as scanned.
//!
//! A mutator that takes a lock only to *read* hands over nothing. What it finds it has loaded along an edge
//! that is still there, like what it loads from any other object: if that edge is ever deleted, then by a
//! writer, who hands the old contents over before. And since nobody changes the contents meanwhile, the
//! collector may read along with any number of such readers.
//!
//! # Safety
//! - L1. The contents are reached only by whoever holds the lock: a guard, or the tracer; changed only by
//!   one who holds it alone.
//! - L2. A guard cannot leave its closure, by its lifetime; so no guard of an earlier closure exists when a
//!   cycle's snapshot is taken.
#![allow(unsafe_code)]

use crate::mutator::Mutator;
use crate::trace::{Trace, Tracer};
use core::sync::atomic::{AtomicU32, Ordering};
use spanheap_core::addr::Addr;
use spanheap_core::mutator::ContainerBarrier;
use spanheap_core::span::tracer::{EdgeSink, Reader};

/// The last cycle that has scanned a container; written under the lock, when that is done.
pub(crate) struct Scanned {
    cycle: AtomicU32,
}

impl Scanned {
    /// No cycle has.
    pub(crate) const fn never() -> Scanned {
        Scanned { cycle: AtomicU32::new(0) }
    }

    /// Does what the collector needs before the contents may change.
    ///
    /// # Safety
    /// The caller holds the lock alone, and `contents` are what it protects.
    #[inline]
    pub(crate) unsafe fn before_change<T: Trace>(&self, mc: &Mutator<'_>, contents: *const T) {
        match mc.core().container_barrier() {
            ContainerBarrier::None => {}
            ContainerBarrier::Shade => {
                // SAFETY: the same contract.
                unsafe { shade_contents(mc, contents) };
            }
            ContainerBarrier::ShadeOnce(cycle) => {
                if self.cycle.load(Ordering::Relaxed) != cycle {
                    // SAFETY: the same contract.
                    unsafe { shade_contents(mc, contents) };
                    self.cycle.store(cycle, Ordering::Release);
                }
            }
        }
    }

    /// Traces the contents for whoever asks. `lock` tries to get the right to read them and returns what gives
    /// it back.
    ///
    /// # Safety
    /// While what `lock` returns is there, nobody changes `contents`.
    pub(crate) unsafe fn trace<T: Trace, G>(
        &self,
        contents: *const T,
        lock: impl FnOnce() -> Option<G>,
        tracer: &mut Tracer<'_>,
    ) {
        let Reader::Collector(cycle) = tracer.reader() else {
            // Whoever wants everything has the contents to himself: a mutator that holds the lock of a
            // container around this one (and nobody can hold a guard of this one without it), or checkmark
            // mode, when nobody is inside. A guard that was forgotten must not hide pointers from him.
            //
            // SAFETY: L1 holds by what was just said.
            unsafe { &*contents }.trace(tracer);
            return;
        };
        // Whoever has scanned it for this cycle may hold the lock as often and as long as he likes. Acquire:
        // what he has buffered is found when he leaves his closure at the latest.
        if self.cycle.load(Ordering::Acquire) == cycle {
            return;
        }
        // The lock is given up even if the contents' trace function panics.
        let Some(_held) = lock() else {
            tracer.defer();
            return;
        };
        // SAFETY: the lock is held.
        unsafe { &*contents }.trace(tracer);
        if !tracer.is_deferred() {
            self.cycle.store(cycle, Ordering::Release);
        }
    }
}

/// Gives all pointers of the contents to the barrier buffer.
///
/// # Safety
/// As [`Scanned::before_change`].
#[cold]
unsafe fn shade_contents<T: Trace>(mc: &Mutator<'_>, contents: *const T) {
    let mut sink = Shade { mc };
    // SAFETY: the lock is held, so the contents are this thread's alone, and so are containers in them.
    let mut tracer = unsafe { Tracer::new(&mut sink, Reader::Everything) };
    // SAFETY: L1: the lock is held by this thread.
    unsafe { &*contents }.trace(&mut tracer);
}

/// Gives pointers to the barrier buffer.
struct Shade<'a, 'gc> {
    mc: &'a Mutator<'gc>,
}

impl EdgeSink for Shade<'_, '_> {
    fn edge(&mut self, target: Addr) {
        // SAFETY: S1: the contents' own `Gc`s (E1), and the container is in the heap of this mutator, by
        // its brand. S2: the closure has locked the container, and so holds what is in it.
        unsafe { self.mc.core().shade(target) };
    }
}
