//! Sets of spans over many generations, against a twin that knows where each span is; and several threads
//! that take, put and steal.
//!
//! # Safety
//! Span records are memory of the test and outlive the sets' use. Sets are leaked, so they are `'static`.
#![allow(unsafe_code)]

use super::*;
use crate::span::tests::Records;
use crate::sync::atomic::{AtomicU32, AtomicUsize};
use crate::tests::{Random, steps};

/// Where the twin says that a span is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Nowhere: its record describes nothing.
    Gone,
    /// The test owns it: a cache, or the sweeper.
    Out,
    /// In a set, swept for this generation; the flag says whether it has room.
    In { set: usize, generation: Generation, room: Room },
}

const SETS: usize = 3;
const SPANS: usize = 24;

/// Some sets of a heap, the spans that are out, and where every span is.
struct Bench {
    sets: [&'static SpanSet; SETS],
    backlog: Backlog,
    records: Records,
    out: Vec<OwnedSpan>,
    places: [Place; SPANS],
    /// The newest generation that each set has heard of.
    newest: [Generation; SETS],
    /// Pages that have been swept.
    swept: u64,
    /// Steals that came to something, and steals that did not.
    steals: [usize; 2],
    /// How often at most one span was taken at once, and how often several.
    batches: [usize; 2],
}

impl Bench {
    fn new(first: Generation) -> Bench {
        let sets = std::array::from_fn(|_| &*Box::leak(Box::new(SpanSet::new())));
        let backlog = Backlog::new();
        // Half the numbers in one step would be a step back, so sets are led up in two.
        let half = Generation::new(first.get() / 2);
        for set in sets {
            set.catch_up(half, &backlog);
            set.catch_up(first, &backlog);
        }
        Bench {
            sets,
            backlog,
            records: Records::new(SPANS),
            out: Vec::new(),
            places: [Place::Gone; SPANS],
            newest: [first; SETS],
            swept: 0,
            steals: [0; 2],
            batches: [0; 2],
        }
    }

    /// What a caller that knows `generation` tells a set.
    fn hear(&mut self, set: usize, generation: Generation) {
        if generation.is_after(self.newest[set]) {
            self.newest[set] = generation;
        }
    }

    /// Whether a span waits to be swept in a set.
    fn waits_in(&self, place: Place, set: usize) -> bool {
        matches!(place, Place::In { set: s, generation, .. }
            if s == set && generation != self.newest[set])
    }

    fn is_ready_in(&self, place: Place, set: usize) -> bool {
        matches!(place, Place::In { set: s, generation, room: Room::Some | Room::Most }
            if s == set && generation == self.newest[set])
    }

    fn leave(&mut self, span: OwnedSpan) -> Place {
        let index = span.info().class as usize;
        let place = std::mem::replace(&mut self.places[index], Place::Out);
        let Place::In { generation, .. } = place else { panic!("{index} was handed out twice") };
        assert_eq!(span.span().generation(), generation);
        assert!(span.span().home().is_none());
        self.out.push(span);
        place
    }

    /// A span leaves to be swept, which is counted as done at once.
    fn leave_unswept(&mut self, set: usize, (span, target): (OwnedSpan, Generation)) {
        assert_eq!(target, self.newest[set]);
        assert!(!self.backlog.is_clear(), "a span is being swept");
        let pages = span.info().pages;
        let place = self.leave(span);
        assert!(self.waits_in(place, set));
        self.backlog.finish(pages);
        self.swept += pages.get() as u64;
    }

    fn put(
        &mut self,
        set: usize,
        mut span: OwnedSpan,
        caller: Generation,
        room: Room,
        sweep: bool,
    ) {
        if sweep {
            span.set_generation(self.newest[set]);
        }
        let (index, generation) = (span.info().class as usize, span.span().generation());
        self.hear(set, caller);
        self.hear(set, generation);
        self.places[index] = Place::In { set, generation, room };
        self.sets[set].put(span, caller, room, &self.backlog);
    }

    fn take_astray(&mut self, set: usize, caller: Generation) {
        self.hear(set, caller);
        let newest = self.newest[set];
        let is_astray = |place: &Place| {
            matches!(place, Place::In { set: s, generation, room: Room::Astray }
                if *s == set && *generation == newest)
        };
        match self.sets[set].take_astray(caller, &self.backlog) {
            Some(span) => assert!(is_astray(&self.leave(span))),
            None => assert!(!self.places.iter().any(is_astray)),
        }
    }

