//! Records on objects in spans of all kinds, over many generations, against a list of what every object
//! carries; and the cases in which order matters.
//!
//! # Safety
//! Spans belong to the test, and objects are held for as long as the test says so. Heaps are released when
//! nobody uses them.
#![allow(unsafe_code)]

use super::*;
use crate::addr::{Addr, Bytes};
use crate::heap::Central;
use crate::heap::central::Config;
use crate::heap::class::{Class, ClassKey};
use crate::heap::sweep::{How, sweep};
use crate::heap::swept::Swept;
use crate::os::SimOs;
use crate::span::bits::Run;
use crate::span::size_class::SizeClass;
use crate::span::{Counting, DropFn, Generation, Info, Layout, OwnedSpan};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::tests::Random;
use std::collections::BTreeMap;
use std::sync::Arc;

const KINDS: [Kind; 4] = [Kind::Finalizer, Kind::Cleanup, Kind::Weak, Kind::Profile];

unsafe fn drop_nothing(_: *mut u8, _: usize) {}

fn class(central: &Central, size: usize, drop: Option<DropFn>) -> &'static Class {
    let size_class = SizeClass::for_size(Bytes::new(size));
    let key =
        ClassKey { size_class, layout: Layout::NoScan, counting: Counting::One, drop, ty: None };
    central.class(&key, || "test").expect("memory")
}

fn acquire(central: &Central, class: &'static Class) -> OwnedSpan {
    match class.key().size_class {
        Some(_) => central.acquire_alone(class),
        None => central.acquire_large_alone(class, Bytes::new(50_000)),
    }
}

fn slot(info: &Info, index: usize) -> Run {
    let start = info.base + Bytes::new(index * info.slot);
    Run { start, end: start + Bytes::new(info.slot) }
}

fn add(central: &Central, object: Addr, kind: Kind, payload: usize) -> Result<u64, AddError> {
    let found = central.find_object(object);
    let (os, memory) = (central.os(), central.memory());
    // SAFETY: the test holds the object, if it is one.
    unsafe { central.drops().specials().add(os, memory, found, kind, [payload, !payload]) }
}

fn records(central: &Central, object: Addr) -> Vec<(Kind, u64)> {
    let mut all = Vec::new();
    let note = |special: &Special| all.push((special.kind, special.number));
    // SAFETY: the test holds the object.
    unsafe { central.drops().specials().for_each(central.find_object(object), note) }
        .expect("an object of the heap");
    all
}

/// The pages that the arenas have marked as the first of a span with records.
fn special_pages(central: &Central) -> Vec<Addr> {
    let arenas = central.pages().arenas();
    let mut pages: Vec<Addr> =
        arenas.flat_map(|a| a.special_pages().map(|page| a.page_base(page))).collect();
    pages.sort();
    pages
}

fn begin_generation(central: &Central, retain: bool) -> Generation {
    let next = central.generation().next();
    central.begin_generation(next, Bytes::ZERO, 0, retain);
    next
}

/// A span, with what its slots carry: nothing, or an object with these records.
struct Subject {
    span: Option<OwnedSpan>,
    info: Info,
    objects: BTreeMap<usize, Vec<(Kind, u64)>>,
}

/// A heap with a few spans and what is known of them.
struct Bench {
    central: Central,
    sim: Arc<SimOs>,
    subjects: Vec<Subject>,
    due: Vec<(Addr, Kind, u64)>,
    profiles: u64,
}

impl Bench {
    fn new(spans: &[(usize, Option<DropFn>)]) -> Bench {
        let sim = SimOs::builder().build();
        let central = Central::new(Os::simulated(sim.clone()), Config::default()).expect("memory");
        let mut bench = Bench { central, sim, subjects: Vec::new(), due: Vec::new(), profiles: 0 };
        for &(size, drop) in spans {
            let span = acquire(&bench.central, class(&bench.central, size, drop));
            let info = *span.info();
            bench.subjects.push(Subject { span: Some(span), info, objects: BTreeMap::new() });
        }
        bench
    }

    fn allocate(&mut self, random: &mut Random) {
        let table = self.central.generation().table();
        for subject in &mut self.subjects {
            let info = subject.info;
            let drops = |start| bits::is_set(Table::Drops, start);
            for index in 0..info.slots.min(12) {
                let free = subject.span.is_some() && !drops(slot(&info, index).start);
                if free && !subject.objects.contains_key(&index) && random.one_in(2) {
                    bits::set_run(&info, table, slot(&info, index));
                    subject.objects.insert(index, Vec::new());
                }
            }
        }
    }

