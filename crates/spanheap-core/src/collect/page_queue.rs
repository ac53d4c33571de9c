//! The page queue: pages that hold marked objects whose pointers have not been followed.
//!
//! First in, first out, on purpose: a page that waits gathers more marked objects, and then one visit
//! scans them all. (Last in, first out visits a page for each object of a random graph.) A page is in the
//! queue at most once (the arena's queued bits see to that), so the number of the heap's pages
//! bounds the queue, and it is made that large before marking begins.
//!
//! All workers share the one queue, so it is a matter of a lock ([`super::crew`]), and they go to it with
//! several pages at a time. A queue for each of them would be shorter than one for all, and pages would
//! wait less and gather less.
//!
//! If it is full all the same, or memory for it was refused, pushing fails, and the marker falls back to
//! looking for pages whose marked and scanned bits differ. Marking never fails for want of memory.
//!
//! # Safety
//! The ring is memory from the system that belongs to this queue alone.
#![allow(unsafe_code)]

use crate::addr::{Addr, AddrRange, Bytes, PageCount};
use crate::os::{Category, Os};

/// The ring that a queue begins with, in entries.
const SMALLEST: usize = 2048;

/// A ring that is so many times as large as it needs to be is exchanged.
const LAVISH: usize = 8;

/// A bounded queue of page addresses.
pub struct PageQueue {
    ring: Addr,
    /// A power of two, or 0 as long as there is no ring.
    capacity: usize,
    head: usize,
    tail: usize,
    /// No more entries than this, whatever room there is.
    #[cfg(test)]
    bound: usize,
}

impl PageQueue {
    /// A queue without room.
    pub const fn new() -> PageQueue {
        PageQueue {
            ring: Addr::NULL,
            capacity: 0,
            head: 0,
            tail: 0,
            #[cfg(test)]
            bound: usize::MAX,
        }
    }

    /// Bounds the queue below what it has room for; 0 is a queue that never takes anything.
    #[cfg(test)]
    pub(super) fn set_bound(&mut self, entries: usize) {
        self.bound = entries;
    }

    /// Makes room for `pages` entries if the system allows it, and gives room back that a heap needed that was
    /// much larger. The queue is empty.
    pub fn prepare(&mut self, os: &Os, pages: PageCount) {
        debug_assert!(self.is_empty());
        let wanted = pages.get().max(SMALLEST).next_power_of_two();
        if wanted <= self.capacity && self.capacity < LAVISH * wanted {
            return;
        }
        let bytes = Self::bytes(wanted).checked_align_up(os.page_size().get());
        if let Some(Ok(ring)) = bytes.map(|bytes| os.alloc(bytes, Category::MarkQueue)) {
            self.release(os);
            (self.ring, self.capacity) = (ring, wanted);
        }
    }

    fn bytes(entries: usize) -> Bytes {
        Bytes::new(entries * size_of::<Addr>())
    }

    /// The memory that the queue has.
    pub fn memory(&self, os: &Os) -> AddrRange {
        let bytes = Self::bytes(self.capacity);
        AddrRange::at(self.ring, bytes.checked_align_up(os.page_size().get()).unwrap_or(bytes))
    }

    /// Appends a page; false when there is no room.
    #[inline]
    pub fn push(&mut self, page: Addr) -> bool {
        if self.tail - self.head == self.capacity {
            return false;
        }
        #[cfg(test)]
        if self.tail - self.head >= self.bound {
            return false;
        }
        let slot = self.ring + Self::bytes(self.tail & (self.capacity - 1));
        // SAFETY: the slot lies in the ring, which is ready memory of ours.
        unsafe { slot.as_ptr::<Addr>().write(page) };
        self.tail += 1;
        true
    }

    /// The page that has waited longest.
    #[inline]
    pub fn pop(&mut self) -> Option<Addr> {
        if self.is_empty() {
            return None;
        }
        let slot = self.ring + Self::bytes(self.head & (self.capacity - 1));
        self.head += 1;
        // SAFETY: the slot lies in the ring and was written by the push that `tail` counted.
        Some(unsafe { slot.as_ptr::<Addr>().read() })
    }

    /// How many pages wait.
    pub fn len(&self) -> usize {
        self.tail - self.head
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Returns the memory to the system.
    pub fn release(&mut self, os: &Os) {
        if self.capacity != 0 {
            let range = self.memory(os);
            let bytes = range.bytes();
            // SAFETY: O1: the ring came from the heap's one `Os`, which every call is given. O2: only
            // this queue uses the ring, and it forgets it below.
            unsafe { os.release(range, Category::MarkQueue, bytes, bytes) };
        }
        (self.ring, self.capacity, self.head, self.tail) = (Addr::NULL, 0, 0, 0);
    }
}

impl Default for PageQueue {
    fn default() -> PageQueue {
        PageQueue::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PAGE_BYTES;
    use std::collections::VecDeque;

    #[test]
    fn pages_come_out_in_the_order_in_which_they_went_in() {
        let os = Os::native();
        let mut queue = PageQueue::new();
        assert!(!queue.push(Addr::new(8192)), "a queue without room takes nothing");
        queue.prepare(&os, PageCount::new(3));
        let mut model = VecDeque::new();
        for round in 0..10_000usize {
            if round % 3 != 2 && model.len() < SMALLEST {
                assert!(queue.push(Addr::new(round << 13)));
                model.push_back(round << 13);
            } else {
                assert_eq!(queue.pop().map(Addr::get), model.pop_front());
            }
        }
        while let Some(page) = queue.pop() {
            assert_eq!(Some(page.get()), model.pop_front());
        }
        queue.release(&os);
        assert_eq!(os.accounting().ready(), Bytes::ZERO);
    }

    #[test]
    fn the_ring_follows_the_heap_both_ways() {
        let os = Os::native();
        let held = || os.accounting().mapped(Category::MarkQueue);
        let mut queue = PageQueue::new();
        queue.prepare(&os, PageCount::new(1 << 20));
        assert_eq!(held(), Bytes::new(8 << 20));
        queue.prepare(&os, PageCount::new(1 << 18));
        assert_eq!(held(), Bytes::new(8 << 20), "a heap that breathes keeps its queue");
        queue.prepare(&os, PageCount::new(1 << 15));
        assert_eq!(held(), Bytes::new(256 << 10));
        assert!(queue.push(Addr::new(PAGE_BYTES)) && queue.pop() == Some(Addr::new(PAGE_BYTES)));
        queue.release(&os);
        assert_eq!(held(), Bytes::ZERO);
    }

    #[test]
    fn a_full_queue_says_so() {
        let os = Os::native();
        let mut queue = PageQueue::new();
        queue.prepare(&os, PageCount::new(1));
        let taken = (0..SMALLEST + 5).filter(|&n| queue.push(Addr::new(n))).count();
        assert_eq!(taken, SMALLEST);
        queue.release(&os);
    }
}
