//! What edits, sorts or sifts a vector sees its elements for as long as the call lasts, and cannot keep a place of one.
use spanheap::{Gc, GcVec, Heap};

fn main() {
    Heap::new().enter(|mc| {
        let mut vec: GcVec<'_, Gc<'_, u64>> = GcVec::new();
        vec.push(mc, mc.alloc(1));
        let slice = vec.edit(mc, |elements| elements);
        slice[0] = mc.alloc(2);
    });
    Heap::new().enter(|mc| {
        let mut vec: GcVec<'_, u64> = GcVec::from_slice(mc, &[1, 2, 3]);
        let mut first = None;
        vec.retain(mc, |element| {
            first = Some(element);
            true
        });
        vec.push(mc, first.copied().unwrap_or(0));
    });
    Heap::new().enter(|mc| {
        let mut vec: GcVec<'_, u64> = GcVec::from_slice(mc, &[1, 2, 3]);
        let first = &vec[0];
        vec.clear(mc);
        println!("{first}");
    });
}
