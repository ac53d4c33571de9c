//! Verification for users: what the options find, when they find it, and that they find nothing else. Rows 33 and
//! 34 of the fault matrix are wrong `Trace` implementations.
//!
//! # Safety
//! Hand-written `Trace`s that are wrong in the way that their names say, in child processes that end by it.

#[path = "../../spanheap-core/tests/kernel/mod.rs"]
mod kernel;

use kernel::child::{self, Outcome};
use spanheap::{BuildError, Collected, Gc, GcCell, GcMutex, Heap, HeapBuilder, Root, Rootable};
use spanheap::{Shape, Trace, Tracer};
use spanheap_core::addr::Addr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

#[derive(Trace)]
struct Node<'gc> {
    key: u64,
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
}

fn node<'gc>(mc: &spanheap::Mutator<'gc>, key: u64) -> Gc<'gc, Node<'gc>> {
    mc.alloc(Node { key, next: GcCell::new(None) })
}

/// Forgets the second of its pointers.
#[expect(dead_code, reason = "the collector is to find what is in it, and nobody else looks")]
struct Forgetful<'gc> {
    first: Gc<'gc, Node<'gc>>,
    number: u64,
    second: Gc<'gc, Node<'gc>>,
}

// SAFETY: none: it is wrong.
unsafe impl Trace for Forgetful<'_> {
    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.first.trace(tracer);
    }
}

/// The same by its shape.
#[repr(C)]
struct Misshapen<'gc> {
    number: u64,
    first: Gc<'gc, Node<'gc>>,
    second: Gc<'gc, Node<'gc>>,
}

// SAFETY: none: the third word is missing.
unsafe impl Trace for Misshapen<'_> {
    const SHAPE: Shape = Shape::Words(0b010);
    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.first.trace(tracer);
    }
}

/// Says that it holds nothing.
#[expect(dead_code, reason = "as above")]
struct Denying<'gc>(u64, Gc<'gc, Node<'gc>>, u64);

// SAFETY: none: it is wrong.
unsafe impl Trace for Denying<'_> {
    const SHAPE: Shape = Shape::NoScan;
    fn trace(&self, _: &mut Tracer<'_>) {}
}

/// A derived type with a field whose implementation is wrong.
#[derive(Trace)]
struct Outer<'gc> {
    name: [u64; 3],
    inner: GcMutex<'gc, Forgetful<'gc>>,
}

/// Another type of the same layout as `Forgetful`, so that a report has to choose.
#[derive(Trace)]
struct Decoy<'gc> {
    first: Gc<'gc, Node<'gc>>,
    number: u64,
    second: u64,
}

type Nodes = Root<Rootable![Node<'_>]>;
type Numbers = Root<Rootable![[u64]]>;
type Bytes = Root<Rootable![[u8]]>;

/// Runs one cycle with an object that `make` makes, in a heap that `settings` sets.
fn one_cycle<R: for<'a> Rootable<'a>>(
    settings: impl FnOnce(HeapBuilder) -> HeapBuilder,
    make: impl for<'gc> Fn(&spanheap::Mutator<'gc>) -> Gc<'gc, <R as Rootable<'gc>>::Root>,
) {
    let heap = settings(Heap::builder()).build().unwrap();
    let _kept: Root<R> = heap.enter(|mc| {
        for key in 0..100 {
            mc.alloc(Decoy { first: node(mc, key), number: 1, second: 2 });
        }
        mc.root(make(mc))
    });
    assert_eq!(heap.collect(), Collected::Complete);
}

#[track_caller]
fn died_of(outcome: Option<Outcome>, parts: &[&str]) {
    let Some(outcome) = outcome else { return };
    assert_eq!(outcome.signal, Some(libc::SIGABRT), "{}", outcome.output);
    let report = outcome.output.lines().find(|line| line.contains("spanheap: fatal:"));
    let report = report.unwrap_or_else(|| panic!("no report: {}", outcome.output));
    for part in parts {
        assert!(report.contains(part), "{part}: {report}");
    }
}

fn forgetful<'gc>(mc: &spanheap::Mutator<'gc>) -> Forgetful<'gc> {
    Forgetful { first: node(mc, 1), number: 2, second: node(mc, 3) }
}

