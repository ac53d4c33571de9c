//! How many bytes are held, in which state and for what.
//!
//! Four kinds of counter, all in bytes:
//!
//! * `reserved`: address space that is owned, in whatever state (Reserved, Prepared or Ready);
//! * `mapped`, one per [`Category`]: the part of it that is Prepared or Ready;
//! * `ready`: the part of that which is Ready, the quantity a memory limit is compared with;
//! * `leaked`: address space that was to be released but that the system did not take back.
//!
//! The counters are exact: each changes by the bytes of a transition after the transition has
//! succeeded, and not at all when it fails. So `ready <= mapped_total <= reserved` holds whenever
//! no operation is under way. A counter that would go below zero is a bug of the caller and a
//! panic.
//!
//! Each counter is an atomic of its own and orders nothing else (`Relaxed`): readers get
//! statistics, not a consistent snapshot.

use core::fmt;

use crate::addr::Bytes;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What mapped memory is for. Each mapped byte belongs to exactly one category.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Category {
    /// Spans: objects, user arenas and manually managed spans.
    Heap,
    /// Tables that describe the heap granule by granule or page by page: marks, page-to-span.
    SideTables,
    /// The page allocator's bitmaps and summaries.
    PageTables,
    /// Records: span descriptors, lists, the arena map.
    Metadata,
    /// The collector's queues and barrier buffers.
    MarkQueue,
    /// Root tables and handles.
    Roots,
    /// Profiles, traces and other means of observation.
    Diagnostics,
}

impl Category {
    /// Every category, in the order of their declaration.
    pub const ALL: [Category; 7] = [
        Category::Heap,
        Category::SideTables,
        Category::PageTables,
        Category::Metadata,
        Category::MarkQueue,
        Category::Roots,
        Category::Diagnostics,
    ];

    /// The number of categories.
    pub const COUNT: usize = Category::ALL.len();

    /// A short name for statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Category::Heap => "heap",
            Category::SideTables => "side tables",
            Category::PageTables => "page tables",
            Category::Metadata => "metadata",
            Category::MarkQueue => "mark queue",
            Category::Roots => "roots",
            Category::Diagnostics => "diagnostics",
        }
    }

    /// The position in [`Category::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

const _: () = {
    let mut i = 0;
    while i < Category::COUNT {
        assert!(Category::ALL[i].index() == i, "ALL lists the categories in order");
        i += 1;
    }
};

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One counter of bytes that never goes below zero.
struct Counter(AtomicUsize);

impl Counter {
    const fn new() -> Counter {
        Counter(AtomicUsize::new(0))
    }

    fn get(&self) -> Bytes {
        Bytes::new(self.0.load(Relaxed))
    }

    fn add(&self, bytes: Bytes) {
        self.0.fetch_add(bytes.get(), Relaxed);
    }

    #[track_caller]
    fn sub(&self, bytes: Bytes, name: &str) {
        let before = self.0.fetch_sub(bytes.get(), Relaxed);
        if before < bytes.get() {
            self.add(bytes);
            panic!("accounting underflow: {bytes} taken from {} {name}", Bytes::new(before));
        }
    }
}

/// The counters of one [`Os`](super::Os). Only the `os` layer changes them.
pub struct Accounting {
    mapped: [Counter; Category::COUNT],
    ready: Counter,
    reserved: Counter,
    leaked: Counter,
}

impl Accounting {
    pub(super) const fn new() -> Accounting {
        Accounting {
            mapped: [const { Counter::new() }; Category::COUNT],
            ready: Counter::new(),
            reserved: Counter::new(),
            leaked: Counter::new(),
        }
    }

    /// Bytes of `category` that are Prepared or Ready.
    pub fn mapped(&self, category: Category) -> Bytes {
        self.mapped[category.index()].get()
    }

    /// Bytes of all categories that are Prepared or Ready.
    pub fn mapped_total(&self) -> Bytes {
        self.mapped.iter().map(Counter::get).sum()
    }

    /// Bytes that are Ready: what the process may have in memory because of us.
    pub fn ready(&self) -> Bytes {
        self.ready.get()
    }

    /// Bytes of address space that are owned, in whatever state.
    pub fn reserved(&self) -> Bytes {
        self.reserved.get()
    }

    /// Bytes of address space that were released but that the system did not take back. They are in
    /// no other counter.
    pub fn leaked(&self) -> Bytes {
        self.leaked.get()
    }

    pub(super) fn add_reserved(&self, bytes: Bytes) {
        self.reserved.add(bytes);
    }

    pub(super) fn add_mapped(&self, category: Category, bytes: Bytes) {
        self.mapped[category.index()].add(bytes);
    }

    pub(super) fn add_ready(&self, bytes: Bytes) {
        self.ready.add(bytes);
    }

    pub(super) fn add_leaked(&self, bytes: Bytes) {
        self.leaked.add(bytes);
    }

    #[track_caller]
    pub(super) fn sub_reserved(&self, bytes: Bytes) {
        self.reserved.sub(bytes, "reserved");
    }

    #[track_caller]
    pub(super) fn sub_mapped(&self, category: Category, bytes: Bytes) {
        self.mapped[category.index()].sub(bytes, category.name());
    }

    #[track_caller]
    pub(super) fn sub_ready(&self, bytes: Bytes) {
        self.ready.sub(bytes, "ready");
    }
}

impl fmt::Debug for Accounting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Accounting");
        for category in Category::ALL {
            out.field(category.name(), &self.mapped(category));
        }
        out.field("ready", &self.ready());
        out.field("reserved", &self.reserved());
        out.field("leaked", &self.leaked()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_are_counted_apart() {
        let accounting = Accounting::new();
        for (i, category) in Category::ALL.into_iter().enumerate() {
            accounting.add_mapped(category, Bytes::new(i + 1));
        }
        accounting.sub_mapped(Category::Metadata, Bytes::new(4));
        assert_eq!(accounting.mapped(Category::Metadata), Bytes::ZERO);
        assert_eq!(accounting.mapped(Category::Heap), Bytes::new(1));
        assert_eq!(accounting.mapped_total(), Bytes::new(28 - 4));
    }

    #[test]
    #[should_panic(expected = "underflow: 2 B taken from 1 B roots")]
    fn a_counter_below_zero_is_a_panic() {
        let accounting = Accounting::new();
        accounting.add_mapped(Category::Roots, Bytes::new(1));
        accounting.sub_mapped(Category::Roots, Bytes::new(2));
    }
}
