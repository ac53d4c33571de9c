//! Threads and heaps that come and go, long closures, long lists, values that panic: what a program does to
//! a heap besides using it.

use spanheap::{Collected, Gc, GcCell, GcMutex, Heap, Root, Rootable, Trace};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};

#[derive(Trace)]
struct Node<'gc> {
    key: u64,
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
}

type List = Root<Rootable![Node<'_>]>;

/// Puts `keys` in front of `list`, in a few closures, and returns the new list.
fn extend(heap: &Heap, mut list: Option<List>, keys: std::ops::Range<u64>) -> Option<List> {
    let mut keys = keys.peekable();
    while keys.peek().is_some() {
        list = heap.enter(|mc| {
            let mut first = list.as_ref().map(|list| list.get(mc));
            for key in keys.by_ref().take(10_000) {
                first = Some(mc.alloc(Node { key, next: GcCell::new(first) }));
            }
            first.map(|first| mc.root(first))
        });
    }
    list
}

/// Faults row 65: marking has no recursion, and its memory does not depend on the depth of the graph.
#[test]
fn fault_65_a_list_of_ten_million_nodes_is_marked_and_freed() {
    let is_long = std::env::var("SPANHEAP_LONG").is_ok_and(|value| value == "1");
    let len: u64 = if is_long { 100_000_000 } else { 10_000_000 };
    let heap = Heap::new();
    let list = extend(&heap, None, 0..len).unwrap();
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(heap.stats().live_objects, len);
    heap.enter(|mc| {
        let (mut node, mut expected) = (Some(list.get(mc)), len);
        while let Some(this) = node {
            expected -= 1;
            assert_eq!(this.key, expected);
            node = this.next.get();
        }
        assert_eq!(expected, 0);
    });
    drop(list);
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(heap.stats().live_objects, 0);
    assert_eq!(heap.stats().heap_bytes, 0);
}

/// Faults rows 22 and 26: threads attach, allocate, keep roots, detach, at any moment of a cycle.
#[test]
fn threads_come_and_go_while_the_heap_collects_all_the_time() {
    let heap = Heap::builder().collect_continuously(true).poison(true).build().unwrap();
    let kept: Vec<List> = (0..64)
        .map(|wave| {
            let lists: Vec<Option<List>> = std::thread::scope(|scope| {
                let make = |thread| {
                    let heap = &heap;
                    scope.spawn(move || extend(heap, None, thread..thread + 100))
                };
                let threads: Vec<_> = (0..8).map(|thread| make(wave * 1000 + thread)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            lists.into_iter().flatten().next().unwrap()
        })
        .collect();
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(heap.stats().live_objects, 64 * 100);
    // Only threads that are alive are attached, and their records are used again.
    assert!(heap.stats().threads <= 1, "{:?}", heap.stats());
    drop(kept);
}

/// Fault row 22: a panic leaves the closure, and the thread goes on.
#[test]
fn a_panic_in_a_closure_leaves_it() {
    let heap = Heap::builder().checkmark(true).build().unwrap();
    let list = extend(&heap, None, 0..10).unwrap();
    for round in 0..20 {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            heap.enter(|mc| {
                let first = list.get(mc);
                first.next.set(mc, Some(mc.alloc(Node { key: round, next: GcCell::new(None) })));
                heap.enter(|_| std::panic::panic_any("on purpose"));
            })
        }));
        assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "on purpose");
        assert_eq!(heap.stats().threads_inside, 0);
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(heap.enter(|mc| list.get(mc).next.get().unwrap().key), round);
    }
}

/// Fault row 22: threads that panic while they are attached and inside.
#[test]
fn threads_that_die_inside_hold_nobody_up() {
    let heap = Heap::new();
    for _ in 0..10 {
        std::thread::scope(|scope| {
            let dying = scope.spawn(|| {
                heap.enter(|mc| {
                    mc.alloc(Node { key: 1, next: GcCell::new(None) });
                    std::panic::panic_any("on purpose");
                })
            });
            assert!(dying.join().is_err());
        });
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(heap.stats().live_objects, 0);
    }
}

