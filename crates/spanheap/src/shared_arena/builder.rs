//! [`SharedArenaBuilder`]: the settings of a shared arena.

use super::SharedArena;
use crate::heap::Heap;
use spanheap_core::addr::Bytes;
use spanheap_core::mutator::ArenaOptions;

/// Settings for a [`SharedArena`]: from [`Heap::shared_arena_builder`].
///
/// ```
/// use spanheap::{ArenaError, Heap};
/// let heap = Heap::new();
/// let arena = heap.shared_arena_builder().name("request 17").limit(64 << 10).build();
/// heap.enter(|mc| {
///     assert!(arena.try_alloc_zeroed::<u8>(mc, 10_000).is_ok());
///     let refused = arena.try_alloc_zeroed::<u8>(mc, 100_000);
///     assert!(matches!(refused, Err(ArenaError::LimitReached { .. })));
/// });
/// assert_eq!(arena.name(), "request 17");
/// ```
#[must_use = "settings make no arena until `build` is called"]
pub struct SharedArenaBuilder<'h> {
    heap: &'h Heap,
    options: ArenaOptions,
}

impl<'h> SharedArenaBuilder<'h> {
    pub(super) fn new(heap: &'h Heap) -> SharedArenaBuilder<'h> {
        SharedArenaBuilder { heap, options: ArenaOptions::default() }
    }

    /// A name, for messages and pictures.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = Some(name.into().into());
        self
    }

    /// How many bytes of pages the arena may have. None if nothing is said: then the limits of the heap hold, which
    /// hold in any case.
    pub fn limit(mut self, bytes: usize) -> Self {
        self.options.limit = Some(Bytes::new(bytes));
        self
    }

    /// Makes the arena. No closure is needed, and no memory of the heap's yet.
    ///
    /// # Panics
    /// In a `Trace` implementation, and in a process that was forked from the heap's.
    #[must_use = "an arena is freed when its handle is dropped"]
    pub fn build(self) -> SharedArena {
        SharedArena { core: self.heap.core.new_arena(self.options) }
    }
}
