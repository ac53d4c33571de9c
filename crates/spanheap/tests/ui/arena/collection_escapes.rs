//! A collection whose memory is in an arena.
use allocator_api2_02::vec::Vec;
use spanheap::Heap;

fn main() {
    Heap::new().enter(|mc| {
        let kept = mc.arena(|arena| {
            let mut numbers = Vec::new_in(&*arena);
            numbers.push(1);
            numbers
        });
        println!("{kept:?}");
    });
}
