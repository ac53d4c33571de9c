//! A thread that goes on when the arena has ended.
use spanheap::Heap;

fn main() {
    Heap::new().enter(|mc| {
        mc.arena(|arena| {
            let number: &u64 = arena.alloc(1);
            std::thread::spawn(move || println!("{number}"));
        });
    });
}
