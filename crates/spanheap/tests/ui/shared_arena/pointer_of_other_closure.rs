//! A pointer is opened in its own closure. In one of another heap the question would be put to the wrong one.
use spanheap::Heap;

fn main() {
    let (one, other) = (Heap::new(), Heap::new());
    let arena = one.shared_arena();
    one.enter(|mc| {
        let value = arena.alloc(mc, 1_u64);
        other.enter(|mc| println!("{:?}", value.get(mc)));
    });
}
