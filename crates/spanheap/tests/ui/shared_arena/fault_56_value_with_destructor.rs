//! An arena is freed without looking at its values, so destructors would not run.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        arena.alloc(mc, String::from("owns memory elsewhere"));
    });
}
