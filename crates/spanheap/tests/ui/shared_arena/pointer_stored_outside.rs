//! The same through a variable outside.
use spanheap::{ArenaGc, Heap};

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    let mut kept: Vec<ArenaGc<'_, u64>> = Vec::new();
    heap.enter(|mc| kept.push(arena.alloc(mc, 1_u64)));
}
