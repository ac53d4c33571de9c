//! A reference is good until the closure ends: the arena may be freed after that.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    let escaped = heap.enter(|mc| arena.alloc(mc, 1_u64).get(mc).unwrap());
    arena.free();
    println!("{escaped}");
}
