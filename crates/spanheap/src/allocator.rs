//! [`HeapAlloc`]: memory of a heap for the collections of other crates, by hand.
//!
//! Whoever uses an allocator by the trait of `allocator-api2` frees by hand, so nothing here is
//! collected. But the memory comes from the heap's pages: it counts for the limit, is part of the statistics
//! (`manual_bytes`), and counts for the trigger as [`Heap::account`](crate::Heap::account) says. A cycle
//! that finds an object dead lets its destructor free what it owned here.
//!
//! # Sizes
//! Blocks up to [`LARGEST_SMALL`] lie in *chunks* of one size class each, at multiples of their size, so
//! that a class of the collected heap has the alignment here that it has there. Larger ones have pages of
//! their own. What is known about a chunk is not in it but beside it: a block that is overrun cannot do
//! harm to the lists. The lowest chunk with a free block serves first; an empty one goes back unless it is the only
//! one of its class with room.
//!
//! # Whose life is longer
//! Values in the heap itself may hold the allocator, and its memory must be there until the last of its blocks is
//! given back. So the handle holds the heap's *pages*, which stay beyond the heap's end if need be, and not
//! the heap, which would never end then. From the end of the heap on nothing is allocated any more; freeing
//! goes on.
//!
//! # Locking
//! One mutex for each allocator. Allocating enters a closure first and takes the mutex then: who waits to
//! enter (the gate of checkmark mode) must hold nothing that a closure could wait for. Freeing enters nothing.
//!
//! # Safety
//! - A1. A block that was handed out and not given back lies in a span that `State` holds, overlaps no other,
//!   and its bit in its chunk, or its entry among the large ones, says that it is taken.
//! - A2. Spans that are held belong to the heap of `pages`, which keeps their memory.
#![allow(unsafe_code)]

use crate::attach;
use crate::heap::Leave;
use crate::trace::{Trace, Tracer};
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use spanheap_core::addr::{Addr, Bytes};
use spanheap_core::heap::ManualSpan;
use spanheap_core::mutator::{Heap as CoreHeap, OutsideMemory, Pages};
use spanheap_core::span::layout::Shape;
use spanheap_core::span::size_class::{CLASS_COUNT, SizeClass};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Bytes of a chunk; it lies at a multiple of that.
const CHUNK: usize = 32 << 10;

/// The largest block that lies in a chunk, with others.
const LARGEST_SMALL: usize = CHUNK / 8;

/// An allocator on the pages of a heap: see [`Heap::allocator`](crate::Heap::allocator).
///
/// With the features `allocator-api2-02` and `allocator-api2-04` (both: `allocator-api2`) it implements
/// the trait `Allocator` of these two versions of the crate `allocator-api2`.
///
/// Clones are handles on the same allocator, for any thread. When the heap has been dropped, nothing is
/// allocated any more, and what was allocated stays until it is given back.
#[derive(Clone)]
pub struct HeapAlloc {
    shared: Arc<Shared>,
}

struct Shared {
    heap: Weak<CoreHeap>,
    pages: Pages,
    account: OutsideMemory,
    state: Mutex<State>,
}

struct State {
    /// Chunks by their address.
    chunks: HashMap<usize, Chunk>,
    /// The addresses of the chunks of each class that have a free block.
    open: Vec<BTreeSet<usize>>,
    /// Large blocks by their address.
    large: HashMap<usize, ManualSpan>,
}

/// Blocks of one size.
struct Chunk {
    span: ManualSpan,
    class: SizeClass,
    /// Blocks that were given back, and then those that were never taken, from `fresh` on.
    free: Vec<u16>,
    fresh: u16,
}

impl Chunk {
    fn blocks(&self) -> usize {
        CHUNK / self.class.size().get()
    }

    fn is_full(&self) -> bool {
        self.free.is_empty() && usize::from(self.fresh) == self.blocks()
    }

    fn is_empty(&self) -> bool {
        self.free.len() == usize::from(self.fresh)
    }

    /// Takes a block: its offset. There is one.
    fn take(&mut self) -> usize {
        let index = self.free.pop().unwrap_or_else(|| {
            self.fresh += 1;
            self.fresh - 1
        });
        usize::from(index) * self.class.size().get()
    }

    /// Takes a block back.
    fn put(&mut self, offset: usize) {
        let index = (offset / self.class.size().get()) as u16;
        debug_assert!(index < self.fresh && !self.free.contains(&index), "a block is freed twice");
        self.free.push(index);
    }
}

/// What is handed out: where, how many bytes, and whether they are known to be zero.
struct Block {
    start: NonNull<u8>,
    bytes: usize,
    zeroed: bool,
}

/// The class of a small block.
fn class_of(layout: Layout) -> Option<SizeClass> {
    SizeClass::for_layout(Bytes::new(layout.size()), layout.align())
        .filter(|class| class.size().get() <= LARGEST_SMALL)
}

impl HeapAlloc {
    pub(crate) fn new(heap: &Arc<CoreHeap>) -> HeapAlloc {
        let open = (0..CLASS_COUNT).map(|_| BTreeSet::new()).collect();
        let state = State { chunks: HashMap::new(), open, large: HashMap::new() };
        let shared = Shared {
            heap: Arc::downgrade(heap),
            pages: heap.pages(),
            account: heap.account(Bytes::ZERO),
            state: Mutex::new(state),
        };
        HeapAlloc { shared: Arc::new(shared) }
    }

