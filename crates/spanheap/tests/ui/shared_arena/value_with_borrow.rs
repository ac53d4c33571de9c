//! Values live longer than the closure, and so they hold no borrow.
use spanheap::{Heap, Trace};

#[derive(Trace)]
struct Word<'a>(&'a str);

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    let text = String::from("text");
    heap.enter(|mc| {
        arena.alloc(mc, Word(&text));
    });
}
