//! The grey queue: raw pointers that barrier buffers have handed over, on their way to the collector.
//!
//! # Arming
//! Before marking begins the queue only collects, since the mark bits are not clean yet. It holds
//! whatever mutators overwrote or, in the second arming phase, allocated: addresses of objects, not marked, in any
//! order, and more than once where the filter of recent addresses does not notice.
//!
//! # Marking
//! While marking runs, a flush first drops what is marked already, without the lock
//! ([`super::mark::keep_unmarked`]). Each of the others is marked under the lock, and appended *only if this has
//! set the bit*. So an object is appended once in a cycle at most, however often its pointer is overwritten; and an
//! entry is news, which no round ends over. A queue that took everything would grow as long as somebody stores faster
//! than the collector takes, and the collector would never find it empty.
//!
//! Dropping a marked object is the same as if the collector took it from the queue at that moment, and found it
//! marked. That is harmless if what the mark stands for is known to somebody for whom the round waits. Who has set it?
//! - The collector, or somebody busy in the crew: no round ends before he has told what he found (T1).
//! - A black allocation: it is never scanned.
//! - Another flush, or an upgrade, under the lock: the object was appended, or a rescan asked for, in the same step,
//!   and the last look of a round ([`GreyQueue::settle`]) takes the same lock. If that look came before the step,
//!   nothing was marked in it: what has been settled is not marked here any more. If it came after, it finds the
//!   entry or the request, or the collector has taken it before, as news.
//!
//! The *barrier* must not do so, each store for itself (see [`super::buffer`]): the entry of whoever has set the bit
//! would lie in his own buffer, where no round looks. Here the mark and the entry become visible in one step.
//!
//! # A flush that is late
//! Entries carry the cycle of the closure that flushed them. A flush that arrives after the end of marking is
//! dropped: all its entries were marked by that cycle, or the cycle retains everything.
//!
//! # Memory
//! Blocks may be filled up to a bound, [`bound`], which is made for arming: while marking runs, every object is in the
//! queue once at most. When the bound is reached, or memory for a block is refused, the queue cannot take an
//! entry. If the mark bits are clean by now, the object is marked all the same, and the queue asks the
//! collector for a rescan: a walk over all pages for objects that are marked and not scanned. If not, the cycle is
//! declared lossy, which makes it retain everything. Nothing is ever lost silently.
//!
//! In an arming phase, somebody may store for as long as another closure stays open. Most of such a storm goes over
//! few objects, and the filter drops these repetitions: a table of [`RECENT`] addresses, each in the place that
//! its hash names, of which all are in the queue.
//!
//! Marking on the spot and asking are *one step* under the queue's lock, too. Otherwise another closure could find
//! the object marked, and the round would end clean before the rescan was asked for. (The protocol's model
//! shows an object lost for asking after, and for asking before; and for marking in one step and appending in another.)
//!
//! # The decision
//! A weak pointer may lead to an object that nothing else reaches. A closure of the marking phase that
//! upgrades one has the object marked and appended, *unless the end of marking is decided* ([`GreyQueue::retain`]);
//! the collector decides only if nothing is in the queue ([`GreyQueue::settle`]). Both are one step under
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

use crate::addr::{Addr, Bytes, GRANULE_BYTES};
use crate::offheap::Persistent;
use crate::os::{Category, Os};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Lock, Rank};
use core::ptr::NonNull;

const BLOCK_ENTRIES: usize = 510;

/// How many addresses the filter of the arming phases has room for.
const RECENT: usize = 512;

/// The blocks of a small heap.
const LEAST_BOUND: Bytes = Bytes::new(16 << 20);

/// In a large heap, entries may take one part in so many of what is in use.
const BOUND_PART: usize = 16;

/// How much memory the blocks may take that are filled, in a heap with so much in use.
pub fn bound(in_use: Bytes) -> Bytes {
    LEAST_BOUND.saturating_add(Bytes::new(in_use.get() / BOUND_PART))
}

struct Block {
    next: Option<NonNull<Block>>,
    len: usize,
    entries: [Addr; BLOCK_ENTRIES],
}

