//! Lookups against division, against a list of spans, and against threads that recycle them.
//!
//! # Safety
//! Spans belong to the test, and heaps are released when nobody uses them. Objects are never written: a
//! lookup does not look at them.
#![allow(unsafe_code)]

use super::*;
use crate::addr::{ARENA_BYTES, PAGE_BYTES};
use crate::heap::Central;
use crate::heap::central::Config;
use crate::heap::class::{Class, ClassKey};
use crate::heap::sweep::{How, sweep};
use crate::heap::swept::Swept;
use crate::os::{Os, SimOs};
use crate::span::bits::Run;
use crate::span::size_class::SizeClass;
use crate::span::{Counting, DropFn, Layout, OwnedSpan};
use crate::sync::atomic::AtomicBool;
use crate::tests::{Random, steps};

unsafe fn drop_nothing(_: *mut u8, _: usize) {}

fn central(os: Os) -> Central {
    Central::new(os, Config::default()).expect("memory")
}

fn release(central: Central) {
    // SAFETY: no object, span or class of the heap is used after this.
    unsafe { central.release() };
    assert_eq!(central.os().accounting().mapped_total(), Bytes::ZERO);
}

fn class(central: &Central, size_class: Option<SizeClass>, drop: Option<DropFn>) -> &'static Class {
    let key =
        ClassKey { size_class, layout: Layout::NoScan, counting: Counting::One, drop, ty: None };
    central.class(&key, || "test").expect("memory")
}

fn slot(info: &Info, index: usize) -> Run {
    let start = info.base + Bytes::new(index * info.slot);
    Run { start, end: start + Bytes::new(info.slot) }
}

/// Compares every byte of a span with a flag per slot.
fn check_every_byte(central: &Central, info: &Info, objects: &[bool]) {
    for at in info.range().base().get()..info.range().end().get() {
        check_byte(central, info, objects, Addr::new(at));
    }
}

fn check_byte(central: &Central, info: &Info, objects: &[bool], at: Addr) {
    let offset = at.get() - info.base.get();
    let (index, inside) = (offset / info.slot, offset % info.slot);
    let found = central.find_object(at);
    if !objects.get(index).copied().unwrap_or(false) {
        assert_eq!(found, Lookup::Free, "{at} in slot {index} of {info:?}");
        return;
    }
    let object = found.object().unwrap_or_else(|| panic!("{at} in slot {index} of {info:?}"));
    assert_eq!(object.start, slot(info, index).start);
    assert_eq!((object.size.get(), object.offset.get()), (info.slot, inside));
    assert_eq!((object.index, object.heap), (index, central.number()));
}

/// Sets the bits of a random part of the slots that `may` be taken, in `table`.
fn take_some(info: &Info, table: Table, may: &[bool], random: &mut Random) -> Vec<bool> {
    let taken: Vec<bool> = may.iter().map(|&may| may && !random.one_in(3)).collect();
    for index in (0..taken.len()).filter(|&index| taken[index]) {
        bits::set_run(info, table, slot(info, index));
    }
    taken
}

/// A span's life: allocation, a cycle, its sweep, the end. All the time, every byte is right.
fn live(central: &Central, class: &'static Class, random: &mut Random) {
    let span = central.acquire_alone(class);
    let info = *span.info();
    let generation = central.generation();
    let objects = take_some(&info, generation.table(), &vec![true; info.slots], random);
    check_every_byte(central, &info, &objects);
    let next = generation.next();
    let marked = take_some(&info, next.table(), &objects, random);
    check_every_byte(central, &info, &objects);
    let retain = random.one_in(4);
    central.begin_generation(next, Bytes::ZERO, 0, retain);
    let left = if retain { objects } else { marked };
    check_every_byte(central, &info, &left);
    let how = How { generation: next, retain, poison: false };
    let swept = sweep(span, central.drops(), how, central.counters().shared());
    check_every_byte(central, &info, &left);
    while central.run_drops() {}
    match swept {
        Swept::Empty(span) | Swept::Partial(span, _) | Swept::Full(span) => {
            check_every_byte(central, &info, &left);
            central.pages().free_span(span);
        }
        Swept::Dropping => assert!(!left.contains(&true)),
    }
    check_every_byte(central, &info, &[]);
}

