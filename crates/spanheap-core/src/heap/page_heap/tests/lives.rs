//! Page heaps live long random lives, and everything is compared with the [twin](super::twin).
//!
//! A life has a kind of system (physical pages of 4, 8, 16 and 64 KiB; arenas that adjoin and arenas that lie
//! apart; memory that comes back as zeros and memory that does not) and a temper:
//!
//! | temper | what happens | what is predicted |
//! |---|---|---|
//! | calm | requests, scavenging on request | every answer |
//! | thrifty | a goal, so that growing returns memory | all but what is returned |
//! | limited | a limit, so that making room returns memory, too | as above; ready memory is below the limit |
//! | refusing | the system refuses any calls | as above |
//!
//! All kinds in every run; 10^6 steps in all with `SPANHEAP_LONG=1`.
//!
//! # Safety
//! The first and the last word of each page of a span are written and read while the test owns the span.
#![allow(unsafe_code)]

use super::twin::{Answer, Asked, Dirt, Twin, Use};
use super::*;
use crate::tests::steps;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Temper {
    Calm,
    Thrifty,
    Limited,
    Refusing,
}

enum Held {
    Objects(OwnedSpan),
    Manual(ManualSpan),
}

impl Held {
    fn range(&self) -> AddrRange {
        match self {
            Held::Objects(span) => span.info().range(),
            Held::Manual(span) => span.range(),
        }
    }
}

/// A page heap, its twin, and the spans that the test has.
struct Life {
    bench: Bench,
    sim: Arc<SimOs>,
    twin: Twin,
    temper: Temper,
    held: Vec<(Held, usize)>,
    /// Pages of all of them.
    pages: usize,
    refused: usize,
    made: usize,
}

/// So many pages are held at most.
const MOST_PAGES: usize = 5000;

const LIMIT: Bytes = Bytes::new(24 << 20);

impl Life {
    fn new(sim: Arc<SimOs>, temper: Temper) -> Life {
        let limit = (temper == Temper::Limited).then_some(LIMIT);
        let bench = Bench::simulated(sim.clone(), limit).expect("nothing is refused");
        if temper == Temper::Thrifty {
            bench.heap.set_retain_goal(Some(Bytes::new(12 << 20)));
        }
        let twin = Twin::new(&bench.os, temper == Temper::Calm);
        Life { bench, sim, twin, temper, held: Vec::new(), pages: 0, refused: 0, made: 0 }
    }

    fn step(&mut self, random: &mut Random) {
        let mutator = random.below(2);
        match random.below(100) {
            0..45 => {
                let class = SizeClass::from_index(2 + random.below(66)).expect("there is such");
                self.alloc(mutator, Some(class), class.pages().get(), PAGE_BYTES);
            }
            45..50 => self.alloc(mutator, None, 1 + random.below(40), PAGE_BYTES),
            50..52 => {
                let align = PAGE_BYTES << random.below(9);
                self.alloc(mutator, None, 1 + random.below(60), align);
            }
            52 => {
                let align = PAGE_BYTES << random.below(11);
                self.alloc(mutator, None, 1 + random.below(1200), align);
            }
            53..60 => self.alloc_manual(mutator, 1 + random.below(30), PAGE_BYTES),
            60 => {
                let align = PAGE_BYTES << random.below(4);
                self.alloc_manual(mutator, 1 + random.below(300), align);
            }
            61..64 => self.scavenge(random),
            64 => self.bench.heap.next_scavenge_generation(),
            65..67 => self.take_back(mutator),
            _ if self.held.is_empty() => {}
            _ => self.free(random),
        }
        while self.pages > MOST_PAGES || self.held.len() > 400 {
            self.free(random);
        }
    }

    fn alloc(&mut self, mutator: usize, class: Option<SizeClass>, pages: usize, align: usize) {
        let before = self.bench.local[mutator].pages_now();
        self.made += 1;
        let usage = Use::Objects(self.made);
        let asked = Asked { mutator, n: PageCount::new(pages), align, usage };
        let span = self.bench.request(mutator, class, pages, align);
        let after = self.bench.local[mutator].pages_now();
        let answer = span.as_ref().ok().map(|span| {
            let dirty_to = span.span().dirty_to();
            let range = span.info().range();
            assert!(range.base() <= dirty_to && dirty_to <= range.end());
            assert_zero(AddrRange::new(dirty_to, range.end()));
            Answer { base: span.info().base, dirt: Dirt::Below(dirty_to) }
        });
        self.twin.allocated(&self.bench.heap, &asked, &before, &after, answer.as_ref());
        self.keep(span.map(Held::Objects));
    }

