//! The memory manager of spanheap.
#![deny(unsafe_code)]

// The layers, lowest first: a module uses only those above it. (The blank lines keep the order from
// being sorted away.)

pub mod addr;

pub mod sync;

pub mod bitmap;

pub mod os;

pub mod offheap;

pub mod pages;

pub mod heap;