#[test]
fn every_byte_of_every_class_leads_to_its_slot_and_its_object() {
    let mut random = Random::new(0x100c);
    let central = central(Os::native());
    for size_class in SizeClass::all() {
        for drop in [None, Some(drop_nothing as DropFn)] {
            live(&central, class(&central, Some(size_class), drop), &mut random);
        }
    }
    release(central);
}

#[test]
fn large_objects_are_found_across_arenas_by_any_of_their_bytes() {
    let sim = SimOs::builder().contiguous(Bytes::new(8 * ARENA_BYTES)).build();
    let central = central(Os::simulated(sim.clone()));
    let class = class(&central, None, None);
    let mut random = Random::new(0x1a46e);
    for bytes in [32769, 40_000, 5 << 20, ARENA_BYTES + 3, 3 * ARENA_BYTES - 1] {
        let span = central.acquire_large_alone(class, Bytes::new(bytes));
        let info = *span.info();
        let ends = [info.base, info.range().end() - Bytes::new(1)];
        let within = (0..2000).map(|_| info.base + Bytes::new(random.below(info.slot)));
        let addresses: Vec<_> = ends.into_iter().chain(within).collect();
        for object in [false, true] {
            if object {
                bits::set_run(&info, central.generation().table(), slot(&info, 0));
            }
            addresses.iter().for_each(|&at| check_byte(&central, &info, &[object], at));
        }
        central.pages().free_span(span);
        addresses.iter().for_each(|&at| check_byte(&central, &info, &[false], at));
    }
    release(central);
    sim.assert_all_released();
}

#[test]
fn more_than_four_gigabytes_behind_its_start_an_object_is_still_found() {
    let info = Info {
        base: Addr::new(1 << 40),
        pages: PageCount::new(1 << 30),
        slot: 1 << 43,
        slots: 1,
        element: 0,
        size_class: None,
        class: 0,
        layout: Layout::NoScan,
        counting: Counting::One,
        drop: None,
        type_name: || "test",
        ty: None,
    };
    let mut memory = core::mem::MaybeUninit::zeroed();
    let at = NonNull::new(memory.as_mut_ptr()).expect("not null");
    // SAFETY: the record is the test's, and zeroed.
    let span = unsafe { Span::init(at, info, Generation::FIRST, info.base) };
    let (_, reading) = span.span().plate.read(span.span()).ok().expect("nobody changes it");
    for offset in [0, 1, (1 << 32) - 1, 1 << 32, (1 << 43) - 1] {
        let found = reading.slot_of(info.base + Bytes::new(offset));
        assert_eq!(found, Some((0, info.base)), "{offset:#x}");
    }
    assert_eq!(reading.slot_of(info.base + Bytes::new(1 << 43)), None);
    assert_eq!(reading.slot_of(Addr::new((1 << 40) - 1)), None);
    assert_eq!(reading.slot_of(Addr::new(usize::MAX)), None);
}

/// A heap and the spans that the test knows in it, with an object in each slot whose number is even.
struct Known {
    central: Central,
    spans: Vec<OwnedSpan>,
}

impl Known {
    fn step(&mut self, random: &mut Random) {
        if self.spans.len() > 40 || (!self.spans.is_empty() && random.one_in(3)) {
            let at = random.below(self.spans.len());
            self.central.pages().free_span(self.spans.swap_remove(at));
            return;
        }
        let size_class = SizeClass::from_index(2 + random.below(70));
        let class = class(&self.central, size_class, None);
        let span = match size_class {
            Some(_) => self.central.acquire_alone(class),
            None => {
                let bytes = Bytes::new(32769 + random.below(1 << 20));
                self.central.acquire_large_alone(class, bytes)
            }
        };
        let info = *span.info();
        for index in (0..info.slots).step_by(2) {
            bits::set_run(&info, self.central.generation().table(), slot(&info, index));
        }
        self.spans.push(span);
    }

    /// An address near one of the spans.
    fn address(&self, random: &mut Random) -> Option<usize> {
        let span = self.spans.get(random.below(self.spans.len().max(1)))?;
        let info = span.info();
        let (base, end) = (info.base.get(), info.range().end().get());
        Some(match random.below(5) {
            0 => base + random.below(end - base),
            1 => base + random.below(info.slots) * info.slot,
            2 => base + random.below(info.slots) * info.slot + info.slot - 1,
            3 => info.limit().get() - 8 + random.below(16),
            _ => base - 64 + random.below(128),
        })
    }

