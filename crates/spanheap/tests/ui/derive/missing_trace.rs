//! A field of a type that the collector knows nothing about.
use spanheap::Trace;

struct Engine {
    power: u32,
}

#[derive(Trace)]
struct Car {
    wheels: [u8; 4],
    engine: Option<Engine>,
}

#[derive(Trace)]
enum Vehicle<T> {
    Car(Car),
    Other { it: T, engine: Engine },
}

fn main() {}