const _: () = assert!(size_of::<Block>() == 4096);

/// How far the cycle is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The mark bits are not clean yet.
    Arming,
    /// Marking runs, and what is dead is open.
    Marking,
    /// Marking has ended without a decision: everything is retained.
    Undecided,
    /// It is decided what this cycle has found dead.
    Decided,
}

struct Inner {
    cycle: u32,
    stage: Stage,
    /// Whether an object was marked and found no room.
    rescan: bool,
    filled: Option<NonNull<Block>>,
    free: Option<NonNull<Block>>,
    /// How many blocks are filled, and how many may be.
    blocks: usize,
    most: usize,
    /// Some of the entries, as long as the stage is arming.
    recent: [Addr; RECENT],
}

/// What came of the wish to retain an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retained {
    /// The running cycle retains it.
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
    /// Whether an entry of this cycle was lost.
    lossy: AtomicBool,
}

impl GreyQueue {
    /// An empty queue.
    pub const fn new() -> GreyQueue {
        let inner = Inner {
            cycle: 0,
            stage: Stage::Undecided,
            rescan: false,
            filled: None,
            free: None,
            blocks: 0,
            most: 0,
            recent: [Addr::NULL; RECENT],
        };
        GreyQueue {
            inner: Lock::new(Rank::GreyQueue, inner),
            filled: AtomicBool::new(false),
            lossy: AtomicBool::new(false),
        }
    }

    /// Begins to collect for `cycle`, and forgets everything older. Entries may take `bound`, rounded up to a block.
    pub fn begin(&self, cycle: u32, bound: Bytes) {
        let mut inner = self.inner.lock();
        (inner.cycle, inner.stage, inner.rescan) = (cycle, Stage::Arming, false);
        inner.most = bound.get().div_ceil(size_of::<Block>());
        inner.recent.fill(Addr::NULL);
        while let Some(block) = inner.take() {
            inner.recycle(block);
        }
        self.filled.store(false, Ordering::Relaxed);
        self.lossy.store(false, Ordering::Relaxed);
    }

    /// The mark bits are clean: from here on, what comes in is marked. Comes before the phase is published.
    pub fn begin_marking(&self) {
        let mut inner = self.inner.lock();
        debug_assert!(inner.stage == Stage::Arming);
        inner.stage = Stage::Marking;
    }

    /// Takes `targets` in, on behalf of a closure of `cycle`. If marking runs, `mark` is called to mark each of them,
    /// and says whether it has: what was marked before is dropped.
    ///
    /// The lock is taken once for all of them: a mutator hands over a buffer of 256, beside a collector that comes
    /// for a block at a time, and need not wait for its turn 256 times.
    pub fn push(
        &self,
        os: &Os,
        memory: &Persistent,
        cycle: u32,
        targets: impl Iterator<Item = Addr>,
        mut mark: impl FnMut(Addr) -> bool,
    ) {
        let mut inner = self.inner.lock();
        if inner.cycle != cycle {
            return;
        }
        match inner.stage {
            Stage::Arming => {
                targets.for_each(|target| self.gather(&mut inner, os, memory, target));
            }
            Stage::Marking => {
                for target in targets {
                    self.mark_and_append(&mut inner, os, memory, target, &mut mark);
                }
            }
            Stage::Undecided | Stage::Decided => {}
        }
    }

    /// Retains an object that a closure of the marking phase of `cycle` has found through a weak pointer, unless
    /// the end of marking is decided: `mark` marks it, and says whether it has, and if so it is taken in.
    pub fn retain(
        &self,
        os: &Os,
        memory: &Persistent,
        cycle: u32,
        target: Addr,
        mut mark: impl FnMut(Addr) -> bool,
    ) -> Retained {
        let mut inner = self.inner.lock();
        if inner.cycle != cycle {
            return Retained::Over;
        }
        debug_assert!(inner.stage != Stage::Arming, "a closure marks, and the collector does not");
        match inner.stage {
            Stage::Decided => return Retained::Decided,
            Stage::Undecided => {}
            Stage::Arming | Stage::Marking => {
                self.mark_and_append(&mut inner, os, memory, target, &mut mark);
            }
        }
        Retained::Yes
    }

