//! An object may outlive what its type borrows from.
use spanheap::Trace;

#[derive(Trace)]
struct Named<'a> {
    name: &'a str,
}

fn main() {}
