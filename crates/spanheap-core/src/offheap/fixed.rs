//! Records of one type that come and go.
//!
//! A free object keeps its contents: whoever still has a pointer to a span record that was recycled
//! finds a record there, with an epoch that never goes back. So the free list does not run through
//! the objects but through a link word in front of each:
//!
//! ```text
//! chunk (16 KiB from Persistent):  | link | object | link | object | ...
//! ```
//!
//! While an object is in use its link holds [`IN_USE`], which catches an object that is freed
//! twice, and most writes that run over the end of the object before it.
//!
//! **Invariants.** (1) A slot is on the free list, or in use with `IN_USE` in its link, or still
//! untouched between `next` and `end`. (2) `in_use` counts the second kind.
//!
//! **Locking.** None: whoever has `&mut` has the pool. The pool lives inside its owner's lock.
//!
//! # Safety
//! This file is trusted to touch only links, never objects, and to hand out no object twice.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::{MaybeUninit, offset_of};
use core::ptr::NonNull;

use super::Persistent;
use crate::addr::{Addr, Bytes};
use crate::os::{Category, Os, OsError};

/// The size of a chunk, rounded down to a multiple of the slots' size; larger slots get a chunk
/// each.
const CHUNK_BYTES: usize = 16 << 10;

/// The link of a slot in use: no slot's address, because it is odd.
const IN_USE: Addr = Addr::new(0x1d5e_a11e_ed0b_1ec1);

#[repr(C)]
struct Slot<T> {
    /// The next free slot, null at the end of the list, or `IN_USE`.
    link: Addr,
    object: MaybeUninit<T>,
}

/// What the memory of an object holds when it is handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fresh {
    /// Handed out for the first time: all zeros.
    Zeroed,
    /// Handed out before: what its last user left in it.
    Recycled,
}

/// A pool of objects of type `T`. It hands out memory; what is in it is the callers' affair, and no
/// `T` is ever read, written or dropped here.
pub struct FixedPool<T> {
    category: Category,
    free: Addr,
    /// The untouched part of the current chunk.
    next: Addr,
    end: Addr,
    in_use: usize,
    _objects: PhantomData<fn() -> T>,
}

impl<T> FixedPool<T> {
    const SLOT: Bytes = Bytes::new(size_of::<Slot<T>>());

    const CHUNK: Layout = {
        let slot = size_of::<Slot<T>>();
        let count = if slot > CHUNK_BYTES { 1 } else { CHUNK_BYTES / slot };
        match Layout::from_size_align(count * slot, align_of::<Slot<T>>()) {
            Ok(layout) => layout,
            Err(_) => panic!("the type is too large"),
        }
    };

    /// An empty pool, the memory of which counts for `category`.
    pub const fn new(category: Category) -> FixedPool<T> {
        let (free, next, end) = (Addr::NULL, Addr::NULL, Addr::NULL);
        FixedPool { category, free, next, end, in_use: 0, _objects: PhantomData }
    }

    /// Memory for one object: the one freed last, or zeroed memory if none is free. It is valid
    /// until it is freed or `persistent` is released, which must be the same one in every call.
    ///
    /// # Errors
    /// When the system has no memory; nothing has changed.
    pub fn alloc(
        &mut self,
        os: &Os,
        persistent: &Persistent,
    ) -> Result<(NonNull<T>, Fresh), OsError> {
        let (slot, fresh) = if self.free.is_null() {
            if self.next == self.end {
                self.next = Addr::of(persistent.alloc(os, Self::CHUNK, self.category)?.as_ptr());
                self.end = self.next + Bytes::new(Self::CHUNK.size());
            }
            let slot = self.next;
            self.next = slot + Self::SLOT;
            (slot, Fresh::Zeroed)
        } else {
            let slot = self.free;
            // SAFETY: a slot on the free list is ours (1), and its link was written when it got
            // there.
            self.free = unsafe { slot.as_ptr::<Addr>().read() };
            (slot, Fresh::Recycled)
        };
        // SAFETY: the slot was untouched or free, so its link is ours (1); the link comes first in
        // it.
        unsafe { slot.as_ptr::<Addr>().write(IN_USE) };
        self.in_use += 1;
        let object = slot + Bytes::new(offset_of!(Slot<T>, object));
        Ok((NonNull::new(object.as_ptr()).expect("a slot is not at address 0"), fresh))
    }

    /// Takes an object back. Its contents stay as they are until it is handed out again, and are
    /// what the next user finds.
    ///
    /// # Panics
    /// When the object is free already, or when something has written over the word in front of it.
    ///
    /// # Safety
    /// The object came from this pool, and `persistent` has not been released since. Nobody uses it
    /// any more, except in ways that its type's own protocol allows for free objects.
    pub unsafe fn free(&mut self, object: NonNull<T>) {
        let slot = Addr::of(object.as_ptr()) - Bytes::new(offset_of!(Slot<T>, object));
        let link = slot.as_ptr::<Addr>();
        // SAFETY: in front of an object of this pool is its link, which only the pool touches.
        let found = unsafe { link.read() };
        assert!(
            found == IN_USE,
            "the object at {object:?} was freed twice, or the word in front of it was \
             overwritten: {found}"
        );
        // SAFETY: as above.
        unsafe { link.write(self.free) };
        self.free = slot;
        self.in_use -= 1;
    }

