//! A cell cannot be viewed as one of another type: what went in under one lifetime would come out under
//! another, and here a string would be kept beyond its closure.
use spanheap::{Gc, GcCell, Heap, Mutator};
use std::sync::Mutex;

static KEPT: Mutex<&'static str> = Mutex::new("");

fn keep(text: &'static str) {
    *KEPT.lock().unwrap() = text;
}

fn plant<'gc>(mc: &Mutator<'gc>, cell: &GcCell<'gc, Gc<'gc, fn(&'static str)>>) {
    cell.set(mc, mc.alloc(keep as fn(&'static str)));
}

fn lose<'gc>(mc: &Mutator<'gc>) {
    let cell: GcCell<'gc, Gc<'gc, fn(&'gc str)>> = GcCell::new(mc.alloc(|_| ()));
    plant(mc, &cell);
    (*cell.get())(mc.alloc_str("gone").as_ref());
}

fn main() {
    Heap::new().enter(|mc| lose(mc));
}
