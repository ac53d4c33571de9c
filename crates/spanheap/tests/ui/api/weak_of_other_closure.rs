//! A `Weak` of one heap, upgraded with the mutator of another, would be shown to the wrong collector.
use spanheap::Heap;

fn main() {
    let (one, other) = (Heap::new(), Heap::new());
    one.enter(|mc| {
        let weak = mc.downgrade(mc.alloc(1_u64));
        other.enter(|other| println!("{}", weak.upgrade(other).is_some()));
    });
}
