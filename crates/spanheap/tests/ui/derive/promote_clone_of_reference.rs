//! A reference into an arena is not cloned into the heap.
use spanheap::{Heap, Promote};

#[derive(Promote, Clone)]
#[promote(clone)]
struct Parsed<'a> {
    name: &'a str,
}

fn main() {
    Heap::new().enter(|mc| {
        let kept = mc.arena(|arena| mc.promote(Parsed { name: arena.alloc_str("gone") }));
        println!("{}", kept.name);
    });
}
