//! The collector has to know where the pointers are, in an arena as in the heap.
use spanheap::Heap;

struct Opaque(#[allow(dead_code)] u64);

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        arena.writer(mc).alloc(Opaque(1));
    });
}
