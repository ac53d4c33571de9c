//! The memory manager of spanheap: a page heap, spans, and a concurrent mark-sweep collector that never
//! stops the world, behind an unsafe API for authors of language runtimes. Programs use the crate
//! `spanheap`, whose safe API is built on this one and has no other way in.
//!
//! # Layers
//! A module uses only modules above it in this list; `cargo xtask tidy` checks that.
//!
//! | layer | what |
//! |---|---|
//! | [`fatal`], [`addr`], [`bitmap`], [`sync`] | the end of a broken process; quantities with types; bit searches; ranked locks |
//! | [`os`] | memory from the system in four states, exactly accounted; a simulated system |
//! | [`offheap`] | the manager's own records, outside the Rust allocator |
//! | [`pages`] | page allocator: bitmaps under a summary tree, address-ordered first fit |
//! | [`span`] | spans, layouts, side bitmaps, records on objects, the arena map, from any address to its object |
//! | [`heap`] | page heap, classes, sweeping, span caches, user arenas, counters; what is owed to the dead; limits; which memory goes back to the system |
//! | [`collect`] | phases and grace periods, marking by several workers, roots, weak pointers, the pacer, the background scavenger |
//! | [`mutator`] | a thread's handle: entering, allocating, the write barrier; user arenas; the heap as a value |
//! | [`observe`] | statistics, a picture of all pages, where resident memory is, and a walk over all spans |
//!
//! # What is public
//! The runtime API: [`mutator`] with user arenas, the descriptions of types in [`span`], [`collect::Options`] and
//! [`roots`](collect::roots), [`observe`]; limits ([`collect::MemoryLimit`], [`collect::pressure`]), functions of the
//! user's that are told of mistakes ([`heap::hooks`]), reports of uses of freed arenas ([`span::sites`]), and what a
//! look at the whole heap has found ([`heap::verify`]); the system layer [`os`], with the quantities of [`addr`]; and
//! [`sync::RawLock`] and [`sync::RawRwLock`], for locks that lie in objects.
//!
//! The rest is public for the tests alone that hold it against Go's data or a twin: [`bitmap`], [`offheap`],
//! [`pages`], the other names of [`sync`], and of [`heap`] the modules
//! [`scavenge_pace`](heap::scavenge_pace) and [`pi_controller`](heap::pi_controller), of [`collect`]
//! [`pacer`](collect::pacer), [`limiter`](collect::limiter), [`mark_workers`](collect::mark_workers) and, but for the
//! name of a [`Kernel`](collect::kernel::Kernel), [`kernel`](collect::kernel). Nothing
//! that a program does with these touches a heap. [`heap::revival`] and [`heap::task`] are what a mutator's functions
//! for finalizers and cleanups take and return; [`heap::specials`] and [`span::specials`] are the inside of both, for
//! tests.
//!
//! # Life of an object
//! 1. [`mutator::Mutator::alloc`] takes the next slot of a free run: compare, add.
//! 2. The caller writes the value and publishes it.
//! 3. A cycle reaches it from a root: its bit is set, its page queued, its words followed.
//! 4. A cycle does not reach it: weak pointers to it are cleared, and if it has a finalizer it lives once more. Else
//!    its bit is clear after the sweep, and the slot belongs to a free run again, once its destructor has run.
//! 5. When no slot of its span holds an object, the span's pages are free for any other, and if nobody wants
//!    them, the scavenger returns them to the system.
#![deny(unsafe_code)]

pub mod addr;
pub mod bitmap;
pub mod collect;
pub mod fatal;
pub mod heap;
pub mod mutator;
pub mod observe;
pub mod offheap;
pub mod os;
pub mod pages;
pub mod span;
pub mod sync;

#[cfg(test)]
mod tests;
