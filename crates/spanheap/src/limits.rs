//! Limits of a heap that is in use: how they are changed, and what is in the way.

use crate::heap::Heap;
use spanheap_core::addr::Bytes;
use spanheap_core::collect::{LimitError, MemoryLimit};
use spanheap_core::observe::Live;

impl Heap {
    /// How much the heap may grow until the next cycle is complete, in percent of what the last one retained:
    /// [`HeapBuilder::gc_percent`](crate::HeapBuilder::gc_percent). `None`: no cycle begins because of growth.
    #[must_use]
    pub fn gc_percent(&self) -> Option<u32> {
        self.core.percent()
    }

    /// Changes that. The next cycle is planned anew at once, from what the last one has found; any thread may do so,
    /// in a closure or not.
    pub fn set_gc_percent(&self, percent: Option<u32>) {
        self.core.set_percent(percent);
    }

    /// The soft memory limit in bytes: [`HeapBuilder::memory_limit`](crate::HeapBuilder::memory_limit).
    #[must_use]
    pub fn memory_limit(&self) -> Option<usize> {
        self.core.soft_limit().map(Bytes::get)
    }

    /// Changes the soft memory limit, [`MemoryLimit::Off`] takes it away. The next cycle is planned anew at once.
    ///
    /// # Errors
    /// When it is too small, or a part of something that is not known. Nothing has changed then.
    pub fn set_memory_limit(&self, limit: impl Into<MemoryLimit>) -> Result<(), LimitError> {
        self.core.set_soft_limit(limit.into().resolve(self.core.os())?);
        Ok(())
    }

    /// The hard memory limit in bytes: [`HeapBuilder::hard_limit`](crate::HeapBuilder::hard_limit).
    #[must_use]
    pub fn hard_limit(&self) -> Option<usize> {
        self.core.hard_limit().map(Bytes::get)
    }

    /// Changes the hard memory limit, [`MemoryLimit::Off`] takes it away. A heap that is above it loses nothing: it
    /// gets no more memory for objects until it is below, and what is free goes back to the system. The next
    /// cycle is planned anew at once.
    ///
    /// # Errors
    /// As [`Heap::set_memory_limit`].
    pub fn set_hard_limit(&self, limit: impl Into<MemoryLimit>) -> Result<(), LimitError> {
        self.core.set_hard_limit(limit.into().resolve(self.core.os())?);
        Ok(())
    }

    /// Which types hold the heap's memory, the most first: a table to print. The question to ask when an allocation
    /// was refused, or a heap grows without end.
    ///
    /// Counted are objects that nothing has found dead so far; after [`Heap::collect`], those that could be reached.
    /// Where several types of equal layout share spans, how many of the objects are of which is estimated, by
    /// the memory that each has taken, and marked as such. Nobody is stopped. It costs a pass over a table of eight
    /// bytes per page and a cache line for each page in use, as [`Heap::picture`] does.
    ///
    /// ```
    /// # use spanheap::{Heap, Root, Rootable};
    /// let heap = Heap::new();
    /// let list: Root<Rootable![[u32]]> = heap.enter(|mc| mc.root(mc.alloc_slice(0..100_000)));
    /// let live = heap.explain_live();
    /// assert_eq!(live.types[0].name, "[u32]");
    /// assert!(live.types[0].is_exact && live.types[0].bytes.get() >= 400_000);
    /// # drop(list);
    /// ```
    #[must_use]
    pub fn explain_live(&self) -> Live {
        self.core.explain_live()
    }
}
