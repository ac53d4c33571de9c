//! Scoped arenas.
//!
//! - [`values`]: what goes in comes out, at addresses that suit; sizes at the edge; reset; counts of bytes.
//! - [`refusals`]: limits, overflow, and a system that gives no more.
//! - [`destructors`]: order, panics, nesting.
//! - [`collector`]: objects that only an arena holds; cycles that arenas cause (none).
//! - [`pool`]: many arenas, one after another and at once.
//! - [`blocks`]: the allocator, against a model.
//! - [`promotion`]: what leaves an arena for the heap.

mod blocks;
mod collector;
mod destructors;
mod pool;
mod promotion;
mod refusals;
mod values;

use spanheap::{Arena, Heap};

/// A heap that collects when it is told to.
pub fn quiet() -> Heap {
    Heap::builder().gc_percent_off().build().expect("a heap")
}

/// Calls `f` with an arena in a heap of its own.
pub fn with_arena<R>(f: impl for<'x, 'env> FnOnce(&'x mut Arena<'env>) -> R) -> R {
    quiet().enter(|mc| mc.arena(f))
}

/// Bytes of a page run.
pub const PAGE: usize = 8 << 10;
