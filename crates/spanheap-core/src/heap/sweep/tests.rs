//! Sweeping and dropping against one state per slot.
//!
//! A few spans live through many generations. In each one the test allocates, marks, sweeps, and lets
//! the drop queue work now and then, as a heap would; a twin knows for each slot whether it is free, live
//! or waits for its destructor. Values carry numbers, and their destructor writes them down.
//!
//! # Safety
//! Objects are written to spans that the test owns, which are ready memory.
#![allow(unsafe_code)]

use super::*;
use crate::addr::{Addr, Bytes, WORD_BYTES};
use crate::heap::central::{Central, Config};
use crate::heap::class::{Class, ClassKey};
use crate::heap::drops::Batch;
use crate::os::{Os, SimOs, asan};
use crate::span::bits::Run;
use crate::span::size_class::SizeClass;
use crate::span::{Counting, Info, Layout};
use crate::tests::Random;
use std::cell::RefCell;

thread_local! {
    /// The numbers of the values that the destructor has seen on this thread, with their counts.
    static DROPPED: RefCell<Vec<(usize, usize)>> = const { RefCell::new(Vec::new()) };
}

/// A destructor that writes down the value's number, and now and then panics.
unsafe fn note(object: *mut u8, count: usize) {
    // SAFETY: values of the test begin with their number.
    let number = unsafe { object.cast::<usize>().read() };
    DROPPED.with_borrow_mut(|dropped| dropped.push((number, count)));
    if number % 16 == 3 {
        // Unlike `panic!`, this prints nothing.
        std::panic::resume_unwind(Box::new(number));
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    Free,
    Live(usize),
    Pending(usize),
}

/// A span of the test and what the twin knows of it. `span` is `None` while the drop queue owns it.
struct Subject {
    span: Option<OwnedSpan>,
    info: Info,
    generation: Generation,
    slots: Vec<Slot>,
}

impl Subject {
    fn new(central: &Central, class: &'static Class, generation: Generation) -> Subject {
        let mut span = central.acquire_alone(class);
        span.set_generation(generation);
        let info = *span.info();
        let slots = vec![Slot::Free; info.slots];
        Subject { span: Some(span), info, generation, slots }
    }

    fn slot(&self, index: usize) -> Addr {
        self.info.base + Bytes::new(index * self.info.slot)
    }

    fn run(&self, index: usize) -> Run {
        Run { start: self.slot(index), end: self.slot(index + 1) }
    }

    /// Puts objects into some of the free slots.
    fn allocate(&mut self, next: &mut usize, random: &mut Random) {
        let density = 1 + random.below(4);
        for index in 0..self.slots.len() {
            if self.slots[index] != Slot::Free || !random.one_in(density) {
                continue;
            }
            bits::set_run(&self.info, self.generation.table(), self.run(index));
            let object = self.slot(index);
            asan::permit(object, Bytes::new(self.info.slot));
            // SAFETY: the slot is free, in a span of the test, and at least two words long.
            unsafe { object.as_ptr::<usize>().write(*next) };
            if self.info.counting == Counting::Trailer {
                let trailer = object + Bytes::new(self.info.slot - WORD_BYTES);
                // SAFETY: as above.
                unsafe { trailer.as_ptr::<usize>().write(*next % 5) };
            }
            self.slots[index] = Slot::Live(*next);
            *next += 1;
        }
    }

    /// Marks about one live object in `one_in` less than all; sweeps; compares.
    fn sweep(&mut self, central: &Central, poison: bool, death: usize, random: &mut Random) {
        let Some(span) = self.span.take() else { return };
        let next = self.generation.next();
        let mut died = Vec::new();
        for index in 0..self.slots.len() {
            let Slot::Live(number) = self.slots[index] else { continue };
            if random.below(8) >= death {
                bits::set_run(&self.info, next.table(), self.run(index));
            } else {
                let drops = self.info.drop.is_some();
                self.slots[index] = if drops { Slot::Pending(number) } else { Slot::Free };
                died.push(index);
            }
            // The collector has scanned some of them; that must not matter.
            if random.one_in(2) {
                bits::set_run(&self.info, Table::Scanned, self.run(index));
            }
        }
        let how = How { generation: next, retain: false, poison };
        let outcome = sweep(span, central.drops(), how, central.counters().shared());
        self.generation = next;
        let (live, pending) = (self.live(), self.pending());
        let full = live + pending == self.slots.len();
        self.span = match outcome {
            Swept::Empty(span) if live + pending == 0 => Some(span),
            Swept::Partial(span, _) if live > 0 && !full => Some(span),
            Swept::Full(span) if live > 0 && full => Some(span),
            Swept::Dropping if live == 0 && pending > 0 => None,
            _ => panic!("wrong outcome for {live} live, {pending} pending of {}", self.slots.len()),
        };
        if poison && self.info.drop.is_none() {
            for index in died {
                asan::permit(self.slot(index), Bytes::new(self.info.slot));
                // SAFETY: the slot lies in the span of the test.
                let bytes = unsafe {
                    std::slice::from_raw_parts(self.slot(index).as_ptr::<u8>(), self.info.slot)
                };
                assert!(bytes.iter().all(|&byte| byte == POISON));
            }
        }
        self.compare();
    }

    fn live(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot, Slot::Live(_))).count()
    }

    fn pending(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot, Slot::Pending(_))).count()
    }

    /// All tables say what the twin says, and living objects are untouched.
    fn compare(&self) {
        let mut allocated = Vec::new();
        let mut drops = Vec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            let object = self.slot(index);
            if let Slot::Live(number) | Slot::Pending(number) = *slot {
                allocated.push(object);
                // SAFETY: the twin says that an object is there.
                assert_eq!(unsafe { object.as_ptr::<usize>().read() }, number);
            }
            if let Slot::Pending(_) = slot {
                drops.push(object);
            }
        }
        // When nothing lives, the queue owns the span, and its dead values have no allocation bits (D3).
        let owned = self.live() == 0 && !drops.is_empty();
        assert_eq!(self.bits(self.generation.table()), if owned { Vec::new() } else { allocated });
        assert_eq!(self.bits(self.generation.next().table()), []);
        assert_eq!(self.bits(Table::Scanned), []);
        assert_eq!(self.bits(Table::Drops), drops);
    }

    fn bits(&self, table: Table) -> Vec<Addr> {
        let mut set = Vec::new();
        bits::for_each_set(&self.info, table, |object| set.push(object));
        set
    }

    /// Takes note that the value with this number has been dropped; false if it is not here.
    fn dropped(&mut self, number: usize) -> bool {
        let place = self.slots.iter_mut().find(|slot| **slot == Slot::Pending(number));
        place.map(|slot| *slot = Slot::Free).is_some()
    }
}

