//! There is no `Deref`: the arena may have been freed, so one has to ask.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        let value = arena.alloc(mc, 1_u64);
        println!("{}", *value);
    });
}
