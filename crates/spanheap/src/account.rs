//! [`Account`]: memory outside of a heap that belongs to its objects.
//!
//! How it counts for the collector is in `spanheap_core`'s `heap::outside`. The value does not keep its heap
//! alive, so it may lie in an object of the heap, next to what it accounts for.

use core::fmt;
use spanheap_core::addr::Bytes;
use spanheap_core::mutator::OutsideMemory;

/// Bytes outside of a heap that count toward its goal, until the value is dropped: see
/// [`Heap::account`](crate::Heap::account).
///
/// ```
/// use spanheap::{Account, Heap, Trace};
///
/// #[derive(Trace)]
/// #[trace(leaf)]
/// struct Image {
///     pixels: Vec<u8>,
///     account: Account,
/// }
///
/// let heap = Heap::new();
/// for _ in 0..1000 {
///     let pixels = vec![0; 1 << 20];
///     let account = heap.account(pixels.capacity());
///     heap.enter(|mc| mc.alloc(Image { pixels, account }).pixels.len());
/// }
/// // A gigabyte has passed through a heap of small objects, so a cycle has begun on the way.
/// while heap.stats().cycles == 0 {
///     std::thread::yield_now(); // it need not be complete yet
/// }
/// ```
pub struct Account {
    core: OutsideMemory,
}

impl Account {
    pub(crate) fn new(core: OutsideMemory) -> Account {
        Account { core }
    }

    /// How many bytes are accounted for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.core.bytes().get()
    }

    /// Adds bytes. This may make a cycle begin, and never waits for it.
    pub fn grow(&self, bytes: usize) {
        self.core.grow(Bytes::new(bytes));
    }

    /// Takes bytes off, but no more than there are.
    pub fn shrink(&self, bytes: usize) {
        self.core.shrink(Bytes::new(bytes));
    }

    /// Makes it that many bytes, by growing or shrinking.
    pub fn resize(&self, bytes: usize) {
        self.core.resize(Bytes::new(bytes));
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({})", self.core.bytes())
    }
}