    /// Adds or removes a record of some object.
    fn change(&mut self, random: &mut Random) {
        let at = random.below(self.subjects.len());
        let subject = &mut self.subjects[at];
        let Some(nth) = subject.objects.len().checked_sub(1) else { return };
        let (index, twin) =
            subject.objects.iter_mut().nth(random.below(nth + 1)).expect("there are more");
        let start = slot(&subject.info, *index).start;
        let kind = KINDS[random.below(4)];
        let found = self.central.find_object(start);
        let specials = self.central.drops().specials();
        match random.below(8) {
            0..=5 => {
                let exists = twin.iter().any(|record| record.0 == kind);
                match add(&self.central, start, kind, *index) {
                    Ok(number) => {
                        assert!(!exists || kind == Kind::Cleanup);
                        twin.push((kind, number));
                        twin.sort();
                    }
                    Err(error) => {
                        assert_eq!(error, AddError::Exists);
                        assert!(exists && kind != Kind::Cleanup);
                    }
                }
            }
            6 => {
                let place = twin.iter().position(|record| record.0 == kind);
                // SAFETY: the test holds the object.
                let removed = unsafe { specials.remove(found, kind, None) }.expect("an object");
                assert_eq!(removed, place.map(|_| [*index, !*index]));
                place.map(|place| twin.remove(place));
            }
            _ => {
                let mut taken = Vec::new();
                let note = |special: &Special| taken.push((special.kind, special.number));
                // SAFETY: the test holds the object.
                unsafe { specials.take(found, note) }.expect("an object");
                assert_eq!(taken, core::mem::take(twin));
            }
        }
    }

    /// A cycle: some objects are marked, the generation begins, each span is swept.
    fn cycle(&mut self, random: &mut Random) {
        let retain = random.one_in(6);
        let next = self.central.generation().next();
        let death = random.below(5);
        let mut dead = Vec::new();
        for subject in self.subjects.iter().filter(|subject| subject.span.is_some()) {
            for &index in subject.objects.keys() {
                if random.below(4) >= death {
                    bits::set_run(&subject.info, next.table(), slot(&subject.info, index));
                } else if !retain {
                    dead.push(slot(&subject.info, index).start);
                }
            }
        }
        assert_eq!(begin_generation(&self.central, retain), next);
        for at in 0..self.subjects.len() {
            let Some(span) = self.subjects[at].span.take() else { continue };
            // Records may come while a span is unswept, on objects that live.
            for _ in 0..random.below(4) {
                self.add_to_one_that_lives(at, &dead, random);
            }
            let how = How { generation: next, retain, poison: false };
            let swept = sweep(span, self.central.drops(), how, self.central.counters().shared());
            let subject = &mut self.subjects[at];
            expect(subject, &dead, &mut self.due, &mut self.profiles);
            subject.span = match swept {
                Swept::Empty(span) | Swept::Partial(span, _) | Swept::Full(span) => Some(span),
                Swept::Dropping => None,
            };
            assert!(subject.span.is_some() || subject.objects.is_empty());
        }
    }

    fn add_to_one_that_lives(&mut self, at: usize, dead: &[Addr], random: &mut Random) {
        let subject = &mut self.subjects[at];
        let info = subject.info;
        let lives = |index: &usize| !dead.contains(&slot(&info, *index).start);
        let living: Vec<usize> = subject.objects.keys().copied().filter(lives).collect();
        if let Some(&index) = living.get(random.below(living.len().max(1))) {
            let number = add(&self.central, slot(&info, index).start, Kind::Cleanup, index);
            let twin = subject.objects.get_mut(&index).expect("it lives");
            twin.push((Kind::Cleanup, number.expect("any number of cleanups")));
            twin.sort();
        }
    }

