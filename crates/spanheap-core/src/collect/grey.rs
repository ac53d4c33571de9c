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
//! look before it declares a round clean ([`GreyQueue::settle`]). Otherwise another closure could find
//! the object marked, and the round would end clean before the rescan was asked for. (The protocol's model
//! shows an object lost for asking after, and for asking before.)
//!
//! # The decision
//! A weak pointer may lead to an object that nothing else reaches. A closure of the marking phase that
//! upgrades one puts the object into this queue, *unless the end of marking is decided* ([`GreyQueue::retain`]);
//! the collector decides only if no such object is in the queue ([`GreyQueue::settle`]). Both are one step under
//! the lock, so the decision is a moment: an upgrade before it finds the object and retains it; after it, an
//! object that is not marked is dead, whoever asks. A barrier buffer would not do for an upgrade: the round
//! could end clean before its owner leaves.
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
    /// Whether an upgraded object may be among the entries.
    upgraded: bool,
    /// Whether it is decided what this cycle has found dead.
    decided: bool,
}

/// What came of the wish to retain an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retained {
    /// The running cycle will mark it.
    Yes,
    /// Marking has ended: the object is dead if it is not marked.
    Decided,
    /// The cycle of the closure is over, and has cleared what was dead.
    Over,
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
        let inner = Inner { cycle: 0, filled: None, free: None, upgraded: false, decided: false };
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
        (inner.upgraded, inner.decided) = (false, false);
        while let Some(block) = inner.take() {
            inner.recycle(block);
        }
        self.filled.store(false, Ordering::Relaxed);
        self.rescan.store(false, Ordering::Relaxed);
        self.lossy.store(false, Ordering::Relaxed);
    }

    /// Takes `targets` in, on behalf of a closure of `cycle`. If there is no memory for one of them, `mark` is
    /// called to mark it on the spot; it says whether it could.
    ///
    /// The lock is taken once for all of them: a mutator hands over a buffer of 256, beside a collector that comes
    /// for a block at a time, and need not wait for its turn 256 times.
    pub fn push(
        &self,
        os: &Os,
        memory: &Persistent,
        cycle: u32,
        targets: &[Addr],
        mut mark: impl FnMut(Addr) -> bool,
    ) {
        let mut inner = self.inner.lock();
        if inner.cycle == cycle {
            for &target in targets {
                self.append(&mut inner, os, memory, target, || mark(target));
            }
        }
    }

    /// Takes an object in that a closure of the marking phase of `cycle` has found through a weak pointer,
    /// unless the end of marking is decided. If there is no memory for it, `mark` marks it on the spot.
    pub fn retain(
        &self,
        os: &Os,
        memory: &Persistent,
        cycle: u32,
        target: Addr,
        mark: impl FnOnce(),
    ) -> Retained {
        let mut inner = self.inner.lock();
        if inner.cycle != cycle {
            return Retained::Over;
        }
        if inner.decided {
            return Retained::Decided;
        }
        let mark = || {
            mark();
            true
        };
        // If it is not in the queue, the rescan holds the decision up.
        inner.upgraded |= self.append(&mut inner, os, memory, target, mark);
        Retained::Yes
    }

    /// Appends an entry; false when there is no memory for it.
    fn append(
        &self,
        inner: &mut Inner,
        os: &Os,
        memory: &Persistent,
        target: Addr,
        mark: impl FnOnce() -> bool,
    ) -> bool {
        let Some(block) = inner.block_with_room(os, memory) else {
            let flag = if mark() { &self.rescan } else { &self.lossy };
            flag.store(true, Ordering::Release);
            return false;
        };
        // SAFETY: a filled block belongs to the queue, whose lock the caller holds.
        let block = unsafe { &mut *block.as_ptr() };
        block.entries[block.len] = target;
        block.len += 1;
        self.filled.store(true, Ordering::Release);
        true
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
            // Whoever drains marks what he has taken before he decides anything.
            inner.upgraded &= inner.filled.is_some();
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

    /// The collector's last look before a round is clean: false when somebody has asked for a rescan, or an
    /// upgraded object is in the queue. If not, and if the marks are to be `trusted`, it is decided from here on
    /// what is dead. (Else everything will be retained, and weak pointers go on being upgraded.)
    pub fn settle(&self, trusted: bool) -> bool {
        let mut inner = self.inner.lock();
        if self.rescan.load(Ordering::Acquire) || inner.upgraded {
            return false;
        }
        inner.decided = trusted && !self.is_lossy();
        true
    }

    /// Whether it is decided what the running cycle has found dead.
    pub fn is_decided(&self) -> bool {
        self.inner.lock().decided
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
        let push = |cycle, n| queue.push(&os, &memory, cycle, &[Addr::new(n)], |_| unreachable!());
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
        queue.push(&os, &memory, 1, &[Addr::new(16)], |_| true);
        assert!(!queue.has_entries() && !queue.settle(true) && !queue.is_lossy());
        assert!(queue.take_rescan() && queue.settle(true));
        queue.push(&os, &memory, 1, &[Addr::new(16)], |_| false);
        assert!(queue.settle(true) && queue.is_lossy());
        queue.begin(2);
        assert!(queue.settle(true) && !queue.is_lossy());
    }

    #[test]
    fn an_upgraded_object_holds_the_decision_up_until_it_was_drained() {
        let (os, memory) = (Os::native(), Persistent::new());
        let queue = GreyQueue::new();
        queue.begin(3);
        let retain = |cycle, n| queue.retain(&os, &memory, cycle, Addr::new(n), || unreachable!());
        assert_eq!(retain(2, 16), Retained::Over);
        queue.push(&os, &memory, 3, &[Addr::new(32)], |_| unreachable!());
        assert!(
            queue.settle(false),
            "what barriers buffer is marked by then, if the round was clean"
        );
        assert_eq!(retain(3, 48), Retained::Yes);
        assert!(!queue.settle(true) && !queue.is_decided());
        let mut seen = Vec::new();
        queue.drain(|target| seen.push(target.get()));
        assert_eq!(seen, [32, 48]);
        assert!(queue.settle(true) && queue.is_decided());
        assert_eq!(retain(3, 64), Retained::Decided);
        assert!(!queue.has_entries());
        queue.begin(4);
        assert_eq!((retain(3, 64), retain(4, 64)), (Retained::Over, Retained::Yes));
    }

    #[test]
    fn without_memory_an_upgraded_object_is_marked_and_a_rescan_holds_the_decision_up() {
        let os = Os::simulated(SimOs::builder().fail_from(1).build());
        let (memory, queue) = (Persistent::new(), GreyQueue::new());
        queue.begin(1);
        let mut marked = false;
        let retained = queue.retain(&os, &memory, 1, Addr::new(16), || marked = true);
        assert_eq!((retained, marked), (Retained::Yes, true));
        assert!(!queue.settle(true) && !queue.has_entries());
        assert!(queue.take_rescan());
        assert!(queue.settle(true) && queue.is_decided());
    }
}
