//! A closure that has captured a reference into an arena.
use spanheap::Heap;

fn main() {
    Heap::new().enter(|mc| {
        let kept = mc.arena(|arena| {
            let counter = arena.alloc(0);
            move || {
                *counter += 1;
                *counter
            }
        });
        println!("{}", { kept }());
    });
}
