//! Destructors: each value exactly once, on the drop thread, whatever else happens.

use crate::{Random, modes, on_threads, rounds};
use spanheap::{Collected, Gc, GcCell, Heap, Root, Rootable, Trace};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How often each value has been dropped.
struct Ledger(Vec<AtomicU32>);

/// A leaf that enters its death into the ledger.
#[derive(Trace)]
struct Leaf {
    #[trace(leaf)]
    ledger: Arc<Ledger>,
    number: usize,
}

impl Drop for Leaf {
    fn drop(&mut self) {
        self.ledger.0[self.number].fetch_add(1, Ordering::Relaxed);
        let thread = std::thread::current();
        assert!(!thread.name().unwrap_or("").starts_with("user"), "dropped on a user's thread");
        assert!(self.number % 1000 != 999, "one destructor in a thousand panics");
    }
}

#[derive(Trace)]
struct Holder<'gc> {
    leaf: Leaf,
    more: Vec<Leaf>,
    next: GcCell<'gc, Option<Gc<'gc, Holder<'gc>>>>,
    slice: Option<Gc<'gc, [Leaf]>>,
}

const VALUES: usize = 60_000;

#[test]
fn every_value_is_dropped_exactly_once() {
    std::panic::set_hook(Box::new(|info| {
        // The panics of destructors are part of the test and would fill the screen.
        if !info.to_string().contains("one destructor in a thousand") {
            eprintln!("{info}");
        }
    }));
    for (mode, builder) in modes() {
        println!("drops: {mode}");
        let heap = builder.build().unwrap();
        let values = VALUES * rounds();
        let ledger = Arc::new(Ledger((0..values).map(|_| AtomicU32::new(0)).collect()));
        let threads = 2;
        on_threads(threads as u64, |thread| {
            make_values(&heap, &ledger, thread as usize, values / threads);
        });
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(heap.stats().live_objects, 0, "{mode}");
        drop(heap);
        for (number, count) in ledger.0.iter().enumerate() {
            assert_eq!(count.load(Ordering::Relaxed), 1, "{mode}: value {number}");
        }
    }
    let _ = std::panic::take_hook();
}

fn make_values(heap: &Heap, ledger: &Arc<Ledger>, thread: usize, count: usize) {
    let mut random = Random::new(thread as u64 + 1);
    let mut numbers = thread * count..(thread + 1) * count;
    type Kept = Root<Rootable![Holder<'_>]>;
    let mut kept: Option<Kept> = None;
    while !numbers.is_empty() {
        kept = heap.enter(|mc| {
            let leaf = |number| Leaf { ledger: ledger.clone(), number };
            let number = numbers.next()?;
            let many: Vec<_> = numbers.by_ref().take(random.below(4)).map(leaf).collect();
            let slice: Vec<_> = numbers.by_ref().take(random.below(5)).map(leaf).collect();
            let next = kept.as_ref().filter(|_| !random.one_in(50)).map(|kept| kept.get(mc));
            let slice = (!slice.is_empty()).then(|| mc.alloc_slice(slice));
            let next = GcCell::new(next);
            let holder = mc.alloc(Holder { leaf: leaf(number), more: many, next, slice });
            Some(mc.root(holder))
        });
    }
}
