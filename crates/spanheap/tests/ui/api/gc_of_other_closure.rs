//! An object of one heap cannot point to an object of another: neither collector would know.
use spanheap::{Gc, GcCell, Heap, Trace};

#[derive(Trace)]
struct Node<'gc> {
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
}

fn main() {
    let (one, other) = (Heap::new(), Heap::new());
    one.enter(|mc| {
        let ours = mc.alloc(Node { next: GcCell::new(None) });
        other.enter(|other_mc| {
            let theirs = other_mc.alloc(Node { next: GcCell::new(None) });
            ours.next.set(mc, Some(theirs));
        });
    });
}
