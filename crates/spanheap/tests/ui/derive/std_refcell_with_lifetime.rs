//! The collector would not notice when something in a `RefCell` is changed.
use std::cell::RefCell;
use std::marker::PhantomData;

use spanheap::Trace;

#[derive(Trace)]
struct Node<'gc> {
    next: RefCell<PhantomData<&'gc ()>>,
}

fn main() {}
