//! All mistakes are reported at once, and say what would be right.
use spanheap::Trace;

#[derive(Trace)]
#[trace(no_drop, leaf = true)]
struct Struct {
    #[trace(skip)]
    skipped: u8,
    #[trace(leaf, leaf)]
    twice: u8,
    #[trace(crate = spanheap)]
    misplaced: u8,
    #[trace]
    empty: u8,
}

#[derive(Trace)]
enum Enum {
    #[trace(leaf)]
    Variant(u8),
}

fn main() {}
