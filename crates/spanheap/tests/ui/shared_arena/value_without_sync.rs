//! Any thread of the heap may open a pointer.
use spanheap::{Heap, Trace};
use std::cell::Cell;

#[derive(Trace)]
struct Counter {
    hits: Cell<u32>,
}

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        arena.alloc(mc, Counter { hits: Cell::new(0) });
    });
}
