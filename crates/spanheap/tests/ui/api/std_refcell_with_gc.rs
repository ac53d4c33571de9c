//! The collector would not notice when a pointer in a `RefCell` is changed.
use std::cell::RefCell;

use spanheap::{Gc, Trace};

#[derive(Trace)]
struct Node<'gc> {
    next: RefCell<Option<Gc<'gc, Node<'gc>>>>,
}

fn main() {}
