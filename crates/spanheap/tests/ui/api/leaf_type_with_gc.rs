//! A leaf type is not looked into, so what a `Gc` in it points to would be freed.
use spanheap::{Gc, Heap, Trace};

#[derive(Trace)]
#[trace(leaf)]
struct Handle<'gc> {
    target: Gc<'gc, u64>,
}

fn main() {
    let heap = Heap::new();
    heap.enter(|mc| {
        let target = mc.alloc(1_u64);
        mc.alloc(Handle { target });
    });
}
