//! A cleanup runs when its object is gone, on another thread, and cannot hold the object or any other.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    heap.enter(|mc| {
        let object = mc.alloc(1_u64);
        mc.cleanup(object, move || println!("{}", *object));
    });
}
