//! What is counted, held to what the test knows by itself and to a walk over all spans.
//!
//! Threads run random programs: they allocate objects of many types and sizes, with and without
//! destructors, keep some of them by roots and drop others, while cycles run and another thread
//! takes snapshots. Every snapshot must satisfy what holds at every moment. When all is quiet, the
//! counts must be those of the objects that the test still holds, to the object.
//!
//! # Safety
//! The programs keep U1 to U5 of the runtime API; drop functions do not look at the values.

mod random;

use random::Random;
use spanheap_core::addr::Bytes;
use spanheap_core::collect::{Options, Policy};
use spanheap_core::mutator::{Heap, Mutator};
use spanheap_core::observe::{MemoryState, Objects, Rss, Snapshot, Stats, Walk};
use spanheap_core::os::{Os, SimOs};
use spanheap_core::span::size_class::{CLASS_COUNT, SizeClass};
use spanheap_core::span::{Shape, Tracer, TypeInfo};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A root, as the runtime API gives it.
type Held = Arc<spanheap_core::collect::roots::RootRecord>;

unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}
unsafe fn drop_values(_: *mut u8, _: usize) {}

/// While this is taken, values of one type are not dropped.
static GATE: Mutex<()> = Mutex::new(());

unsafe fn drop_at_the_gate(_: *mut u8, _: usize) {
    drop(GATE.lock());
}

macro_rules! types {
    ($($name:ident: $bytes:expr, $shape:expr, $drop:expr;)*) => {
        $(static $name: TypeInfo =
            TypeInfo::new(|| stringify!($name), $bytes, 8, $shape, trace_nothing, $drop);)*
    };
}

types! {
    PAIR: 16, Shape::Words(0b11), None;
    TRIPLE: 24, Shape::Words(0b101), None;
    NODE: 48, Shape::Words(0b1), Some(drop_values);
    TABLE: 1500, Shape::Words(0b1), None;
    OPAQUE: 640, Shape::Opaque, None;
    BLOB: 9000, Shape::NoScan, Some(drop_values);
    LARGE: 40_000, Shape::NoScan, None;
    LARGE_NODE: 70_000, Shape::Words(0b1), Some(drop_values);
    GATED: 96, Shape::NoScan, Some(drop_at_the_gate);
}

static BYTE: TypeInfo = TypeInfo::new(|| "byte", 1, 1, Shape::NoScan, trace_nothing, None);
static SMALL: TypeInfo = TypeInfo::new(|| "small", 4, 4, Shape::NoScan, trace_nothing, None);

static PLAIN: [&TypeInfo; 5] = [&PAIR, &TRIPLE, &TABLE, &OPAQUE, &LARGE];
static ALL: [&TypeInfo; 8] = [&PAIR, &TRIPLE, &TABLE, &OPAQUE, &LARGE, &NODE, &BLOB, &LARGE_NODE];

/// Allocates one object and holds it. A closure is open.
fn make(mutator: &Mutator, ty: &'static TypeInfo) -> Held {
    // SAFETY: a closure is open.
    let slot = unsafe { mutator.alloc(ty) }.expect("memory");
    // SAFETY: the slot is ours and so large; zeros are a valid value of all types here.
    unsafe { slot.as_ptr().write_bytes(0, ty.size) };
    // SAFETY: it is initialised.
    unsafe { mutator.publish(slot) };
    // SAFETY: the closure holds it.
    unsafe { mutator.root(slot) }
}

/// What a program holds in the end, by type; and how many objects it has made.
#[derive(Default)]
struct Outcome {
    held: Vec<(usize, Held)>,
    made: u64,
    tiny: u64,
}

