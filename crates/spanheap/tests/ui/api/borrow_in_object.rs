//! An object may outlive the closure, and what was borrowed in it.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    heap.enter(|mc| {
        let name = String::from("local");
        mc.alloc(name.as_str());
    });
}
