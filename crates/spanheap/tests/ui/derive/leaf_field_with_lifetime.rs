//! A field that is not `'static` could hold a `Gc`, so it is no leaf.
use std::borrow::Cow;

use spanheap::Trace;

#[derive(Trace)]
struct Document<'a> {
    pages: u32,
    #[trace(leaf)]
    title: Cow<'a, str>,
}

fn main() {}
