//! A destructor could find a value in its own arena that is gone.
use spanheap::Heap;

struct Shout<'a>(&'a str);

impl Drop for Shout<'_> {
    fn drop(&mut self) {
        println!("{}", self.0);
    }
}

fn main() {
    Heap::new().enter(|mc| {
        mc.arena(|arena| {
            let text: &str = arena.alloc_str("is it there?");
            arena.alloc_drop(Shout(text));
        });
    });
}
