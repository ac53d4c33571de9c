//! The heap below its collector: spans of pages, cut into objects of one class.
//!
//! | file | what |
//! |---|---|
//! | [`page_heap`] | address space, pages, span records; growth |
//! | [`class`] | classes of spans, and the lists of spans of each |
//! | [`central`] | what the threads of a heap share for allocating |
//! | [`cache`] | what each thread has for itself: the allocation fast path |
//! | [`sweep`] | turning marks into free slots |
//! | [`drops`] | dead values that wait for their destructor |
//! | [`specials`] | records on single objects, handed out when the objects die |
//! | [`stall`] | how long mutators were held up, and why the longest time |
//!
//! This layer knows generations and colours, and nothing of phases, grace periods or roots: those belong
//! to `collect`, which calls down into this layer and is never called by it.

pub(crate) mod cache;
pub(crate) mod central;
pub(crate) mod class;
pub(crate) mod drops;
pub mod error;
pub(crate) mod page_heap;
pub mod specials;
pub mod stall;
pub(crate) mod sweep;

pub(crate) use central::Central;
pub use error::OutOfMemory;
pub(crate) use page_heap::Refused;
