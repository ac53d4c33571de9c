//! An `Ephemeron` is a pointer into the heap like any other.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    let escaped = heap.enter(|mc| mc.ephemeron(mc.alloc(1_u64), mc.alloc(2_u64)));
    println!("{:?}", escaped);
}
