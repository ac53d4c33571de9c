//! Classes by themselves: finding and making them, and their lists over many generations.
//!
//! # Safety
//! Span records are memory of the test and outlive the lists. Persistent memory is released when the last
//! class has been looked at.
#![allow(unsafe_code)]

use super::*;
use crate::addr::{Addr, Bytes, PageCount};
use crate::span::{Info, Span, Tracer};
use crate::tests::Random;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use std::collections::{BTreeMap, BTreeSet};

unsafe fn trace_a(_: *const u8, _: usize, _: &mut Tracer<'_>) {}
unsafe fn trace_b(object: *const u8, _: usize, tracer: &mut Tracer<'_>) {
    // SAFETY: never called; the body only makes this function differ from `trace_a`.
    unsafe { tracer.edge(Addr::of(object)) };
}
unsafe fn drop_a(_: *mut u8, _: usize) {}
unsafe fn drop_b(object: *mut u8, _: usize) {
    // SAFETY: never called; the body only makes this function differ from `drop_a`.
    unsafe { object.write(1) };
}

fn key(size: usize, layout: Layout, counting: Counting, drop: Option<DropFn>) -> ClassKey {
    ClassKey { size_class: SizeClass::for_size(Bytes::new(size)), layout, counting, drop }
}

/// Keys that differ from each other in one component or several.
fn keys() -> Vec<ClassKey> {
    let layouts = [
        Layout::NoScan,
        Layout::Words { mask: 1, period: 0 },
        Layout::Words { mask: 1, period: 2 },
        Layout::Words { mask: 2, period: 0 },
        Layout::Traced(trace_a),
        Layout::Traced(trace_b),
    ];
    let mut keys = Vec::new();
    for size in [16, 24, 4096, 40_000] {
        for layout in layouts {
            for counting in [Counting::One, Counting::Trailer] {
                for drop in [None, Some(drop_a as DropFn), Some(drop_b as DropFn)] {
                    keys.push(key(size, layout, counting, drop));
                }
            }
        }
    }
    keys
}

#[test]
fn every_key_has_one_class_and_every_class_one_number() {
    let (os, memory) = (Os::native(), Persistent::new());
    let table = ClassTable::new();
    let keys = keys();
    let mut made = Vec::new();
    for round in 0..3 {
        for (index, key) in keys.iter().enumerate() {
            let class = table.find_or_make(key, || "test", &os, &memory).expect("memory");
            assert_eq!(class.index() as usize, index);
            assert!(class.key().is(key));
            match round {
                0 => made.push(class),
                _ => assert!(ptr::eq(class, made[index])),
            }
        }
    }
    let numbers: Vec<_> = table.iter().map(Class::index).collect();
    assert_eq!(numbers, (0..keys.len() as u32).rev().collect::<Vec<_>>());
    // SAFETY: no class is used after this.
    unsafe { memory.release(&os) };
}

#[test]
fn threads_that_ask_for_the_same_key_get_the_same_class() {
    let (os, memory) = (Os::native(), Persistent::new());
    let table = ClassTable::new();
    let keys = keys();
    let ask = || {
        let classes = keys.iter().map(|key| table.find_or_make(key, || "test", &os, &memory));
        classes.map(|class| class.expect("memory").index()).collect::<Vec<_>>()
    };
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(ask);
        (ask(), other.join().unwrap())
    });
    assert_eq!(a, b);
    assert_eq!(table.iter().count(), keys.len());
    // SAFETY: as above.
    unsafe { memory.release(&os) };
}

#[test]
fn a_class_that_was_refused_can_be_made_later() {
    let sim = crate::os::SimOs::builder().fail_call(1).build();
    let (os, memory) = (Os::simulated(sim.clone()), Persistent::new());
    let table = ClassTable::new();
    let key = key(16, Layout::NoScan, Counting::One, None);
    assert!(table.find_or_make(&key, || "test", &os, &memory).is_err());
    assert_eq!(table.iter().count(), 0);
    let class = table.find_or_make(&key, || "test", &os, &memory).expect("only one refusal");
    assert_eq!(class.index(), 0);
    // SAFETY: as above.
    unsafe { memory.release(&os) };
    sim.assert_all_released();
}

/// Where the twin says that a span is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// The test owns it: a cache, or the sweeper.
    Out,
    /// In the class, swept for this generation; the flag says whether it has room.
    In(Generation, bool),
}

/// A class, the spans that are out, and where every span is.
struct Bench {
    class: &'static Class,
    out: Vec<OwnedSpan>,
    places: BTreeMap<Addr, Place>,
    /// The newest generation that the class has heard of.
    newest: Generation,
}

impl Bench {
    /// What a caller that knows `generation` tells the class.
    fn hear(&mut self, generation: Generation) {
        if generation.is_after(self.newest) {
            self.newest = generation;
        }
    }

    fn leave(&mut self, span: OwnedSpan) -> (Generation, bool) {
        let place = self.places.insert(span.info().base, Place::Out);
        let Some(Place::In(generation, room)) = place else {
            panic!("{:?} was handed out twice", span.info().base);
        };
        assert_eq!(span.span().generation(), generation);
        self.out.push(span);
        (generation, room)
    }

    fn put(&mut self, mut span: OwnedSpan, caller: Generation, room: bool, sweep: bool) {
        if sweep {
            span.set_generation(self.newest);
        }
        self.hear(caller);
        self.hear(span.span().generation());
        self.places.insert(span.info().base, Place::In(span.span().generation(), room));
        self.class.put(span, caller, room);
    }

