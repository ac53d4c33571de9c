//! [`SharedArenaBuilder`]: the settings of a shared arena.

use super::SharedArena;
use crate::heap::Heap;
use spanheap_core::addr::Bytes;
use spanheap_core::heap::OutOfMemory;
use spanheap_core::heap::arena::ArenaOptions;

/// Settings for a [`SharedArena`]: from [`Heap::shared_arena_builder`].
///
/// ```
/// use spanheap::{ArenaError, Heap};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let heap = Heap::new();
/// let arena = heap.shared_arena_builder().name("request 17").limit(64 << 10).build()?;
/// heap.enter(|mc| {
///     assert!(arena.try_alloc_zeroed::<u8>(mc, 10_000).is_ok());
///     let refused = arena.try_alloc_zeroed::<u8>(mc, 100_000);
///     assert!(matches!(refused, Err(ArenaError::OutOfMemory(_))));
/// });
/// assert_eq!(arena.name(), Some("request 17"));
/// # Ok(())
/// # }
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

    /// Makes the arena. No closure is needed, and no memory but for its record.
    ///
    /// # Errors
    /// When there is no memory for the record.
    pub fn build(self) -> Result<SharedArena, OutOfMemory> {
        Ok(SharedArena { core: self.heap.core.shared_arena(self.options)? })
    }
}
