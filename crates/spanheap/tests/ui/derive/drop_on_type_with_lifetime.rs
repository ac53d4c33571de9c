//! The lifetime may be that of a `Gc`, and what it points to may be gone when the destructor runs.
use std::marker::PhantomData;

use spanheap::Trace;

#[derive(Trace)]
enum Node<'gc> {
    Leaf(PhantomData<&'gc ()>),
    Empty,
}

impl Drop for Node<'_> {
    fn drop(&mut self) {}
}

fn main() {}
