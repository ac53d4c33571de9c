//! The collector does not know where the pointers of a type are that is not `Trace`.
use spanheap::Heap;

struct Engine {
    power: u32,
}

fn main() {
    let heap = Heap::new();
    heap.enter(|mc| {
        mc.alloc(Engine { power: 90 });
    });
}
