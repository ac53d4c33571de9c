//! A parameter of a leaf field has to be `'static` wherever the type is used.
use spanheap::Trace;

#[derive(Trace)]
struct Cache<T> {
    #[trace(leaf)]
    entries: Vec<T>,
}

fn check<T: Trace>(_: &T) {}

fn main() {
    let local = 1;
    check(&Cache { entries: vec![&local] });
}
