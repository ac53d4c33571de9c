//! A root cannot be viewed as one of another type, even if one names the other's supertype: the two may
//! stand for different objects.
#![allow(coherence_leak_check)]
use spanheap::{Heap, Root, Rootable};
use std::marker::PhantomData;

trait Choose {
    type Object: 'static;
}

impl Choose for for<'a> fn(&'a ()) {
    type Object = usize;
}

impl Choose for fn(&'static ()) {
    type Object = &'static str;
}

struct Chosen<T>(PhantomData<T>);

impl<'gc, T: Choose> Rootable<'gc> for Chosen<T> {
    type Root = T::Object;
}

fn main() {
    let heap = Heap::new();
    let number: Root<Chosen<for<'a> fn(&'a ())>> = heap.enter(|mc| mc.root(mc.alloc(16usize)));
    let text: Root<Chosen<fn(&'static ())>> = number;
    heap.enter(|mc| println!("{}", *text.get(mc)));
}
