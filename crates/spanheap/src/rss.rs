//! [`Rss`]: where the resident memory of the process is.

use core::fmt;
use spanheap_core::mutator::Heap as CoreHeap;
use spanheap_core::observe::Rss as CoreRss;

/// Where the resident memory of the process is, as far as a heap has to do with it. All figures are
/// bytes that are in memory, and add up to the resident size of the process. Printed, it is a table
/// with a sentence for each row.
///
/// What is free, and what is known to be dead, is exact at the moment of looking. How objects
/// divide into [`retained_bytes`](Rss::retained_bytes) and
/// [`allocated_bytes`](Rss::allocated_bytes) is an estimate, and how much of either is still alive
/// only the next cycle finds out.
///
/// ```
/// let heap = spanheap::Heap::new();
/// let rss = heap.explain_rss();
/// assert!(rss.heap_bytes() < 1 << 20);
/// println!("{rss}");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rss {
    /// The resident size of the process, if the system says.
    pub process_bytes: Option<usize>,
    /// Objects that the last cycle has retained.
    pub retained_bytes: usize,
    /// Objects that were allocated since, and slots that threads have taken in advance.
    pub allocated_bytes: usize,
    /// Objects that the last cycle has found dead, and that have not been swept.
    pub unswept_bytes: usize,
    /// Values that are dead and wait for their destructor.
    pub owed_bytes: usize,
    /// Free slots between objects: fragmentation.
    pub free_slots_bytes: usize,
    /// Pages that threads keep for their next objects.
    pub taken_pages_bytes: usize,
    /// Free pages that have not been returned to the system.
    pub free_pages_bytes: usize,
    /// Spans that are managed by hand.
    pub manual_bytes: usize,
    /// User arenas.
    pub user_arenas_bytes: usize,
    /// Pages that count as returned, or were never used, and are in memory with a huge page around
    /// them.
    pub huge_pages_bytes: usize,
    /// The heap's own tables, records and queues.
    pub metadata_bytes: usize,
    /// What the process has besides this heap: code, stacks, the Rust allocator (with what values
    /// own there, and the heap's handles and roots), other heaps.
    pub rest_bytes: usize,
    core: CoreRss,
}

impl Rss {
    pub(crate) fn of(heap: &CoreHeap) -> Rss {
        let core = CoreRss::of(heap);
        let tables = core.side_tables + core.page_tables + core.records;
        let metadata = tables + core.mark_queue + core.roots + core.diagnostics;
        Rss {
            process_bytes: core.process.map(|bytes| bytes.get()),
            retained_bytes: core.retained.get(),
            allocated_bytes: core.allocated.get(),
            unswept_bytes: core.unswept.get(),
            owed_bytes: core.owed.get(),
            free_slots_bytes: core.free_slots.get(),
            taken_pages_bytes: core.taken_pages.get(),
            free_pages_bytes: core.free_pages.get(),
            manual_bytes: core.manual.get(),
            user_arenas_bytes: core.user_arenas.get(),
            huge_pages_bytes: core.huge_pages.get(),
            metadata_bytes: metadata.get(),
            rest_bytes: core.rest.get(),
            core,
        }
    }

    /// All that the heap has in memory: every row but [`rest_bytes`](Rss::rest_bytes).
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.core.heap().get()
    }
}

impl fmt::Display for Rss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}
