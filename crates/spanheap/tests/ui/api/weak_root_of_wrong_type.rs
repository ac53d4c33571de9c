//! A root names the type that its pointer leads to.
use spanheap::{Heap, Rootable, WeakRoot};

fn main() {
    let heap = Heap::new();
    let root: WeakRoot<Rootable![str]> = heap.enter(|mc| mc.root_weak(mc.downgrade(mc.alloc(1_u64))));
    drop(root);
}
