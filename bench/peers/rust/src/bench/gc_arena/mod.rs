//! gc-arena: an exact, incremental mark-and-sweep collector for one thread.
//!
//! Pointers are plain and free to copy; stores go through a barrier. Nothing is collected inside a closure of `mutate`;
//! between closures the program calls `collect_debt`, which does as much work as the allocations since then owe. Here
//! it is called behind each closure, and closures hold as much as those of spanheap's own program (an object lives
//! until the end of its closure in both).
//!
//! # What it cannot do
//! - An arena belongs to one thread. With several threads each has an arena of its own; what all of them share with the others,
//!   as the long-lived trees, is in the first one, and the collections of the others do not see it, which is to their advantage.
//!   Where threads share a data structure (`lru`, `spatial-index`) there is one thread or no result.
//! - Slices of a length that is not known to the compiler are no objects: such memory is a `Box` in an object.
//! - A store makes the collector look at the whole object again, so a large array that is written to all the time is divided.
//!
//! # Pacing
//! With its defaults the collector works in small steps, and begins when the number of objects is half as large again as what the
//! last cycle kept. Where times of single operations are the point (`message-bus`, `lru`) these are used. The other workloads use
//! the crate's `STOP_THE_WORLD`, which collects at once when there are twice as many objects: the same growth as Go's and
//! spanheap's `gc_percent` of 100, and faster than steps. Either way `gc_percent` is the growth, if it is given.

mod binary_trees;
mod gcbench;
mod message_bus;

use gc_arena::metrics::{Metrics, Pacing};

pub use binary_trees::binary_trees;
pub use gcbench::gcbench;
pub use message_bus::message_bus;

use crate::options::Params;

/// Collects at once what there is to collect.
fn at_once(metrics: &Metrics, params: &Params) {
    let sleep_factor = params.gc_percent as f64 / 100.0;
    metrics.set_pacing(Pacing { sleep_factor, ..Pacing::STOP_THE_WORLD });
}

/// Collects in steps.
fn in_steps(metrics: &Metrics, params: &Params) {
    if params.gc_percent != 100 {
        let sleep_factor = params.gc_percent as f64 / 100.0;
        metrics.set_pacing(Pacing { sleep_factor, ..Pacing::DEFAULT });
    }
}
