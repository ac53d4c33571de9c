//! Marking by several threads: workers, mutators that have to help, threads that offer their time. Everything is
//! verified by checkmark mode, which aborts the process if a reachable object was not marked.

use spanheap::{
    Collected, CollectedFor, Gc, GcCell, GcMutex, Heap, HeapBuilder, Mutator, Root, Rootable, Trace,
};
use std::num::NonZeroUsize;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[derive(Trace)]
struct Token {
    id: u64,
    check: u64,
}

#[derive(Trace)]
struct Node<'gc> {
    token: Gc<'gc, Token>,
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
}

type Slot<'gc> = GcCell<'gc, Option<Gc<'gc, Token>>>;
type List = Root<Rootable![Node<'_>]>;
type Array = Root<Rootable![[Slot<'_>]]>;

fn together(workers: usize) -> HeapBuilder {
    Heap::builder().poison(true).mark_threads(NonZeroUsize::new(workers).unwrap())
}

fn token<'gc>(mc: &Mutator<'gc>, id: u64) -> Gc<'gc, Token> {
    mc.alloc(Token { id, check: !id })
}

/// A generator of numbers.
fn number(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) as usize
}

/// Fault row 67: a large array of pointers changes while its pieces are being scanned. Threads exchange what is
/// in its slots, so that every token is on the move between pieces that are scanned and pieces that are not. They go
/// on until some cycles have ended: however slow the collector is, they cannot keep it from that.
#[test]
fn fault_67_nothing_is_lost_in_a_large_array_that_changes_while_it_is_scanned() {
    const LEN: usize = 150_000;
    for workers in [1, 3] {
        let heap = together(workers).collect_continuously(true).checkmark(true).always_assist(true);
        let heap = heap.build().unwrap();
        let array: Array = heap.enter(|mc| {
            let slots: Vec<Slot<'_>> =
                (0..LEN).map(|n| GcCell::new(Some(token(mc, n as u64)))).collect();
            mc.root(mc.alloc_slice(slots))
        });
        std::thread::scope(|scope| {
            let (heap, array) = (&heap, &array);
            let exchange = |seed: u64| {
                move || {
                    let mut random = seed;
                    let mut closures = 0;
                    let verified = || heap.stats().verified_objects >= 6 * LEN as u64;
                    while closures < 200 || !verified() {
                        closures += 1;
                        heap.enter(|mc| {
                            let slots = array.get(mc);
                            let mut hand = None;
                            for _ in 0..500 {
                                hand = slots[number(&mut random) % LEN].swap(mc, hand);
                            }
                            // What is in hand has to go somewhere.
                            while hand.is_some() {
                                hand = slots[number(&mut random) % LEN].swap(mc, hand);
                            }
                            token(mc, 0);
                        });
                    }
                }
            };
            let threads = [scope.spawn(exchange(0x67)), scope.spawn(exchange(0x670))];
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        heap.enter(|mc| {
            let mut seen = vec![false; LEN];
            for slot in array.get(mc).iter() {
                let token = slot.get().expect("each slot had one when its closure began");
                assert_eq!(token.check, !token.id);
                assert!(
                    !std::mem::replace(&mut seen[token.id as usize], true),
                    "{} twice",
                    token.id
                );
            }
        });
    }
}

/// A star: one object with a million edges in a Rust collection, which no worker can share, and which is locked
/// now and then.
#[test]
fn fault_66_a_star_is_marked_while_its_container_changes() {
    const EDGES: u64 = 300_000;
    type Star = Root<Rootable![GcMutex<'_, Vec<Gc<'_, Token>>>]>;
    let heap = together(4).always_assist(true).checkmark(true).build().unwrap();
    let star: Star = heap.enter(|mc| {
        let edges = (0..EDGES).map(|id| token(mc, id)).collect();
        mc.root(mc.alloc(GcMutex::new(edges)))
    });
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 0x66;
            while !over.load(Ordering::Acquire) {
                heap.enter(|mc| {
                    let star = star.get(mc);
                    let mut edges = star.lock(mc);
                    let (a, b) = (number(&mut random), number(&mut random));
                    edges.swap(a % EDGES as usize, b % EDGES as usize);
                });
            }
        });
        for _ in 0..6 {
            assert_eq!(heap.collect(), Collected::Complete);
        }
        over.store(true, Ordering::Release);
    });
    assert_eq!(heap.stats().live_objects, EDGES + 1);
    // Whoever takes the lock in an arming phase reports all edges, and where the machine is busy, and that phase
    // long, these may be too many: such a cycle retains everything. With nobody there it does not.
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(heap.stats().live_objects, EDGES + 1);
    assert!(!heap.stats().retained_everything);
}

