//! This compiles. (With a program that has to compile the others are built to their end, and assertions on types are
//! evaluated.)
use spanheap::{Arena, Gc, Heap, Mutator};
use std::cell::Cell;

struct Node<'a, 'gc> {
    text: &'a str,
    object: Gc<'gc, u64>,
    next: Cell<Option<&'a Node<'a, 'gc>>>,
}

fn node<'a, 'gc>(
    mc: &Mutator<'gc>,
    arena: &'a Arena<'_>,
    text: &str,
) -> &'a mut Node<'a, 'gc> {
    let text = arena.alloc_str(text);
    arena.alloc(Node { text, object: mc.alloc(1), next: Cell::new(None) })
}

fn main() {
    let heap = Heap::new();
    let length = heap.enter(|mc| {
        mc.arena(|arena| {
            let (a, b) = (&*node(mc, arena, "one"), &*node(mc, arena, "another"));
            a.next.set(Some(b));
            b.next.set(Some(a));
            mc.arena(|inner| {
                inner.alloc_drop(vec![a, b]).len() + a.text.len() + *b.object as usize
            })
        })
    });
    assert_eq!(length, 6);
}