    /// Everything that can be seen is what it should be.
    fn check(&self) {
        let (mut count, mut pages) = (self.due.len(), Vec::new());
        for subject in &self.subjects {
            let mut any = false;
            for index in 0..subject.info.slots.min(12) {
                let start = slot(&subject.info, index).start;
                match subject.objects.get(&index) {
                    Some(twin) => {
                        assert_eq!(records(&self.central, start), *twin);
                        count += twin.len();
                        any |= !twin.is_empty();
                    }
                    None => assert!(self.central.find_object(start).object().is_none()),
                }
            }
            let has = subject.span.as_ref().is_some_and(|span| span.span().has_specials());
            assert_eq!(has, any);
            pages.extend(any.then_some(subject.info.base));
        }
        pages.sort();
        assert_eq!(special_pages(&self.central), pages);
        assert_eq!(self.central.drops().specials().counts(), (count, self.profiles));
    }

    fn drain(&mut self) {
        for (object, kind, number) in self.due.drain(..) {
            let due = self.central.drops().specials().next_due().expect("it is due");
            assert_eq!((due.object, due.kind, due.number), (object, kind, number));
        }
        assert!(self.central.drops().specials().next_due().is_none());
    }

    /// Spans that the drop queue owns come back as fresh ones.
    fn run_drops(&mut self) {
        while self.central.run_drops() {}
        for subject in self.subjects.iter_mut().filter(|subject| subject.span.is_none()) {
            let (size, drop) = (subject.info.slot, subject.info.drop);
            let span = acquire(&self.central, class(&self.central, size, drop));
            subject.info = *span.info();
            subject.span = Some(span);
        }
    }

    fn end(self) {
        // SAFETY: no span, class or object is used after this. Records that are left go with the heap.
        unsafe { self.central.release() };
        self.sim.assert_all_released();
    }
}

/// What a sweep does to the records of the objects that are dead.
fn expect(
    subject: &mut Subject,
    dead: &[Addr],
    due: &mut Vec<(Addr, Kind, u64)>,
    profiles: &mut u64,
) {
    let info = subject.info;
    subject.objects.retain(|&index, twin| {
        let start = slot(&info, index).start;
        if !dead.contains(&start) {
            return true;
        }
        let revived = twin.iter().any(|record| record.0 == Kind::Finalizer);
        let goes: &[Kind] = match revived {
            true => &[Kind::Weak, Kind::Finalizer],
            false => &[Kind::Weak, Kind::Cleanup, Kind::Profile],
        };
        for &kind in goes {
            for &(_, number) in twin.iter().filter(|record| record.0 == kind) {
                match kind {
                    Kind::Profile => *profiles += 1,
                    _ => due.push((start, kind, number)),
                }
            }
        }
        twin.retain(|record| !goes.contains(&record.0));
        revived
    });
}

#[test]
fn records_live_and_die_with_their_objects_in_spans_of_all_kinds() {
    let drop = Some(drop_nothing as DropFn);
    let mut random = Random::new(0x59ec);
    let spans = [16, 24, 640, 1408, 10240, 50_000].map(|size| [(size, None), (size, drop)]);
    let mut bench = Bench::new(spans.as_flattened());
    let mut seen = 0;
    for _ in 0..400 {
        bench.allocate(&mut random);
        for _ in 0..random.below(60) {
            bench.change(&mut random);
        }
        bench.check();
        bench.cycle(&mut random);
        bench.check();
        if random.one_in(2) {
            bench.run_drops();
        }
        if random.one_in(3) {
            seen += bench.due.len();
            bench.drain();
        }
        bench.check();
    }
    assert!(seen > 1000 && bench.profiles > 100, "{seen} due, {} profiles", bench.profiles);
    // Everything dies, and twice what has a finalizer; then no record is left.
    for subject in &mut bench.subjects {
        for index in subject.objects.keys() {
            bits::clear(bench.central.generation().table(), slot(&subject.info, *index).start);
        }
    }
    for _ in 0..2 {
        let next = begin_generation(&bench.central, false);
        for at in 0..bench.subjects.len() {
            let Some(span) = bench.subjects[at].span.take() else { continue };
            let how = How { generation: next, retain: false, poison: false };
            bench.subjects[at].span =
                match sweep(span, bench.central.drops(), how, bench.central.counters().shared()) {
                    Swept::Empty(span) | Swept::Partial(span, _) | Swept::Full(span) => Some(span),
                    Swept::Dropping => None,
                };
        }
    }
    let specials = bench.central.drops().specials();
    while specials.next_due().is_some() {}
    assert_eq!(specials.counts().0, 0);
    assert_eq!(special_pages(&bench.central), []);
    bench.end();
}