/// Lets the drop queue do one batch and compares; false when it was idle.
fn run_batch(
    central: &Central,
    class: &'static Class,
    subjects: &mut [Subject],
    counts: &mut (u64, u64),
) -> bool {
    let batch = central.drops().run_batch(central.counters().shared());
    let dropped = DROPPED.take();
    assert!(dropped.len() <= 64, "{} values in a batch", dropped.len());
    let mut home = None;
    for &(number, count) in &dropped {
        let index = subjects.iter_mut().position(|subject| subject.dropped(number));
        let index = index.unwrap_or_else(|| panic!("value {number} was dropped and not dead"));
        assert_eq!(*home.get_or_insert(index), index, "a batch is about one span");
        let trailer = subjects[index].info.counting == Counting::Trailer;
        assert_eq!(count, if trailer { number % 5 } else { 1 });
        counts.0 += count as u64;
        counts.1 += u64::from(number % 16 == 3);
    }
    let drops = central.drops().state();
    assert_eq!((drops.dropped, drops.panics), *counts);
    match batch {
        Batch::Idle => {
            assert!(dropped.is_empty() && !central.drops().has_work());
            assert!(subjects.iter().all(|subject| subject.pending() == 0));
            assert!(subjects.iter().all(|subject| subject.span.is_some()));
            return false;
        }
        Batch::Done => {}
        Batch::Emptied(span) => {
            let base = span.info().base;
            let subject = subjects.iter_mut().find(|subject| subject.info.base == base);
            let subject = subject.expect("one of ours");
            assert!(subject.span.is_none() && subject.live() + subject.pending() == 0);
            // Its pages serve again.
            central.pages().free_span(span);
            *subject = Subject::new(central, class, subject.generation);
        }
    }
    subjects.iter().for_each(Subject::compare);
    true
}

fn run_lives(os: Os, key: ClassKey, poison: bool, random: &mut Random) {
    let central = Central::new(os, Config { poison, ..Config::default() }).expect("memory");
    let class = central.class(&key, || "test").expect("memory");
    let mut subjects: Vec<_> =
        (0..3).map(|_| Subject::new(&central, class, Generation::FIRST)).collect();
    let (mut next, mut counts) = (1, (0, 0));
    for _ in 0..40 {
        for subject in &mut subjects {
            if subject.span.is_some() && !random.one_in(5) {
                subject.allocate(&mut next, random);
            }
            // From nobody to everybody.
            let death = [0, 1, 4, 7, 8][random.below(5)];
            subject.sweep(&central, poison, death, random);
        }
        for _ in 0..random.below(4) {
            run_batch(&central, class, &mut subjects, &mut counts);
        }
        // Now and then an empty span is freed, as the sweeper would.
        for subject in &mut subjects {
            let free = subject.live() + subject.pending() == 0 && random.one_in(2);
            if let Some(span) = subject.span.take_if(|_| free) {
                central.pages().free_span(span);
                *subject = Subject::new(&central, class, subject.generation);
                subject.compare();
            }
        }
    }
    while run_batch(&central, class, &mut subjects, &mut counts) {}
    let survivors: usize = subjects.iter().map(Subject::live).sum();
    for subject in &mut subjects {
        let span = subject.span.take().expect("the queue is idle");
        // SAFETY: the test does not use the objects any more.
        unsafe { central.drops().drop_all(span.span()) };
    }
    let dropped = DROPPED.take();
    assert_eq!(dropped.len(), if key.drop.is_some() { survivors } else { 0 });
    // SAFETY: no span, no class and no object is used after this.
    unsafe { central.release() };
}