    fn alloc_manual(&mut self, mutator: usize, pages: usize, align: usize) {
        let before = self.bench.local[mutator].pages_now();
        self.made += 1;
        let (n, usage) = (PageCount::new(pages), Use::Manual(self.made));
        let asked = Asked { mutator, n, align, usage };
        let Bench { os, memory, heap, local, .. } = &self.bench;
        let span = heap.alloc_manual(os, memory, &local[mutator], n, Bytes::new(align));
        let after = local[mutator].pages_now();
        let answer = span.as_ref().ok().map(|span| {
            if span.is_zeroed() {
                assert_zero(span.range());
            }
            Answer { base: span.range().base(), dirt: Dirt::Zeroed(span.is_zeroed()) }
        });
        self.twin.allocated(heap, &asked, &before, &after, answer.as_ref());
        self.keep(span.map(Held::Manual));
    }

    /// Keeps what was allocated and writes to each of its pages.
    fn keep(&mut self, held: Result<Held, Refused>) {
        match (held, self.temper) {
            (Ok(held), _) => {
                for at in page_ends(held.range()) {
                    // SAFETY: the word is in the span, which is ready and ours.
                    unsafe { at.as_ptr::<usize>().write(self.made) };
                }
                self.pages += held.range().bytes().get() / PAGE_BYTES;
                self.held.push((held, self.made));
            }
            (Err(Refused::Limit), Temper::Limited) | (Err(Refused::System), Temper::Refusing) => {
                self.refused += 1;
            }
            (Err(refused), temper) => panic!("{refused:?} in a life that is {temper:?}"),
        }
    }

    fn free(&mut self, random: &mut Random) {
        let (held, number) = self.held.swap_remove(random.below(self.held.len()));
        let range = held.range();
        for at in page_ends(range) {
            // SAFETY: written in `keep`.
            let found = unsafe { at.as_ptr::<usize>().read() };
            assert_eq!(found, number, "somebody wrote to {at}");
        }
        self.pages -= range.bytes().get() / PAGE_BYTES;
        match held {
            Held::Objects(span) => {
                Bench::soil(span.info(), random);
                self.bench.heap.free_span(span);
                self.twin.freed(range, Use::Objects(number));
            }
            Held::Manual(span) => {
                // SAFETY: the span came from this heap, and nobody knows it any more.
                unsafe { self.bench.heap.free_manual(span) };
                self.twin.freed(range, Use::Manual(number));
            }
        }
    }

    fn scavenge(&mut self, random: &mut Random) {
        let Bench { os, heap, .. } = &self.bench;
        let force = if random.one_in(2) { Force::Yes } else { Force::No };
        let (wanted, released) = match random.below(4) {
            0 => (Bytes::new(usize::MAX), heap.scavenge_all(os)),
            _ => {
                let bytes = Bytes::new(1 + random.below(8 << 20));
                (bytes, heap.scavenge(os, bytes, force))
            }
        };
        assert_eq!(self.twin.look_for_returned(heap, true), released);
        if wanted.get() == usize::MAX {
            assert!(!self.twin.could_return(), "free pages were left");
            return;
        }
        let unit = os.page_size().get().max(PAGE_BYTES);
        let most = wanted.checked_align_up(unit).expect("a few MiB") + os.huge_page_size();
        assert!(released <= most, "{released} released of {wanted}");
    }

    fn take_back(&mut self, mutator: usize) {
        let Bench { os, heap, memory, local, .. } = &self.bench;
        heap.take_back(os, memory, &local[mutator]);
        self.twin.taken_back(mutator);
    }

