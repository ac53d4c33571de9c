//! A garbage-collected heap for Rust: several threads share one heap of objects with cycles, and a
//! concurrent, precise collector frees what is unreachable without ever stopping the world.

// The expansion of `#[derive(Trace)]` says `::spanheap`, in this crate too.
extern crate self as spanheap;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod attach;
mod cell;
mod gc;
mod heap;
mod impls;
mod mutator;
mod mutex;
mod root;
mod rootable;
mod stats;
mod trace;

pub use cell::{GcCell, GcWord};
pub use gc::Gc;
pub use heap::{BuildError, Collected, Heap, HeapBuilder};
pub use mutator::Mutator;
pub use mutex::{GcMutex, GcMutexGuard};
pub use root::Root;
#[doc(hidden)]
pub use rootable::__DynRootable;
pub use rootable::Rootable;
pub use spanheap_core::heap::OutOfMemory;
pub use spanheap_core::os;
pub use spanheap_core::span::layout::Shape;
pub use spanheap_derive::Trace;
pub use stats::Stats;
pub use trace::{Trace, Tracer};

/// The examples of the README are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
