//! Elements with destructors, which would not run.
use spanheap::Heap;

fn main() {
    Heap::new().enter(|mc| {
        mc.arena(|arena| {
            arena.alloc_slice_fill_with(3, |n| vec![n; n]);
        });
    });
}
