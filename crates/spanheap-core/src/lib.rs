//! The memory manager of spanheap.
#![deny(unsafe_code)]

pub mod addr;
pub mod bitmap;
pub mod heap;
pub mod span;
pub mod sync;
