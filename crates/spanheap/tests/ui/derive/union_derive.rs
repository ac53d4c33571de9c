//! Nothing says which field of a union is alive.
use spanheap::Trace;

#[derive(Trace)]
union Bits {
    float: f64,
    integer: u64,
}

fn main() {}
