//! A lock around something with a destructor has one.
use spanheap::{Gc, GcMutex, Heap};

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        arena.alloc(mc, GcMutex::new(Vec::<Gc<'_, u64>>::new()));
    });
}