fn keys(size: usize) -> [ClassKey; 3] {
    let size_class = SizeClass::for_size(Bytes::new(size));
    let plain = ClassKey {
        size_class,
        layout: Layout::NoScan,
        counting: Counting::One,
        drop: None,
        ty: None,
    };
    let dropping = ClassKey { drop: Some(note), ..plain };
    [plain, dropping, ClassKey { counting: Counting::Trailer, ..dropping }]
}

#[test]
fn spans_of_every_kind_live_through_many_generations() {
    let mut random = Random::new(0x53ee9);
    for size in [16, 24, 48, 1024, 1408, 8192, 10240, 32768] {
        for key in keys(size) {
            for poison in [false, true] {
                run_lives(Os::native(), key, poison, &mut random);
            }
        }
    }
}

#[test]
fn the_same_on_a_simulated_system() {
    let mut random = Random::new(0x53ea0);
    for key in keys(64) {
        let sim = SimOs::builder().build();
        run_lives(Os::simulated(sim.clone()), key, true, &mut random);
        sim.assert_all_released();
    }
}

/// Whoever takes a slot of a dead object for zeros has to clear it, however new the span is.
#[test]
fn slots_of_the_dead_are_not_taken_for_zeros() {
    unsafe fn drop_nothing(_: *mut u8, _: usize) {}
    for drop in [None, Some(drop_nothing as crate::span::DropFn)] {
        let central = Central::new(Os::native(), Config::default()).expect("memory");
        let size_class = SizeClass::for_size(Bytes::new(64));
        let (layout, counting) = (Layout::NoScan, Counting::One);
        let key = ClassKey { size_class, layout, counting, drop, ty: None };
        let class = central.class(&key, || "test").expect("memory");
        let span = central.acquire_alone(class);
        let info = *span.info();
        assert_eq!(span.span().dirty_to(), info.base, "fresh from the system");
        let generation = central.generation();
        let slot = |n: usize| info.base + Bytes::new(n * info.slot);
        (0..10).for_each(|n| bits::set(generation.table(), slot(n)));
        bits::set(generation.next().table(), slot(3));
        let next = generation.next();
        central.begin_generation(next, Bytes::ZERO, 0, false);
        let how = How { generation: next, retain: false, poison: false };
        let swept = sweep(span, central.drops(), how, central.counters().shared());
        while central.run_drops() {}
        let Swept::Partial(span, _) = swept else { panic!("one of ten lives") };
        assert_eq!(span.span().dirty_to(), info.range().end());
        central.pages().free_span(span);
        // SAFETY: nobody uses the heap any more.
        unsafe { central.release() };
    }
}

/// Memory that cannot be read or written is swept as any other: the sweep of a span without destructors is about
/// side tables alone, and brings nothing of the dead or the living into a cache.
#[test]
fn without_destructors_the_sweep_does_not_touch_the_span() {
    let central = Central::new(Os::native(), Config::default()).expect("memory");
    for size in [16, 24, 48, 1024, 1408, 8192, 32768] {
        for layout in [Layout::NoScan, Layout::Words { mask: 1, period: 0 }] {
            let size_class = SizeClass::for_size(Bytes::new(size));
            let key =
                ClassKey { size_class, layout, counting: Counting::One, drop: None, ty: None };
            let class = central.class(&key, || "test").expect("memory");
            for live in 0..3 {
                let span = central.acquire_alone(class);
                let info = *span.info();
                let (old, new) = (span.span().generation(), span.span().generation().next());
                let slot = |n: usize| info.base + Bytes::new(n * info.slot);
                (0..info.slots).for_each(|n| bits::set(old.table(), slot(n)));
                (0..info.slots)
                    .filter(|n| n % 2 < live)
                    .for_each(|n| bits::set(new.table(), slot(n)));
                let pages = (info.base.as_ptr(), info.range().bytes().get());
                // SAFETY: the pages are the test's own, and nothing in them is used.
                assert_eq!(unsafe { libc::mprotect(pages.0, pages.1, libc::PROT_NONE) }, 0);
                let how = How { generation: new, retain: false, poison: false };
                let swept = sweep(span, central.drops(), how, central.counters().shared());
                // SAFETY: as it was before.
                let status =
                    unsafe { libc::mprotect(pages.0, pages.1, libc::PROT_READ | libc::PROT_WRITE) };
                assert_eq!(status, 0);
                let (Swept::Empty(span) | Swept::Partial(span, _) | Swept::Full(span)) = swept
                else {
                    panic!("nothing is dropped");
                };
                let expected = (0..info.slots).filter(|n| n % 2 < live).count();
                assert_eq!(bits::count(&info, new.table()), expected);
                central.pages().free_span(span);
            }
        }
    }
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
}
