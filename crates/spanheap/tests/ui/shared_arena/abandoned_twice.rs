//! Who has left an arena to the collector has it no more.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    arena.abandon();
    arena.free();
}