    fn take(&mut self, set: usize, caller: Generation) {
        self.hear(set, caller);
        match self.sets[set].take(caller, &self.backlog) {
            Some(Taken::Ready(span)) => {
                let place = self.leave(span);
                assert!(self.is_ready_in(place, set), "given for allocation: {place:?}");
                if matches!(place, Place::In { room: Room::Most, .. }) {
                    let fuller = |&place: &Place| {
                        matches!(place, Place::In { room: Room::Some, .. })
                            && self.is_ready_in(place, set)
                    };
                    assert!(!self.places.iter().any(fuller), "fuller spans come first");
                }
            }
            Some(Taken::Unswept(span, target)) => {
                let ready = self.places.iter().any(|&place| self.is_ready_in(place, set));
                assert!(!ready, "swept spans come first");
                self.leave_unswept(set, (span, target));
            }
            None => assert!(
                !self
                    .places
                    .iter()
                    .any(|&place| { self.is_ready_in(place, set) || self.waits_in(place, set) })
            ),
        }
    }

    fn take_unswept(&mut self, set: usize, caller: Generation) {
        self.hear(set, caller);
        match self.sets[set].take_unswept(caller, &self.backlog) {
            Some(unswept) => self.leave_unswept(set, unswept),
            None => {
                let waits = self.places.iter().any(|&place| self.waits_in(place, set));
                assert!(!waits, "an unswept span was passed over");
            }
        }
    }

    /// Takes up to `most` spans with one visit.
    fn take_unswept_some(&mut self, set: usize, most: usize, caller: Generation) {
        self.hear(set, caller);
        let mut spans: [Option<OwnedSpan>; SPANS] = std::array::from_fn(|_| None);
        let places = &mut spans[..most];
        let (count, target) = self.sets[set].take_unswept_some(places, caller, &self.backlog);
        assert!(spans.iter().enumerate().all(|(index, span)| span.is_some() == (index < count)));
        for span in spans.into_iter().flatten() {
            self.leave_unswept(set, (span, target));
        }
        let waits = self.places.iter().any(|&place| self.waits_in(place, set));
        assert!(count == most || !waits, "an unswept span was passed over");
        self.batches[usize::from(count > 1)] += 1;
    }

    /// Puts up to `most` of the spans that are out into a set, with one visit, swept or not.
    fn put_some(&mut self, set: usize, most: usize, caller: Generation, random: &mut Random) {
        let mut spans: [Option<(OwnedSpan, Room)>; SPANS] = std::array::from_fn(|_| None);
        for place in spans.iter_mut().take(most) {
            // Places may be empty, as those of spans that were found dead are.
            if self.out.is_empty() || random.one_in(4) {
                continue;
            }
            let mut span = self.out.swap_remove(random.below(self.out.len()));
            self.hear(set, caller);
            if random.one_in(2) {
                span.set_generation(self.newest[set]);
            }
            let (index, generation) = (span.info().class as usize, span.span().generation());
            self.hear(set, generation);
            let room = [Room::None, Room::Some, Room::Most, Room::Astray][random.below(4)];
            self.places[index] = Place::In { set, generation, room };
            *place = Some((span, room));
        }
        self.sets[set].put_some(&mut spans, caller, &self.backlog);
        assert!(spans.iter().all(Option::is_none), "all are in the set's lists");
    }

    /// Tries to take a span by its record out of a set in which it need not be.
    fn steal(&mut self, set: usize, index: usize, caller: Generation) {
        self.hear(set, caller);
        let place = self.places[index];
        // SAFETY: a record of the test.
        let record = unsafe { self.records.at(index).as_ref() };
        let home = self.sets.iter().position(|&set| record.home().is_some_and(|h| ptr::eq(h, set)));
        let expected = match place {
            Place::In { set, .. } => Some(set),
            _ => None,
        };
        assert_eq!(home, expected);
        let stolen = self.sets[set].steal(record, caller, &self.backlog);
        assert_eq!(stolen.is_some(), self.waits_in(place, set));
        self.steals[usize::from(stolen.is_some())] += 1;
        if let Some(unswept) = stolen {
            assert_eq!(unswept.0.info().class as usize, index);
            self.leave_unswept(set, unswept);
        }
    }

    /// Whether the twin knows of a span of that kind in a set.
    fn has(&self, set: usize, kind: Kind) -> bool {
        self.places.iter().any(|&place| match (place, kind) {
            (Place::In { set: s, generation, room }, _)
                if s == set && generation == self.newest[set] =>
            {
                match room {
                    Room::Some => kind == Kind::Partial,
                    Room::Most => kind == Kind::Sparse,
                    Room::Astray => kind == Kind::Astray,
                    Room::None => false,
                }
            }
            (place, kind) => kind == Kind::Unswept && self.waits_in(place, set),
        })
    }

