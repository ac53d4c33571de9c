//! An iterator over what is in an arena.
use spanheap::Heap;

fn main() {
    Heap::new().enter(|mc| {
        let kept = mc.arena(|arena| arena.alloc_slice_copy(&[1, 2, 3]).iter());
        println!("{}", kept.sum::<i32>());
    });
}
