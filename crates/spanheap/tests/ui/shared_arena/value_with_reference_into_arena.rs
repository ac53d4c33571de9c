//! Nor a reference that was had from a pointer: it is good for this closure, and the value is there longer.
use spanheap::{Heap, Trace};

#[derive(Trace)]
struct Word<'gc>(&'gc str);

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        let text = arena.alloc_str(mc, "text").get(mc).unwrap();
        arena.alloc(mc, Word(text));
    });
}
