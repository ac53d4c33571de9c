//! The memory manager of spanheap.
#![deny(unsafe_code)]

pub mod addr;

pub mod sync;

pub mod bitmap;

pub mod os;

pub mod offheap;

pub mod heap;