/// In the first cycle after the pointer is the only one to its object, by the name of the type, and the offset.
#[test]
fn fault_33_a_field_that_trace_misses_is_found_in_one_cycle_and_named() {
    let name = "fault_33_a_field_that_trace_misses_is_found_in_one_cycle_and_named";
    let run = |variant: &str, body: fn()| child::outcome(name, variant, body);
    died_of(
        run("opaque", || {
            one_cycle::<Rootable![Forgetful<'_>]>(
                |h| h.verify_trace(true),
                |mc| mc.alloc(forgetful(mc)),
            );
        }),
        &[
            "Forgetful",
            "is wrong",
            "Node",
            &format!("offset {}", std::mem::offset_of!(Forgetful<'_>, second)),
        ],
    );
    died_of(
        run("in a slice", || {
            one_cycle::<Rootable![[Forgetful<'_>]]>(
                |h| h.verify_trace(true),
                |mc| {
                    let complete =
                        |n| Forgetful { first: node(mc, n), number: n, second: node(mc, n) };
                    let slice: Vec<_> = (0..20).map(complete).collect();
                    mc.alloc_slice(slice)
                },
            );
        }),
        &["Forgetful", "is wrong", "Node"],
    );
    died_of(
        run("shape", || {
            one_cycle::<Rootable![Misshapen<'_>]>(
                |h| h.verify_trace(true),
                |mc| mc.alloc(Misshapen { number: 9, first: node(mc, 1), second: node(mc, 2) }),
            );
        }),
        &["Misshapen", "is wrong", "offset 16"],
    );
    died_of(
        run("denied", || {
            one_cycle::<Rootable![Denying<'_>]>(
                |h| h.verify_trace(true),
                |mc| mc.alloc(Denying(1, node(mc, 1), 2)),
            );
        }),
        &["Denying", "is wrong", "Node"],
    );
    died_of(
        run("inside a derived type", || {
            one_cycle::<Rootable![Outer<'_>]>(
                |h| h.verify_trace(true),
                |mc| mc.alloc(Outer { name: [0; 3], inner: GcMutex::new(forgetful(mc)) }),
            );
        }),
        &["Outer", "is wrong", "Node"],
    );
}

/// Without the option nobody looks: the object is freed, and poison shows it.
#[test]
fn fault_33_the_search_is_an_option_of_its_own() {
    child::run("fault_33_the_search_is_an_option_of_its_own", || {
        one_cycle::<Rootable![Forgetful<'_>]>(|h| h.checkmark(true), |mc| mc.alloc(forgetful(mc)));
    });
}

/// What must not be reported: numbers that look like pointers to what is retained anyway, pointers in types that
/// are derived, what lies behind a value in its slot, and pointers that a correct implementation reports.
#[test]
fn fault_33_correct_implementations_are_never_reported() {
    struct Correct<'gc> {
        number: usize,
        list: Vec<Gc<'gc, Node<'gc>>>,
        own: [Option<Gc<'gc, Node<'gc>>>; 3],
    }
    // SAFETY: everything is reported.
    unsafe impl Trace for Correct<'_> {
        fn trace(&self, tracer: &mut Tracer<'_>) {
            self.list.trace(tracer);
            self.own.trace(tracer);
        }
    }
    #[derive(Trace)]
    enum Changing<'gc> {
        Pointers(Gc<'gc, Node<'gc>>, Gc<'gc, Node<'gc>>),
        Numbers(u8, u16),
        Nothing,
    }
    // Whether a derived type is known to be right follows from its fields.
    const { assert!(Changing::EXACT && Node::EXACT && Decoy::EXACT && !Outer::EXACT) };
    const { assert!(<Option<(u8, Vec<Forgetful<'_>>)>>::EXACT && !<Option<Forgetful<'_>>>::EXACT) };

    let heap = Heap::builder().verify_trace(true).poison(true).collect_every(20).build().unwrap();
    type Roots = (Root<Rootable![Correct<'_>]>, Root<Rootable![[GcMutex<'_, Changing<'_>>]]>);
    let (correct, changing): Roots = heap.enter(|mc| {
        let own = [Some(node(mc, 1)), None, Some(node(mc, 2))];
        let number = own[0].unwrap().addr_for_tests();
        let list = (0..10).map(|key| node(mc, key)).collect();
        let pointers = |key| GcMutex::new(Changing::Pointers(node(mc, key), node(mc, key)));
        let changing: Vec<_> = (0..100).map(pointers).collect();
        (mc.root(mc.alloc(Correct { number, list, own })), mc.root(mc.alloc_slice(changing)))
    });
    for round in 0..200u64 {
        if round % 20 == 0 {
            assert_eq!(heap.collect(), Collected::Complete);
        }
        heap.enter(|mc| {
            let changing = changing.get(mc);
            let mut place = changing[round as usize % 100].lock(mc);
            *place = match round % 3 {
                0 => Changing::Numbers(1, 2),
                1 => Changing::Nothing,
                _ => Changing::Pointers(node(mc, round), node(mc, round)),
            };
            drop(place);
            let fresh = node(mc, round);
            assert_ne!(correct.get(mc).number, 0);
            assert_eq!((fresh.key, correct.get(mc).list.len()), (round, 10));
            let others = correct.get(mc).own.iter().flatten().map(|node| node.key).sum::<u64>();
            assert_eq!(others, 3);
        });
    }
    assert_eq!(heap.collect(), Collected::Complete);
    assert!(heap.stats().verified_objects > 1000 && heap.stats().cycles > 5);
    heap.enter(|mc| {
        for place in changing.get(mc).iter() {
            if let Changing::Numbers(a, b) = &*place.lock(mc) {
                assert_eq!((*a, *b), (1, 2));
            }
        }
    });
    assert!(heap.verify().is_ok());
}

trait AddrForTests {
    fn addr_for_tests(&self) -> usize;
}

impl<T> AddrForTests for Gc<'_, T> {
    fn addr_for_tests(&self) -> usize {
        std::ptr::from_ref::<T>(self) as usize
    }
}

/// Reports an address that is none of its business.
struct Garbage<'gc> {
    address: usize,
    good: Gc<'gc, Node<'gc>>,
}

// SAFETY: none: it reports an address that it has made up.
unsafe impl Trace for Garbage<'_> {
    fn trace(&self, tracer: &mut Tracer<'_>) {
        // SAFETY: none, see above: the address is looked at, and this is what the test is about.
        unsafe { tracer.edge(Addr::new(self.address)) };
        self.good.trace(tracer);
    }
}

/// Addresses that are no object's, by name.
fn wrong_addresses(heap: &Heap, other: &Heap) -> Vec<(&'static str, usize)> {
    let object = heap.enter(|mc| node(mc, 77).addr_for_tests());
    let foreign = other.enter(|mc| node(mc, 78).addr_for_tests());
    // A slot that was freed, beside one that is kept: nobody allocates there any more.
    let (kept, freed) = heap.enter(|mc| {
        let kept: Numbers = mc.root(mc.alloc_slice([1u64; 30]));
        (
            kept,
            mc.alloc_slice([1u64; 30]).first().map_or(0, |word| std::ptr::from_ref(word) as usize),
        )
    });
    std::mem::forget(kept);
    assert_eq!(heap.collect(), Collected::Complete);
    let local = 5u64;
    let arena = object & !((64 << 20) - 1);
    vec![
        ("nowhere", 0x1000),
        ("the end of address space", usize::MAX - 7),
        ("beyond all addresses", 1 << 47),
        ("on the stack", std::ptr::from_ref(&local) as usize),
        ("in another heap", foreign),
        ("inside an object", object + 8),
        ("misaligned", object + 1),
        ("a slot that was freed", freed),
        ("in an arena, where no page is", arena + (63 << 20) + 4096),
        ("on a free page", arena + (3 << 20)),
    ]
}

/// Builds without debug assertions ignore what is reported and is no object; nothing is broken by it.
#[test]
#[cfg(not(debug_assertions))]
fn fault_34_garbage_that_trace_reports_is_ignored() {
    let (heap, other) = (Heap::builder().poison(true).build().unwrap(), Heap::new());
    for (name, address) in wrong_addresses(&heap, &other) {
        let kept: Root<Rootable![Garbage<'_>]> =
            heap.enter(|mc| mc.root(mc.alloc(Garbage { address, good: node(mc, 5) })));
        for _ in 0..3 {
            assert_eq!(heap.collect(), Collected::Complete);
            assert!(!heap.stats().retained_everything, "{name}");
            assert_eq!(heap.enter(|mc| kept.get(mc).good.key), 5, "{name}");
            assert_eq!(heap.stats().live_objects, 3, "{name}");
            assert!(heap.verify().is_ok(), "{name}");
        }
    }
}

/// Verification and debug builds end the process and name the type.
#[test]
fn fault_34_garbage_that_trace_reports_is_named_when_verified() {
    let name = "fault_34_garbage_that_trace_reports_is_named_when_verified";
    for n in 0..10 {
        let outcome = child::outcome(name, &n.to_string(), || {
            let (heap, other) = (Heap::builder().checkmark(true).build().unwrap(), Heap::new());
            let (what, address) = wrong_addresses(&heap, &other)[n];
            println!("{what}");
            assert_eq!(heap.collect(), Collected::Complete);
            let _kept: Root<Rootable![Garbage<'_>]> =
                heap.enter(|mc| mc.root(mc.alloc(Garbage { address, good: node(mc, 5) })));
            _ = heap.collect();
        });
        died_of(outcome, &["Garbage", "no object of this heap begins"]);
    }
}

/// What is counted is slots, and the count decides, whatever the size of the heap.
#[test]
fn a_cycle_is_asked_for_at_every_nth_allocation() {
    let heap = Heap::builder().gc_percent_off().collect_every(100).build().unwrap();
    for round in 1..=20 {
        for _ in 0..99 {
            heap.enter(|mc| _ = node(mc, round));
        }
        assert_eq!(heap.stats().cycles, round - 1, "99 are not enough");
        heap.enter(|mc| _ = node(mc, round));
        while heap.stats().cycles < round {
            std::thread::yield_now();
        }
    }
    // A slice is one, and a large one, too; small values share slots.
    for _ in 0..33 {
        heap.enter(|mc| {
            mc.alloc_slice([7u64; 10]);
            mc.alloc_slice(vec![0u8; 100_000]);
            mc.alloc(3u64);
            mc.alloc(4u64);
        });
    }
    assert_eq!(heap.stats().cycles, 20);
    heap.enter(|mc| _ = node(mc, 1));
    while heap.stats().cycles < 21 {
        std::thread::yield_now();
    }
    assert!(heap.verify().is_ok());
}

/// Switched on and off while threads are at work; when it is on, it counts from then on.
#[test]
fn switches_take_effect_while_the_heap_lives() {
    let heap = Heap::builder().gc_percent_off().build().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    heap.enter(|mc| {
                        let first = node(mc, 1);
                        first.next.set(mc, Some(node(mc, 2)));
                        mc.alloc_slice([1u64, 2, 3]);
                        assert_eq!(first.next.get().unwrap().key, 2);
                    });
                }
            });
        }
        assert_eq!(heap.stats().verified_objects, 0);
        for round in 0..30 {
            heap.set_checkmark(round % 2 == 0);
            heap.set_verify_trace(round % 4 == 0);
            heap.set_poison(round % 3 == 0);
            heap.set_collect_every(if round % 5 == 0 { 7 } else { 0 });
            let kept: Root<Rootable![Node<'_>]> = heap.enter(|mc| mc.root(node(mc, 3)));
            let before = heap.stats().verified_objects;
            assert_eq!(heap.collect(), Collected::Complete);
            assert_eq!(heap.enter(|mc| kept.get(mc).key), 3);
            if round % 2 == 0 {
                assert!(heap.stats().verified_objects > before);
            }
            assert!(heap.verify().is_ok());
        }
        done.store(true, SeqCst);
    });
}

