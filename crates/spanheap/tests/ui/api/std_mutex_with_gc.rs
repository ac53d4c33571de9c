//! The collector would not notice when a pointer in a `Mutex` is changed.
use std::sync::Mutex;

use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    heap.enter(|mc| {
        let target = mc.alloc(1_u64);
        mc.alloc(Mutex::new(vec![target]));
    });
}
