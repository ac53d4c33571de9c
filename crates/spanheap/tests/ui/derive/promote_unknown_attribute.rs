//! All mistakes are reported at once, and say what would be right.
use spanheap::Promote;

#[derive(Promote)]
#[promote(target = Kept<'gc>)]
struct Struct<'a> {
    #[promote(skip)]
    skipped: &'a u8,
}

#[derive(Promote)]
#[promote(clone)]
enum Enum {
    #[promote(clone)]
    Variant(#[promote(with)] u8),
}

#[derive(Promote)]
#[promote(clone)]
union Either {
    a: u8,
    b: i8,
}

fn main() {}
