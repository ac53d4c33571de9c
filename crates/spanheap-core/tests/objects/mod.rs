//! Objects without pointers, for tests of what a heap says about its memory.
//!
//! # Safety
//! U1 to U5 of the runtime API are kept: objects are filled before they are published, and have no pointers.
#![allow(unsafe_code)]

use spanheap_core::collect::roots::RootRecord;
use spanheap_core::collect::{Options, Policy};
use spanheap_core::mutator::{Heap, Mutator};
use spanheap_core::os::Os;
use spanheap_core::span::{Shape, Tracer, TypeInfo};
use std::sync::Arc;

/// A root: it holds one object.
pub type Held = Arc<RootRecord>;

/// Bytes in a mebibyte.
pub const MIB: usize = 1 << 20;

/// For objects without pointers.
///
/// # Safety
/// Always sound: nothing is read.
pub unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

/// 1 KiB.
pub static BLOCK: TypeInfo = TypeInfo::new(|| "block", 1024, 8, Shape::NoScan, trace_nothing, None);
/// 1 MiB.
pub static LARGE: TypeInfo = TypeInfo::new(|| "large", MIB, 8, Shape::NoScan, trace_nothing, None);

/// Allocates one object, fills it, and holds it. A closure is open.
fn make(mutator: &Mutator, ty: &'static TypeInfo) -> Held {
    // SAFETY: a closure is open.
    let slot = unsafe { mutator.alloc(ty) }.expect("memory");
    // SAFETY: the slot is ours and so large.
    unsafe { slot.as_ptr().write_bytes(0x5a, ty.size) };
    // SAFETY: it is initialised.
    unsafe { mutator.publish(slot) };
    // SAFETY: the closure holds it.
    unsafe { mutator.root(slot) }
}

/// So many objects, in one closure, by a mutator that leaves no runs open.
pub fn fill(heap: &Heap, ty: &'static TypeInfo, objects: usize) -> Vec<Held> {
    let mutator = heap.attach();
    mutator.enter();
    let made = (0..objects).map(|_| make(&mutator, ty)).collect();
    mutator.leave();
    made
}

/// Cycles begin on request only.
pub fn heap_on(os: Os) -> Heap {
    let policy = Policy { percent: None, limit: None };
    Heap::new(os, Options { policy, ..Options::default() }).expect("memory")
}

/// Keeps every third object, scattered.
pub fn thin_out(objects: &mut Vec<Held>) {
    let mut random = 0x1234_5678_9abc_def1u64;
    objects.retain(|_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % 3 == 0
    });
}
