//! A `Gc` that leaves its closure through a variable would not keep its object alive either.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    let mut kept = None;
    heap.enter(|mc| {
        kept = Some(mc.alloc(1_u64));
    });
    println!("{}", kept.is_some());
}
