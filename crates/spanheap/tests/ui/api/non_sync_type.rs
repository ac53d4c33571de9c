//! Every thread of a heap can reach an object, and any thread may drop it.
use std::cell::Cell;
use std::rc::Rc;

use spanheap::{Heap, Trace};

#[derive(Trace)]
struct Counter {
    hits: Cell<u32>,
}

#[derive(Trace)]
struct Shared {
    #[trace(leaf)]
    name: Rc<str>,
}

fn main() {
    let heap = Heap::new();
    heap.enter(|mc| {
        mc.alloc(Counter { hits: Cell::new(0) });
    });
    heap.enter(|mc| {
        mc.alloc(Shared { name: "shared".into() });
    });
}
