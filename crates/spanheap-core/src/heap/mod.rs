//! The heap below its collector: spans of pages, cut into objects of one class.
//!
//! | file | what |
//! |---|---|
//! | [`page_heap`] | address space, pages, span records; growth |
//! | [`class`] | classes of spans, and the set of spans of each |
//! | [`central`] | what the threads of a heap share for allocating |
//! | [`cache`] | what each thread has for itself: the allocation fast path |
//! | [`manual_chunk`] | manual spans that carry their own description |
//! | [`counters`] | what was counted, and consistent snapshots of it |
//! | [`sweep`], [`swept`] | turning marks into free slots; what a span is good for then |
//! | [`sweep_pace`] | how much mutators sweep for what they allocate |
//! | [`reclaim`] | finding dead spans by their pages before the heap grows |
//! | [`debt`] | how much mutators mark for what they allocate |
//! | [`drops`] | dead values that wait for their destructor |
//! | [`hooks`] | functions of the user's that are told of panics, delays and cycles |
//! | [`cycle_trace`] | what is told of a cycle, and the line that it is written as |
//! | [`switches`] | what verifies the heap, switched at run time |
//! | [`verify`] | a look at the whole heap: whether its structures agree |
//! | [`specials`] | records on single objects, handed out when the objects die |
//! | [`task`] | a function to call once, as two words |
//! | [`revival`] | queues of dead objects that live once more |
//! | [`waiting`] | ephemerons that the collector has met before their keys |
//! | [`zero`] | zeroed slots, without clearing what is zero |
//! | [`scavenge_pace`], [`pi_controller`] | how fast free memory goes back to the system, and until when |
//! | [`outside`] | memory outside of the heap that counts for the trigger |
//! | [`stall`] | how long mutators were held up, and why the longest time |
//! | [`live`] | which types hold the memory |
//! | [`limits`] | the soft and the hard limit, and how often they were met |
//! | [`user_arena`] | memory of many values that is freed at once |
//! | [`error`] | why an allocation was refused |
//!
//! This layer knows generations and colours, and nothing of phases, grace periods or roots: those belong
//! to `collect`, which calls down into this layer and is never called by it.

pub(crate) mod cache;
pub(crate) mod central;
pub(crate) mod class;
pub(crate) mod counters;
pub(crate) mod cycle_trace;
pub(crate) mod debt;
pub(crate) mod drops;
mod error;
pub mod hooks;
pub(crate) mod limits;
pub(crate) mod live;
pub(crate) mod manual_chunk;
pub(crate) mod outside;
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
pub(crate) mod switches;
pub mod task;
pub(crate) mod user_arena;
pub mod verify;
pub(crate) mod waiting;
pub(crate) mod zero;

pub(crate) use central::{Central, Reason};
pub use error::OutOfMemory;
pub use live::{Live, LiveType};
pub use manual_chunk::ManualChunk;
pub use page_heap::ManualSpan;
pub(crate) use page_heap::{Force, Refused};
pub use user_arena::{AlreadyFreed, ArenaError};