    /// The number of objects that are handed out and not freed.
    pub fn in_use(&self) -> usize {
        self.in_use
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::SimOs;

    struct Tools {
        os: Os,
        persistent: Persistent,
    }

    impl Tools {
        fn new() -> Tools {
            Tools { os: Os::simulated(SimOs::builder().build()), persistent: Persistent::new() }
        }

        fn alloc<T>(&self, pool: &mut FixedPool<T>) -> (NonNull<T>, Fresh) {
            pool.alloc(&self.os, &self.persistent).unwrap()
        }
    }

    impl Drop for Tools {
        fn drop(&mut self) {
            // SAFETY: the tests keep no object beyond their tools.
            unsafe { self.persistent.release(&self.os) };
            assert_eq!(self.os.accounting().reserved(), Bytes::ZERO);
        }
    }

    #[test]
    fn recycled_objects_keep_all_their_contents() {
        let tools = Tools::new();
        let mut pool = FixedPool::<[u64; 5]>::new(Category::Metadata);
        let (first, fresh) = tools.alloc(&mut pool);
        assert_eq!(fresh, Fresh::Zeroed);
        // SAFETY: the object is ours and zeroed, which is a valid value.
        assert_eq!(unsafe { first.read() }, [0; 5]);
        // SAFETY: the object is ours.
        unsafe { first.write([1, 2, 3, 4, 5]) };
        // SAFETY: the object came from this pool.
        unsafe { pool.free(first) };
        assert_eq!(pool.in_use(), 0);
        let (again, fresh) = tools.alloc(&mut pool);
        assert_eq!((again, fresh), (first, Fresh::Recycled));
        // SAFETY: the object is ours again, and was written before.
        assert_eq!(unsafe { again.read() }, [1, 2, 3, 4, 5]);
        assert_eq!(pool.in_use(), 1);
    }

    #[test]
    fn the_object_freed_last_is_handed_out_first() {
        let tools = Tools::new();
        let mut pool = FixedPool::<u8>::new(Category::Metadata);
        let objects: Vec<_> = (0..5000).map(|_| tools.alloc(&mut pool).0).collect();
        let mut apart = objects.clone();
        apart.sort();
        apart.dedup();
        assert_eq!(apart.len(), objects.len());
        let mapped = tools.os.accounting().mapped(Category::Metadata);
        for &object in &objects {
            // SAFETY: each came from the pool and is freed once.
            unsafe { pool.free(object) };
        }
        for &object in objects.iter().rev() {
            assert_eq!(tools.alloc(&mut pool), (object, Fresh::Recycled));
        }
        assert_eq!(tools.os.accounting().mapped(Category::Metadata), mapped);
        assert_eq!(pool.in_use(), 5000);
    }

    #[test]
    fn types_of_any_size_and_alignment_fit() {
        #[repr(align(256))]
        struct Wide([u8; 300]);
        let tools = Tools::new();
        let mut wide = FixedPool::<Wide>::new(Category::Roots);
        let mut large = FixedPool::<[u64; 10_000]>::new(Category::Roots);
        let mut empty = FixedPool::<()>::new(Category::Roots);
        for _ in 0..100 {
            let (object, _) = tools.alloc(&mut wide);
            assert_eq!(object.as_ptr() as usize % 256, 0);
            // SAFETY: the object is ours and zeroed.
            assert!(unsafe { object.read() }.0.iter().all(|&byte| byte == 0));
        }
        for _ in 0..3 {
            let (object, _) = tools.alloc(&mut large);
            // SAFETY: the object is ours and zeroed.
            assert!(unsafe { object.read() }.iter().all(|&word| word == 0));
        }
        assert_ne!(tools.alloc(&mut empty).0, tools.alloc(&mut empty).0);
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn an_object_freed_twice_is_a_panic() {
        let tools = Tools::new();
        let mut pool = FixedPool::<u64>::new(Category::Metadata);
        let (object, _) = tools.alloc(&mut pool);
        // SAFETY: the object came from this pool.
        unsafe { pool.free(object) };
        // SAFETY: it is free already: the check under test only reads its link.
        unsafe { pool.free(object) };
    }

    #[test]
    fn a_refusal_changes_nothing() {
        let sim = SimOs::builder().fail_from(1).build();
        let os = Os::simulated(sim.clone());
        let persistent = Persistent::new();
        let mut pool = FixedPool::<[u64; 4]>::new(Category::Metadata);
        assert!(pool.alloc(&os, &persistent).is_err());
        assert_eq!((pool.in_use(), os.accounting().reserved()), (0, Bytes::ZERO));
        sim.set_fail_from(None);
        let (object, fresh) = pool.alloc(&os, &persistent).unwrap();
        assert_eq!(fresh, Fresh::Zeroed);
        sim.set_fail_from(Some(1));
        // SAFETY: the object came from this pool.
        unsafe { pool.free(object) };
        assert_eq!(pool.alloc(&os, &persistent), Ok((object, Fresh::Recycled)));
        // SAFETY: the object is not used any more.
        unsafe { persistent.release(&os) };
        sim.assert_all_released();
    }
}
