//! A boxed trait object that holds a reference into an arena.
use spanheap::Heap;
use std::fmt::Display;

fn main() {
    Heap::new().enter(|mc| {
        let kept: Box<dyn Display + '_> = mc.arena(|arena| {
            let text: &str = arena.alloc_str("gone");
            Box::new(text) as Box<dyn Display + '_>
        });
        println!("{kept}");
    });
}