    /// The backlog is what the twin would count, and a glance shows what is there.
    fn check(&self) {
        for set in 0..SETS {
            for kind in [Kind::Partial, Kind::Sparse, Kind::Unswept, Kind::Astray] {
                assert_eq!(self.sets[set].may_have(kind), self.has(set, kind), "{kind:?} in {set}");
            }
        }
        let mut waiting = 0;
        for (index, &place) in self.places.iter().enumerate() {
            if let Place::In { set, .. } = place {
                waiting += if self.waits_in(place, set) { index + 1 } else { 0 };
            }
        }
        assert_eq!(self.backlog.waiting(), PageCount::new(waiting));
        assert_eq!(self.backlog.is_clear(), waiting == 0);
        assert_eq!(self.backlog.swept(), self.swept);
        let out = self.places.iter().filter(|place| **place == Place::Out).count();
        assert_eq!(out, self.out.len());
    }
}

fn run_sets(seed: u64, first: Generation) {
    let mut random = Random::new(seed);
    let mut bench = Bench::new(first);
    let mut heap = first;
    for _ in 0..steps(50_000, 1_000_000) {
        if random.one_in(40) {
            heap = heap.next();
        }
        // A caller may be a few generations behind the heap.
        let behind = if random.one_in(3) { random.below(3) as u32 } else { 0 };
        let caller = Generation::new(heap.get().wrapping_sub(behind));
        let (set, index) = (random.below(SETS), random.below(SPANS));
        match random.below(13) {
            12 => bench.put_some(set, random.below(6), heap, &mut random),
            11 => bench.take_unswept_some(set, 1 + random.below(6), caller),
            10 => bench.take_astray(set, caller),
            0 | 1 => bench.take(set, caller),
            2 => bench.take_unswept(set, caller),
            3 | 4 => bench.steal(set, index, caller),
            5 if bench.places[index] == Place::Gone => {
                bench.out.push(bench.records.make(index, caller));
                bench.places[index] = Place::Out;
            }
            6 if !bench.out.is_empty() && random.one_in(4) => {
                let span = bench.out.swap_remove(random.below(bench.out.len()));
                bench.places[span.info().class as usize] = Place::Gone;
                let _recycled = span.retire();
            }
            _ if bench.out.is_empty() => bench.take(set, heap),
            _ => {
                let span = bench.out.swap_remove(random.below(bench.out.len()));
                let room = [Room::None, Room::Some, Room::Most, Room::Astray][random.below(4)];
                let sweep = random.one_in(2);
                bench.put(set, span, caller, room, sweep);
            }
        }
        bench.check();
    }
    assert!(bench.steals.iter().all(|&n| n > 100), "{:?}", bench.steals);
    assert!(bench.batches.iter().all(|&n| n > 100), "{:?}", bench.batches);
    // One more generation makes everything unswept, and everything can be had.
    for set in 0..SETS {
        while let Some(unswept) = bench.sets[set].take_unswept(heap.next(), &bench.backlog) {
            bench.hear(set, heap.next());
            bench.leave_unswept(set, unswept);
        }
    }
    bench.check();
    assert!(bench.places.iter().all(|place| matches!(place, Place::Gone | Place::Out)));
}

#[test]
fn no_span_is_lost_given_out_twice_or_given_for_allocation_unswept() {
    run_sets(0xc1a5, Generation::FIRST);
    run_sets(0xc1a6, Generation::new((1 << 31) - 20));
    run_sets(0xc1a7, Generation::new(u32::MAX - 20));
}

/// Who has a span, as the threads below note it.
struct Owners {
    sets: [&'static SpanSet; SETS],
    backlog: Backlog,
    generation: AtomicU32,
    records: Records,
    held: Vec<AtomicUsize>,
    stolen: AtomicUsize,
}

impl Owners {
    fn generation(&self) -> Generation {
        Generation::new(self.generation.load(Ordering::Acquire))
    }

    fn got(&self, span: &OwnedSpan) {
        let index = span.info().class as usize;
        assert_eq!(self.held[index].swap(1, Ordering::Relaxed), 0, "{index} has two owners");
    }

    fn put(&self, set: usize, span: OwnedSpan, room: Room) {
        let index = span.info().class as usize;
        assert_eq!(self.held[index].swap(0, Ordering::Relaxed), 1, "{index} had no owner");
        self.sets[set].put(span, self.generation(), room, &self.backlog);
    }

