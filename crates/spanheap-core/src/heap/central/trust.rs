//! What a heap does about its own mistakes, the user's, and those of the world: verification that is switched on,
//! hooks that are told, and the process that it belongs to.

use super::Central;
use crate::heap::hooks::{self, Hooks};
use crate::heap::switches::Switches;
use crate::span::alone::{Alone, Busy};
use crate::sync::atomic::Ordering;
use core::any::Any;

impl Central {
    /// What verifies the heap.
    pub fn switches(&self) -> &Switches {
        &self.switches
    }

    /// Who is told of panics and delays.
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// Whether this is the process that the heap belongs to, and not a child that was forked from it.
    #[inline]
    pub fn is_here(&self) -> bool {
        self.origin.is_here()
    }

    /// # Panics
    /// In a process that was forked from the heap's: its threads are not there, and locks that were held in
    /// that moment will never be free.
    #[inline]
    #[track_caller]
    pub fn assert_here(&self) {
        if !self.is_here() {
            self.panic_elsewhere();
        }
    }

    #[cold]
    #[track_caller]
    fn panic_elsewhere(&self) -> ! {
        panic!(
            "heap {} belongs to process {}, and this is {}, which was forked from it: its objects can be read \
             here, but nothing can be allocated, rooted or collected",
            self.number,
            self.origin.process(),
            std::process::id(),
        );
    }

    /// Counts a trace function that has panicked, and tells who wants to know. Called by whoever marks.
    pub fn trace_panicked(&self, type_name: &'static str, payload: &(dyn Any + Send)) {
        self.trace_panics.fetch_add(1, Ordering::Relaxed);
        let _alone = Alone::begin(Busy::Hook);
        hooks::tell(self.hooks.trace_panic.as_ref(), type_name, payload);
    }

    /// Trace functions that have panicked.
    pub fn trace_panics(&self) -> u64 {
        self.trace_panics.load(Ordering::Relaxed)
    }

    /// Counts a slot that a mutator takes, where slots are counted; see [`Switches`].
    pub fn count_slot(&self) {
        if self.switches.count_slot() {
            self.alarm.ring();
        }
    }
}
