//! A guard is of its closure: no guard of an earlier one exists when a cycle takes its snapshot.
use spanheap::{GcRwLock, Heap};

fn main() {
    let heap = Heap::new();
    let mut kept = None;
    heap.enter(|mc| {
        let shared = mc.alloc(GcRwLock::new(1));
        kept = Some(shared.as_ref().read(mc));
    });
}