#[test]
fn records_that_are_left_go_with_their_heap() {
    let mut bench = Bench::new(&[(64, None), (50_000, None)]);
    bench.allocate(&mut Random::new(0xe4d));
    for (at, kind) in [(0, Kind::Weak), (1, Kind::Finalizer)] {
        bits::set_run(
            &bench.subjects[at].info,
            bench.central.generation().table(),
            slot(&bench.subjects[at].info, 0),
        );
        assert!(add(&bench.central, bench.subjects[at].info.base, kind, 0).is_ok());
    }
    assert_eq!(bench.central.drops().specials().counts().0, 2);
    bench.end();
}

#[test]
fn a_finalizer_keeps_its_object_for_one_cycle_and_the_profile_is_counted_once() {
    let mut bench = Bench::new(&[(32, None)]);
    let central = &bench.central;
    let mut span = bench.subjects[0].span.take().expect("it is ours");
    let object = span.info().base;
    bits::set_run(span.info(), central.generation().table(), slot(span.info(), 0));
    // In an order of its own; the cleanups keep theirs.
    for (kind, payload) in
        [(Kind::Profile, 1), (Kind::Cleanup, 2), (Kind::Weak, 3), (Kind::Finalizer, 4)]
    {
        assert!(add(central, object, kind, payload).is_ok());
    }
    assert!(add(central, object, Kind::Cleanup, 5).is_ok());
    let specials = central.drops().specials();
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let next = begin_generation(central, false);
        let how = How { generation: next, retain: false, poison: true };
        let (swept, lives) = match sweep(span, central.drops(), how, central.counters().shared()) {
            Swept::Partial(span, _) => (span, true),
            Swept::Empty(span) => (span, false),
            _ => panic!("one object at most, and no destructor"),
        };
        span = swept;
        let due = core::iter::from_fn(|| specials.next_due());
        let due: Vec<_> = due.map(|due| (due.kind, due.payload)).collect();
        assert_eq!(central.find_object(object).object().is_some(), lives);
        rounds.push((lives, due, specials.counts()));
    }
    let first = vec![(Kind::Weak, [3, !3]), (Kind::Finalizer, [4, !4])];
    let second = vec![(Kind::Cleanup, [2, !2]), (Kind::Cleanup, [5, !5])];
    let expected = [(true, first, (3, 0)), (false, second, (0, 1)), (false, Vec::new(), (0, 1))];
    assert_eq!(rounds, expected);
    central.pages().free_span(span);
    bench.end();
}

#[test]
fn only_the_first_byte_of_an_object_of_this_heap_takes_records() {
    let mut bench = Bench::new(&[(24, None), (50_000, None)]);
    let other = Central::new(Os::native(), Config::default()).expect("memory");
    let foreign = acquire(&other, class(&other, 64, None));
    bits::set_run(foreign.info(), other.generation().table(), slot(foreign.info(), 0));
    let mut random = Random::new(0x6a4b);
    let table = bench.central.generation().table();
    for subject in &bench.subjects {
        bits::set_run(&subject.info, table, slot(&subject.info, 0));
    }
    let central = &bench.central;
    let [small, large] = [0, 1].map(|at| bench.subjects[at].info);
    let mut wrong = vec![
        Addr::NULL,
        Addr::new(usize::MAX),
        Addr::new(1 << 47),
        foreign.info().base,
        small.base + Bytes::new(1),
        small.base + Bytes::new(23),
        small.base + Bytes::new(24),
        small.range().end() - Bytes::new(1),
        large.base + Bytes::new(16),
        large.range().end() - Bytes::new(8),
        large.range().end(),
    ];
    wrong.extend((0..2000).map(|_| Addr::new((random.next() << random.below(17)) as usize | 1)));
    for at in wrong {
        let specials = central.drops().specials();
        assert_eq!(add(central, at, Kind::Weak, 0), Err(AddError::NotAnObject), "{at}");
        let found = central.find_object(at);
        // SAFETY: nothing of this heap begins there.
        assert_eq!(unsafe { specials.remove(found, Kind::Weak, None) }, Err(NotAnObject));
        // SAFETY: as above.
        assert_eq!(unsafe { specials.take(found, |_| {}) }, Err(NotAnObject));
        // SAFETY: as above.
        assert_eq!(unsafe { specials.for_each(found, |_| {}) }, Err(NotAnObject));
    }
    assert_eq!(central.drops().specials().counts(), (0, 0));
    for base in [small.base, large.base] {
        assert!(add(central, base, Kind::Weak, 0).is_ok());
        assert_eq!(add(central, base, Kind::Weak, 0), Err(AddError::Exists));
    }
    assert_eq!(central.drops().specials().counts(), (2, 0));
    other.pages().free_span(foreign);
    // SAFETY: nobody uses it any more.
    unsafe { other.release() };
    bench.subjects.clear();
    bench.end();
}