    fn take(&mut self, caller: Generation) {
        self.hear(caller);
        let newest = self.newest;
        let current = |p: &Place| matches!(p, Place::In(g, true) if *g == newest);
        let stale = |p: &Place| matches!(p, Place::In(g, _) if *g != newest);
        match self.class.take(caller) {
            Some(Taken::Ready(span)) => {
                assert_eq!(self.leave(span), (newest, true), "given for allocation");
            }
            Some(Taken::Unswept(span, target)) => {
                assert_eq!(target, newest);
                assert!(!self.places.values().any(current), "swept spans come first");
                assert_ne!(self.leave(span).0, newest);
            }
            None => assert!(!self.places.values().any(|p| current(p) || stale(p))),
        }
    }

    fn take_unswept(&mut self, caller: Generation) {
        self.hear(caller);
        let newest = self.newest;
        match self.class.take_unswept(caller) {
            Some((span, target)) => {
                assert_eq!(target, newest);
                assert_ne!(self.leave(span).0, newest);
            }
            None => {
                let stale = |p: &Place| matches!(p, Place::In(g, _) if *g != newest);
                assert!(!self.places.values().any(stale), "an unswept span was passed over");
            }
        }
    }
}

/// A span at page `index` + 1 in a record of the test.
fn span_at(record: &mut MaybeUninit<Span>, index: usize) -> OwnedSpan {
    let info = Info {
        base: Addr::NULL + PageCount::new(index + 1),
        pages: PageCount::new(1),
        slot: 16,
        slots: 512,
        size_class: Some(SizeClass::SMALLEST),
        class: 0,
        layout: Layout::NoScan,
        counting: Counting::One,
        drop: None,
        type_name: || "test",
    };
    let record = NonNull::new(record.as_mut_ptr()).expect("not null");
    // SAFETY: the record is ours and describes nothing.
    unsafe { Span::init(record, info, Generation::FIRST) }
}

fn run_lists(seed: u64, first: Generation) {
    const SPANS: usize = 24;
    let mut random = Random::new(seed);
    let (os, memory) = (Os::native(), Persistent::new());
    let table = ClassTable::new();
    let key = key(16, Layout::NoScan, Counting::One, None);
    let class = table.find_or_make(&key, || "test", &os, &memory).expect("memory");
    let mut records: Vec<_> = (0..SPANS).map(|_| MaybeUninit::zeroed()).collect();
    let out: Vec<_> = records.iter_mut().enumerate().map(|(i, r)| span_at(r, i)).collect();
    let places = out.iter().map(|span| (span.info().base, Place::Out)).collect();
    let mut bench = Bench { class, out, places, newest: Generation::FIRST };
    let mut heap = first;
    // Brings the lists to the first generation, which may be anywhere.
    bench.take(heap);
    for span in &mut bench.out {
        span.set_generation(heap);
    }
    for _ in 0..30_000 {
        if random.one_in(40) {
            heap = heap.next();
        }
        // A caller may be a few generations behind the heap.
        let behind = if random.one_in(3) { random.below(3) as u32 } else { 0 };
        let caller = Generation::new(heap.get().wrapping_sub(behind));
        match random.below(6) {
            0 | 1 => bench.take(caller),
            2 => bench.take_unswept(caller),
            _ if bench.out.is_empty() => bench.take(heap),
            _ => {
                let span = bench.out.swap_remove(random.below(bench.out.len()));
                let (room, sweep) = (random.one_in(2), random.one_in(2));
                bench.put(span, caller, room, sweep);
            }
        }
        assert_eq!(bench.places.len(), SPANS);
        let out = bench.places.values().filter(|p| **p == Place::Out).count();
        assert_eq!(out, bench.out.len());
    }
    // One more generation makes everything unswept, and everything can be had.
    let last = heap.next();
    while let Some((span, target)) = class.take_unswept(last) {
        assert_eq!(target, last);
        bench.leave(span);
    }
    assert!(class.take(last).is_none());
    let bases: BTreeSet<_> = bench.out.iter().map(|span| span.info().base).collect();
    assert_eq!(bases.len(), SPANS, "a span was lost");
    // SAFETY: as above.
    unsafe { memory.release(&os) };
}

#[test]
fn no_span_is_lost_given_out_twice_or_given_for_allocation_unswept() {
    run_lists(0xc1a5, Generation::FIRST);
    run_lists(0xc1a6, Generation::new((1 << 31) - 20));
}

#[test]
fn the_lists_work_across_the_end_of_the_numbers() {
    // Half the numbers in one step would be a step back, so the class is led up in two.
    let (os, memory) = (Os::native(), Persistent::new());
    let table = ClassTable::new();
    let key = key(16, Layout::NoScan, Counting::One, None);
    let class = table.find_or_make(&key, || "test", &os, &memory).expect("memory");
    assert!(class.take(Generation::new((1 << 31) - 1)).is_none());
    assert!(class.take(Generation::new(u32::MAX - 1)).is_none());
    let mut record = MaybeUninit::zeroed();
    let mut span = span_at(&mut record, 0);
    let mut generation = Generation::new(u32::MAX - 1);
    for _ in 0..5 {
        span.set_generation(generation);
        class.put(span, generation, true);
        generation = generation.next();
        let (back, target) = class.take_unswept(generation).expect("unswept now");
        assert_eq!(target, generation);
        span = back;
    }
    assert_eq!(generation, Generation::new(3));
    // SAFETY: as above.
    unsafe { memory.release(&os) };
}
