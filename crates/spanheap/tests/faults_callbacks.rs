//! What the program's own code can do to a heap that calls it: rows 32 and 35 to 43, and 68, of the fault matrix.
//! (Wrong `Trace` implementations, rows 33 and 34, are in `verify.rs`.)
//!
//! # Safety
//! Hand-written `Trace`s that report what they should, and do other things besides.

use spanheap::{
    Collected, CycleTrace, Gc, GcCell, GcMutex, Heap, HeapBuilder, Root, Rootable, Trace, Tracer,
};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};

/// Does something in its trace function, besides reporting what it holds.
struct Odd<'gc> {
    act: Mutex<Option<Box<dyn FnMut() + Send>>>,
    next: GcCell<'gc, Option<Gc<'gc, u64>>>,
}

// SAFETY: the one pointer is reported, or the trace function does not return.
unsafe impl Trace for Odd<'_> {
    fn trace(&self, tracer: &mut Tracer<'_>) {
        if let Some(act) = &mut *self.act.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            act();
        }
        self.next.trace(tracer);
    }
}

type OddRoot = Root<Rootable![Odd<'_>]>;
type PanicNotes = Arc<Mutex<Vec<(String, String)>>>;
type Mortals = Vec<Root<Rootable![Mortal]>>;
type Text = Root<Rootable![str]>;

/// A heap that notes which trace functions have panicked, and with what.
fn with_notes(builder: HeapBuilder) -> (Heap, PanicNotes) {
    std::panic::set_hook(Box::new(|_| {}));
    let notes = Arc::new(Mutex::new(Vec::new()));
    let told = notes.clone();
    let heap = builder.on_trace_panic(move |panic| {
        let message = panic.message().unwrap_or("").to_owned();
        told.lock().unwrap().push((panic.type_name.to_owned(), message));
    });
    (heap.build().unwrap(), notes)
}

fn odd(heap: &Heap, act: impl FnMut() + Send + 'static) -> OddRoot {
    heap.enter(|mc| {
        let act = Mutex::new(Some(Box::new(act) as Box<dyn FnMut() + Send>));
        mc.root(mc.alloc(Odd { act, next: GcCell::new(Some(mc.alloc(7))) }))
    })
}

/// The object behaves from here on, and the cycle after it is complete.
fn behave(heap: &Heap, root: &OddRoot) {
    heap.enter(|mc| {
        *root.get(mc).act.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
        assert_eq!(root.get(mc).next.get().map(|n| *n), Some(7));
    });
    assert_eq!(heap.collect(), Collected::Complete);
    assert!(!heap.stats().retained_everything);
    assert_eq!(heap.stats().live_objects, 2);
    assert!(heap.verify().is_ok());
}

/// The cycle retains everything, says so, and the next one does not.
#[test]
fn fault_32_a_panic_in_trace_is_contained_counted_and_told() {
    let (heap, notes) = with_notes(Heap::builder());
    let root = odd(&heap, || panic_any("on purpose"));
    heap.enter(|mc| _ = mc.alloc(3u64));
    for round in 1..=3 {
        assert_eq!(heap.collect(), Collected::Complete);
        let stats = heap.stats();
        assert!(stats.retained_everything);
        assert_eq!((stats.broken_cycles, stats.trace_panics), (round, round));
    }
    let notes = std::mem::take(&mut *notes.lock().unwrap());
    assert_eq!(notes.len(), 3);
    assert!(notes.iter().all(|(ty, message)| ty.contains("Odd") && message == "on purpose"));
    behave(&heap, &root);
    assert_eq!(heap.stats().broken_cycles, 3);
}

/// The hook is on the collector's thread: whatever it tries, it ends, and the heap goes on.
#[test]
fn fault_32_a_hook_that_panics_or_uses_the_heap_is_contained() {
    std::panic::set_hook(Box::new(|_| {}));
    static SELF: Mutex<Option<Heap>> = Mutex::new(None);
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let heap = Heap::builder().on_trace_panic(|_| {
        let heap = SELF.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone().unwrap();
        match CALLS.fetch_add(1, SeqCst) {
            0 => heap.enter(|mc| _ = mc.alloc(1u64)),
            1 => _ = heap.collect(),
            2 => _ = heap.verify(),
            _ => panic_any("the hook itself"),
        }
    });
    let heap = heap.checkmark(true).build().unwrap();
    *SELF.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(heap.clone());
    let root = odd(&heap, || panic_any("on purpose"));
    for _ in 0..4 {
        assert_eq!(heap.collect(), Collected::Complete);
        assert!(heap.stats().retained_everything);
    }
    assert_eq!(CALLS.load(SeqCst), 4);
    behave(&heap, &root);
    SELF.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
}

/// And the line of the cycle says so, with everything that was there as what lives.
#[test]
fn fault_32_the_line_of_a_cycle_says_that_everything_was_retained() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = lines.clone();
    let builder = Heap::builder().gc_percent_off();
    let hook = move |cycle: &CycleTrace| told.lock().unwrap().push((*cycle, cycle.to_string()));
    let (heap, _) = with_notes(builder.on_cycle(hook));
    let root = odd(&heap, || panic_any("on purpose"));
    heap.enter(|mc| _ = mc.alloc_slice(vec![3u64; 1 << 18]));
    assert_eq!(heap.collect(), Collected::Complete);
    behave(&heap, &root);
    let lines = lines.lock().unwrap();
    let [(broken, line), (complete, other)] = &lines[..] else { panic!("{lines:?}") };
    assert!(broken.retained_everything && line.contains(" retained=all "), "{line}");
    assert!(broken.heap_live.get() >= 2 << 20 && broken.heap_live <= broken.heap_marked);
    assert!(!complete.retained_everything && other.contains(" retained=live "), "{other}");
    assert!(complete.heap_live < broken.heap_live);
}

