//! A destructor could allocate in its own arena, which is ending.
use spanheap::{Arena, Heap};

struct Late<'a, 'env>(&'a Arena<'env>);

impl Drop for Late<'_, '_> {
    fn drop(&mut self) {
        self.0.alloc(1);
    }
}

fn main() {
    Heap::new().enter(|mc| {
        mc.arena(|arena| {
            arena.alloc_drop(Late(arena));
        });
    });
}
