//! A root of an object that holds a reference into an arena.
use spanheap::{Heap, Root, Rootable, Trace};

#[derive(Trace)]
struct Entry<'a> {
    name: &'a str,
}

fn main() {
    let heap = Heap::new();
    let root: Root<Rootable![Entry<'_>]> = heap.enter(|mc| {
        mc.arena(|arena| mc.root(mc.alloc(Entry { name: arena.alloc_str("gone") })))
    });
    heap.enter(|mc| println!("{}", root.get(mc).name));
}