/// On the collector's thread: each is a panic in the trace function, and nothing waits for itself.
#[test]
fn fault_35_a_trace_that_uses_the_heap_breaks_its_cycle() {
    type Act = fn(&Heap);
    let acts: [(&str, Act); 6] = [
        ("enter a heap", |heap| heap.enter(|_| ())),
        ("enter a heap", |heap| heap.enter(|mc| _ = mc.alloc(1u64))),
        ("enter a heap", |heap| {
            heap.enter(|mc| _ = GcMutex::new(1u64).lock(mc));
        }),
        ("collect", |heap| _ = heap.collect()),
        ("collect", |heap| _ = heap.release_memory()),
        ("verify a heap", |heap| _ = heap.verify()),
    ];
    for checkmark in [false, true] {
        for (what, act) in acts {
            let (heap, notes) = with_notes(Heap::builder().checkmark(checkmark));
            let own = heap.clone();
            let root = odd(&heap, move || act(&own));
            assert_eq!(heap.collect(), Collected::Complete);
            assert!(heap.stats().retained_everything, "{what}");
            let notes = notes.lock().unwrap().clone();
            let expected = format!("a trace function may not {what}");
            let attach = "a trace function may not attach to a heap";
            let is_told =
                |message: &str| message.starts_with(&expected) || message.starts_with(attach);
            assert!(notes.iter().all(|(_, message)| is_told(message)), "{what}: {notes:?}");
            assert_eq!(notes.len(), 1);
            // The handle in the object would keep the heap for ever.
            behave(&heap, &root);
        }
    }
}

/// On a thread of the program, which traces what is in a container that it locks while a cycle runs. The panic is
/// its own, the container is free and unchanged, and nothing is lost.
#[test]
fn fault_35_a_trace_that_uses_the_heap_panics_where_a_container_is_locked() {
    std::panic::set_hook(Box::new(|_| {}));
    static ARMED: AtomicU32 = AtomicU32::new(0);
    struct Inner<'gc>(Gc<'gc, u64>, Heap);
    // SAFETY: the one pointer is reported, or the trace function does not return.
    unsafe impl Trace for Inner<'_> {
        fn trace(&self, tracer: &mut Tracer<'_>) {
            // Only on the thread of the test.
            if ARMED.load(SeqCst) == 1 && IS_TEST.get() {
                self.1.enter(|_| ());
            }
            self.0.trace(tracer);
        }
    }
    thread_local!(static IS_TEST: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
    IS_TEST.set(true);
    let heap = Heap::builder().collect_continuously(true).poison(true).build().unwrap();
    type Bag<'gc> = GcMutex<'gc, Vec<Inner<'gc>>>;
    let bag: Root<Rootable![Bag<'_>]> = heap.enter(|mc| {
        let inner = Inner(mc.alloc(11), heap.clone());
        mc.root(mc.alloc(GcMutex::new(vec![inner])))
    });
    ARMED.store(1, SeqCst);
    let mut caught = 0;
    while caught < 20 {
        // Only closures that begin while a cycle runs trace, so try until enough have.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            heap.enter(|mc| bag.get(mc).lock(mc).iter().map(|inner| *inner.0).sum::<u64>())
        }));
        match outcome {
            Ok(sum) => assert_eq!(sum, 11),
            Err(payload) => {
                let message = payload.downcast::<String>().unwrap();
                assert!(message.starts_with("a trace function may not enter"), "{message}");
                caught += 1;
            }
        }
    }
    ARMED.store(0, SeqCst);
    assert_eq!(heap.enter(|mc| *bag.get(mc).lock(mc)[0].0), 11);
    heap.enter(|mc| bag.get(mc).lock(mc).clear());
}

