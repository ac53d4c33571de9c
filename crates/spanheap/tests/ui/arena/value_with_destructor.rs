//! A value with a destructor, which would not run.
use spanheap::Heap;

fn main() {
    Heap::new().enter(|mc| {
        mc.arena(|arena| {
            arena.alloc(String::from("never freed"));
        });
    });
}
