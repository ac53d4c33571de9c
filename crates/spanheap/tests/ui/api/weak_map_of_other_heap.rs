//! Tables, queues and tasks of one heap take nothing of another.
use spanheap::{Heap, WeakMap};

fn main() {
    let (one, other) = (Heap::new(), Heap::new());
    one.enter(|mc| {
        let (map, key) = (WeakMap::new(), mc.alloc(1_u64));
        map.insert(mc, key, mc.alloc(2_u64));
        let weak = mc.downgrade(key);
        other.enter(|other_mc| {
            map.insert(other_mc, key, key);
        });
        other.enter(|other_mc| {
            map.insert(mc, key, other_mc.alloc(3));
        });
        other.enter(|other_mc| {
            weak.upgrade(other_mc);
        });
        other.enter(|other_mc| {
            other_mc.cleanup(key, || ());
        });
        other.enter(|other_mc| {
            other_mc.downgrade(key);
        });
    });
}