/// Poison that is switched on fills what is freed from then on.
#[test]
fn the_environment_is_read_by_those_who_ask() {
    let name = "the_environment_is_read_by_those_who_ask";
    let set = |value| [("SPANHEAP_DEBUG", value)];
    child::run_variant_with(name, "good", &set("checkmark=1,poison=1,every=100"), || {
        let heap = Heap::builder().from_env().gc_percent_off().build().unwrap();
        for _ in 0..100 {
            heap.enter(|mc| _ = node(mc, 1));
        }
        while heap.stats().cycles == 0 {
            std::thread::yield_now();
        }
        let _kept: Root<Rootable![Node<'_>]> = heap.enter(|mc| mc.root(node(mc, 1)));
        assert_eq!(heap.collect(), Collected::Complete);
        assert!(heap.stats().verified_objects > 0);
        // A heap that was not told to look does not.
        let other = Heap::builder().build().unwrap();
        let _kept: Root<Rootable![Node<'_>]> = other.enter(|mc| mc.root(node(mc, 1)));
        assert_eq!(other.collect(), Collected::Complete);
        assert_eq!(other.stats().verified_objects, 0);
    });
    child::run_variant_with(name, "bad", &set("poison=1,chekmark=1"), || {
        match Heap::builder().from_env().build() {
            Err(error @ BuildError::Environment { .. }) => {
                assert_eq!(error.to_string(), "chekmark=1 is not a setting of SPANHEAP_DEBUG");
            }
            other => panic!("{other:?}"),
        }
        assert!(Heap::builder().build().is_ok());
    });
}

/// What the report says is what was allocated, to the object.
#[test]
fn a_look_at_the_whole_heap_counts_what_is_there() {
    let heap = Heap::new();
    let empty = heap.verify().unwrap();
    assert_eq!((empty.objects, empty.spans), (0, 0));
    let kept: Vec<Nodes> = heap.enter(|mc| (0..1000).map(|key| mc.root(node(mc, key))).collect());
    let large: Bytes = heap.enter(|mc| mc.root(mc.alloc_slice(vec![1u8; 1 << 20])));
    let full = heap.verify().unwrap();
    assert_eq!((full.objects, full.bytes), (1001, 1000 * size_of::<Node<'_>>() + (1 << 20)));
    assert!(full.span_bytes >= full.bytes && full.owed_objects == 0);
    drop((kept, large));
    // Garbage stays where it is.
    assert_eq!(heap.verify().unwrap(), full);
    assert_eq!(heap.collect(), Collected::Complete);
    let swept = heap.verify().unwrap();
    assert_eq!((swept.objects, swept.spans), (0, 0));
    assert!(swept.free_bytes > 0);
    let inside = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        heap.enter(|_| _ = heap.verify());
    }));
    assert!(inside.is_err());
}