    /// Appends an object in an arming phase, unless it is known to be in the queue.
    fn gather(&self, inner: &mut Inner, os: &Os, memory: &Persistent, target: Addr) {
        let place = place_of(target);
        if inner.recent[place] == target {
            return;
        }
        match self.append(inner, os, memory, target) {
            true => inner.recent[place] = target,
            false => self.lossy.store(true, Ordering::Release),
        }
    }

    /// Marks an object, and appends it if it was not marked. One step, since the caller holds the lock.
    fn mark_and_append(
        &self,
        inner: &mut Inner,
        os: &Os,
        memory: &Persistent,
        target: Addr,
        mark: &mut impl FnMut(Addr) -> bool,
    ) {
        if mark(target) && !self.append(inner, os, memory, target) {
            inner.rescan = true;
        }
    }

    /// Appends an entry; false when there is no memory for it.
    fn append(&self, inner: &mut Inner, os: &Os, memory: &Persistent, target: Addr) -> bool {
        let Some(block) = inner.block_with_room(os, memory) else { return false };
        // SAFETY: a filled block belongs to the queue, whose lock the caller holds.
        let block = unsafe { &mut *block.as_ptr() };
        block.entries[block.len] = target;
        block.len += 1;
        self.filled.store(true, Ordering::Release);
        true
    }

    /// Gives all entries to `take`, a block of them at a time; false when there were none. The lock is free while
    /// `take` runs. They are marked, if they came in while marking ran.
    pub fn drain(&self, mut take: impl FnMut(&[Addr])) -> bool {
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
            take(&entries.entries[..entries.len]);
            self.inner.lock().recycle(block);
        }
        any
    }

    /// Whether there may be entries.
    pub fn has_entries(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// The collector's last look before a round is clean: false when somebody has asked for a rescan, or anything
    /// is in the queue. If not, nothing is taken in any more; and if the marks are to be `trusted`, it is decided from
    /// here on what is dead. (Else everything will be retained, and weak pointers go on being upgraded.)
    pub fn settle(&self, trusted: bool) -> bool {
        let mut inner = self.inner.lock();
        if inner.rescan || inner.filled.is_some() {
            return false;
        }
        let decides = trusted && !self.is_lossy();
        inner.stage = if decides { Stage::Decided } else { Stage::Undecided };
        true
    }

    /// Whether it is decided what the running cycle has found dead.
    pub fn is_decided(&self) -> bool {
        self.inner.lock().stage == Stage::Decided
    }

    /// Whether a rescan was asked for; asking is forgotten, so the rescan comes after this.
    pub fn take_rescan(&self) -> bool {
        core::mem::take(&mut self.inner.lock().rescan)
    }

    /// Whether an entry of the running cycle is lost.
    pub fn is_lossy(&self) -> bool {
        self.lossy.load(Ordering::Acquire)
    }
}

