//! The memory manager of spanheap.
#![deny(unsafe_code)]

pub mod addr;
pub mod bitmap;
pub mod fatal;
pub mod offheap;
pub mod os;
pub mod span;
pub mod sync;
