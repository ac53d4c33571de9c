//! Nor is it stored in a value of another heap, where no collector would know it.
use spanheap::{ArenaGc, GcCell, Heap};

fn main() {
    let (one, other) = (Heap::new(), Heap::new());
    let (arena, foreign) = (one.shared_arena(), other.shared_arena());
    one.enter(|mc| {
        let value = arena.alloc(mc, 1_u64);
        other.enter(|inner| {
            let cell: ArenaGc<'_, GcCell<'_, Option<ArenaGc<'_, u64>>>> =
                foreign.alloc(inner, GcCell::new(None));
            cell.get(inner).unwrap().set(inner, Some(value));
        });
    });
}
