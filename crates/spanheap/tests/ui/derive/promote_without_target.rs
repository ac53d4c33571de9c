//! What a type becomes in the heap has to be said.
use spanheap::Promote;

#[derive(Promote)]
struct Parsed<'a> {
    name: &'a str,
}

#[derive(Promote, Clone)]
#[promote(clone, into = Both)]
struct Both {
    number: u8,
}

fn main() {}
