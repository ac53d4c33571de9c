//! Looking addresses up through the runtime API, while the collector runs all the time.
//!
//! Threads hold objects of several sizes by roots, and ask in every closure about any byte of them, about
//! what other threads hold, about objects of another heap, and about garbage. What a closure holds is
//! found, always.
//!
//! # Safety
//! The program keeps the contract of the API: objects have no pointers, are initialised before they are
//! published, and are used inside closures only.
#![allow(unsafe_code)]

mod random;

use random::Random;
use spanheap_core::addr::{ARENA_BYTES, Addr, Bytes};
use spanheap_core::collect::Options;
use spanheap_core::collect::roots::RootRecord;
use spanheap_core::mutator::{Heap, Mutator};
use spanheap_core::observe::Stats;
use spanheap_core::os::{Os, SimOs};
use spanheap_core::span::lookup::Lookup;
use spanheap_core::span::{Shape, Tracer, TypeInfo};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

unsafe fn drop_nothing(_: *mut u8, _: usize) {}

const fn bytes(size: usize) -> TypeInfo {
    TypeInfo::new(|| "bytes", size, 8, Shape::NoScan, trace_nothing, None)
}

static TYPES: [TypeInfo; 6] = [
    bytes(16),
    bytes(24),
    bytes(200),
    bytes(1400),
    bytes(50_000),
    TypeInfo::new(|| "dropped", 64, 8, Shape::NoScan, trace_nothing, Some(drop_nothing)),
];

fn heap() -> Heap {
    let options = Options { continuously: true, poison: true, ..Options::default() };
    Heap::new(Os::native(), options).expect("memory")
}

/// A new object, held by a root. A closure is open.
fn make(mutator: &Mutator, ty: &'static TypeInfo) -> Arc<RootRecord> {
    // SAFETY: a closure is open.
    let slot = unsafe { mutator.alloc(ty) }.expect("memory");
    let address = Addr::of(slot.as_ptr()).get();
    // SAFETY: the slot is ours and at least two words long.
    unsafe { slot.cast::<[usize; 2]>().write([address, !address]) };
    // SAFETY: it is initialised.
    unsafe { mutator.publish(slot) };
    // SAFETY: the closure holds it.
    unsafe { mutator.root(slot) }
}

/// Asks about some byte of the object that `root` holds.
fn ask(mutator: &Mutator, root: &RootRecord, size: usize, random: &mut Random) {
    let start = root.object();
    let offset = Bytes::new(random.below(size));
    let object = mutator.find_object(start + offset).object().expect("it is held");
    assert_eq!((object.start, object.offset), (start, offset));
    assert_eq!(object.heap, mutator.heap_number());
    assert!(object.size >= Bytes::new(size));
    // SAFETY: the root holds the object.
    let words = unsafe { start.as_ptr::<[usize; 2]>().read() };
    assert_eq!(words, [start.get(), !start.get()]);
}

/// One thread: it makes, holds and forgets objects, and asks.
fn work(heap: &Heap, seed: u64, others: &AtomicUsize, foreign: (Addr, u64)) {
    let mut random = Random(seed);
    let mutator = heap.attach();
    let mut held: Vec<(Arc<RootRecord>, usize)> = Vec::new();
    for round in 0..6000 {
        mutator.enter();
        for _ in 0..random.below(6) {
            let ty = &TYPES[random.below(TYPES.len())];
            let root = make(&mutator, ty);
            ask(&mutator, &root, ty.size, &mut random);
            others.store(root.object().get(), Ordering::Relaxed);
            held.push((root, ty.size));
        }
        for _ in 0..6.min(held.len()) {
            let (root, size) = &held[random.below(held.len())];
            ask(&mutator, root, *size, &mut random);
        }
        let near = Addr::new(others.load(Ordering::Relaxed).wrapping_add(random.below(1 << 20)));
        if let Lookup::Object(object) = mutator.find_object(near) {
            assert!(object.start <= near && near < object.start + object.size);
        }
        let garbage = Addr::new(random.0 as usize >> random.below(64));
        assert!(mutator.find_object(garbage).object().is_none_or(|o| o.offset < o.size));
        assert_eq!(mutator.find_object(foreign.0), Lookup::Foreign(foreign.1));
        mutator.leave();
        while held.len() > 60 {
            held.swap_remove(random.below(held.len()));
        }
        if round % 500 == 0 {
            heap.collect();
        }
    }
}

