//! A thread that may run on when the closure has ended gets no reference.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        let text = arena.alloc_str(mc, "text").get(mc).unwrap();
        std::thread::spawn(move || println!("{text}"));
    });
}
