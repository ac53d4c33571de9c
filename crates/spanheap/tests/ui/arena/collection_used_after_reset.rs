//! A collection from before a reset.
use allocator_api2_04::vec::Vec;
use spanheap::Heap;

fn main() {
    Heap::new().enter(|mc| {
        mc.arena(|arena| {
            let mut numbers = Vec::new_in(&*arena);
            arena.reset();
            numbers.push(1);
        });
    });
}
