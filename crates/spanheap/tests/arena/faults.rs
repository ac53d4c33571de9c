//! Arenas where a heap may not be used: in a trace function. (In a forked process: see `crates/spanheap/tests/faults_process.rs`.)
//!
//! # Safety
//! A trace function gets hold of a mutator, which safe code cannot: a pointer to it lies in a thread-local while the
//! closure is open.
#![allow(unsafe_code)]

use spanheap::{GcMutex, Heap, Mutator, Root, Rootable, Shape, Trace, Tracer};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static MUTATOR: Cell<Option<*const Mutator<'static>>> = const { Cell::new(None) };
    static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Uses an arena when it is traced, if it can.
struct Meddler;

// SAFETY: there is nothing to trace.
unsafe impl Trace for Meddler {
    const SHAPE: Shape = Shape::Opaque;

    fn trace(&self, _: &mut Tracer<'_>) {
        let Some(mc) = MUTATOR.get() else { return };
        // SAFETY: set while its closure is open, on this thread.
        let mc = unsafe { &*mc };
        let outcome = catch_unwind(AssertUnwindSafe(|| mc.arena(|arena| *arena.alloc(5))));
        let text = match outcome {
            Ok(five) => format!("it was not refused: {five}"),
            Err(panic) => panic.downcast::<String>().map_or_else(|_| "?".into(), |text| *text),
        };
        SAID.with_borrow_mut(|said| said.push(text));
    }
}

#[test]
fn fault_35_a_trace_function_uses_an_arena() {
    let heap = Heap::builder().collect_continuously(true).build().unwrap();
    type Shared<'gc> = GcMutex<'gc, (Meddler, u64)>;
    let shared: Root<Rootable![Shared<'_>]> =
        heap.enter(|mc| mc.root(mc.alloc(GcMutex::new((Meddler, 0)))));
    // Who locks a container while a cycle runs traces it himself.
    while SAID.with_borrow(Vec::is_empty) {
        heap.enter(|mc| {
            MUTATOR.set(Some(std::ptr::from_ref(mc).cast()));
            shared.get(mc).lock(mc).1 += 1;
            MUTATOR.set(None);
        });
    }
    for text in SAID.take() {
        assert!(text.contains("a trace function may not use an arena"), "{text}");
    }
}
