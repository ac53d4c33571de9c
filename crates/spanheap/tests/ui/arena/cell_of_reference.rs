//! A cell in the heap that holds a reference into an arena.
use spanheap::{Heap, GcCell};

fn main() {
    Heap::new().enter(|mc| {
        mc.arena(|arena| {
            let number: &u64 = arena.alloc(1);
            mc.alloc(GcCell::new(Some(number)));
        });
    });
}