    /// The twin, and what only the spans tell: the page map and the walk.
    fn compare(&mut self) {
        self.twin.compare(&self.bench.os, &self.bench.heap, &self.bench.local);
        let accounts = self.bench.os.accounting();
        assert_eq!(self.sim.ready(), accounts.ready());
        let mut owners = std::collections::HashMap::new();
        for (held, number) in &self.held {
            let base = held.range().base();
            // SAFETY: arenas of pages that a span has are published.
            let record = unsafe { &*map::find(base) }.span(base.page_in_arena());
            owners.insert(*number, record);
            if let Held::Objects(span) = held {
                assert!(core::ptr::eq(record, span.span()), "{base}");
            }
        }
        for arena in self.bench.heap.arenas() {
            assert!(core::ptr::eq(map::find(arena.base()), arena));
            for page in 0..ARENA_PAGES {
                let at = arena.page_base(page);
                let is_grown = self.twin.chunks.contains_key(&at.align_down(CHUNK_BYTES));
                let owner = match is_grown.then(|| self.twin.page(at).usage) {
                    Some(Use::Objects(number) | Use::Manual(number)) => owners[&number],
                    _ => core::ptr::null_mut(),
                };
                assert_eq!(arena.span(page), owner, "{at}");
            }
        }
        let mut walked = Vec::new();
        // SAFETY: this thread alone uses the heap.
        unsafe { self.bench.heap.for_each_span(|span| walked.push(span.info().range().base())) };
        let objects = self.held.iter().filter(|(held, _)| matches!(held, Held::Objects(_)));
        let mut expected: Vec<Addr> = objects.map(|(held, _)| held.range().base()).collect();
        walked.sort();
        expected.sort();
        assert_eq!(walked, expected);
    }

    fn run(mut self, steps: usize, random: &mut Random) {
        for step in 0..steps {
            if self.temper == Temper::Refusing && random.one_in(3) {
                let call = Some(self.sim.calls() + 1 + random.below(6));
                match random.one_in(3) {
                    true => self.sim.set_fail_from(call),
                    false => self.sim.set_fail_call(call),
                }
            }
            self.step(random);
            self.sim.set_fail_from(None);
            self.sim.set_fail_call(None);
            let ready = self.sim.ready();
            assert!(self.temper != Temper::Limited || ready <= LIMIT, "{ready} of {LIMIT}");
            if step % 97 == 0 {
                self.compare();
            }
        }
        self.compare();
        while !self.held.is_empty() {
            self.free(random);
        }
        (0..2).for_each(|mutator| self.take_back(mutator));
        self.compare();
        let few = steps < 1000;
        let is_refused = matches!(self.temper, Temper::Limited | Temper::Refusing);
        assert!(few || (self.refused > 0) == is_refused, "{} were refused", self.refused);
        self.bench.end();
    }
}

/// The first and the last word of each page.
fn page_ends(range: AddrRange) -> impl Iterator<Item = Addr> {
    let pages = range.bytes().get() / PAGE_BYTES;
    let last = Bytes::new(PAGE_BYTES - size_of::<usize>());
    (0..pages).flat_map(move |page| {
        let page = range.base() + PageCount::new(page);
        [page, page + last]
    })
}

/// Pages hold zeros, where the test would have written and where simulated junk would be.
fn assert_zero(range: AddrRange) {
    for at in page_ends(range) {
        // SAFETY: the pages are ready and the caller's.
        assert_eq!(unsafe { at.as_ptr::<usize>().read() }, 0, "{at} in {range:?}");
    }
}

/// One life for each kind of system.
fn lives(temper: Temper) {
    let mut random = Random::new(0x7313 + temper as u64);
    for page in [4, 8, 16, 64] {
        for contiguous in [0, 512 << 20] {
            for zero in [false, true] {
                let seed = random.next();
                println!("pages of {page} KiB, contiguous {contiguous}, zero {zero}, {seed:#x}");
                let huge = if random.one_in(2) { 2 << 20 } else { 0 };
                let sim = SimOs::builder()
                    .page_size(Bytes::new(page << 10))
                    .huge_page_size(Bytes::new(huge))
                    .contiguous(Bytes::new(contiguous))
                    .zero_after_unused(zero)
                    .seed(seed)
                    .build();
                Life::new(sim, temper).run(steps(150, 15_625), &mut random);
            }
        }
    }
}

#[test]
fn a_calm_life_is_that_of_the_twin_to_the_page() {
    lives(Temper::Calm);
}

#[test]
fn a_life_with_a_goal_is_that_of_the_twin() {
    lives(Temper::Thrifty);
}

#[test]
fn a_life_with_a_limit_is_that_of_the_twin_and_stays_below_it() {
    lives(Temper::Limited);
}

#[test]
fn a_life_in_which_anything_is_refused_is_that_of_the_twin() {
    lives(Temper::Refusing);
}
