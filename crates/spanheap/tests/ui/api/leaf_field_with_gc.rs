//! A leaf is not looked into, so what a `Gc` in it points to would be freed.
use spanheap::{Gc, Trace};

#[derive(Trace)]
struct Node<'gc> {
    key: u64,
    #[trace(leaf)]
    next: Option<Gc<'gc, Node<'gc>>>,
}

fn main() {}
