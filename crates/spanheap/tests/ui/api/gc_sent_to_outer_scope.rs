//! A scope that was opened around a closure ends after it, and so may its threads.
use spanheap::Heap;

fn main() {
    let heap = Heap::new();
    std::thread::scope(|scope| {
        heap.enter(|mc| {
            let object = mc.alloc(1_u64);
            scope.spawn(move || println!("{object}"));
        });
    });
}
