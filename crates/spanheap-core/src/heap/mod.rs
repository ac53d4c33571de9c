//! The heap below its collector: spans of pages, cut into objects of one class.
//!
//! | file | what |
//! |---|---|
//! | [`page_heap`] | address space, pages, span records; growth |
//! | [`class`] | classes of spans, and the set of spans of each |
//! | [`central`] | what the threads of a heap share for allocating |
//! | [`cache`] | what each thread has for itself: the allocation fast path |
//! | [`counters`] | what was counted, and consistent snapshots of it |
//! | [`sweep`], [`swept`] | turning marks into free slots; what a span is good for then |
//! | [`sweep_pace`] | how much mutators sweep for what they allocate |
//! | [`reclaim`] | finding dead spans by their pages before the heap grows |
//! | [`drops`] | dead values that wait for their destructor |
//! | [`specials`] | records on single objects, handed out when the objects die |
//! | [`task`] | a function to call once, as two words |
//! | [`revival`] | queues of dead objects that live once more |
//! | [`waiting`] | ephemerons that the collector has met before their keys |
//! | [`zero`] | zeroed slots, without clearing what is zero |
//! | [`scavenge_pace`], [`pi_controller`] | how fast free memory goes back to the system, and until when |
//! | [`stall`] | how long mutators were held up, and why the longest time |
//! | [`error`] | why an allocation was refused |
//!
//! This layer knows generations and colours, and nothing of phases, grace periods or roots: those belong
//! to `collect`, which calls down into this layer and is never called by it.

pub(crate) mod cache;
pub(crate) mod central;
pub(crate) mod class;
pub(crate) mod counters;
pub(crate) mod drops;
mod error;
pub(crate) mod page_heap;
pub mod pi_controller;
pub(crate) mod reclaim;
pub mod revival;
pub mod scavenge_pace;
pub mod specials;
pub(crate) mod stall;
pub(crate) mod sweep;
pub(crate) mod sweep_pace;
pub(crate) mod swept;
pub mod task;
pub(crate) mod waiting;
pub(crate) mod zero;

pub(crate) use central::Central;
pub use error::OutOfMemory;
pub use page_heap::ManualSpan;
pub(crate) use page_heap::{Force, Refused};
