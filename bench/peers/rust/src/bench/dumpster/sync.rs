//! dumpster for several threads.

use std::ops::DerefMut;
use std::sync::{Mutex as Cell, OnceLock as Once, PoisonError};

use dumpster::sync::Gc;

use super::super::{Outcome, Result, lru as cache};
use crate::options::Params;

#[path = "binary_trees.rs"]
pub mod binary_trees;
#[path = "gcbench.rs"]
pub mod gcbench;
#[path = "lru.rs"]
mod lru;
#[path = "message_bus.rs"]
pub mod message_bus;
#[path = "start_up.rs"]
pub mod start_up;

fn cell<T>(value: T) -> Cell<T> {
    Cell::new(value)
}

fn open<T>(cell: &Cell<T>) -> impl DerefMut<Target = T> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cache, on threads with deep stacks.
pub fn lru(params: &Params) -> Result<Outcome> {
    lru::check(params)?;
    cache::shared::<lru::Shards>(params, lru::FRAME)
}
