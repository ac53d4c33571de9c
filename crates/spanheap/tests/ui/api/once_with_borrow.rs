//! What a `GcOnce` in an object holds must not end before the object does.
use spanheap::{GcOnce, Heap};

fn main() {
    Heap::new().enter(|mc| {
        let local = 1_u64;
        let once = mc.alloc(GcOnce::<'_, &u64>::new());
        let _ = once.set(mc, &local);
    });
}
