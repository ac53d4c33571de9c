//! A reference into an inner arena, stored in the outer one.
use spanheap::Heap;
use std::cell::Cell;

fn main() {
    Heap::new().enter(|mc| {
        mc.arena(|outer| {
            let kept = outer.alloc(Cell::new(None::<&u64>));
            mc.arena(|inner| kept.set(Some(inner.alloc(1))));
            println!("{:?}", kept.get());
        });
    });
}
