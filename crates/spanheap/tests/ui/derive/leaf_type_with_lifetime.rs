//! A leaf type with a parameter is `Trace` only where it is `'static`.
use spanheap::Trace;

#[derive(Trace)]
#[trace(leaf)]
struct Handle<T>(T);

fn check<T: Trace>(_: &T) {}

fn main() {
    let local = 1;
    check(&Handle(&local));
}
