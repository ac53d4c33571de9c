//! A container of one heap is not changed with the mutator of another, nor does it take its objects.
use spanheap::{GcVec, Heap};

fn main() {
    let (one, other) = (Heap::new(), Heap::new());
    one.enter(|mc| {
        let mut ours = GcVec::new();
        ours.push(mc, mc.alloc(1));
        other.enter(|other_mc| {
            ours.push(other_mc, mc.alloc(2));
        });
        other.enter(|other_mc| {
            ours.push(mc, other_mc.alloc(3));
        });
    });
}
