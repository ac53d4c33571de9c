//! The result of the closure holds a reference into the arena.
use spanheap::Heap;

struct Parsed<'a> {
    words: Vec<&'a str>,
}

fn main() {
    Heap::new().enter(|mc| {
        let parsed = mc.arena(|arena| Parsed { words: vec![&*arena.alloc_str("gone")] });
        println!("{:?}", parsed.words);
    });
}
