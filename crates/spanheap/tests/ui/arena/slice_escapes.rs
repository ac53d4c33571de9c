//! A slice in an arena, kept beyond it.
use spanheap::Heap;

fn main() {
    Heap::new().enter(|mc| {
        let mut kept = Vec::new();
        mc.arena(|arena| kept.push(&arena.alloc_slice_copy(&[1, 2, 3])[1..]));
        println!("{kept:?}");
    });
}
