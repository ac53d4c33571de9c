//! A root says what it keeps.
use spanheap::{Heap, Root, Rootable};

fn main() {
    let heap = Heap::new();
    let _root: Root<Rootable![String]> = heap.enter(|mc| mc.root(mc.alloc(1_u64)));
}