/// Fault row 25: a heap is used by a thread-local's destructor, after the thread's mutator has gone or before.
#[test]
fn a_thread_local_destructor_may_enter() {
    struct AtExit(RefCell<Option<(Heap, List, mpsc::Sender<u64>)>>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            if let Some((heap, list, sender)) = self.0.take() {
                let key = heap.enter(|mc| {
                    let new = mc.alloc(Node { key: 5, next: GcCell::new(Some(list.get(mc))) });
                    new.key + new.next.get().unwrap().key
                });
                sender.send(key).unwrap();
            }
        }
    }
    thread_local!(static AT_EXIT: AtExit = const { AtExit(RefCell::new(None)) });

    let heap = Heap::new();
    let (sender, receiver) = mpsc::channel();
    for enter_first in [false, true] {
        let (heap, sender) = (heap.clone(), sender.clone());
        std::thread::spawn(move || {
            if enter_first {
                heap.enter(|_| ());
            }
            let list = extend(&heap, None, 0..3).unwrap();
            AT_EXIT.with(|at_exit| *at_exit.0.borrow_mut() = Some((heap, list, sender)));
        })
        .join()
        .unwrap();
    }
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [7, 7]);
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(heap.stats().live_objects, 0);
}

/// The same, after everything that this crate keeps in the thread is gone: closures, nested ones, and a
/// collection that must not wait for its own thread.
#[test]
fn a_thread_local_that_outlives_the_attachment_may_enter() {
    struct AtExit(RefCell<Option<(Heap, mpsc::Sender<Collected>)>>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            if let Some((heap, sender)) = self.0.take() {
                let list = extend(&heap, None, 0..3).unwrap();
                let answer = heap.enter(|mc| {
                    assert_eq!(heap.enter(|inner| list.get(inner).key), list.get(mc).key);
                    heap.collect()
                });
                sender.send(answer).unwrap();
            }
        }
    }
    thread_local!(static AT_EXIT: AtExit = const { AtExit(RefCell::new(None)) });

    let heap = Heap::new();
    let (sender, receiver) = mpsc::channel();
    for late in [true, false] {
        let (heap, sender) = (heap.clone(), sender.clone());
        std::thread::spawn(move || {
            if !late {
                heap.enter(|_| ());
            }
            AT_EXIT.with(|at_exit| *at_exit.0.borrow_mut() = Some((heap.clone(), sender)));
            heap.enter(|_| ());
        })
        .join()
        .unwrap();
    }
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [Collected::Requested; 2]);
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(heap.stats().live_objects, 0);
}

/// The promise of the protocol: a closure that does not end delays no other thread. The other thread allocates
/// far more than the goal, mutates, makes roots and drops them, all while the closure is open; what the
/// test waits for are events of that thread and never the time.
#[test]
fn a_closure_that_does_not_end_holds_up_no_other_thread() {
    let heap = Heap::new();
    let shared = extend(&heap, None, 0..100).unwrap();
    // The long closure begins in each phase: with a fresh heap, and while cycles are wanted.
    for _ in 0..3 {
        let (inside, is_inside) = mpsc::channel();
        let (finish, may_finish) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let (heap, shared) = (&heap, &shared);
            scope.spawn(move || {
                heap.enter(|mc| {
                    let first = shared.get(mc);
                    let own = mc.alloc(Node { key: 77, next: GcCell::new(Some(first)) });
                    inside.send(()).unwrap();
                    may_finish.recv().unwrap();
                    // Whatever happened meanwhile, what the closure holds is as it was.
                    assert_eq!((own.key, own.next.get().unwrap().key), (77, 99));
                });
            });
            is_inside.recv().unwrap();
            let goal = heap.stats().goal_bytes as u64;
            let before = heap.stats();
            let mut events = 0;
            while heap.stats().allocated_bytes < before.allocated_bytes + 4 * goal {
                let list = extend(heap, None, 0..1000).unwrap();
                heap.enter(|mc| {
                    let first = shared.get(mc);
                    first.next.set(mc, first.next.get());
                    assert_eq!(list.get(mc).key, 999);
                });
                events += 1;
            }
            assert!(events > 10);
            assert_eq!(heap.stats().threads_inside, 1, "the long closure is still open");
            // No cycle that began after the closure can have become complete.
            assert!(heap.stats().cycles <= before.cycles + 1);
            finish.send(()).unwrap();
        });
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(heap.stats().live_objects, 100);
    }
}

