//! A generic type can only be allocated for arguments that are `Trace`.
use spanheap::Trace;

#[derive(Trace)]
struct Pair<T>(T, T);

struct Engine;

fn check<T: Trace>(_: T) {}

fn main() {
    check(Pair(Engine, Engine));
}