    fn arena_of(&self, at: Addr) -> bool {
        self.central.pages().arenas().any(|arena| arena.base() == at.align_down(ARENA_BYTES))
    }

    /// The long way to the same answer.
    fn expected(&self, at: Addr, other: &Known) -> Lookup {
        if other.arena_of(at) {
            return Lookup::Foreign(other.central.number());
        }
        if !self.arena_of(at) {
            return Lookup::Nowhere;
        }
        let span = self.spans.iter().find(|span| span.info().range().contains(at));
        let Some(span) = span else { return Lookup::Free };
        let info = span.info();
        let index = at.bytes_since(info.base).get() / info.slot;
        if index >= info.slots || index % 2 != 0 {
            return Lookup::Free;
        }
        let start = slot(info, index).start;
        Lookup::Object(Object {
            start,
            size: Bytes::new(info.slot),
            offset: at.bytes_since(start),
            index,
            heap: self.central.number(),
            span: NonNull::from(span.span()),
        })
    }
}

#[test]
fn two_heaps_know_their_own_objects_each_others_addresses_and_garbage() {
    let mut random = Random::new(0x9a4ba6e);
    // Native, because the simulation gives two systems the same addresses.
    let mut heaps = [0, 1].map(|_| Known { central: central(Os::native()), spans: Vec::new() });
    let mut objects = 0;
    for _ in 0..steps(20_000, 1_000_000) {
        let mover = random.below(2);
        heaps[mover].step(&mut random);
        for _ in 0..4 {
            let garbage = random.next() as usize | (1 << 63) >> random.below(64);
            let near = heaps[random.below(2)].address(&mut random);
            let at = Addr::new(if random.one_in(5) { garbage } else { near.unwrap_or(garbage) });
            let others = map::owner(at)
                .is_some_and(|owner| heaps.iter().all(|heap| heap.central.number() != owner));
            for (asked, other) in [(&heaps[0], &heaps[1]), (&heaps[1], &heaps[0])] {
                let found = asked.central.find_object(at);
                // Other tests of the process have heaps, too.
                if !others {
                    assert_eq!(found, asked.expected(at, other), "{at}");
                }
                objects += usize::from(found.object().is_some());
            }
        }
    }
    assert!(objects > 10_000, "{objects} objects were found");
    for mut heap in heaps {
        while let Some(span) = heap.spans.pop() {
            heap.central.pages().free_span(span);
        }
        release(heap.central);
    }
}

/// Objects of the span that a test holds all the time; the slot behind each one is not among them.
fn held_objects(info: &Info) -> Vec<Addr> {
    (0..info.slots - 1).step_by(3).map(|index| slot(info, index).start).collect()
}

/// Sweeps a span for one generation after the other, with all objects in `held` marked.
fn sweep_on(central: &Central, mut span: OwnedSpan, held: &[Addr], stop: &AtomicBool) -> OwnedSpan {
    let info = *span.info();
    while !stop.load(Ordering::Relaxed) {
        let next = central.generation().next();
        for &object in held {
            bits::set(next.table(), object);
            // Somebody's garbage, which comes and goes in the next slot.
            bits::set(next.table(), object + Bytes::new(info.slot));
        }
        for &object in held {
            bits::clear(next.table(), object + Bytes::new(info.slot));
        }
        central.begin_generation(next, Bytes::ZERO, 0, false);
        let how = How { generation: next, retain: false, poison: false };
        span = match sweep(span, central.drops(), how, central.counters().shared()) {
            Swept::Empty(span) | Swept::Partial(span, _) | Swept::Full(span) => span,
            Swept::Dropping => panic!("all of them live"),
        };
    }
    span
}

/// Lets the other threads end when the test does, also by a failure.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes and frees spans of all kinds, so that records and pages serve one class after the other.
fn recycle(central: &Central, seed: u64, stop: &AtomicBool) {
    let mut random = Random::new(seed);
    let mut spans = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if spans.len() > 8 {
            let span = spans.swap_remove(random.below(spans.len()));
            central.pages().free_span(span);
            continue;
        }
        let size_class = SizeClass::from_index(2 + random.below(70));
        let class = class(central, size_class, None);
        let span = match size_class {
            Some(_) => central.acquire_alone(class),
            None => central.acquire_large_alone(class, Bytes::new(40_000 + random.below(90_000))),
        };
        let info = *span.info();
        let index = random.below(info.slots);
        bits::set_run(&info, span.span().generation().table(), slot(&info, index));
        spans.push(span);
    }
    spans.into_iter().for_each(|span| central.pages().free_span(span));
}