/// A random program on a thread of its own.
fn program(heap: &Heap, types: &[&'static TypeInfo], steps: usize, seed: u64) -> Outcome {
    let (mutator, mut random) = (heap.attach(), Random(seed));
    let mut outcome = Outcome::default();
    for step in 0..steps {
        mutator.enter();
        for _ in 0..1 + random.below(40) {
            let ty = random.below(types.len());
            // Large objects are rare, or there would be nothing but them.
            if types[ty].size > 5000 && random.below(8) > 0 {
                continue;
            }
            let object = make(&mutator, types[ty]);
            outcome.made += 1;
            match random.below(4) {
                0 => outcome.held.push((ty, object)),
                1 if !outcome.held.is_empty() => {
                    let index = random.below(outcome.held.len());
                    outcome.held[index] = (ty, object);
                }
                _ => {}
            }
        }
        for _ in 0..random.below(20) {
            drop(make(&mutator, if random.below(2) == 0 { &BYTE } else { &SMALL }));
            outcome.tiny += 1;
        }
        if outcome.held.len() > 400 {
            outcome.held.drain(..200);
        }
        mutator.leave();
        if step % 64 == 63 {
            heap.request_cycle();
        }
    }
    outcome
}

/// What holds when nobody is at work and no run is open.
fn check_quiet(stats: &Stats) {
    let counted = &stats.counted;
    counted.check().unwrap();
    assert_eq!(counted.objects().in_runs, 0);
    assert_eq!(counted.pages(MemoryState::InUse), stats.spans);
    let heap = stats.by_category.iter().find(|(name, _)| *name == "heap").expect("a category").1;
    assert_eq!(counted.mapped(), heap, "the system layer's account");
    let returned =
        counted.pages(MemoryState::Returned) + stats.returned_tables + stats.cold_records;
    assert_eq!(stats.ready, stats.mapped - returned);
    assert_eq!(counted.bytes().allocated, stats.allocated);
    let small: u64 = SizeClass::all().map(|class| counted.small(class).allocated).sum();
    assert_eq!(counted.objects().allocated, small + counted.large().allocated);
    assert_eq!(stats.live.get() as u64, counted.bytes().present() - counted.owed().1.get() as u64);
}

/// Nothing goes back in time.
fn check_later(before: &Snapshot, after: &Snapshot) {
    let later = |a: Objects, b: Objects| a.allocated <= b.allocated && a.freed <= b.freed;
    for class in SizeClass::all() {
        assert!(later(before.small(class), after.small(class)), "{class:?}");
    }
    assert!(later(before.large(), after.large()));
    assert!(later(before.large_bytes(), after.large_bytes()));
    assert!(before.tiny() <= after.tiny() && before.mapped() <= after.mapped());
}

/// The objects that are held, by size class; large ones are number 0.
fn held_by_class(outcomes: &[Outcome], types: &[&'static TypeInfo]) -> [u64; CLASS_COUNT] {
    let mut held = [0; CLASS_COUNT];
    for (ty, _) in outcomes.iter().flat_map(|outcome| &outcome.held) {
        held[types[*ty].size_class.map_or(0, SizeClass::index)] += 1;
    }
    held
}

fn present_by_class(counted: &Snapshot) -> [u64; CLASS_COUNT] {
    let mut present = [0; CLASS_COUNT];
    present[0] = counted.large().present();
    SizeClass::all().for_each(|class| present[class.index()] = counted.small(class).present());
    present
}

/// Runs two programs, takes snapshots meanwhile, and waits until everything is quiet.
fn run(heap: &Heap, types: &'static [&'static TypeInfo], steps: usize, seed: u64) -> Vec<Outcome> {
    println!("seed {seed:#x}");
    let running = AtomicBool::new(true);
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut before, mut snapshots) = (Stats::of(heap).counted, 0);
            loop {
                let last = !running.load(Ordering::Acquire);
                let now = Stats::of(heap).counted;
                if let Err(error) = now.check() {
                    panic!("snapshot {snapshots}: {error}");
                }
                check_later(&before, &now);
                if snapshots % 100 == 0 {
                    let rss = Rss::of(heap);
                    let pages = rss.retained + rss.allocated + rss.unswept + rss.owed;
                    let pages = pages + rss.free_slots + rss.free_pages + rss.huge_pages;
                    assert!(pages <= Stats::of(heap).counted.mapped(), "{rss}");
                }
                (before, snapshots) = (now, snapshots + 1);
                if last {
                    return snapshots;
                }
            }
        });
        let program = |n| scope.spawn(move || program(heap, types, steps, seed + n));
        let outcomes = [0, 1].map(program).map(|thread| thread.join());
        running.store(false, Ordering::Release);
        println!("{} snapshots", watcher.join().expect("the snapshots are consistent"));
        outcomes.map(|outcome| outcome.expect("no panic")).into_iter().collect()
    });
    // The first one may retain what was allocated while the last requested one marked.
    heap.collect();
    heap.collect();
    while Stats::of(heap).counted.owed().0 > 0 {
        std::thread::yield_now();
    }
    outcomes
}

/// Cycles begin on request only, so that it becomes quiet.
fn heap_on(os: Os) -> Heap {
    let policy = Policy { percent: None, limit: None };
    Heap::new(os, Options { policy, ..Options::default() }).expect("memory")
}