/// Counts its deaths; some panic.
#[derive(Trace)]
struct Mortal {
    #[trace(leaf)]
    deaths: Arc<Vec<AtomicU32>>,
    number: usize,
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.deaths[self.number].fetch_add(1, SeqCst);
        match self.number % 7 {
            3 => panic_any("dropped on purpose"),
            5 => resume_unwind(Box::new(self.number)),
            _ => {}
        }
    }
}

fn deaths(values: usize) -> Arc<Vec<AtomicU32>> {
    Arc::new((0..values).map(|_| AtomicU32::new(0)).collect())
}

/// Each panic is that of one object: the others are dropped, all of them are counted, and the hook is told
/// each, on the drop thread. A hook that panics in turn ends nothing.
#[test]
fn fault_36_panics_in_destructors_are_isolated_counted_and_told() {
    const VALUES: usize = 700;
    std::panic::set_hook(Box::new(|_| {}));
    let told = Arc::new(Mutex::new(Vec::new()));
    let notes = told.clone();
    let heap = Heap::builder().on_drop_panic(move |panic| {
        assert!(panic.type_name.contains("Mortal"), "{panic:?}");
        let number = panic.payload.downcast_ref::<usize>().copied();
        let thread = std::thread::current().name().map(str::to_owned);
        notes.lock().unwrap().push((panic.message().map(str::to_owned), number, thread));
        if number == Some(5) {
            panic_any("the hook itself");
        }
    });
    let heap = heap.build().unwrap();
    let deaths = deaths(VALUES);
    heap.enter(|mc| {
        for number in 0..VALUES {
            mc.alloc(Mortal { deaths: deaths.clone(), number });
        }
    });
    while heap.stats().dropped < VALUES as u64 {
        assert_eq!(heap.collect(), Collected::Complete);
    }
    assert!(deaths.iter().all(|count| count.load(SeqCst) == 1));
    assert_eq!(heap.stats().drop_panics, 200);
    assert!(heap.verify().is_ok());
    drop(heap);
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 200);
    let texts = told.iter().filter(|note| note.0.as_deref() == Some("dropped on purpose")).count();
    let mut numbers: Vec<usize> = told.iter().filter_map(|note| note.1).collect();
    numbers.sort_unstable();
    assert_eq!(texts, 100);
    assert!(numbers.into_iter().eq((0..VALUES).filter(|n| n % 7 == 5)));
    assert!(told.iter().all(|note| note.2.as_deref() == Some("spanheap-drop")), "{told:?}");
}

/// A heap that is dropped in the midst of it all runs what is owed once: threads that still allocate until just
/// before, cycles without pause, destructors that panic.
#[test]
fn fault_36_the_end_of_a_heap_runs_every_destructor_once() {
    const EACH: usize = 2000;
    std::panic::set_hook(Box::new(|_| {}));
    for round in 0..8 {
        let heap = Heap::builder().collect_continuously(round % 2 == 0).poison(true);
        let told = Arc::new(AtomicU64::new(0));
        let count = told.clone();
        let heap = heap.on_drop_panic(move |_| _ = count.fetch_add(1, SeqCst)).build().unwrap();
        let deaths = deaths(3 * EACH);
        let mut roots: Mortals = Vec::new();
        std::thread::scope(|scope| {
            let make = |thread: usize| {
                let (heap, deaths) = (&heap, &deaths);
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for number in thread * EACH..(thread + 1) * EACH {
                        let deaths = deaths.clone();
                        kept.extend(heap.enter(|mc| {
                            let value = mc.alloc(Mortal { deaths, number });
                            (number % 10 == 0).then(|| mc.root(value))
                        }));
                    }
                    kept
                })
            };
            let threads: Vec<_> = (0..3).map(make).collect();
            roots.extend(threads.into_iter().flat_map(|thread| thread.join().unwrap()));
        });
        assert!(
            roots
                .iter()
                .all(|root| { heap.enter(|mc| deaths[root.get(mc).number].load(SeqCst)) == 0 })
        );
        drop(heap);
        let wrong: Vec<_> = (0..3 * EACH).filter(|&n| deaths[n].load(SeqCst) != 1).collect();
        assert_eq!(wrong, [], "round {round}");
        let panics = (0..3 * EACH).filter(|n| matches!(n % 7, 3 | 5)).count() as u64;
        assert_eq!(told.load(SeqCst), panics);
    }
}

