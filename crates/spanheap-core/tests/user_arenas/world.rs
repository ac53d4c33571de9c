//! Nodes: a type with pointers whose values may be objects of the heap or values of an arena.
//!
//! # Safety
//! The functions keep U1 to U5 and A1 to A4: nodes are written before they are published, and used in closures.

use spanheap_core::addr::{Addr, Bytes};
use spanheap_core::collect::roots::RootRecord;
use spanheap_core::collect::{Options, Policy};
use spanheap_core::heap::ArenaError;
use spanheap_core::mutator::{ArenaOptions, ArenaWriter, Heap, Mutator, UserArena};
use spanheap_core::observe::Stats;
use spanheap_core::os::Os;
use spanheap_core::span::lookup::Lookup;
use spanheap_core::span::{Layout, Shape, Tracer, TypeInfo};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub const PAGE: usize = 8 << 10;
pub const MIB: usize = 1 << 20;

/// Two pointers, and a number with its complement, which no other memory has.
#[repr(C)]
pub struct Node {
    pub left: AtomicUsize,
    pub right: AtomicUsize,
    pub number: usize,
    check: usize,
}

/// Reports nothing.
///
/// # Safety
/// Always sound.
pub unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

/// Reports both pointers of nodes.
///
/// # Safety
/// `object` points to so many nodes.
pub unsafe fn trace_nodes(object: *const u8, count: usize, tracer: &mut Tracer<'_>) {
    for index in 0..count {
        // SAFETY: the caller's promise.
        let node = unsafe { object.cast::<Node>().add(index) };
        // SAFETY: as above.
        let node = unsafe { &*node };
        for field in [&node.left, &node.right] {
            // SAFETY: fields of nodes hold pointers to nodes.
            unsafe { tracer.edge(Addr::new(field.load(Ordering::Acquire))) };
        }
    }
}

const fn node_type(name: fn() -> &'static str, shape: Shape) -> TypeInfo {
    TypeInfo::new(name, size_of::<Node>(), align_of::<Node>(), shape, trace_nodes, None)
}

/// Pointers at fixed words.
pub static NODE: TypeInfo = node_type(|| "node", Shape::Words(0b11));
/// The same, found by its trace function.
pub static TRACED: TypeInfo = node_type(|| "traced node", Shape::Opaque);

/// A heap that collects on demand only.
pub fn quiet_heap(os: Os, checkmark: bool) -> Heap {
    let policy = Policy { percent: None, limit: None };
    let options = Options { policy, periodic: None, checkmark, ..Options::default() };
    Heap::new(os, options).expect("a heap")
}

/// The same on this kernel, in checkmark mode.
pub fn heap() -> Heap {
    quiet_heap(Os::native(), true)
}

pub fn new_arena(heap: &Heap) -> UserArena {
    heap.new_arena(ArenaOptions::default())
}

/// Calls `run` in a closure.
pub fn inside<R>(mutator: &Mutator, run: impl FnOnce(&Mutator) -> R) -> R {
    mutator.enter();
    let result = run(mutator);
    mutator.leave();
    result
}

/// The number of a pointer; 0 for none.
pub fn address(node: Option<NonNull<u8>>) -> usize {
    node.map_or(0, |node| Addr::of(node.as_ptr()).get())
}

/// Fills a node that was just allocated.
///
/// # Safety
/// The slot is large enough and nobody else's.
pub unsafe fn fill(
    slot: NonNull<u8>,
    number: usize,
    left: Option<NonNull<u8>>,
    right: Option<NonNull<u8>>,
) {
    let left = AtomicUsize::new(address(left));
    let right = AtomicUsize::new(address(right));
    // SAFETY: the caller's promise.
    unsafe { slot.cast::<Node>().write(Node { left, right, number, check: !number }) };
}

/// A node in the heap. A closure is open.
pub fn object(mutator: &Mutator, number: usize, left: Option<NonNull<u8>>) -> NonNull<u8> {
    // SAFETY: a closure is open.
    let slot = unsafe { mutator.alloc(&NODE) }.expect("memory");
    // SAFETY: it is new.
    unsafe { fill(slot, number, left, None) };
    // SAFETY: it is initialised.
    unsafe { mutator.publish(slot) };
    slot
}