#[test]
fn counts_are_those_of_the_walk_and_of_the_objects_that_are_held() {
    for seed in [0xacc7_0000, 0xacc7_0100, 0xacc7_0200] {
        let heap = heap_on(Os::native());
        let outcomes = run(&heap, &PLAIN, 500, seed);
        let stats = Stats::of(&heap);
        check_quiet(&stats);
        // SAFETY: no closure is open, cycles run on request, and no type here has a destructor.
        let walk = unsafe { Walk::of(&heap) };
        assert_eq!(walk.by_class, present_by_class(&stats.counted));
        assert_eq!(walk.by_class, held_by_class(&outcomes, &PLAIN));
        assert_eq!((walk.pages, walk.owed), (stats.counted.pages(MemoryState::InUse), 0));
        assert_eq!(walk.bytes.get() as u64, stats.counted.bytes().present());
        assert_eq!(walk.objects, stats.counted.objects().present());
        check_made(&outcomes, &stats.counted);
    }
}

/// Every object that was made is counted once, tiny ones by their slot or as one that shares it.
fn check_made(outcomes: &[Outcome], counted: &Snapshot) {
    let (made, tiny) = outcomes.iter().fold((0, 0), |(m, t), o| (m + o.made, t + o.tiny));
    assert_eq!(counted.values().allocated, made + tiny);
    assert_eq!(counted.values().present(), counted.objects().present());
    assert!(counted.tiny() > tiny / 2, "most of them share");
}

#[test]
fn values_with_destructors_are_freed_when_they_have_run() {
    for (seed, simulated) in [(0xacc8_0000, false), (0xacc8_0100, true)] {
        let sim = SimOs::builder().build();
        let heap = heap_on(if simulated { Os::simulated(sim.clone()) } else { Os::native() });
        let mut outcomes = run(&heap, &ALL, 400, seed);
        let stats = Stats::of(&heap);
        assert_eq!(present_by_class(&stats.counted), held_by_class(&outcomes, &ALL));
        check_made(&outcomes, &stats.counted);
        assert!(stats.dropped > 0);
        outcomes.clear();
        heap.collect();
        // The drop thread gives pages back after it has counted what was in them.
        while Stats::of(&heap).counted.pages(MemoryState::InUse) > Bytes::ZERO {
            std::thread::yield_now();
        }
        let stats = Stats::of(&heap);
        check_quiet(&stats);
        let (objects, bytes) = (stats.counted.objects(), stats.counted.bytes());
        assert_eq!((objects.allocated, bytes.allocated), (objects.freed, bytes.freed));
        let free =
            stats.counted.pages(MemoryState::Free) + stats.counted.pages(MemoryState::Returned);
        assert_eq!(stats.counted.mapped(), free);
        drop(heap);
        sim.assert_all_released();
    }
}

#[test]
fn what_waits_for_its_destructor_is_present_and_owed() {
    const VALUES: u64 = 150;
    let heap = heap_on(Os::native());
    let mutator = heap.attach();
    mutator.enter();
    let held: Vec<_> = (0..VALUES).map(|_| make(&mutator, &GATED)).collect();
    mutator.leave();
    drop(mutator);
    let closed = GATE.lock().expect("nobody panics with it");
    drop(held);
    heap.collect();
    let counted = Stats::of(&heap).counted;
    counted.check().unwrap();
    let class = GATED.size_class.expect("small");
    let bytes = Bytes::new(VALUES as usize * class.size().get());
    assert_eq!(counted.owed(), (VALUES, bytes));
    assert_eq!(counted.small(class), Objects { allocated: VALUES, freed: 0, in_runs: 0 });
    // Another cycle does not owe them twice.
    heap.collect();
    assert_eq!(Stats::of(&heap).counted.owed(), (VALUES, bytes));
    drop(closed);
    while Stats::of(&heap).counted.pages(MemoryState::InUse) > Bytes::ZERO {
        std::thread::yield_now();
    }
    let counted = Stats::of(&heap).counted;
    assert_eq!(counted.owed(), (0, Bytes::ZERO));
    assert_eq!(counted.small(class), Objects { allocated: VALUES, freed: VALUES, in_runs: 0 });
}

#[test]
fn an_open_run_is_counted_as_such() {
    let heap = heap_on(Os::native());
    let mutator = heap.attach();
    mutator.enter();
    let held: BTreeMap<_, _> = (0..10).map(|n| (n, make(&mutator, &TRIPLE))).collect();
    let class = TRIPLE.size_class.expect("small");
    let slots = class.objects() as u64;
    let counted = Stats::of(&heap).counted;
    assert_eq!(counted.small(class), Objects { allocated: 0, freed: 0, in_runs: slots });
    mutator.leave();
    drop(mutator);
    let counted = Stats::of(&heap).counted;
    assert_eq!(counted.small(class), Objects { allocated: 10, freed: 0, in_runs: 0 });
    drop(held);
}
