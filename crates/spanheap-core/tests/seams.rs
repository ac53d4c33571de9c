//! Everything at once in one small heap, where its parts meet.
//!
//! Threads come and go, hold objects of all sizes, some of which have destructors, and manual spans; they look
//! things up and are refused memory now and then. The collector runs all the time and verifies each of its
//! cycles, and somebody takes statistics, pictures and explanations without a pause. What is held keeps its
//! contents and is found; what has a destructor is dropped once; every snapshot adds up.
//!
//! # Safety
//! The program keeps the contract of the API: objects have no pointers, are initialised before they are
//! published, and are used inside closures only. Manual spans are freed once, by who holds them.
#![allow(unsafe_code)]

use spanheap_core::addr::{Addr, Bytes};
use spanheap_core::collect::Options;
use spanheap_core::collect::roots::RootRecord;
use spanheap_core::heap::ManualSpan;
use spanheap_core::mutator::{Heap, Mutator};
use spanheap_core::observe::{Picture, Rss, Stats};
use spanheap_core::os::Os;
use spanheap_core::span::lookup::Lookup;
use spanheap_core::span::{Shape, Tracer, TypeInfo};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const PAGE: usize = 8 << 10;
const LIMIT: usize = 24 << 20;
const ROUNDS: usize = 2500;

/// Values with a destructor that were made, and those that were dropped.
static MADE: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);

unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

/// A value that was dropped before, or overwritten, is not its own stamp any more.
unsafe fn drop_stamp(value: *mut u8, count: usize) {
    let address = value as usize;
    let words = value.cast::<[usize; 2]>();
    // SAFETY: a dead value, which was initialised before it was published.
    let found = unsafe { words.read() };
    assert!(count == 1 && found == stamp(address), "{address:#x} holds {found:x?}");
    // SAFETY: as above.
    unsafe { words.write([0; 2]) };
    DROPPED.fetch_add(1, Ordering::Relaxed);
}

const fn bytes(size: usize) -> TypeInfo {
    TypeInfo::new(|| "bytes", size, 8, Shape::NoScan, trace_nothing, None)
}

const fn dropped(size: usize) -> TypeInfo {
    TypeInfo::new(|| "dropped", size, 8, Shape::NoScan, trace_nothing, Some(drop_stamp))
}

static TYPES: [TypeInfo; 8] = [
    bytes(16),
    bytes(24),
    bytes(1400),
    bytes(40_000),
    bytes(300_000),
    dropped(16),
    dropped(3000),
    dropped(100_000),
];

fn stamp(address: usize) -> [usize; 2] {
    [address, !address]
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n as u64) as usize
    }
}

/// What a thread holds.
#[derive(Default)]
struct Held {
    objects: Vec<(Arc<RootRecord>, usize)>,
    manual: Vec<ManualSpan>,
}

impl Held {
    /// Makes an object; false if there is no memory. A closure is open.
    fn make(&mut self, mutator: &Mutator, ty: &'static TypeInfo) -> bool {
        // SAFETY: a closure is open.
        let Ok(slot) = (unsafe { mutator.alloc(ty) }) else { return false };
        let address = slot.as_ptr() as usize;
        // SAFETY: the slot is ours and at least two words long.
        unsafe { slot.cast::<[usize; 2]>().write(stamp(address)) };
        // SAFETY: it is initialised.
        unsafe { mutator.publish(slot) };
        MADE.fetch_add(usize::from(ty.drop.is_some()), Ordering::Relaxed);
        // SAFETY: the closure holds it.
        self.objects.push((unsafe { mutator.root(slot) }, ty.size));
        true
    }

    fn make_manual(&mut self, mutator: &Mutator, pages: usize) {
        if let Ok(span) = mutator.alloc_manual(Bytes::new(pages * PAGE), PAGE) {
            let last = Addr::new(span.range().end().get() - 1);
            assert_eq!(mutator.find_object(last), Lookup::Free);
            // SAFETY: the span is ours.
            unsafe { last.as_ptr::<u8>().write(0xa5) };
            self.manual.push(span);
        }
    }

    fn free_manual(&mut self, mutator: &Mutator, index: usize) {
        let span = self.manual.swap_remove(index);
        let last = Addr::new(span.range().end().get() - 1);
        // SAFETY: written in `make_manual`.
        assert_eq!(unsafe { last.as_ptr::<u8>().read() }, 0xa5);
        // SAFETY: nobody else knows the span.
        unsafe { mutator.free_manual(span) };
    }

