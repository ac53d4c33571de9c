//! An `ArenaGc` that leaves its closure could be opened when its address belongs to somebody else.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    let escaped = heap.enter(|mc| arena.alloc(mc, 1_u64));
    heap.enter(|mc| println!("{:?}", escaped.get(mc)));
}
