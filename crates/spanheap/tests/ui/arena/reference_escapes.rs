//! A reference into an arena, kept beyond it.
use spanheap::Heap;

fn main() {
    Heap::new().enter(|mc| {
        let mut kept: &u64 = &0;
        mc.arena(|arena| kept = arena.alloc(1));
        println!("{kept}");
    });
}
