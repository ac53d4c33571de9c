//! The arena itself, returned from its closure.
use spanheap::Heap;

fn main() {
    Heap::new().enter(|mc| {
        let arena = mc.arena(|arena| arena);
        arena.alloc(1);
    });
}
