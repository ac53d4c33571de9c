//! The memory manager of spanheap.
#![deny(unsafe_code)]

pub mod addr;
pub mod fatal;
pub mod span;
pub mod sync;
