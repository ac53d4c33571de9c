//! The buffer of a `GcVec` has no destructor, so its elements have none.
use spanheap::{GcVec, Heap};

fn main() {
    Heap::new().enter(|mc| {
        let mut names = GcVec::new();
        names.push(mc, String::from("freed by a destructor"));
    });
}