    fn got_unswept(&self, (mut span, target): (OwnedSpan, Generation)) -> OwnedSpan {
        self.got(&span);
        assert_ne!(span.span().generation(), target, "swept twice");
        span.set_generation(target);
        self.backlog.finish(span.info().pages);
        span
    }

    /// Takes some spans of a set with one visit, sweeps them, and puts most of them back with another.
    fn sweep_some(&self, set: &'static SpanSet, generation: Generation) {
        let mut spans = [const { None }; 4];
        let (count, target) = set.take_unswept_some(&mut spans, generation, &self.backlog);
        assert_eq!(spans.iter().flatten().count(), count);
        let mut kept = spans.map(|span| {
            let span = self.got_unswept((span?, target));
            assert_eq!(self.held[span.info().class as usize].swap(0, Ordering::Relaxed), 1);
            Some((span, Room::Some))
        });
        set.put_some(&mut kept, target, &self.backlog);
    }

    /// What one thread does. It keeps a few spans for a while, and sometimes makes another one of a
    /// record, as the page heap does.
    fn work(&self, mut random: Random, steps: usize) {
        let mut kept: Vec<OwnedSpan> = Vec::new();
        for _ in 0..steps {
            let (set, generation) = (random.below(SETS), self.generation());
            let got = match random.below(8) {
                0 | 1 => match self.sets[set].take(generation, &self.backlog) {
                    Some(Taken::Ready(span)) => {
                        self.got(&span);
                        Some(span)
                    }
                    Some(Taken::Unswept(span, target)) => Some(self.got_unswept((span, target))),
                    None => None,
                },
                2 if random.one_in(2) => {
                    let unswept = self.sets[set].take_unswept(generation, &self.backlog);
                    unswept.map(|unswept| self.got_unswept(unswept))
                }
                2 => {
                    self.sweep_some(self.sets[set], generation);
                    None
                }
                3..=5 => {
                    // SAFETY: a record of the test, in whatever state.
                    let record = unsafe { self.records.at(random.below(SPANS)).as_ref() };
                    let home = record.home();
                    let stolen =
                        home.and_then(|home| home.steal(record, generation, &self.backlog));
                    self.stolen.fetch_add(usize::from(stolen.is_some()), Ordering::Relaxed);
                    stolen.map(|unswept| self.got_unswept(unswept))
                }
                6 if random.one_in(20) => {
                    let _ = self.generation.compare_exchange(
                        generation.get(),
                        generation.next().get(),
                        Ordering::AcqRel,
                        Ordering::Relaxed,
                    );
                    None
                }
                _ => None,
            };
            kept.extend(got);
            if kept.len() > 3 || (random.one_in(2) && !kept.is_empty()) {
                let mut span = kept.swap_remove(random.below(kept.len()));
                if random.one_in(8) {
                    let index = span.info().class as usize;
                    let _recycled = span.retire();
                    span = self.records.make(index, generation);
                }
                self.put(random.below(SETS), span, random.one_in(2).into());
            }
        }
        for span in kept {
            self.put(random.below(SETS), span, Room::Some);
        }
    }
}

#[test]
fn threads_that_take_and_steal_have_each_span_alone() {
    let owners = Owners {
        sets: std::array::from_fn(|_| &*Box::leak(Box::new(SpanSet::new()))),
        backlog: Backlog::new(),
        generation: AtomicU32::new(0),
        records: Records::new(SPANS),
        held: (0..SPANS).map(|_| AtomicUsize::new(1)).collect(),
        stolen: AtomicUsize::new(0),
    };
    for index in 0..SPANS {
        owners.put(index % SETS, owners.records.make(index, Generation::FIRST), Room::Some);
    }
    std::thread::scope(|scope| {
        for thread in 0..4 {
            // Made here, because it prints its seed, and a sanitizer does not see the lock of the output.
            let (owners, random) = (&owners, Random::new(0x57ea1 + thread));
            scope.spawn(move || owners.work(random, steps(100_000, 1_000_000)));
        }
    });
    assert!(owners.stolen.load(Ordering::Relaxed) > 1000, "hardly a steal");
    let last = owners.generation().next();
    for set in owners.sets {
        set.catch_up(last, &owners.backlog);
    }
    let pages = (1..=SPANS).sum();
    assert_eq!(owners.backlog.waiting(), PageCount::new(pages));
    let mut found = 0;
    for set in owners.sets {
        while let Some(unswept) = set.take_unswept(last, &owners.backlog) {
            let _kept = owners.got_unswept(unswept);
            found += 1;
        }
    }
    assert_eq!(found, SPANS, "a span was lost");
    assert!(owners.backlog.is_clear());
}
