//! dumpster for one thread. With several, each has its own objects.

use std::cell::{OnceCell as Once, RefCell as Cell};
use std::ops::DerefMut;

use dumpster::unsync::Gc;

use super::super::{Outcome, Result, lru as cache};
use crate::options::Params;

#[path = "binary_trees.rs"]
pub mod binary_trees;
#[path = "gcbench.rs"]
pub mod gcbench;
#[path = "lru.rs"]
mod lru;
pub mod marking;
#[path = "message_bus.rs"]
pub mod message_bus;
#[path = "start_up.rs"]
pub mod start_up;

fn cell<T>(value: T) -> Cell<T> {
    Cell::new(value)
}

fn open<T>(cell: &Cell<T>) -> impl DerefMut<Target = T> {
    cell.borrow_mut()
}

/// The cache, on a thread with a deep stack.
pub fn lru(params: &Params) -> Result<Outcome> {
    lru::check(params)?;
    cache::local_on_stack::<lru::Shards>(params, lru::FRAME)
}
