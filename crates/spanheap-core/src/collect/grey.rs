//! The grey queue: raw pointers that barrier buffers have handed over, waiting to be marked.
//!
//! Before marking begins the queue only collects, since the mark bits are not clean yet. It holds
//! whatever mutators overwrote or, in the second arming phase, allocated; each entry is an object's
//! address, marked or not, in any order, more than once.
//!
//! Entries carry the cycle of the closure that flushed them. A flush that arrives after its cycle has
//! ended is dropped: all its entries were marked by that cycle.
//!
//! **When memory for a block is refused** the queue cannot take an entry. If the mark bits are clean by
//! now, the object is marked on the spot, and the queue asks the collector for a rescan: a walk over all
//! pages for objects that are marked and not scanned. If not, the cycle is declared lossy, which makes it
//! retain everything. Nothing is ever lost silently.
//!
//! Marking on the spot and asking are *one step* under the queue's lock, and so is the collector's last
//! look before it declares a round clean ([`GreyQueue::is_settled`]). Otherwise another closure could find
//! the object marked, and the round would end clean before the rescan was asked for. (The protocol's model
//! shows an object lost for asking after, and for asking before.)
//!
//! # Locking
//! [`Rank::GreyQueue`].
//!
//! # Safety
//! Blocks come from persistent memory, are linked by raw pointers, and belong to the queue alone.
#![allow(unsafe_code)]

use crate::addr::Addr;
use crate::offheap::Persistent;
use crate::os::{Category, Os};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Lock, Rank};
use core::ptr::NonNull;

const BLOCK_ENTRIES: usize = 510;

struct Block {
    next: Option<NonNull<Block>>,
    len: usize,
    entries: [Addr; BLOCK_ENTRIES],
}

const _: () = assert!(size_of::<Block>() == 4096);

struct Inner {
    cycle: u32,
    filled: Option<NonNull<Block>>,
    free: Option<NonNull<Block>>,
}

// SAFETY: the blocks are reached only through the lock around `Inner`.
unsafe impl Send for Inner {}

/// The grey queue of a heap.
pub struct GreyQueue {
    inner: Lock<Inner>,
    /// Whether there may be entries; read without the lock.
    filled: AtomicBool,
    /// Whether somebody has marked an object without queueing it.
    rescan: AtomicBool,
    /// Whether an entry of this cycle was lost.
    lossy: AtomicBool,
}

impl GreyQueue {
    /// An empty queue.
    pub const fn new() -> GreyQueue {
        let inner = Inner { cycle: 0, filled: None, free: None };
        GreyQueue {
            inner: Lock::new(Rank::GreyQueue, inner),
            filled: AtomicBool::new(false),
            rescan: AtomicBool::new(false),
            lossy: AtomicBool::new(false),
        }
    }

    /// Begins to collect for `cycle`, and forgets everything older.
    pub fn begin(&self, cycle: u32) {
        let mut inner = self.inner.lock();
        inner.cycle = cycle;
        while let Some(block) = inner.take() {
            inner.recycle(block);
        }
        self.filled.store(false, Ordering::Relaxed);
        self.rescan.store(false, Ordering::Relaxed);
        self.lossy.store(false, Ordering::Relaxed);
    }

    /// Takes `target` in, on behalf of a closure of `cycle`. If there is no memory for it, `mark` is called to
    /// mark it on the spot; it says whether it could.
    pub fn push(
        &self,
        os: &Os,
        memory: &Persistent,
        cycle: u32,
        target: Addr,
        mark: impl FnOnce() -> bool,
    ) {
        let mut inner = self.inner.lock();
        if inner.cycle != cycle {
            return;
        }
        let Some(block) = inner.block_with_room(os, memory) else {
            let flag = if mark() { &self.rescan } else { &self.lossy };
            flag.store(true, Ordering::Release);
            return;
        };
        // SAFETY: a filled block belongs to the queue, whose lock we hold.
        let block = unsafe { &mut *block.as_ptr() };
        block.entries[block.len] = target;
        block.len += 1;
        self.filled.store(true, Ordering::Release);
    }