/// An iterator that panics while its values move into the heap: what it gave is dropped, and the collector never
/// sees a value that is not there.
#[test]
fn fault_37_a_constructor_that_panics_leaves_nothing_half_made() {
    std::panic::set_hook(Box::new(|_| {}));
    let heap = Heap::builder().collect_every(1).checkmark(true).poison(true).build().unwrap();
    for at in [0, 1, 50, 99] {
        let deaths = deaths(100);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            heap.enter(|mc| {
                mc.alloc_slice((0..100).map(|n| {
                    if n == at {
                        panic_any("on purpose");
                    }
                    mc.alloc(n as u64);
                    // One whose destructor does not panic.
                    drop(Mortal { deaths: deaths.clone(), number: n - n % 7 });
                    deaths.clone()
                }));
            });
        }));
        assert!(caught.is_err());
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(heap.collect(), Collected::Complete);
        // The clones that the slice had taken go with it.
        while Arc::strong_count(&deaths) > 1 {
            assert_eq!(heap.collect(), Collected::Complete);
        }
        assert_eq!(heap.stats().live_objects, 0);
    }
    assert!(heap.verify().is_ok());
}

/// Waits in its destructor until somebody says something, or is gone.
struct Slow(Mutex<mpsc::Receiver<()>>, mpsc::Sender<()>);

impl Drop for Slow {
    fn drop(&mut self) {
        self.1.send(()).unwrap();
        let _ = self.0.get_mut().map(|receiver| receiver.recv());
    }
}

#[derive(Trace)]
struct SlowBox(
    #[expect(dead_code, reason = "it is there to be dropped")]
    #[trace(leaf)]
    Slow,
);

