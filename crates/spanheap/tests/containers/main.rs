//! The containers of the crate against what the standard library has, while the collector runs.
//!
//! - [`vec_twin`], [`map_twin`]: random programs on a `GcVec` and a `Vec`, a `GcHashMap` and a `HashMap`.
//! - [`moves`]: storage that is swapped and moved between objects.
//! - [`shared`]: threads that share containers under locks, and cells.
//! - [`once`]: fields that are set once.
//! - [`faults`]: panics, forgotten guards, refusals, sizes at the edge.
//! - [`outside`]: memory that a heap does not own and counts, and memory that it owns and does not collect.
//!
//! Programs run in heaps that poison what they free and verify each cycle. In *watched* mode each step is made in
//! a closure that finds a cycle running, so that its barriers are used; in *quiet* mode no cycle runs unless a
//! step asks for one, and the plain paths are used. Which of the two it is does not depend on timing: a
//! closure that finds the wrong state is left and another one entered.

mod bulk;
mod faults;
mod map_twin;
mod moves;
mod once;
mod outside;
mod shared;
mod vec_twin;

use spanheap::{Gc, Heap, Mutator, Trace};
use std::cell::RefCell;

/// An object with a number that says whether it is itself.
#[derive(Debug, Trace)]
pub struct Item {
    key: u64,
    canary: u64,
}

/// What an item's canary must be.
fn canary(key: u64) -> u64 {
    key.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ 0x5af3_107a_4000_c0de
}

/// A new item.
pub fn item<'gc>(mc: &Mutator<'gc>, key: u64) -> Gc<'gc, Item> {
    mc.alloc(Item { key, canary: canary(key) })
}

/// The number of an item, which is checked.
pub fn key_of(item: Gc<'_, Item>) -> u64 {
    assert_eq!(item.canary, canary(item.key), "an item was freed while it was reachable");
    item.key
}

/// In which state of the collector a program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Each step finds a cycle running.
    Watched,
    /// No step does.
    Quiet,
}

impl Mode {
    /// A heap for the mode.
    pub fn heap(self) -> Heap {
        let builder = Heap::builder().poison(true).checkmark(true);
        let heap = match self {
            Mode::Watched => builder.collect_continuously(true),
            Mode::Quiet => builder.gc_percent_off(),
        };
        heap.build().expect("a heap")
    }

    /// Runs a step in a closure of the right state.
    pub fn step<R>(self, heap: &Heap, step: impl for<'gc> FnOnce(&Mutator<'gc>) -> R) -> R {
        let step = RefCell::new(Some(step));
        loop {
            let result = heap.enter(|mc| {
                let suits = mc.is_collecting() == (self == Mode::Watched);
                suits.then(|| step.borrow_mut().take().expect("a step is made once")(mc))
            });
            match result {
                Some(result) => return result,
                None => std::thread::yield_now(),
            }
        }
    }
}
