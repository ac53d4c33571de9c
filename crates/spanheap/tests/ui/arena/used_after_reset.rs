//! A reference from before a reset.
use spanheap::Heap;

fn main() {
    Heap::new().enter(|mc| {
        mc.arena(|arena| {
            let number: &u64 = arena.alloc(1);
            arena.reset();
            println!("{number}");
        });
    });
}
