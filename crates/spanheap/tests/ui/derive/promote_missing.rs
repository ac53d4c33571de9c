//! A field whose type is not `Promote`.
use spanheap::{Gc, Promote, Trace};

struct Foreign(u8);

#[derive(Promote)]
#[promote(into = Kept<'gc>)]
struct Parsed<'a> {
    foreign: Foreign,
    behind: &'a Foreign,
}

#[derive(Trace)]
struct Kept<'gc> {
    #[trace(leaf)]
    foreign: Foreign,
    behind: Gc<'gc, u8>,
}

fn main() {}
