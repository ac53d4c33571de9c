//! Closures open one inside the other: an object of either holds no pointer of the other, in whatever it is wrapped.
use spanheap::{Gc, GcMutex, GcOnce, GcVec, Heap, Mutator};

/// Two closures, and an object of the outer one. (One attempt for each call, or the compiler reports the first only.)
fn nest(f: impl for<'a, 'b> Fn(&Mutator<'a>, &Mutator<'b>, Gc<'a, u64>)) {
    let (one, other) = (Heap::new(), Heap::new());
    one.enter(|outer| other.enter(|inner| f(outer, inner, outer.alloc(1))));
}

fn main() {
    nest(|_, inner, ours| _ = inner.alloc(Some(ours)));
    nest(|outer, inner, _| _ = outer.alloc(Some(inner.alloc(2_u64))));
    nest(|_, inner, ours| _ = inner.alloc_with(|| ours));
    nest(|_, inner, ours| _ = inner.alloc_slice([ours]));
    nest(|_, inner, ours| _ = inner.alloc(GcMutex::new(vec![ours])));
    nest(|_, inner, ours| GcVec::new().push(inner, ours));
    nest(|_, inner, ours| _ = inner.ephemeron(ours, inner.alloc(3_u64)));
    nest(|outer, inner, _| {
        let field: Gc<'_, GcOnce<'_, Gc<'_, u64>>> = outer.alloc(GcOnce::new());
        let _ = field.set(outer, inner.alloc(4_u64));
    });
    // In the heap of an outer closure an object with a field for pointers of the inner one is no better.
    nest(|outer, inner, _| {
        let field = outer.alloc(GcOnce::new());
        let _ = field.set(outer, inner.alloc(5_u64));
    });
}
