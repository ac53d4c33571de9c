//! A map of one heap is not changed with the mutator of another.
use spanheap::{GcHashMap, GcRwLock, Heap};

fn main() {
    let (one, other) = (Heap::new(), Heap::new());
    one.enter(|mc| {
        let ours = mc.alloc(GcRwLock::new(GcHashMap::<u64, u64>::new()));
        other.enter(|other_mc| {
            ours.write(mc).insert(other_mc, 1, 2);
        });
    });
}
