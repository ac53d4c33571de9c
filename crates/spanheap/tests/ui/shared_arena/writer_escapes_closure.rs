//! A writer has a chunk for as long as its closure is open.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    let writer = heap.enter(|mc| arena.writer(mc));
    writer.alloc(1_u64);
}
