//! Weak pointers, cleanups and queues of revived objects: what becomes of each when its object dies, and of the
//! faults that collectors with such things have had.
//!
//! All heaps are verified by checkmark mode and poison what they free.

use spanheap::{
    Collected, FinalizerQueue, Gc, GcCell, Heap, Mutator, Root, Rootable, Trace, Weak, WeakRoot,
};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

/// A heap that collects when it is told to.
fn heap() -> Heap {
    Heap::builder().gc_percent_off().checkmark(true).poison(true).build().unwrap()
}

fn collect(heap: &Heap) {
    assert_eq!(heap.collect(), Collected::Complete);
    assert!(!heap.stats().retained_everything);
}

/// Something that leads somewhere.
#[derive(Trace)]
struct Node<'gc> {
    id: u64,
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
    weak: GcCell<'gc, Option<Weak<'gc, Node<'gc>>>>,
}

type NodeRoot = Root<Rootable![Node<'_>]>;
type WeakNode = WeakRoot<Rootable![Node<'_>]>;

fn node<'gc>(mc: &Mutator<'gc>, id: u64) -> Gc<'gc, Node<'gc>> {
    mc.alloc(Node { id, next: GcCell::new(None), weak: GcCell::new(None) })
}

#[test]
fn a_weak_pointer_is_cleared_when_its_object_dies_and_not_before() {
    let heap = heap();
    let (root, weak): (NodeRoot, WeakNode) = heap.enter(|mc| {
        let node = node(mc, 1);
        (mc.root(node), mc.root_weak(mc.downgrade(node)))
    });
    for _ in 0..3 {
        collect(&heap);
        heap.enter(|mc| {
            let node = root.get(mc);
            assert!(Gc::ptr_eq(weak.upgrade(mc).unwrap(), node));
            assert_eq!(weak.get(mc), mc.downgrade(node), "an object has one handle");
        });
    }
    drop(root);
    collect(&heap);
    assert!(heap.enter(|mc| weak.upgrade(mc).is_none()));
    drop(weak);
    collect(&heap);
    let stats = heap.stats();
    assert_eq!((stats.live_objects, stats.records), (0, 0));
}

#[test]
fn weak_pointers_in_objects_form_circles_that_are_collected() {
    let heap = heap();
    let root: NodeRoot = heap.enter(|mc| {
        let (a, b, c) = (node(mc, 1), node(mc, 2), node(mc, 3));
        a.next.set(mc, Some(b));
        b.weak.set(mc, Some(mc.downgrade(a)));
        a.weak.set(mc, Some(mc.downgrade(c)));
        c.weak.set(mc, Some(mc.downgrade(c)));
        mc.root(a)
    });
    collect(&heap);
    heap.enter(|mc| {
        let a = root.get(mc);
        let b = a.next.get().unwrap();
        assert_eq!(b.weak.get().unwrap().upgrade(mc).unwrap().id, 1);
        assert!(a.weak.get().unwrap().upgrade(mc).is_none());
    });
    drop(root);
    collect(&heap);
    assert_eq!(heap.stats().live_objects, 0);
}

#[test]
fn fault_45_weak_pointers_to_slices_strings_and_values_without_bytes() {
    let heap = heap();
    type Slice = Rootable![[Gc<'_, String>]];
    let (slice, text, nothing, number, roots) = heap.enter(|mc| {
        let slice = mc.alloc_slice((0..5).map(|n| mc.alloc(n.to_string())));
        let text = mc.alloc_str("a text of more than sixteen bytes");
        let (nothing, number) = (mc.alloc(()), mc.alloc(7_u8));
        let other = mc.alloc(8_u8);
        assert_eq!(mc.downgrade(nothing), mc.downgrade(nothing));
        assert_ne!(mc.downgrade(number), mc.downgrade(other), "neighbours in one slot");
        assert_eq!(*mc.downgrade(number).upgrade(mc).unwrap(), 7);
        (
            mc.root_weak::<Slice>(mc.downgrade(slice)),
            mc.root_weak::<Rootable![str]>(mc.downgrade(text)),
            mc.root_weak::<Rootable![()]>(mc.downgrade(nothing)),
            mc.root_weak::<Rootable![u8]>(mc.downgrade(number)),
            (
                mc.root::<Slice>(slice),
                mc.root::<Rootable![str]>(text),
                mc.root::<Rootable![()]>(nothing),
                mc.root::<Rootable![u8]>(number),
            ),
        )
    });
    collect(&heap);
    heap.enter(|mc| {
        let words: Vec<_> =
            slice.upgrade(mc).unwrap().iter().map(|word| word.to_string()).collect();
        assert_eq!(words.concat(), "01234");
        assert_eq!(&*text.upgrade(mc).unwrap(), "a text of more than sixteen bytes");
        assert!(Gc::ptr_eq(nothing.upgrade(mc).unwrap(), roots.2.get(mc)));
        assert_eq!(*number.upgrade(mc).unwrap(), 7);
    });
    drop(roots);
    collect(&heap);
    heap.enter(|mc| {
        assert!(slice.upgrade(mc).is_none() && text.upgrade(mc).is_none());
        assert!(nothing.upgrade(mc).is_none() && number.upgrade(mc).is_none());
    });
}

#[test]
fn an_address_that_is_used_again_has_another_handle() {
    let heap = heap();
    let old: Vec<WeakNode> =
        heap.enter(|mc| (0..1000).map(|id| mc.root_weak(mc.downgrade(node(mc, id)))).collect());
    collect(&heap);
    heap.enter(|mc| {
        let new: Vec<_> = (0..2000).map(|id| mc.downgrade(node(mc, id))).collect();
        assert!(old.iter().all(|weak| weak.upgrade(mc).is_none()));
        assert!(old.iter().all(|weak| !new.contains(&weak.get(mc))));
        assert!(new.iter().enumerate().all(|(id, w)| w.upgrade(mc).unwrap().id == id as u64));
    });
}

#[test]
fn a_weak_root_is_refused_by_another_heap() {
    let (one, other) = (heap(), heap());
    let weak: WeakNode = one.enter(|mc| mc.root_weak(mc.downgrade(node(mc, 1))));
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        other.enter(|mc| weak.upgrade(mc).is_some())
    }));
    assert!(opened.is_err());
}

