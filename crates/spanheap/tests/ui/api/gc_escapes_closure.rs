//! A `Gc` that leaves its closure would not keep its object alive.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    let escaped = heap.enter(|mc| mc.alloc(1_u64));
    println!("{}", *escaped);
}
