//! A writer allocates without a lock, so it stays on its thread.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        let writer = arena.writer(mc);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                writer.alloc(1_u64);
            });
        });
    });
}