#[test]
fn what_a_closure_holds_is_found_while_the_heap_is_collected() {
    let (heap, other) = (heap(), heap());
    let owner = other.attach();
    owner.enter();
    let foreign = make(&owner, &TYPES[1]);
    ask(&owner, &foreign, 24, &mut Random(9));
    let foreign = (foreign.object() + Bytes::new(5), owner.heap_number());
    let last = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads = [0x100c, 0xa7ed].map(|seed| {
            let (heap, last) = (&heap, &last);
            scope.spawn(move || work(heap, seed, last, foreign))
        });
        for thread in threads {
            thread.join().expect("no panic");
        }
    });
    owner.leave();
    assert!(Stats::of(&heap).cycles >= 12, "each thread has waited for twelve");
    let mutator = heap.attach();
    mutator.enter();
    for at in [0, 1, 4096, 1 << 46, 1 << 47, usize::MAX - 7, usize::MAX] {
        assert_eq!(mutator.find_object(Addr::new(at)), Lookup::Nowhere, "{at:#x}");
    }
    mutator.leave();
}

/// The simulated system writes over memory that is returned to it, so a record that somebody still reads is a
/// race, for a sanitizer, and junk for everybody.
#[test]
fn lookups_go_on_while_the_memory_of_records_comes_and_goes() {
    let options = Options { continuously: true, ..Options::default() };
    let sim = SimOs::builder().seed(11).build();
    let heap = Heap::new(Os::simulated(sim.clone()), options).expect("memory");
    let (near, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let look = || {
        let (mut random, mutator) = (Random(0x100c), heap.attach());
        mutator.enter();
        let own = make(&mutator, &TYPES[2]);
        mutator.leave();
        while !is_over.load(Ordering::Acquire) {
            mutator.enter();
            let arena = Addr::new(near.load(Ordering::Relaxed)).align_down(ARENA_BYTES);
            for _ in 0..100 {
                let at = arena + Bytes::new(random.below(8 << 20));
                if let Lookup::Object(object) = mutator.find_object(at) {
                    assert!(object.start <= at && at < object.start + object.size);
                }
            }
            ask(&mutator, &own, 200, &mut random);
            mutator.leave();
        }
    };
    let mut least = Bytes::new(usize::MAX);
    std::thread::scope(|scope| {
        let looking = scope.spawn(look);
        let mutator = heap.attach();
        for _ in 0..20 {
            mutator.enter();
            let many: Vec<_> = (0..4000).map(|_| make(&mutator, &TYPES[3])).collect();
            near.store(many[0].object().get(), Ordering::Relaxed);
            let full = Stats::of(&heap).cold_records;
            mutator.leave();
            drop(many);
            // The first sweep gives the records up; another cycle returns their memory.
            (0..2).for_each(|_| heap.collect());
            least = least.min(Stats::of(&heap).cold_records.saturating_sub(full));
        }
        is_over.store(true, Ordering::Release);
        looking.join().expect("no panic");
    });
    // Each time some 360 spans have gone, whose records fill at least fifteen leaves.
    assert!(least >= Bytes::new(8 * 4096), "{least} came back");
    drop(heap);
    sim.assert_all_released();
}

#[test]
#[should_panic(expected = "outside of a closure")]
fn nothing_is_looked_up_outside_of_a_closure() {
    let heap = heap();
    let mutator = heap.attach();
    mutator.find_object(Addr::NULL);
}