/// Looks up held objects, which are found, and anything else, which is whatever it is.
fn look(central: &Central, held: &[Addr], size: usize, area: AddrRange, seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut others = 0;
    for _ in 0..steps(60_000, 1_000_000) {
        let start = held[random.below(held.len())];
        let offset = Bytes::new(random.below(size));
        let object = central.find_object(start + offset).object().expect("it is held");
        assert_eq!((object.start, object.offset, object.size.get()), (start, offset, size));
        let at = area.base() + Bytes::new(random.below(area.bytes().get()));
        let Some(object) = central.find_object(at).object() else { continue };
        others += 1;
        assert_eq!(object.start + object.offset, at);
        assert!(object.offset < object.size && object.heap == central.number());
        let size = object.size.get();
        let is_class = SizeClass::for_size(object.size).is_some_and(|c| c.size().get() == size);
        assert!(is_class || (size % PAGE_BYTES == 0 && object.index == 0), "{object:?}");
    }
    others
}

#[test]
fn what_is_held_is_found_while_everything_else_comes_and_goes() {
    for size in [24, 48, 1408, 10240] {
        let central = central(Os::native());
        let class = class(&central, SizeClass::for_size(Bytes::new(size)), None);
        let span = central.acquire_alone(class);
        let info = *span.info();
        let held = held_objects(&info);
        for &object in &held {
            bits::set(span.span().generation().table(), object);
        }
        let area = AddrRange::at(info.base, Bytes::new(100 * PAGE_BYTES));
        let stop = AtomicBool::new(false);
        let (central_ref, stop_ref, held_ref) = (&central, &stop, &held);
        let span = std::thread::scope(|scope| {
            let sweeper = scope.spawn(move || sweep_on(central_ref, span, held_ref, stop_ref));
            let recyclers =
                [1, 2].map(|seed| scope.spawn(move || recycle(central_ref, seed, stop_ref)));
            let stop_at_end = StopAtEnd(stop_ref);
            let found = look(central_ref, held_ref, info.slot, area, 0x100c);
            drop(stop_at_end);
            recyclers.into_iter().for_each(|thread| thread.join().expect("no panic"));
            assert!(found > 0, "nothing but the held objects was found");
            sweeper.join().expect("no panic")
        });
        central.pages().free_span(span);
        release(central);
    }
}

#[test]
fn a_record_that_is_described_anew_is_never_read_half_way() {
    let info = |page: usize, class: SizeClass| Info {
        base: Addr::new(page * PAGE_BYTES),
        pages: class.pages(),
        slot: class.size().get(),
        slots: class.objects(),
        element: 0,
        size_class: Some(class),
        class: 0,
        layout: Layout::NoScan,
        counting: Counting::One,
        drop: None,
        type_name: || "test",
        ty: None,
    };
    let classes = [2, 30, 67].map(|index| SizeClass::from_index(index).expect("a class"));
    let infos = [0, 1, 2].map(|n| info(1000 * (n + 1), classes[n]));
    let mut memory = core::mem::MaybeUninit::zeroed();
    let at = NonNull::new(memory.as_mut_ptr()).expect("not null");
    // SAFETY: the record is the test's, and zeroed.
    let span = unsafe { Span::init(at, infos[0], Generation::FIRST, infos[0].base) };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            let mut span = span;
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                turn += 1;
                let record = span.retire();
                // SAFETY: the record was given up just now.
                span =
                    unsafe { Span::init(record, infos[turn % 3], Generation::FIRST, Addr::NULL) };
            }
        });
        // SAFETY: P3, P4: the record is the test's, and outlives the threads.
        let span = unsafe { at.as_ref() };
        let _stop_at_end = StopAtEnd(stop);
        let mut seen = [0; 3];
        while seen.into_iter().any(|seen| seen < steps(100_000, 10_000_000)) {
            let Ok((_, reading)) = span.plate.read(span) else { continue };
            let which = infos.iter().position(|info| info.base == reading.pages.base());
            let which = which.expect("one of the three");
            let info = &infos[which];
            assert_eq!(reading.pages, info.range());
            assert_eq!((reading.slot, reading.slots), (info.slot, info.slots));
            assert_eq!(Some(reading.div_magic), info.size_class.map(SizeClass::div_magic));
            seen[which] += 1;
        }
    });
}

