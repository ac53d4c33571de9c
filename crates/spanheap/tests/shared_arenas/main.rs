//! Shared arenas: values that are freed together, while others may still point to them.
//!
//! | file | what |
//! |---|---|
//! | `methods` | every method of arenas, writers and pointers, once each and where it refuses |
//! | `graphs` | values and objects that point to each other, through all cells and containers; what is retained, and what not |
//! | `owners` | who frees an arena: a handle, an object's destructor, the collector, the end of the heap |
//! | `faults` | rows 47 to 56 of the fault matrix |
//! | `weaknesses` | what is known to be weak about arenas elsewhere, shown not to be so here |
//! | `scenarios` | what Go tests its arenas with |
//! | `hostile` | what happens in the middle of what: iterators, trace functions and other threads that free, heaps that end |
//! | `threads` | arenas that are filled, read and freed by several threads while the heap collects all the time |
//! | `kernel` | a way to look at memory that may have gone |
//!
//! All heaps are verified by checkmark mode and poison what they free, unless a test is about speed or memory.

#![allow(clippy::type_complexity, reason = "a root names the whole type of what it keeps")]

mod faults;
mod graphs;
mod hostile;
mod methods;
mod owners;
mod scenarios;
mod threads;
mod weaknesses;

#[path = "../../../spanheap-core/tests/kernel/mod.rs"]
mod kernel;

use spanheap::{ArenaGc, Collected, Gc, GcCell, Heap, Mutator, Root, Rootable, SharedArena, Trace};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A heap that collects when it is told to.
fn heap() -> Heap {
    Heap::builder().gc_percent_off().checkmark(true).poison(true).build().unwrap()
}

/// A complete cycle, of which nothing went wrong.
fn collect(heap: &Heap) {
    assert_eq!(heap.collect(), Collected::Complete);
    assert!(!heap.stats().retained_everything);
}

/// Lets go of what a closure would return otherwise.
fn done<T>(_: T) {}

/// What `act` panics with.
fn refusal(act: impl FnOnce()) -> String {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(()) => "it was not refused".to_owned(),
        Err(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => payload.downcast::<&str>().map_or("?", |text| *text).to_owned(),
        },
    }
}

/// A value, or an object, that leads to both.
#[derive(Trace)]
struct Node<'gc> {
    id: u64,
    canary: u64,
    object: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
    value: GcCell<'gc, Option<ArenaGc<'gc, Node<'gc>>>>,
}

type NodeRoot = Root<Rootable![Node<'_>]>;

impl<'gc> Node<'gc> {
    fn new(id: u64) -> Node<'gc> {
        let canary = id.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ 0x5af3_107a_4000_c0de;
        Node { id, canary, object: GcCell::new(None), value: GcCell::new(None) }
    }

    /// The same, leading to others.
    fn leading(
        id: u64,
        object: Option<Gc<'gc, Node<'gc>>>,
        value: Option<ArenaGc<'gc, Node<'gc>>>,
    ) -> Node<'gc> {
        let node = Node::new(id);
        Node { object: GcCell::new(object), value: GcCell::new(value), ..node }
    }

    /// That it is whole.
    #[track_caller]
    fn check(&self) -> u64 {
        assert_eq!(self.canary, Node::new(self.id).canary, "node {} was freed", self.id);
        self.id
    }
}

/// A root of a new object.
fn object(heap: &Heap, id: u64) -> NodeRoot {
    heap.enter(|mc| mc.root(mc.alloc(Node::new(id))))
}

/// Counts destructors, as a value that lies in an object.
#[derive(Clone, Default)]
struct Tally(Arc<AtomicU64>);

impl Tally {
    fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// An object whose destructor counts, with what it leads to.
    fn object<'gc>(&self, mc: &Mutator<'gc>) -> Gc<'gc, Mortal> {
        mc.alloc(Mortal(self.clone()))
    }

    /// Waits until so many destructors have run: they run on a thread of the heap's own after a cycle.
    #[track_caller]
    fn wait_for(&self, count: u64) {
        let begun = std::time::Instant::now();
        while self.get() < count {
            let waited = begun.elapsed().as_secs();
            assert!(waited < 60, "{} of {count} destructors have run after {waited} s", self.get());
            std::thread::yield_now();
        }
        assert_eq!(self.get(), count);
    }
}

#[derive(Trace)]
#[trace(leaf)]
struct Mortal(Tally);

impl Drop for Mortal {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Collects until nothing of any arena is left, in no more cycles than it may take.
#[track_caller]
fn settle(heap: &Heap) {
    for _ in 0..3 {
        collect(heap);
    }
    let stats = heap.stats().arenas;
    assert_eq!(stats.live_bytes + stats.quarantined_bytes, 0, "{stats:?}");
}

/// An arena with one value in it that a new object leads to.
fn with_value(heap: &Heap) -> (SharedArena, NodeRoot) {
    let arena = heap.shared_arena();
    let root = heap.enter(|mc| {
        let value = arena.alloc(mc, Node::new(1));
        mc.root(mc.alloc(Node::leading(2, None, Some(value))))
    });
    (arena, root)
}