    /// Looks one of the objects up, by any of its bytes.
    fn check(&self, mutator: &Mutator, random: &mut Random) {
        let (root, size) = &self.objects[random.below(self.objects.len())];
        let start = root.object();
        let offset = Bytes::new(random.below(*size));
        let object = mutator.find_object(start + offset).object().expect("it is held");
        assert_eq!((object.start, object.offset), (start, offset));
        // SAFETY: the root holds the object.
        let words = unsafe { start.as_ptr::<[usize; 2]>().read() };
        assert_eq!(words, stamp(start.get()));
    }
}

/// One thread, which attaches anew now and then. Returns how often it was refused memory.
fn work(heap: &Heap, seed: u64) -> usize {
    let mut random = Random(seed);
    let mut mutator = heap.attach();
    let (mut held, mut refused) = (Held::default(), 0);
    for round in 0..ROUNDS {
        mutator.enter();
        for _ in 0..random.below(12) {
            if !held.make(&mutator, &TYPES[random.below(TYPES.len())]) {
                refused += 1;
                held.objects.truncate(held.objects.len() / 2);
            }
        }
        match random.below(4) {
            0 => held.make_manual(&mutator, 1 + random.below(40)),
            1 if !held.manual.is_empty() => {
                held.free_manual(&mutator, random.below(held.manual.len()));
            }
            _ => {}
        }
        while held.manual.len() > 8 {
            held.free_manual(&mutator, 0);
        }
        for _ in 0..8.min(held.objects.len()) {
            held.check(&mutator, &mut random);
        }
        mutator.leave();
        while held.objects.len() > 150 {
            held.objects.swap_remove(random.below(held.objects.len()));
        }
        if round % 100 == 99 {
            mutator = heap.attach();
        }
    }
    mutator.enter();
    while !held.manual.is_empty() {
        held.free_manual(&mutator, 0);
    }
    mutator.leave();
    refused
}

/// Takes every kind of look at the heap until it is told to stop.
fn watch(heap: &Heap, stop: &AtomicBool) {
    let mut looks = 0;
    while !stop.load(Ordering::Acquire) || looks == 0 {
        looks += 1;
        for _ in 0..200 {
            Stats::of(heap).counted.check().expect("a snapshot adds up");
        }
        let picture = Picture::of(heap);
        for class in &picture.classes {
            assert!(class.objects <= class.slots && class.spans <= class.slots, "{class:?}");
        }
        let rss = Rss::of(heap);
        assert_eq!(rss.rows().iter().map(|row| row.bytes).sum::<Bytes>(), rss.sum());
    }
}

#[test]
fn what_is_held_stays_and_what_is_dead_dies_once_whatever_meets() {
    let options = Options {
        hard_limit: Some(Bytes::new(LIMIT)),
        continuously: true,
        checkmark: true,
        poison: true,
        ..Options::default()
    };
    let heap = Heap::new(Os::native(), options).expect("memory");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&heap, &stop));
        let workers = [0x5ea1, 0x5eed, 0x5ee9].map(|seed| {
            let heap = &heap;
            scope.spawn(move || work(heap, seed))
        });
        let ends = workers.map(|worker| worker.join());
        stop.store(true, Ordering::Release);
        watcher.join().expect("no panic");
        for end in ends {
            end.expect("no panic");
        }
    });
    let stats = Stats::of(&heap);
    assert_eq!(stats.drop_panics, 0);
    assert!(stats.verified_objects > 0);
    drop(heap);
    assert_eq!(DROPPED.load(Ordering::Relaxed), MADE.load(Ordering::Relaxed));
}

/// Counters, caches and span records of a thread that has gone serve the next one.
#[test]
fn mutators_that_come_and_go_leave_nothing_behind() {
    let heap = Heap::new(Os::native(), Options::default()).expect("memory");
    let records = |heap: &Heap| {
        let by_category = Stats::of(heap).by_category;
        by_category.into_iter().find(|(name, _)| *name == "metadata").expect("a category").1
    };
    let come_and_go = |times: usize| {
        for _ in 0..times {
            let mutators = [heap.attach(), heap.attach()];
            for mutator in &mutators {
                mutator.enter();
                assert!(Held::default().make(mutator, &TYPES[1]));
                mutator.leave();
            }
        }
    };
    come_and_go(10);
    let before = records(&heap);
    come_and_go(2000);
    assert_eq!(records(&heap), before);
    heap.collect();
    let counted = Stats::of(&heap).counted;
    counted.check().expect("a snapshot adds up");
    assert_eq!(counted.objects().allocated, 2 * 2010);
}
