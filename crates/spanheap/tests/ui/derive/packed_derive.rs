//! A packed pointer may be misaligned, and then cannot be read atomically.
use spanheap::Trace;

#[derive(Trace)]
#[repr(C, packed(4))]
struct Record {
    tag: u8,
    value: u64,
}

fn main() {}