/// Mutators that have to help do, and the cycles that they help with find what there is: neither more nor less.
#[test]
fn mutators_help_and_every_cycle_is_exact() {
    let heap = together(2).always_assist(true).checkmark(true).build().unwrap();
    let list: List = heap.enter(|mc| {
        let mut first = None;
        // Spread over pages, so that marking takes a while: what lies between is garbage.
        for n in 0..60_000 {
            first = Some(mc.alloc(Node { token: token(mc, n), next: GcCell::new(first) }));
        }
        mc.root(first.unwrap())
    });
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let allocate = || {
            while !over.load(Ordering::Acquire) {
                heap.enter(|mc| (0..2000).for_each(|n| assert_eq!(token(mc, n).id, n)));
            }
        };
        let threads = [scope.spawn(allocate), scope.spawn(allocate)];
        let mut cycles = 0;
        // However the threads are scheduled, some allocation meets a cycle that marks.
        while heap.stats().assisted_bytes == 0 || cycles < 20 {
            assert_eq!(heap.collect(), Collected::Complete);
            cycles += 1;
        }
        over.store(true, Ordering::Release);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(heap.stats().live_objects, 120_000);
    heap.enter(|mc| assert_eq!(list.get(mc).token.id, 59_999));
}

/// The marks of a cycle are the same however many threads set them.
#[test]
fn each_object_is_counted_once_however_many_threads_mark() {
    for workers in 1..=4 {
        let heap = together(workers).build().unwrap();
        let roots: Vec<List> = heap.enter(|mc| {
            let list = |length: u64| {
                let mut first = None;
                for n in 0..=length {
                    first = Some(mc.alloc(Node { token: token(mc, n), next: GcCell::new(first) }));
                }
                mc.root(first.unwrap())
            };
            (0..3000).map(|n| list(n % 40)).collect()
        });
        for _ in 0..5 {
            assert_eq!(heap.collect(), Collected::Complete);
            assert_eq!(heap.stats().live_objects, 2 * 3000 / 40 * (1..=40).sum::<u64>());
        }
        drop(roots);
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(heap.stats().live_objects, 0);
    }
}

/// A cycle that would be due soon begins in the time that somebody offers, and ends in it if nobody holds it up.
#[test]
fn offered_time_is_used_for_what_is_due() {
    let heap = Heap::builder().checkmark(true).build().unwrap();
    assert_eq!(heap.collect_for(Duration::ZERO), CollectedFor::Done);
    let allocate = |megabytes: usize| {
        heap.enter(|mc| {
            (0..megabytes * 1024).for_each(|_| assert_eq!(mc.alloc_slice([0u64; 128])[127], 0))
        });
    };
    let cycles = heap.stats().cycles;
    allocate(1);
    assert_eq!(heap.collect_for(Duration::from_secs(60)), CollectedFor::Done);
    assert_eq!(heap.stats().cycles, cycles, "that is no reason for a cycle");
    allocate(2);
    assert_eq!(heap.collect_for(Duration::from_secs(60)), CollectedFor::Done);
    assert!(heap.stats().cycles > cycles);
    assert_eq!(heap.stats().live_objects, 0);
}

#[test]
fn offered_time_ends_when_it_ends() {
    let heap = Heap::new();
    let (entered, may_leave) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            heap.enter(|_| {
                entered.wait();
                may_leave.wait();
            });
        });
        entered.wait();
        heap.enter(|mc| {
            (0..3 << 10).for_each(|_| assert_eq!(mc.alloc_slice([0u64; 128])[127], 0));
            assert_eq!(heap.collect_for(Duration::from_secs(60)), CollectedFor::Requested);
        });
        // No cycle can be completed as long as the other one stays inside.
        assert_eq!(heap.collect_for(Duration::from_millis(5)), CollectedFor::Unfinished);
        assert_eq!(heap.stats().cycles, 0);
        may_leave.wait();
        assert_eq!(heap.collect_for(Duration::from_secs(60)), CollectedFor::Done);
        // It is counted a moment after there is nothing left to do.
        while heap.stats().cycles == 0 {
            std::thread::yield_now();
        }
    });
}

/// Threads that offer time come and go while the heap collects without pause.
#[test]
fn volunteers_come_and_go() {
    let heap = together(2).collect_continuously(true).checkmark(true).build().unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let offer = || {
            while !over.load(Ordering::Acquire) {
                let _ = heap.collect_for(Duration::from_micros(300));
            }
        };
        let threads = [scope.spawn(offer), scope.spawn(offer)];
        let mut list: Option<List> = None;
        for round in 0..400 {
            list = Some(heap.enter(|mc| {
                let mut first = list.as_ref().map(|list| list.get(mc));
                for n in 0..100 {
                    let next = GcCell::new(first);
                    first = Some(mc.alloc(Node { token: token(mc, round * 100 + n), next }));
                }
                mc.root(first.unwrap())
            }));
        }
        over.store(true, Ordering::Release);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        heap.enter(|mc| {
            let (mut node, mut left) = (list.as_ref().map(|list| list.get(mc)), 40_000);
            while let Some(this) = node {
                left -= 1;
                assert_eq!((this.token.id, this.token.check), (left, !left));
                node = this.next.get();
            }
            assert_eq!(left, 0);
        });
    });
}
