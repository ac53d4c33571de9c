//! The type in the heap has to have the same fields, with the types that these become.
use spanheap::{Gc, Promote, Trace};

#[derive(Promote)]
#[promote(into = Kept<'gc>)]
struct Parsed<'a> {
    name: &'a str,
    number: &'a u32,
    extra: u8,
}

#[derive(Trace)]
struct Kept<'gc> {
    name: String,
    number: Gc<'gc, u32>,
}

fn main() {}