/// A node with many other nodes behind it.
fn long_list<'gc>(mc: &Mutator<'gc>, len: u64) -> Gc<'gc, Node<'gc>> {
    let mut list = node(mc, len);
    for id in (1..len).rev() {
        let before = node(mc, id);
        before.next.set(mc, Some(list));
        list = before;
    }
    list
}

fn length<'gc>(mut node: Gc<'gc, Node<'gc>>) -> u64 {
    let mut expected = 1;
    loop {
        assert_eq!(node.id, expected);
        match node.next.get() {
            Some(next) => (node, expected) = (next, expected + 1),
            None => return expected,
        }
    }
}

type Queue = FinalizerQueue<Rootable![Node<'_>]>;

#[test]
fn fault_38_a_revived_object_is_whole_is_seen_once_and_its_weak_pointers_are_empty() {
    let heap = heap();
    let (queue, weak, inner): (Queue, WeakNode, WeakNode) = heap.enter(|mc| {
        let (queue, list) = (mc.finalizer_queue::<Rootable![Node<'_>]>(), long_list(mc, 100));
        assert!(queue.register(mc, list));
        assert!(!queue.register(mc, list), "once is enough");
        assert!(!mc.finalizer_queue::<Rootable![Node<'_>]>().register(mc, list));
        let inner = list.next.get().unwrap();
        (queue, mc.root_weak(mc.downgrade(list)), mc.root_weak(mc.downgrade(inner)))
    });
    collect(&heap);
    assert_eq!((queue.len(), heap.stats().live_objects), (1, 102));
    // In the queue it is retained, with all that it leads to.
    collect(&heap);
    let root: NodeRoot = heap.enter(|mc| {
        assert!(weak.upgrade(mc).is_none() && inner.upgrade(mc).is_none());
        let list = queue.pop(mc).expect("it has died");
        assert!(queue.pop(mc).is_none() && queue.is_empty());
        assert_eq!(length(list), 100);
        assert!(mc.downgrade(list).upgrade(mc).is_some(), "it is an object like any other");
        assert_ne!(mc.downgrade(list), weak.get(mc));
        mc.root(list)
    });
    collect(&heap);
    heap.enter(|mc| assert_eq!(length(root.get(mc)), 100));
    drop(root);
    collect(&heap);
    assert!(queue.is_empty(), "it is not finalized a second time");
    assert_eq!(heap.stats().live_objects, 2, "the handles of the two roots");
}

#[test]
fn fault_38_an_object_that_is_registered_again_is_revived_again() {
    let heap = heap();
    let queue: Queue = heap.enter(|mc| {
        let queue = mc.finalizer_queue();
        queue.register(mc, node(mc, 5));
        queue
    });
    for _ in 0..5 {
        collect(&heap);
        heap.enter(|mc| {
            let node = queue.pop(mc).expect("dead again");
            assert_eq!(node.id, 5);
            assert!(queue.register(mc, node));
        });
    }
    drop(queue);
    collect(&heap);
    collect(&heap);
    assert_eq!((heap.stats().live_objects, heap.stats().records), (0, 0));
}

/// Each finalizer makes an object with a finalizer. The queue stays short, others get their turn, and the heap can
/// be dropped in the middle of it.
#[test]
fn fault_39_finalizers_that_make_finalizers_for_ever_keep_only_themselves_busy() {
    let heap = Heap::builder().collect_continuously(true).poison(true).build().unwrap();
    let queue: Queue = heap.enter(|mc| {
        let queue = mc.finalizer_queue();
        queue.register(mc, node(mc, 0));
        queue
    });
    let (mut generations, mut others, mut longest) = (0, 0, 0);
    while generations < 50 || others < 50 {
        heap.enter(|mc| {
            longest = longest.max(queue.len());
            while let Some(dead) = queue.pop(mc) {
                if dead.id == 0 {
                    queue.register(mc, node(mc, 0));
                    queue.register(mc, node(mc, 1));
                    generations += 1;
                } else {
                    others += 1;
                }
            }
        });
        std::thread::yield_now();
    }
    assert!(longest <= 2, "{longest} objects were in the queue at a time");
    // Two are registered, or in the queue. The end of the heap asks nobody.
    drop(heap);
}

/// A cleanup that blocks holds up cleanups behind it, and nothing else.
#[test]
fn fault_40_a_cleanup_that_blocks_stops_neither_allocation_nor_collection() {
    let heap = heap();
    let (started, has_started) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let done = Arc::new(AtomicUsize::new(0));
    heap.enter(|mc| {
        mc.cleanup(node(mc, 1), move || {
            started.send(()).unwrap();
            let _ = may_go_on.recv();
        });
    });
    collect(&heap);
    has_started.recv().unwrap();
    for cycle in 0..20 {
        heap.enter(|mc| {
            long_list(mc, 1000);
            let done = done.clone();
            mc.cleanup(node(mc, cycle), move || _ = done.fetch_add(1, Ordering::SeqCst));
        });
        collect(&heap);
    }
    assert_eq!(heap.stats().live_objects, 0);
    assert_eq!(done.load(Ordering::SeqCst), 0, "they wait behind it");
    assert_eq!(heap.stats().records, 20, "and that can be seen");
    go_on.send(()).unwrap();
    drop(heap);
    assert_eq!(done.load(Ordering::SeqCst), 20);
}

/// All objects of a circle are revived at once, and each finds the others valid; cleanups in a circle just run.
#[test]
fn fault_41_circles_of_finalizers_and_of_cleanups_come_to_an_end() {
    const LEN: u64 = 10;
    let heap = heap();
    let cleaned = Arc::new(AtomicU64::new(0));
    let queue: Queue = heap.enter(|mc| {
        let queue = mc.finalizer_queue();
        let nodes: Vec<_> = (0..LEN).map(|id| node(mc, id)).collect();
        for (at, node) in nodes.iter().enumerate() {
            node.next.set(mc, Some(nodes[(at + 1) % nodes.len()]));
            queue.register(mc, *node);
            let cleaned = cleaned.clone();
            mc.cleanup(*node, move || _ = cleaned.fetch_add(1, Ordering::SeqCst));
        }
        queue
    });
    collect(&heap);
    assert_eq!(queue.len() as u64, LEN);
    collect(&heap);
    heap.enter(|mc| {
        let mut seen = vec![0; LEN as usize];
        while let Some(node) = queue.pop(mc) {
            seen[node.id as usize] += 1;
            let next = node.next.get().unwrap();
            assert_eq!(next.id, (node.id + 1) % LEN);
        }
        assert_eq!(seen, [1; LEN as usize]);
    });
    assert_eq!(cleaned.load(Ordering::SeqCst), 0, "a revived object is not gone");
    collect(&heap);
    assert_eq!(heap.stats().live_objects, 0);
    drop(heap);
    assert_eq!(cleaned.load(Ordering::SeqCst), LEN);
}

/// Capturing the object itself does not compile (`ui/api/cleanup_captures_gc.rs`). What compiles is a root of it,
/// and that is what it says: the object is retained, and the cleanup runs at the end of the heap, once.
#[test]
fn fault_42_a_cleanup_that_holds_a_root_of_its_object_runs_when_the_heap_is_dropped() {
    let heap = heap();
    let runs = Arc::new(AtomicUsize::new(0));
    heap.enter(|mc| {
        let node = node(mc, 1);
        let root: NodeRoot = mc.root(node);
        let runs = runs.clone();
        mc.cleanup(node, move || {
            drop(root);
            runs.fetch_add(1, Ordering::SeqCst);
        });
    });
    for _ in 0..3 {
        collect(&heap);
        assert_eq!((runs.load(Ordering::SeqCst), heap.stats().live_objects), (0, 1));
    }
    drop(heap);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[test]
fn cleanups_run_in_order_once_and_a_panic_stops_none() {
    let heap = heap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |number: usize| {
        let order = order.clone();
        move || {
            order.lock().unwrap().push(number);
            if number % 3 == 1 {
                std::panic::resume_unwind(Box::new(number));
            }
        }
    };
    let kept: NodeRoot = heap.enter(|mc| {
        let dead = node(mc, 1);
        let tokens: Vec<_> = (0..10).map(|number| mc.cleanup(dead, note(number))).collect();
        assert!(tokens[4].cancel(mc) && !tokens[4].cancel(mc));
        let kept = node(mc, 2);
        mc.cleanup(kept, note(100));
        mc.root(kept)
    });
    collect(&heap);
    // The drop thread is at work now. The end of the heap waits for it.
    heap.enter(|mc| assert_eq!(kept.get(mc).id, 2));
    drop(heap);
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 5, 6, 7, 8, 9, 100]);
}

#[test]
fn a_cleanup_is_cancelled_in_time_or_runs() {
    let heap = heap();
    let token = Arc::new(());
    let (sent, received) = mpsc::channel();
    let late = heap.enter(|mc| {
        let dead = node(mc, 1);
        let captured = token.clone();
        let early = mc.cleanup(dead, move || drop(captured));
        assert_eq!(Arc::strong_count(&token), 2);
        assert!(early.cancel(mc));
        assert_eq!(Arc::strong_count(&token), 1, "what was captured is dropped at once");
        mc.cleanup(dead, move || sent.send(()).unwrap())
    });
    collect(&heap);
    received.recv().unwrap();
    heap.enter(|mc| {
        // Somebody else may have the place by now, with a cleanup of his own.
        let nodes: Vec<_> = (0..1000).map(|id| node(mc, id)).collect();
        let others: Vec<_> = nodes.iter().map(|node| mc.cleanup(*node, || ())).collect();
        assert!(!late.cancel(mc));
        assert!(others.iter().all(|other| other.cancel(mc)));
    });
    assert_eq!(heap.stats().records, 0);
}

#[test]
fn many_cleanups_need_no_more_memory_when_they_are_due() {
    let heap = heap();
    let done = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let root: NodeRoot = heap.enter(|mc| {
        let list = long_list(mc, 20_000);
        let mut next = Some(list);
        while let Some(node) = next {
            let (gate, done) = (gate.clone(), done.clone());
            mc.cleanup(node, move || {
                drop(gate.lock());
                done.fetch_add(1, Ordering::Relaxed);
            });
            next = node.next.get();
        }
        mc.root(list)
    });
    collect(&heap);
    collect(&heap);
    let before = heap.stats();
    assert_eq!(before.records, 20_000);
    drop(root);
    collect(&heap);
    let after = heap.stats();
    assert!(after.records >= 19_999, "the first one has begun, at most");
    assert!(after.mapped_bytes <= before.mapped_bytes);
    drop(closed);
    drop(heap);
    assert_eq!(done.load(Ordering::Relaxed), 20_000);
}

/// Threads upgrade weak pointers to objects that others drop the last root of, while cycles follow each other. What
/// is returned is whole, and None is for ever.
#[test]
fn fault_44_an_upgrade_returns_the_object_or_nothing_and_never_freed_memory() {
    const SLOTS: usize = 16;
    let heap = Heap::builder().collect_continuously(true).checkmark(true).poison(true);
    let heap = heap.build().unwrap();
    #[derive(Trace)]
    struct Board<'gc> {
        strong: Vec<GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>>,
        weak: Vec<GcCell<'gc, Option<Weak<'gc, Node<'gc>>>>>,
    }
    let board: Root<Rootable![Board<'_>]> = heap.enter(|mc| {
        let strong = (0..SLOTS).map(|_| GcCell::new(None)).collect();
        let weak = (0..SLOTS).map(|_| GcCell::new(None)).collect();
        mc.root(mc.alloc(Board { strong, weak }))
    });
    let done = AtomicBool::new(false);
    let (upgraded, empty) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..2_usize {
            let (heap, board, done, upgraded, empty) = (&heap, &board, &done, &upgraded, &empty);
            scope.spawn(move || {
                let mut at = thread;
                while !done.load(Ordering::Relaxed) {
                    heap.enter(|mc| {
                        let board = board.get(mc);
                        for _ in 0..10 {
                            at = (at + 7) % SLOTS;
                            let Some(weak) = board.weak[at].get() else { continue };
                            match weak.upgrade(mc) {
                                Some(node) => {
                                    assert_eq!(length(node), 3);
                                    assert!(weak.upgrade(mc).is_some(), "it is held");
                                    upgraded.fetch_add(1, Ordering::Relaxed);
                                    if at % 4 == thread {
                                        board.strong[(at + 1) % SLOTS].set(mc, Some(node));
                                    }
                                }
                                None => {
                                    assert!(weak.upgrade(mc).is_none());
                                    empty.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        }
                    });
                }
            });
        }
        for round in 0.. {
            heap.enter(|mc| {
                let board = board.get(mc);
                let list = long_list(mc, 3);
                board.weak[round % SLOTS].set(mc, Some(mc.downgrade(list)));
                board.strong[round % SLOTS].set(mc, Some(list));
                board.strong[(round * 5 + 3) % SLOTS].set(mc, None);
            });
            let seen = [&upgraded, &empty].map(|count| count.load(Ordering::Relaxed));
            if round >= 3000 && seen.iter().all(|&count| count > 100) {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
