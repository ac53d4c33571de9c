//! An arena stays on its thread, a scoped one included.
use spanheap::Heap;

fn main() {
    Heap::new().enter(|mc| {
        mc.arena(|arena| {
            std::thread::scope(|s| {
                s.spawn(|| arena.alloc(1));
            });
        });
    });
}
