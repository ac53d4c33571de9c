//! The guard leads to an object, and would not keep it alive outside.
use spanheap::{GcMutex, Heap};

fn main() {
    let heap = Heap::new();
    let guard = heap.enter(|mc| {
        let list = mc.alloc(GcMutex::new(vec![1_u64]));
        list.lock(mc)
    });
    println!("{}", guard.len());
}
