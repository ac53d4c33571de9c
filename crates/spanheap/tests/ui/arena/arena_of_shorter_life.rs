//! An arena whose `'env` is shortened would take a destructor that sees its own arena.
use spanheap::{Arena, Heap};

fn shorten<'short, 'long: 'short>(arena: &'short Arena<'long>) -> &'short Arena<'short> {
    arena
}

fn main() {
    Heap::new().enter(|mc| {
        mc.arena(|arena| {
            shorten(arena).alloc_drop(String::new());
        });
    });
}