/// Heaps by the hundred, several at a time, with values that own other heaps' handles and roots.
#[test]
fn heaps_come_and_go() {
    let dropped = Arc::new(AtomicUsize::new(0));
    #[derive(Trace)]
    struct Leaf {
        #[trace(leaf)]
        dropped: Arc<AtomicUsize>,
        #[trace(leaf)]
        other: Option<Heap>,
    }
    impl Drop for Leaf {
        fn drop(&mut self) {
            if let Some(other) = self.other.take() {
                assert_eq!(other.stats().live_objects, 0);
            }
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
    for _ in 0..150 {
        let (outer, inner) = (Heap::new(), Heap::new());
        let root: Root<Rootable![Leaf]> = outer.enter(|mc| {
            let leaf = |other| Leaf { dropped: dropped.clone(), other };
            mc.alloc(leaf(None));
            let kept = mc.alloc(leaf(Some(inner.clone())));
            inner.enter(|mc| _ = mc.alloc(leaf(None)));
            mc.root(kept)
        });
        drop(inner);
        drop(outer);
        drop(root);
    }
    assert_eq!(dropped.load(Ordering::Relaxed), 450);
}

/// The last handle of a heap may be owned by a value that lives in it.
#[test]
fn a_heap_may_be_dropped_by_its_own_drop_thread() {
    #[derive(Trace)]
    struct Owner {
        #[trace(leaf)]
        heap: Option<Heap>,
        #[trace(leaf)]
        done: mpsc::Sender<()>,
    }
    impl Drop for Owner {
        fn drop(&mut self) {
            drop(self.heap.take());
            let _ = self.done.send(());
        }
    }
    let (done, is_done) = mpsc::channel();
    let heap = Heap::builder().collect_continuously(true).build().unwrap();
    heap.enter(|mc| {
        mc.alloc(Owner { heap: Some(heap.clone()), done });
    });
    drop(heap);
    is_done.recv().unwrap();
}

#[test]
fn a_root_of_another_heap_is_refused() {
    let (one, other) = (Heap::new(), Heap::new());
    let root: Root<Rootable![str]> = one.enter(|mc| mc.root(mc.alloc_str("one's")));
    let opened = catch_unwind(AssertUnwindSafe(|| other.enter(|mc| root.get(mc).len())));
    let message = *opened.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("was opened in a closure of heap"), "{message}");
    drop(one);
    assert!(catch_unwind(AssertUnwindSafe(|| other.enter(|mc| root.get(mc).len()))).is_err());
}

/// A container that stays locked over a whole cycle's attempts is read when it is free again.
#[test]
fn a_locked_container_delays_only_the_end_of_the_cycle() {
    let heap = Heap::builder().checkmark(true).build().unwrap();
    type Bag<'gc> = GcMutex<'gc, Vec<Gc<'gc, Node<'gc>>>>;
    let bag: Root<Rootable![Bag<'_>]> =
        heap.enter(|mc| mc.root(mc.alloc(GcMutex::new(Vec::new()))));
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            assert_eq!(heap.collect(), Collected::Complete);
        });
        start.wait();
        for key in 0..200 {
            heap.enter(|mc| {
                let bag = bag.get(mc);
                let mut bag = bag.lock(mc);
                bag.push(mc.alloc(Node { key, next: GcCell::new(None) }));
                std::thread::sleep(std::time::Duration::from_micros(50));
            });
        }
    });
    assert_eq!(heap.collect(), Collected::Complete);
    heap.enter(|mc| {
        let keys = bag.get(mc).lock(mc).iter().map(|node| node.key).collect::<Vec<_>>();
        assert_eq!(keys, (0..200).collect::<Vec<_>>());
    });
}

/// The container stays locked for ever, so no cycle can end, but the heap can.
#[test]
fn a_forgotten_guard_does_not_outlast_its_heap() {
    let heap = Heap::builder().collect_continuously(true).build().unwrap();
    type Bag<'gc> = GcMutex<'gc, Vec<Gc<'gc, Node<'gc>>>>;
    let _bag: Root<Rootable![Bag<'_>]> = heap.enter(|mc| {
        let bag = mc.alloc(GcMutex::new(vec![mc.alloc(Node { key: 1, next: GcCell::new(None) })]));
        std::mem::forget(bag.lock(mc));
        mc.root(bag)
    });
    // Long enough for a cycle to reach the container; if none has, the test is passed all the more.
    std::thread::sleep(std::time::Duration::from_millis(20));
    drop(heap);
}

/// Nested closures on one thread and one heap: only the outermost exit counts.
#[test]
fn only_the_outermost_exit_counts_as_leaving() {
    let heap = Heap::builder().collect_continuously(true).poison(true).build().unwrap();
    heap.enter(|mc| {
        let node = mc.alloc(Node { key: 3, next: GcCell::new(None) });
        for _ in 0..2000 {
            let before = heap.stats().cycles;
            heap.enter(|inner| {
                inner.alloc(Node { key: 4, next: GcCell::new(None) });
            });
            assert!(heap.stats().cycles <= before + 1);
            assert_eq!(heap.stats().threads_inside, 1);
        }
        assert_eq!(node.key, 3);
    });
    assert_eq!(heap.stats().threads_inside, 0);
}