/// Not only when the change is complete: what was read of both descriptions has to be noticed, too.
#[test]
fn a_change_of_a_record_is_seen_from_its_beginning() {
    let central = central(Os::native());
    let class = class(&central, SizeClass::from_index(5), None);
    let span = central.acquire_alone(class);
    let (record, plate) = (span.span(), &span.span().plate);
    let read = || plate.read(record).ok().map(|(epoch, _)| epoch);
    let before = read().expect("nobody changes it");
    let change = plate.begin_change();
    assert!(plate.has_moved(before) && read().is_none());
    plate.end_change(change);
    assert!(plate.has_moved(before) && read().is_some_and(|epoch| epoch != before));
    central.pages().free_span(span);
    release(central);
}

/// Makes one page belong to two classes in turn, each time with another record: slots of 48 bytes, of
/// which the odd ones hold objects, and of 64, of which every third does, where a slot of 48 with an even
/// number would begin.
fn alternate(central: &Central, stop: &AtomicBool) {
    let classes = [48, 64].map(|size| class(central, SizeClass::for_size(Bytes::new(size)), None));
    let large = class(central, None, None);
    let table = central.generation().table();
    while !stop.load(Ordering::Relaxed) {
        let first = central.acquire_alone(classes[0]);
        let info = *first.info();
        (1..info.slots).step_by(2).for_each(|n| bits::set(table, slot(&info, n).start));
        central.pages().free_span(first);
        // This takes the record, and not the page.
        let between = central.acquire_large_alone(large, Bytes::new(40_000));
        let second = central.acquire_alone(classes[1]);
        let info = *second.info();
        (0..info.slots).step_by(3).for_each(|n| bits::set(table, slot(&info, n).start));
        central.pages().free_span(second);
        central.pages().free_span(between);
    }
}

#[test]
fn a_page_is_never_seen_with_the_slots_of_one_span_and_the_objects_of_another() {
    let central = central(Os::native());
    let small = class(&central, SizeClass::for_size(Bytes::new(48)), None);
    // The page in front of one that is taken is the lowest free one, and has room for small spans only.
    let [first, behind] = [0, 1].map(|_| central.acquire_alone(small));
    let page = first.info().base;
    assert_eq!(behind.info().base, page + PageCount::new(1));
    central.pages().free_span(first);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| alternate(&central, &stop));
        let _stop_at_end = StopAtEnd(&stop);
        let mut random = Random::new(0xa17e4);
        let mut seen = [0, 0];
        while seen.into_iter().any(|seen| seen < steps(30_000, 3_000_000)) {
            let at = page + Bytes::new(random.below(PAGE_BYTES));
            let Some(object) = central.find_object(at).object() else { continue };
            match object.size.get() {
                48 => assert_eq!(object.index % 2, 1, "{object:?}"),
                64 => assert_eq!(object.index % 3, 0, "{object:?}"),
                _ => panic!("{object:?}"),
            }
            seen[usize::from(object.size.get() == 64)] += 1;
        }
    });
    central.pages().free_span(behind);
    release(central);
}

#[test]
fn heaps_that_come_and_go_are_named_and_not_looked_into() {
    let asked = central(Os::native());
    let stop = AtomicBool::new(false);
    let last = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            for _ in 0..300 {
                let heap = central(Os::native());
                let class = class(&heap, SizeClass::for_size(Bytes::new(64)), None);
                let span = heap.acquire_alone(class);
                last.store(span.info().base.get(), Ordering::Relaxed);
                std::thread::yield_now();
                heap.pages().free_span(span);
                release(heap);
            }
            stop.store(true, Ordering::Relaxed);
        });
        while !stop.load(Ordering::Relaxed) && !other.is_finished() {
            match asked.find_object(Addr::new(last.load(Ordering::Relaxed))) {
                Lookup::Foreign(number) => assert!(number != 0 && number != asked.number()),
                found => assert_eq!(found, Lookup::Nowhere),
            }
        }
        other.join().expect("no panic");
    });
    release(asked);
}
