//! What lies behind a reference becomes an object, so it has to be `Trace`, `Send` and `Sync` there.
use spanheap::{Gc, Heap, Promote};
use std::cell::Cell;

#[derive(Promote, Clone)]
#[promote(clone)]
struct Counter {
    hits: Cell<u32>,
}

fn main() {
    Heap::new().enter(|mc| {
        mc.arena(|arena| {
            let _: Gc<'_, Counter> = mc.promote(arena.alloc(Counter { hits: Cell::new(1) }));
        });
    });
}
