//! What a mutator's caches do in unusual times: when the mutator has to help the collector first, when types are kept
//! apart, when a signal handler allocates, and in a process that was forked from the heap's.
//!
//! **A signal handler** that allocates on a thread that was interrupted in the slow path of an allocation would
//! find caches and spans half changed. A flag says that the thread is in there, and the second one to come ends
//! the process with a message, by calls that are allowed in a handler. The fast path has no flag: a handler
//! that allocates may also interrupt that, between reading the cursor and moving it, and get the same slot. So
//! it is forbidden, and found out only where it does the most damage.
//!
//! # Safety
//! Follows the chain of blocks, as the rest of the cache does.
#![allow(unsafe_code)]

use super::chunk_pool::ChunkPool;
use super::{ClassCache, Mapped, SpanCache, Tint};
use crate::addr::{Addr, Bytes};
use crate::fatal::fatal_in_signal;
use crate::heap::Central;
use crate::heap::class::ClassKey;
use crate::heap::debt::Purse;
use crate::heap::error::OutOfMemory;
use crate::heap::page_heap::Refused;
use crate::span::TypeInfo;
use core::cell::Cell;

/// Says that a mutator is in the slow path of an allocation, until it is dropped.
pub(super) struct Inside<'a>(&'a Cell<bool>);

impl<'a> Inside<'a> {
    /// From here on.
    pub(super) fn begin(flag: &'a Cell<bool>) -> Inside<'a> {
        if flag.replace(true) {
            // No code of the user's runs in there, and the caches are this thread's alone.
            fatal_in_signal(
                "a signal handler allocates in the midst of an allocation of its thread",
            );
        }
        Inside(flag)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl SpanCache {
    /// Lets nobody pass who has to help the collector first. The error is no more than a reason to come back:
    /// see [`Purse::take_pause`].
    #[inline]
    pub(super) fn check_purse(&self, central: &Central, tint: Tint) -> Result<(), OutOfMemory> {
        if tint.black && !self.purse.may_take(central.debt()) {
            return Err(central.out_of_memory(Bytes::ZERO, Refused::System));
        }
        Ok(())
    }

    /// Chunks for arenas.
    #[inline]
    pub fn chunk_pool(&self) -> &ChunkPool {
        &self.chunks
    }

    /// What the mutator owes to the cycle that marks.
    pub fn purse(&self) -> &Purse {
        &self.purse
    }

    /// The class of objects of `ty`, of which `key` says everything but whether others may be beside them.
    #[inline]
    pub(super) fn key(&self, key: ClassKey, ty: &'static TypeInfo) -> ClassKey {
        if self.types_apart.get() { key.only_for(ty) } else { key }
    }

    /// Notices whether types are to have classes of their own. Comes when the caches hold nothing.
    pub fn set_types_apart(&self, apart: bool) {
        if self.types_apart.replace(apart) != apart {
            self.mapped.iter().for_each(Mapped::forget);
        }
    }

    /// Forgets what the caches hold without giving it back, for a process in which nobody collects the heap. What
    /// is allocated next is not to be had.
    pub fn forget(&self) {
        self.chunks.forget();
        self.tiny.set(Addr::NULL);
        self.tiny_end.set(Addr::NULL);
        let forget = |cache: &ClassCache| {
            cache.cursor.set(Addr::NULL);
            cache.end.set(Addr::NULL);
            cache.span.set(None);
        };
        self.flat.iter().chain(&self.noscan).for_each(forget);
        let mut link = self.blocks.get();
        while let Some(block) = link {
            // SAFETY: as in `block_at`.
            let block = unsafe { block.as_ref() };
            block.caches.iter().for_each(forget);
            link = block.next.get();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second one to come ends the process, by calls that a handler may make.
    #[test]
    fn fault_73_a_handler_that_allocates_in_the_slow_path_is_found_out() {
        let flag = Cell::new(false);
        drop(Inside::begin(&flag));
        let outer = Inside::begin(&flag);
        // SAFETY: the child does nothing but fail.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let _handler = Inside::begin(&flag);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(1) };
        }
        let mut status = 0;
        // SAFETY: waits for the child that was just made.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT, "{status}");
        drop(outer);
        assert!(!flag.get());
    }
}