/// Where the filter has `target`, if it has it: the first bits of a product that spreads all of them.
fn place_of(target: Addr) -> usize {
    let spread = (target.get() / GRANULE_BYTES) as u64;
    (spread.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - RECENT.ilog2())) as usize
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
        if self.blocks >= self.most {
            return None;
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
        self.blocks += 1;
        Some(block)
    }

    fn take(&mut self) -> Option<NonNull<Block>> {
        let block = self.filled?;
        // SAFETY: the queue's own block, under its lock.
        self.filled = unsafe { block.as_ref() }.next;
        self.blocks -= 1;
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
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    const BLOCK: Bytes = Bytes::new(size_of::<Block>());

    /// A queue, its memory, and the marks of its objects.
    struct World {
        os: Os,
        memory: Persistent,
        queue: GreyQueue,
        marked: RefCell<BTreeSet<usize>>,
    }

    impl World {
        fn new(os: Os) -> World {
            let marked = RefCell::default();
            World { os, memory: Persistent::new(), queue: GreyQueue::new(), marked }
        }

        fn without_memory() -> World {
            World::new(Os::simulated(SimOs::builder().fail_from(1).build()))
        }

        /// Begins to mark for `cycle`.
        fn begin_marking(&self, cycle: u32) {
            self.queue.begin(cycle, bound(Bytes::ZERO));
            self.queue.begin_marking();
            self.marked.borrow_mut().clear();
        }

        fn mark(&self, target: Addr) -> bool {
            self.marked.borrow_mut().insert(target.get())
        }

        fn push(&self, cycle: u32, target: usize) {
            let targets = [Addr::new(target)].into_iter();
            self.queue.push(&self.os, &self.memory, cycle, targets, |target| self.mark(target));
        }

        fn retain(&self, cycle: u32, target: usize) -> Retained {
            let target = Addr::new(target);
            self.queue.retain(&self.os, &self.memory, cycle, target, |target| self.mark(target))
        }

        /// What is in the queue, which is empty then.
        fn drained(&self) -> Vec<usize> {
            let mut seen = Vec::new();
            let any = self.queue.drain(|targets| seen.extend(targets.iter().map(|at| at.get())));
            assert_eq!(any, !seen.is_empty());
            seen
        }

        fn marks(&self) -> usize {
            self.marked.borrow().len()
        }

        /// Bytes of blocks, filled or free.
        fn blocks(&self) -> usize {
            let inner = self.queue.inner.lock();
            let mut count = 0;
            for list in [inner.filled, inner.free] {
                let mut next = list;
                while let Some(block) = next {
                    // SAFETY: a block of the queue, whose lock is held.
                    next = unsafe { block.as_ref() }.next;
                    count += 1;
                }
            }
            count * BLOCK.get()
        }
    }

    #[test]
    fn entries_of_another_cycle_are_dropped() {
        let world = World::new(Os::native());
        world.queue.begin(7, bound(Bytes::ZERO));
        for n in 1..2000 {
            world.push(7, 16 * n);
            world.push(6, 16 * (n + 10_000));
        }
        assert_eq!(world.marks(), 0, "the mark bits are not clean yet");
        assert_eq!(world.drained().iter().sum::<usize>(), 16 * (1..2000).sum::<usize>());
        assert!(!world.queue.drain(|_| unreachable!("it is empty")));
        world.push(7, 16);
        world.push(7, 32_000);
        world.queue.begin(8, bound(Bytes::ZERO));
        assert!(!world.queue.drain(|_| unreachable!("a new cycle begins with an empty queue")));
        world.push(8, 16);
        assert_eq!(world.drained(), [16], "and with an empty filter");
    }

    #[test]
    fn while_marking_an_object_is_appended_once() {
        let world = World::new(Os::native());
        world.begin_marking(1);
        assert!(world.mark(Addr::new(16)), "the collector has found one");
        for _ in 0..1000 {
            [16, 32, 48].iter().for_each(|&target| world.push(1, target));
            assert_eq!(world.retain(1, 48), Retained::Yes);
        }
        assert_eq!(world.drained(), [32, 48]);
        assert!(world.queue.settle(true));
        // What comes after the end was marked by then, or is retained.
        world.push(1, 64);
        assert!(!world.queue.has_entries() && world.marks() == 3);
    }

    #[test]
    fn a_storm_fills_no_more_than_one_entry_for_each_object() {
        const OBJECTS: usize = 5000;
        let world = World::new(Os::native());
        world.begin_marking(1);
        (0..1_000_000).for_each(|n| world.push(1, 16 * (1 + n % OBJECTS)));
        assert_eq!(world.blocks(), OBJECTS.div_ceil(BLOCK_ENTRIES) * BLOCK.get());
        assert_eq!(world.drained().len(), OBJECTS);
        assert!(!world.queue.take_rescan() && world.queue.settle(true));
    }

    #[test]
    fn while_arming_a_storm_over_few_objects_is_filtered() {
        let world = World::new(Os::native());
        world.queue.begin(1, bound(Bytes::ZERO));
        // As far apart as objects of two pages are, and as close as they can be.
        for step in [16 << 10, 16] {
            (0..500_000).for_each(|n| world.push(1, (1 << 30) | (step * (n % 200))));
        }
        let mut entries = world.drained();
        assert!(entries.len() < 300_000, "{} entries", entries.len());
        entries.sort_unstable();
        entries.dedup();
        assert_eq!(entries.len(), 2 * 200 - 1, "nothing is filtered that is not in the queue");
    }

    #[test]
    fn at_the_bound_what_comes_in_is_marked_and_a_rescan_is_asked_for() {
        let world = World::new(Os::native());
        world.queue.begin(1, Bytes::new(2 * BLOCK.get() - 1));
        world.queue.begin_marking();
        (1..=2 * BLOCK_ENTRIES).for_each(|n| world.push(1, 16 * n));
        assert!(!world.queue.take_rescan());
        world.push(1, 1 << 20);
        assert!(world.marks() == 2 * BLOCK_ENTRIES + 1 && world.queue.take_rescan());
        assert_eq!(world.drained().len(), 2 * BLOCK_ENTRIES);
        world.push(1, 2 << 20);
        assert!(!world.queue.take_rescan() && world.drained() == [2 << 20], "there is room again");
        assert_eq!(world.blocks(), 2 * BLOCK.get());
    }

    #[test]
    fn at_the_bound_of_an_arming_phase_the_cycle_is_lossy() {
        let world = World::new(Os::native());
        world.queue.begin(1, BLOCK);
        (1..=BLOCK_ENTRIES).for_each(|n| world.push(1, 16 * n));
        assert!(!world.queue.is_lossy());
        world.push(1, 1 << 20);
        assert!(world.queue.is_lossy());
        world.queue.begin_marking();
        assert_eq!(world.drained().len(), BLOCK_ENTRIES);
        assert!(world.queue.settle(true) && !world.queue.is_decided());
        assert_eq!(bound(Bytes::new(1 << 30)), Bytes::new((16 << 20) + (64 << 20)));
    }

    #[test]
    fn without_memory_an_entry_is_marked_or_the_cycle_is_lossy() {
        let world = World::without_memory();
        world.begin_marking(1);
        world.push(1, 16);
        assert!(world.marks() == 1 && !world.queue.has_entries());
        assert!(!world.queue.settle(true) && !world.queue.is_lossy());
        assert!(world.queue.take_rescan());
        world.push(1, 16);
        assert!(world.queue.settle(true), "a rescan for what was marked before");
        world.queue.begin(2, bound(Bytes::ZERO));
        world.push(2, 16);
        world.push(2, 16);
        assert!(!world.queue.take_rescan() && world.queue.is_lossy());
        world.begin_marking(3);
        assert!(world.queue.settle(true) && !world.queue.is_lossy());
    }

    #[test]
    fn whatever_is_in_the_queue_holds_the_decision_up() {
        let world = World::new(Os::native());
        world.begin_marking(3);
        assert_eq!(world.retain(2, 16), Retained::Over);
        world.push(3, 32);
        assert!(!world.queue.settle(false) && !world.queue.settle(true));
        assert_eq!(world.drained(), [32]);
        assert_eq!(world.retain(3, 48), Retained::Yes);
        assert!(!world.queue.settle(true) && !world.queue.is_decided());
        assert_eq!(world.drained(), [48]);
        assert!(world.queue.settle(true) && world.queue.is_decided());
        assert_eq!(world.retain(3, 64), Retained::Decided);
        assert!(!world.queue.has_entries() && world.marks() == 2);
        world.begin_marking(4);
        assert_eq!((world.retain(3, 64), world.retain(4, 64)), (Retained::Over, Retained::Yes));
        world.begin_marking(5);
        assert!(world.queue.settle(false) && !world.queue.is_decided());
        assert_eq!((world.retain(5, 16), world.marks()), (Retained::Yes, 0), "all is retained");
    }

    #[test]
    fn without_memory_an_upgraded_object_is_marked_and_a_rescan_holds_the_decision_up() {
        let world = World::without_memory();
        world.begin_marking(1);
        assert_eq!((world.retain(1, 16), world.marks()), (Retained::Yes, 1));
        assert!(!world.queue.settle(true) && !world.queue.has_entries());
        assert!(world.queue.take_rescan());
        assert!(world.queue.settle(true) && world.queue.is_decided());
    }
}