    /// Gives all entries to `take`; false when there were none. The lock is free while `take` runs.
    pub fn drain(&self, mut take: impl FnMut(Addr)) -> bool {
        let mut any = false;
        while self.filled.load(Ordering::Acquire) {
            let mut inner = self.inner.lock();
            let Some(block) = inner.take() else {
                self.filled.store(false, Ordering::Release);
                break;
            };
            drop(inner);
            any = true;
            // SAFETY: the block has left the queue and is ours.
            let entries = unsafe { block.as_ref() };
            entries.entries[..entries.len].iter().for_each(|&target| take(target));
            self.inner.lock().recycle(block);
        }
        any
    }

    /// Whether there may be entries.
    pub fn has_entries(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// Whether nobody has asked for a rescan. This is the collector's last look before a round is clean.
    pub fn is_settled(&self) -> bool {
        let _nobody_marks_meanwhile = self.inner.lock();
        !self.rescan.load(Ordering::Acquire)
    }

    /// Whether a rescan was asked for; asking is forgotten, so the rescan comes after this.
    pub fn take_rescan(&self) -> bool {
        self.rescan.swap(false, Ordering::AcqRel)
    }

    /// Whether an entry of the running cycle is lost.
    pub fn is_lossy(&self) -> bool {
        self.lossy.load(Ordering::Acquire)
    }
}

impl Default for GreyQueue {
    fn default() -> GreyQueue {
        GreyQueue::new()
    }
}

impl Inner {
    fn block_with_room(&mut self, os: &Os, memory: &Persistent) -> Option<NonNull<Block>> {
        if let Some(block) = self.filled {
            // SAFETY: the queue's own block, under its lock.
            if unsafe { block.as_ref() }.len < BLOCK_ENTRIES {
                return Some(block);
            }
        }
        let mut block = match self.free {
            Some(block) => block,
            None => {
                let layout = core::alloc::Layout::new::<Block>();
                memory.alloc(os, layout, Category::MarkQueue).ok()?.cast()
            }
        };
        // SAFETY: zeroed memory is a valid block, and this one is free: ours alone.
        let fresh = unsafe { block.as_mut() };
        if self.free.is_some() {
            self.free = fresh.next;
        }
        (fresh.next, fresh.len) = (self.filled, 0);
        self.filled = Some(block);
        Some(block)
    }

    fn take(&mut self) -> Option<NonNull<Block>> {
        let block = self.filled?;
        // SAFETY: the queue's own block, under its lock.
        self.filled = unsafe { block.as_ref() }.next;
        Some(block)
    }

    fn recycle(&mut self, mut block: NonNull<Block>) {
        // SAFETY: the block was taken out and is given back; nobody else knows it.
        unsafe { block.as_mut() }.next = self.free;
        self.free = Some(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::sim::SimOs;

    #[test]
    fn entries_of_another_cycle_are_dropped() {
        let (os, memory) = (Os::native(), Persistent::new());
        let queue = GreyQueue::new();
        let push = |cycle, n| queue.push(&os, &memory, cycle, Addr::new(n), || unreachable!());
        queue.begin(7);
        for n in 1..2000 {
            push(7, n);
            push(6, n + 10_000);
        }
        let mut sum = 0;
        assert!(queue.drain(|a| sum += a.get()));
        assert_eq!(sum, (1..2000).sum::<usize>());
        assert!(!queue.drain(|_| ()));
        push(7, 1);
        queue.begin(8);
        assert!(!queue.drain(|_| unreachable!("a new cycle begins with an empty queue")));
    }

    #[test]
    fn without_memory_an_entry_is_marked_or_the_cycle_is_lossy() {
        let os = Os::simulated(SimOs::builder().fail_from(1).build());
        let memory = Persistent::new();
        let queue = GreyQueue::new();
        queue.begin(1);
        queue.push(&os, &memory, 1, Addr::new(16), || true);
        assert!(!queue.has_entries() && !queue.is_settled() && !queue.is_lossy());
        assert!(queue.take_rescan() && queue.is_settled());
        queue.push(&os, &memory, 1, Addr::new(16), || false);
        assert!(queue.is_settled() && queue.is_lossy());
        queue.begin(2);
        assert!(queue.is_settled() && !queue.is_lossy());
    }
}
