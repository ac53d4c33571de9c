//! A mutator is the state of one thread.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    heap.enter(|mc| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                mc.alloc(1_u64);
            });
        });
    });
}