/// A node of that type in an arena. A closure is open.
pub fn value(
    writer: &mut ArenaWriter<'_>,
    ty: &'static TypeInfo,
    number: usize,
    left: Option<NonNull<u8>>,
) -> Result<NonNull<u8>, ArenaError> {
    // SAFETY: a closure is open, and the type is one of nodes.
    let slot = unsafe { writer.alloc(ty) }?;
    // SAFETY: it is new.
    unsafe { fill(slot, number, left, None) };
    Ok(slot)
}

/// A writer for an arena of the mutator's heap. The caller's closure stays open as long as it.
pub fn writer<'m>(mutator: &'m Mutator, arena: &UserArena) -> ArenaWriter<'m> {
    // SAFETY: tests use writers inside of the closures that they make them in.
    unsafe { mutator.arena_writer(arena) }.expect("the same heap")
}

/// The node at `at`, which the open closure may use.
pub fn node<'a>(at: NonNull<u8>) -> &'a Node {
    // SAFETY: the caller holds a node.
    let node = unsafe { at.cast::<Node>().as_ref() };
    assert_eq!(node.number, !node.check, "the node at {at:?} is no node any more");
    node
}

/// What a field of a node points to.
pub fn follow(field: &AtomicUsize) -> Option<NonNull<u8>> {
    NonNull::new(Addr::new(field.load(Ordering::Acquire)).as_ptr())
}

/// Stores a pointer into a node. A closure is open and holds both.
pub fn set_left(mutator: &Mutator, of: NonNull<u8>, left: Option<NonNull<u8>>) {
    // SAFETY: the closure holds both nodes.
    unsafe { mutator.write(&node(of).left, Addr::new(address(left))) };
}

/// A root of a node that the open closure holds.
pub fn root(mutator: &Mutator, at: NonNull<u8>) -> Arc<RootRecord> {
    // SAFETY: the closure holds it.
    unsafe { mutator.root(at) }
}

/// What a root holds. A closure is open.
pub fn held(root: &RootRecord) -> NonNull<u8> {
    NonNull::new(root.object().as_ptr()).expect("a root holds an object")
}

/// Whether a value may be used. A closure is open that holds it.
pub fn is_live(mutator: &Mutator, at: NonNull<u8>) -> bool {
    // SAFETY: the closure holds it.
    unsafe { mutator.is_arena_live(at) }
}

/// Whether an object of the heap is there, by an address that nobody need hold.
pub fn is_object(mutator: &Mutator, at: usize) -> bool {
    inside(mutator, |mutator| mutator.find_object(Addr::new(at)).object().is_some())
}

/// What an address is, asked in a closure of its own.
pub fn place(mutator: &Mutator, at: usize) -> Lookup {
    inside(mutator, |mutator| mutator.find_object(Addr::new(at)))
}

/// Waits until what was freed is guarded: so many bytes since the heap was made.
pub fn wait_for_guards(heap: &Heap, bytes: u64) {
    let begun = std::time::Instant::now();
    while Stats::of(heap).arenas.guarded < bytes {
        assert!(
            begun.elapsed().as_secs() < 60,
            "the collector does not come: {:?}",
            Stats::of(heap).arenas
        );
        std::thread::yield_now();
    }
}

/// Bytes of pages in a state.
pub fn pages(heap: &Heap, state: spanheap_core::observe::MemoryState) -> Bytes {
    Stats::of(heap).counted.pages(state)
}

/// A layout of so many bytes.
pub fn bytes_of(size: usize, align: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(size, align).expect("a layout")
}

/// Nothing is broken in the heap.
pub fn verify(heap: &Heap) {
    let found = heap.verify();
    assert!(found.findings.is_empty(), "{:?}", found.findings);
}

const _: fn(&TypeInfo) -> Layout = TypeInfo::layout;
