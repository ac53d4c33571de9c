//! A `Weak` that leaves its closure would not keep its handle alive. What leaves is a `WeakRoot`.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    let escaped = heap.enter(|mc| mc.downgrade(mc.alloc(1_u64)));
    println!("{:?}", escaped);
}