#[test]
fn a_record_without_memory_is_refused_and_leaves_nothing() {
    let bench = Bench::new(&[(64, None)]);
    let info = bench.subjects[0].info;
    bits::set_run(&info, bench.central.generation().table(), slot(&info, 0));
    bench.sim.set_fail_from(Some(1));
    let mut added = 0;
    let refused = loop {
        match add(&bench.central, info.base, Kind::Cleanup, added) {
            Ok(_) => added += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AddError::Memory(_)), "{refused:?}");
    assert_eq!(bench.central.drops().specials().counts().0, added);
    bench.sim.set_fail_from(None);
    assert!(add(&bench.central, info.base, Kind::Cleanup, added).is_ok());
    let numbers: Vec<u64> = records(&bench.central, info.base).iter().map(|r| r.1).collect();
    assert!(numbers.iter().copied().eq(1..=added as u64 + 1));
    bench.end();
}

#[test]
#[should_panic(expected = "with records of its objects")]
fn a_span_is_not_freed_with_records() {
    let mut bench = Bench::new(&[(64, None)]);
    let span = bench.subjects[0].span.take().expect("it is ours");
    bits::set_run(span.info(), bench.central.generation().table(), slot(span.info(), 0));
    assert!(add(&bench.central, span.info().base, Kind::Weak, 0).is_ok());
    bench.central.pages().free_span(span);
}

#[test]
fn records_come_and_go_while_the_span_is_swept() {
    let bench = Bench::new(&[(64, None)]);
    let Bench { central, sim, mut subjects, .. } = bench;
    let mut span = subjects[0].span.take().expect("it is ours");
    let info = *span.info();
    let stop = AtomicBool::new(false);
    // Each thread holds objects of its own; what lies between them dies again and again.
    let held = |thread: usize| (0..8).map(move |n| 4 * n + 1 + thread);
    for index in (0..2).flat_map(held) {
        bits::set_run(&info, central.generation().table(), slot(&info, index));
    }
    std::thread::scope(|scope| {
        let workers = [0, 1].map(|thread| {
            let (central, info) = (&central, &info);
            scope.spawn(move || {
                let mut random = Random::new(0x3c + thread as u64);
                for _ in 0..4000 {
                    let index = held(thread).nth(random.below(8)).expect("eight");
                    let object = slot(info, index).start;
                    let before = records(central, object);
                    let number = add(central, object, Kind::Cleanup, index).expect("memory");
                    assert_eq!(records(central, object).len(), before.len() + 1);
                    if before.len() > 3 {
                        let specials = central.drops().specials();
                        let found = central.find_object(object);
                        // SAFETY: this thread holds the object.
                        let taken = unsafe { specials.remove(found, Kind::Cleanup, Some(number)) };
                        assert_eq!(taken, Ok(Some([index, !index])));
                    }
                }
            })
        });
        let (central, stop) = (&central, &stop);
        let sweeper = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let next = central.generation().next();
                for index in (0..2).flat_map(held) {
                    bits::set_run(&info, next.table(), slot(&info, index));
                }
                central.begin_generation(next, Bytes::ZERO, 0, false);
                let how = How { generation: next, retain: false, poison: false };
                span = match sweep(span, central.drops(), how, central.counters().shared()) {
                    Swept::Partial(span, _) => span,
                    _ => panic!("16 objects live"),
                };
            }
        });
        // The sweeper ends also when a worker has failed.
        let ends = workers.map(|worker| worker.join());
        stop.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(Result::is_ok));
        sweeper.join().expect("no panic");
    });
    let left: usize =
        (0..2).flat_map(held).map(|i| records(&central, slot(&info, i).start).len()).sum();
    assert_eq!(central.drops().specials().counts(), (left, 0));
    assert!(central.drops().specials().next_due().is_none(), "nothing that was held has died");
    // SAFETY: nobody uses it any more.
    unsafe { central.release() };
    sim.assert_all_released();
}
