//! Destructors that are slow, that panic, that use the heap: what user code on the drop thread can do to a
//! heap that goes on collecting.

use spanheap::{Collected, Heap, Trace};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A panic's payload whose own destructor panics.
struct Malicious;

impl Drop for Malicious {
    fn drop(&mut self) {
        resume_unwind(Box::new("dropped with the payload"));
    }
}

/// Counts its deaths; every eighth value panics.
#[derive(Trace)]
struct Mortal {
    #[trace(leaf)]
    deaths: Arc<Vec<AtomicU32>>,
    number: usize,
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.deaths[self.number].fetch_add(1, Ordering::Relaxed);
        if self.number % 8 == 7 {
            resume_unwind(Box::new(Malicious));
        }
    }
}

/// The values that were dropped together with the one that panicked must not be dropped again, and the drop
/// thread goes on.
#[test]
fn a_payload_that_panics_when_it_is_dropped_ends_no_thread() {
    const VALUES: usize = 300;
    let deaths: Arc<Vec<_>> = Arc::new((0..VALUES).map(|_| AtomicU32::new(0)).collect());
    let heap = Heap::new();
    heap.enter(|mc| {
        for number in 0..VALUES {
            mc.alloc(Mortal { deaths: deaths.clone(), number });
        }
    });
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(heap.collect(), Collected::Complete);
    drop(heap);
    for (number, count) in deaths.iter().enumerate() {
        assert_eq!(count.load(Ordering::Relaxed), 1, "value {number}");
    }
}
