//! The parameter may be a `Gc`, and what it points to may be gone when the destructor runs.
use spanheap::Trace;

#[derive(Trace)]
struct Pair<T>(T, T);

impl<T> Drop for Pair<T> {
    fn drop(&mut self) {}
}

fn main() {}
