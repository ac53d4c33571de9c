//! The same in a slice, by a writer.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        arena.writer(mc).alloc_slice([vec![1], vec![2]]);
    });
}