    /// The lists. No code but this file's runs while they are locked, so a panic has left them whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allocate_block(&self, layout: Layout) -> Option<Block> {
        if layout.size() == 0 {
            // An address that suits, and no memory behind it.
            let start = NonNull::new(core::ptr::without_provenance_mut(layout.align()))?;
            return Some(Block { start, bytes: 0, zeroed: true });
        }
        // Declared first, dropped last: it may be the last handle of the heap.
        let heap = self.shared.heap.upgrade()?;
        attach::with_mutator(&heap, |mutator| {
            mutator.enter();
            let _leave = Leave(mutator);
            let span = |bytes: usize, align| {
                let span = mutator.alloc_manual(Bytes::new(bytes), align).ok()?;
                self.shared.account.grow(span.range().bytes());
                Some(span)
            };
            match class_of(layout) {
                Some(class) => self.state().small(class, || span(CHUNK, CHUNK)),
                None => span(layout.size(), layout.align()).map(|span| self.state().large(span)),
            }
        })
    }

    /// Gives a block back.
    ///
    /// # Safety
    /// It was allocated here, with a layout that fits (same alignment, a size from what was asked for up to what
    /// was given), and nobody uses it any more.
    unsafe fn deallocate_block(&self, start: NonNull<u8>, layout: Layout) {
        if layout.size() == 0 {
            return;
        }
        let address = start.as_ptr().addr();
        let freed = match class_of(layout) {
            Some(class) => self.state().put_small(class, address),
            None => self.state().large.remove(&address),
        };
        if let Some(span) = freed {
            self.shared.account.shrink(span.range().bytes());
            // SAFETY: A1: no block of the span is taken any more.
            unsafe { self.shared.pages.free_manual(span) };
        }
    }
}

impl State {
    fn small(
        &mut self,
        class: SizeClass,
        new: impl FnOnce() -> Option<ManualSpan>,
    ) -> Option<Block> {
        let open = &mut self.open[class.index()];
        let base = match open.first() {
            Some(&base) => base,
            None => {
                let span = new()?;
                let base = span.range().base().get();
                self.chunks.insert(base, Chunk { span, class, free: Vec::new(), fresh: 0 });
                open.insert(base);
                base
            }
        };
        let chunk = self.chunks.get_mut(&base).expect("an open chunk is held");
        let address = Addr::new(base + chunk.take());
        if chunk.is_full() {
            open.remove(&base);
        }
        let start = NonNull::new(address.as_ptr())?;
        Some(Block { start, bytes: class.size().get(), zeroed: false })
    }

    /// Takes a small block back; what is left of its chunk is returned if that has to be freed.
    fn put_small(&mut self, class: SizeClass, address: usize) -> Option<ManualSpan> {
        let base = address & !(CHUNK - 1);
        let chunk = self.chunks.get_mut(&base).expect("a block is given back where it came from");
        debug_assert!(chunk.class == class, "a block is given back with another layout");
        chunk.put(address - base);
        let is_empty = chunk.is_empty();
        let open = &mut self.open[class.index()];
        open.insert(base);
        if is_empty && open.len() > 1 {
            open.remove(&base);
            return self.chunks.remove(&base).map(|chunk| chunk.span);
        }
        None
    }

    fn large(&mut self, span: ManualSpan) -> Block {
        let (range, zeroed) = (span.range(), span.is_zeroed());
        self.large.insert(range.base().get(), span);
        let start = NonNull::new(range.base().as_ptr()).expect("pages do not lie at address 0");
        Block { start, bytes: range.bytes().get(), zeroed }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Chunks that were kept for the next block. Blocks that nobody has given back, and nobody can any
        // more, keep their chunks: somebody may still use them. They stay until the heap's pages go.
        let empty = state.chunks.drain().filter(|(_, chunk)| chunk.is_empty());
        for (_, chunk) in empty {
            // SAFETY: A1: no block of the span is taken.
            unsafe { self.pages.free_manual(chunk.span) };
        }
    }
}

// SAFETY: the type has no parameters, so it is 'static and holds no `Gc`.
unsafe impl Trace for HeapAlloc {
    const SHAPE: Shape = Shape::NoScan;
    const EXACT: bool = true;
    const LEAF: bool = true;

    fn trace(&self, _: &mut Tracer<'_>) {}
}

impl fmt::Debug for HeapAlloc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.shared.account.bytes();
        write!(f, "HeapAlloc({bytes} of heap {})", self.shared.pages.heap_number())
    }
}

/// The trait of one version of `allocator-api2`.
macro_rules! implement {
    ($feature:literal, $version:ident) => {
        #[cfg(feature = $feature)]
        // SAFETY: blocks stay where they are until they are given back (A1, A2: the handle, or a clone
        // of it, keeps the pages), and clones are the same allocator.
        unsafe impl $version::alloc::Allocator for HeapAlloc {
            fn allocate(
                &self,
                layout: Layout,
            ) -> Result<NonNull<[u8]>, $version::alloc::AllocError> {
                let block = self.allocate_block(layout).ok_or($version::alloc::AllocError)?;
                Ok(NonNull::slice_from_raw_parts(block.start, block.bytes))
            }

            fn allocate_zeroed(
                &self,
                layout: Layout,
            ) -> Result<NonNull<[u8]>, $version::alloc::AllocError> {
                let block = self.allocate_block(layout).ok_or($version::alloc::AllocError)?;
                if !block.zeroed {
                    // SAFETY: the block is that long, and the caller's alone.
                    unsafe { block.start.write_bytes(0, block.bytes) };
                }
                Ok(NonNull::slice_from_raw_parts(block.start, block.bytes))
            }

            unsafe fn deallocate(&self, start: NonNull<u8>, layout: Layout) {
                // SAFETY: the same contract.
                unsafe { self.deallocate_block(start, layout) };
            }
        }
    };
}

implement!("allocator-api2-02", allocator_api2_02);
implement!("allocator-api2-04", allocator_api2_04);
