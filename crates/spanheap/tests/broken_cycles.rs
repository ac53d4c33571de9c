//! Cycles that cannot be finished as they should: a `Trace` that panics, a lock that is never given up, want of
//! memory for the collector's own queues. Nothing may be lost, and the next cycle makes up for it.
//!
//! # Safety
//! One hand-written `Trace`, whose only fault is that it panics when it is told to.

use spanheap::os::Os;
use spanheap::os::sim::SimOs;
use spanheap::{Collected, Gc, GcCell, GcMutex, Heap, Root, Rootable, Trace, Tracer};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

static PANICS: AtomicBool = AtomicBool::new(false);

/// Points to another one, and reports it unless it is told to panic.
struct Moody<'gc> {
    name: String,
    next: Option<Gc<'gc, Moody<'gc>>>,
}

// SAFETY: the one pointer is reported, or the tracing does not return.
unsafe impl Trace for Moody<'_> {
    fn trace(&self, tracer: &mut Tracer<'_>) {
        assert!(!PANICS.load(Ordering::Relaxed), "a trace function that panics on purpose");
        self.next.trace(tracer);
    }
}

/// Fault row 32: the panic stays in the collector, the cycle retains everything, the next one does not.
#[test]
fn a_panic_in_trace_costs_a_cycle_and_nothing_else() {
    std::panic::set_hook(Box::new(|_| {}));
    let heap = Heap::builder().poison(true).build().unwrap();
    let kept: Root<Rootable![Moody<'_>]> = heap.enter(|mc| {
        let mut next = None;
        for n in 0..100 {
            next = Some(mc.alloc(Moody { name: format!("kept {n}"), next }));
            mc.alloc(Moody { name: format!("garbage {n}"), next });
        }
        mc.root(next.unwrap())
    });
    PANICS.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(heap.collect(), Collected::Complete);
        assert!(heap.stats().retained_everything);
        assert_eq!(heap.stats().dropped, 0);
    }
    PANICS.store(false, Ordering::Relaxed);
    assert_eq!(heap.collect(), Collected::Complete);
    let _ = std::panic::take_hook();
    assert!(!heap.stats().retained_everything);
    assert_eq!(heap.stats().live_objects, 100);
    while heap.stats().dropped < 100 {
        std::thread::yield_now();
    }
    heap.enter(|mc| {
        let (mut node, mut n) = (Some(kept.get(mc)), 100);
        while let Some(this) = node {
            n -= 1;
            assert_eq!(this.name, format!("kept {n}"));
            node = this.next;
        }
        assert_eq!(n, 0);
    });
}

/// A forgotten guard keeps its container locked, so no cycle can be completed; the heap can be dropped all the
/// same, and runs the destructors that it owes.
#[test]
fn a_forgotten_guard_does_not_keep_the_heap_alive() {
    #[derive(Trace)]
    struct Leaf {
        #[trace(leaf)]
        dropped: mpsc::Sender<()>,
    }
    impl Drop for Leaf {
        fn drop(&mut self) {
            self.dropped.send(()).unwrap();
        }
    }
    type Bag<'gc> = GcMutex<'gc, Vec<Gc<'gc, Leaf>>>;

    let (dropped, is_dropped) = mpsc::channel();
    let heap = Heap::builder().collect_continuously(true).build().unwrap();
    let bag: Root<Rootable![Bag<'_>]> = heap.enter(|mc| {
        let leaf = mc.alloc(Leaf { dropped });
        let bag: Gc<'_, Bag<'_>> = mc.alloc(GcMutex::new(vec![leaf]));
        std::mem::forget(bag.lock(mc));
        mc.root(bag)
    });
    let before = heap.stats().cycles;
    for _ in 0..1000 {
        heap.enter(|mc| assert!(bag.get(mc).try_lock(mc).is_none()));
    }
    assert!(heap.stats().cycles <= before + 1);
    assert!(is_dropped.try_recv().is_err());
    drop(heap);
    is_dropped.try_recv().unwrap();
}

/// Fault row 3: the collector's queues get no memory while mutators overwrite pointers all the time. Cycles are
/// completed by looking for what was marked and not queued, or retain everything; no object is lost.
#[test]
fn the_collector_needs_no_memory_to_finish_a_cycle() {
    // Alone it keeps most pages in hand; several workers give each other pages through a queue without room.
    for workers in [1, 4] {
        cycles_without_memory(NonZeroUsize::new(workers).unwrap());
    }
}

fn cycles_without_memory(workers: NonZeroUsize) {
    #[derive(Trace)]
    struct Token<'gc> {
        number: usize,
        /// Reachable through the token only: lost if the token is marked and not scanned.
        twice: Gc<'gc, [usize; 2]>,
    }
    const TOKENS: usize = 5000;
    type Slots<'gc> = [GcCell<'gc, Option<Gc<'gc, Token<'gc>>>>];

    // No cycle runs before memory is refused, so the queues have none at all.
    let sim = SimOs::builder().build();
    let builder = Heap::builder().os(Os::simulated(sim.clone())).poison(true);
    let heap = builder.gc_percent_off().mark_threads(workers).always_assist(true).build().unwrap();
    let slots: Root<Rootable![Slots<'_>]> = heap.enter(|mc| {
        let token = |number| mc.alloc(Token { number, twice: mc.alloc([number; 2]) });
        mc.root(mc.alloc_slice((0..TOKENS).map(|number| GcCell::new(Some(token(number))))))
    });
    sim.set_fail_from(Some(1));
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !finished.load(Ordering::Relaxed) {
                assert_eq!(heap.collect(), Collected::Complete);
            }
        });
        let mut step = 0;
        while heap.stats().cycles < 150 {
            heap.enter(|mc| {
                let slots = slots.get(mc);
                // Tokens are taken out, held while the collector gets on, and put back elsewhere: only the
                // barrier knows of them meanwhile.
                let taken: Vec<_> = (0..40).map(|n| (step * 41 + n * 7) % TOKENS).collect();
                let hand: Vec<_> = taken.iter().map(|&at| slots[at].swap(mc, None)).collect();
                std::thread::sleep(std::time::Duration::from_micros(step as u64 % 150));
                for (at, token) in taken.iter().rev().zip(hand) {
                    slots[*at].set(mc, token);
                }
            });
            step += 1;
        }
        finished.store(true, Ordering::Relaxed);
    });
    sim.set_fail_from(None);
    assert_eq!(heap.collect(), Collected::Complete);
    heap.enter(|mc| {
        let slots = slots.get(mc);
        let mut numbers: Vec<_> = slots.iter().map(|slot| slot.get().unwrap().number).collect();
        assert!(slots.iter().filter_map(GcCell::get).all(|t| *t.twice == [t.number; 2]));
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..TOKENS));
    });
}
