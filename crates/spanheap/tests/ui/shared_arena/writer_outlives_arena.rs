//! An arena is not given up while somebody writes.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        let writer = arena.writer(mc);
        arena.abandon();
        writer.alloc(1_u64);
    });
}