/// Cycles, allocations and other threads go on; the statistics say which destructor it is and how much waits.
#[test]
fn fault_40_a_destructor_that_blocks_holds_up_nothing_but_those_behind_it() {
    let heap = Heap::new();
    let (go_on, may_go_on) = mpsc::channel();
    let (blocks, is_blocked) = mpsc::channel();
    heap.enter(|mc| _ = mc.alloc(SlowBox(Slow(Mutex::new(may_go_on), blocks))));
    assert_eq!(heap.collect(), Collected::Complete);
    is_blocked.recv().unwrap();
    let dropped = Arc::new(AtomicU32::new(0));
    struct Other(Arc<AtomicU32>);
    impl Drop for Other {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    #[derive(Trace)]
    struct OtherBox(
        #[expect(dead_code, reason = "it is there to be dropped")]
        #[trace(leaf)]
        Other,
    );
    for round in 1..=20 {
        heap.enter(|mc| {
            for _ in 0..1000 {
                mc.alloc(OtherBox(Other(dropped.clone())));
                mc.alloc([0u64; 20]);
            }
        });
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(heap.stats().owed_objects, 1 + 1000 * round);
    }
    assert!(heap.verify().is_ok(), "while a destructor runs");
    let before = heap.stats();
    let (name, since) = before.dropping.expect("a destructor runs");
    assert!(name.contains("SlowBox"), "{name}");
    std::thread::sleep(std::time::Duration::from_millis(2));
    let after = heap.stats();
    assert!(after.dropping.unwrap().1 > since && after.drop_wait > before.drop_wait);
    assert!(after.drop_wait > std::time::Duration::ZERO);
    assert_eq!((after.dropped, dropped.load(SeqCst)), (0, 0));
    go_on.send(()).unwrap();
    while heap.stats().owed_objects > 0 {
        std::thread::yield_now();
    }
    let end = heap.stats();
    assert_eq!((dropped.load(SeqCst), end.drop_wait.as_nanos()), (20_000, 0));
    assert_eq!(end.dropping, None);
}

/// Spans take turns: what died first is not kept waiting by what keeps dying.
#[test]
fn fault_39_whoever_waits_longest_is_next() {
    let heap = Heap::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    macro_rules! kinds {
        ($($name:ident $number:literal)*) => {$(
            struct $name(Arc<Mutex<Vec<u32>>>);
            impl Drop for $name {
                fn drop(&mut self) {
                    self.0.lock().unwrap().push($number);
                }
            }
        )*};
    }
    kinds!(First 1 Second 2 Third 3);
    #[derive(Trace)]
    struct Of<T: 'static>(#[trace(leaf)] T);
    let (go_on, may_go_on) = mpsc::channel();
    let (blocks, is_blocked) = mpsc::channel();
    heap.enter(|mc| _ = mc.alloc(SlowBox(Slow(Mutex::new(may_go_on), blocks))));
    assert_eq!(heap.collect(), Collected::Complete);
    is_blocked.recv().unwrap();
    heap.enter(|mc| (0..100).for_each(|_| _ = mc.alloc(Of(First(order.clone())))));
    assert_eq!(heap.collect(), Collected::Complete);
    heap.enter(|mc| _ = mc.alloc(Of(Second(order.clone()))));
    assert_eq!(heap.collect(), Collected::Complete);
    heap.enter(|mc| _ = mc.alloc(Of(Third(order.clone()))));
    assert_eq!(heap.collect(), Collected::Complete);
    go_on.send(()).unwrap();
    while heap.stats().owed_objects > 0 {
        std::thread::yield_now();
    }
    let order = order.lock().unwrap();
    // A batch of the first kind, then the others, then the rest of the first.
    let expected = [vec![1; 64], vec![2, 3], vec![1; 36]].concat();
    assert_eq!(*order, expected);
}

/// A destructor cannot reach what the object pointed to, which may be gone: a type that may hold a `Gc` has none
/// (`ui/api/drop_on_type_with_gc.rs`). What a destructor may hold are leaves and roots, and what a root
/// retains is there: dropped after it, whatever dies in the same cycle.
#[test]
fn fault_43_a_destructor_sees_no_object_that_was_dropped_before_it() {
    let heap = Heap::builder().poison(true).build().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    #[derive(Trace)]
    struct Owner(#[trace(leaf)] Option<Text>, #[trace(leaf)] Heap, #[trace(leaf)] Notes);
    type Notes = Arc<Mutex<Vec<String>>>;
    impl Drop for Owner {
        fn drop(&mut self) {
            let Some(root) = self.0.take() else { return };
            // The last one belongs to the heap's end; it may not be entered any more then.
            let text = self.1.enter(|mc| (*root.get(mc)).to_owned());
            self.2.lock().unwrap().push(text);
        }
    }
    heap.enter(|mc| {
        for n in 0..100 {
            let text = mc.root(mc.alloc_str(&format!("text {n}")));
            mc.alloc(Owner(Some(text), heap.clone(), seen.clone()));
        }
    });
    while seen.lock().unwrap().len() < 100 {
        assert_eq!(heap.collect(), Collected::Complete);
    }
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    let mut expected: Vec<String> = (0..100).map(|n| format!("text {n}")).collect();
    expected.sort();
    assert_eq!(seen, expected);
}

/// A list of nodes that each own something with a destructor dies without recursion, however long it is: each
/// node is dropped for itself. (A chain of `Box`es is dropped by its own destructor, recursively; that is Rust's.)
#[test]
fn fault_68_a_long_list_with_destructors_dies_without_recursion() {
    const LEN: u64 = 10_000_000;
    static DROPPED: AtomicU64 = AtomicU64::new(0);
    struct Leaf(u32);
    impl Drop for Leaf {
        fn drop(&mut self) {
            DROPPED.fetch_add(u64::from(self.0), SeqCst);
        }
    }
    #[derive(Trace)]
    struct Node<'gc> {
        #[expect(dead_code, reason = "it is there to be dropped")]
        #[trace(leaf)]
        leaf: Leaf,
        next: Option<Gc<'gc, Node<'gc>>>,
    }
    let heap = Heap::new();
    type List = Root<Rootable![Node<'_>]>;
    let list: RefCell<Option<List>> = RefCell::new(None);
    for _ in 0..LEN / 100_000 {
        heap.enter(|mc| {
            let mut first = list.borrow().as_ref().map(|list| list.get(mc));
            for _ in 0..100_000 {
                first = Some(mc.alloc(Node { leaf: Leaf(1), next: first }));
            }
            *list.borrow_mut() = first.map(|first| mc.root(first));
        });
    }
    assert_eq!(DROPPED.load(SeqCst), 0);
    list.borrow_mut().take();
    assert_eq!(heap.collect(), Collected::Complete);
    drop(heap);
    assert_eq!(DROPPED.load(SeqCst), LEN);
}
