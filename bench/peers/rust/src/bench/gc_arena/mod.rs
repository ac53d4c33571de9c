//! gc-arena: an exact, incremental mark-and-sweep collector for one thread.
//!
//! Pointers are plain and free to copy; stores go through a barrier. Nothing is collected inside a closure of
//! `mutate`; between closures the program calls `collect_debt`, which does as much work as the allocations since
//! then owe. Here it is called behind each closure, and closures hold as much as those of spanheap's own program (an
//! object lives until the end of its closure in both).
//!
//! # What it cannot do
//! - An arena belongs to one thread. With several threads each has an arena of its own. The long-lived trees are in
//!   the first one, and the collections of the others do not see them, which is to their advantage. A cache that
//!   threads share (`lru`) cannot be made, so it runs on one.
//! - Slices of a length that is not known to the compiler are no objects: such memory is a `Box` in an object.
//! - A store makes the collector look at the whole object again, so a large array that is written to all the time is
//!   divided.
//!
//! # Pacing
//! It is the crate's default: small steps, which begin when there are half as many objects again as the last cycle
//! kept. A `gc_percent` that is given is put in place of this half. The crate's `STOP_THE_WORLD`, which collects
//! everything at once when there are twice as many, was tried for the workloads that are about throughput:
//! binary-trees takes a fifth more CPU time with it and a fifth less memory, gcbench a tenth and an eighth.

mod binary_trees;
mod gcbench;
mod lru;
mod marking;
mod message_bus;
mod start_up;

use gc_arena::metrics::{Metrics, Pacing};

pub use binary_trees::binary_trees;
pub use gcbench::gcbench;
pub use lru::lru;
pub use marking::marking;
pub use message_bus::message_bus;
pub use start_up::start_up;

use crate::options::Params;

/// Sets the growth, if one is given.
fn pace(metrics: &Metrics, params: &Params) {
    if let Some(percent) = params.gc_percent {
        metrics.set_pacing(Pacing { sleep_factor: percent as f64 / 100.0, ..Pacing::DEFAULT });
    }
}
