//! The page heap under random requests: no page is handed out twice, the page map is right, H1 and H2 hold,
//! and in the end the system has everything back, whatever it refused meanwhile.
//!
//! # Safety
//! Spans are written to at both ends only, which are ready memory while the test owns them. Heaps are
//! released when the last span has been forgotten.
#![allow(unsafe_code)]

mod lives;
mod moving;
mod twin;

use super::*;
use crate::addr::ARENA_PAGES;
use crate::heap::class::{ClassKey, ClassTable};
use crate::heap::counters::Snapshot;
use crate::os::SimOs;
use crate::span::size_class::SizeClass;
use crate::span::{Counting, Layout, Table};
use crate::tests::Random;
use std::sync::Arc;

/// A page heap with everything that it needs, and the spans that the test owns.
struct Bench {
    os: Os,
    sim: Option<Arc<SimOs>>,
    memory: Persistent,
    classes: ClassTable,
    heap: PageHeap,
    spans: Vec<(OwnedSpan, usize)>,
    manual: Vec<ManualSpan>,
    /// The own pages of two mutators.
    local: [LocalPages; 2],
    stamp: usize,
    /// Whether the system has refused something: then some tables of a block may have come back, and others not.
    was_refused: bool,
}

impl Bench {
    fn new(os: Os, sim: Option<Arc<SimOs>>, limit: Option<Bytes>) -> Result<Bench, OsError> {
        let heap = PageHeap::new(&os, map::new_heap_number(), Limits::new(None, limit))?;
        Ok(Bench {
            os,
            sim,
            memory: Persistent::new(),
            classes: ClassTable::new(1),
            heap,
            spans: Vec::new(),
            manual: Vec::new(),
            local: Default::default(),
            stamp: 1,
            was_refused: false,
        })
    }

    fn simulated(sim: Arc<SimOs>, limit: Option<Bytes>) -> Result<Bench, OsError> {
        Bench::new(Os::simulated(sim.clone()), Some(sim), limit)
    }

    /// Asks for a span, of slots if there is a size class, and checks what comes back.
    fn alloc(
        &mut self,
        size_class: Option<SizeClass>,
        pages: usize,
        align: usize,
    ) -> Result<(), Refused> {
        let span = self.request(self.stamp % 2, size_class, pages, align)?;
        let info = span.info();
        check_clean(span.span().dirty_to(), info.range());
        for at in ends(info) {
            // SAFETY: the word is in the span, which is ready and ours.
            unsafe { at.as_ptr::<usize>().write(self.stamp) };
        }
        self.spans.push((span, self.stamp));
        self.stamp += 1;
        Ok(())
    }

    /// A span for one of the mutators, the description of which is as it should be.
    fn request(
        &self,
        mutator: usize,
        size_class: Option<SizeClass>,
        pages: usize,
        align: usize,
    ) -> Result<OwnedSpan, Refused> {
        let (layout, counting, drop) = (Layout::NoScan, Counting::One, None);
        let key = ClassKey { size_class, layout, counting, drop, ty: None };
        let class = self.classes.find_or_make(&key, || "test", &self.os, &self.memory)?;
        let pages = size_class.map_or(PageCount::new(pages), SizeClass::pages);
        let request = Request {
            pages,
            align: Bytes::new(align),
            slot: size_class.map_or(pages.bytes().get(), |c| c.size().get()),
            slots: size_class.map_or(1, SizeClass::objects),
            element: 0,
            generation: Generation::new(self.stamp as u32),
        };
        let local = &self.local[mutator];
        let span = self.heap.alloc_span(&self.os, &self.memory, local, class, &request)?;
        let info = span.info();
        assert!(info.base.is_aligned(align) && info.base.is_aligned(PAGE_BYTES));
        assert_eq!((info.pages, info.slot, info.slots), (pages, request.slot, request.slots));
        assert_eq!((info.size_class, info.class), (size_class, class.index()));
        assert_eq!(span.span().generation(), request.generation);
        asan::permit_range(info.range());
        Ok(span)
    }

    /// Asks for a manual span, and writes to it.
    fn alloc_manual(&mut self, pages: usize, align: usize) -> Result<(), Refused> {
        let (local, align) = (&self.local[self.stamp % 2], Bytes::new(align));
        let pages = PageCount::new(pages);
        let span = self.heap.alloc_manual(&self.os, &self.memory, local, pages, align)?;
        let range = span.range();
        assert_eq!(range.bytes(), pages.bytes());
        check_clean(if span.is_zeroed() { range.base() } else { range.end() }, range);
        // SAFETY: the span is ready and ours.
        unsafe { range.base().as_ptr::<u8>().write_bytes(0xa5, range.bytes().get()) };
        self.manual.push(span);
        self.stamp += 1;
        Ok(())
    }

    fn free_manual(&mut self, index: usize) {
        let span = self.manual.swap_remove(index);
        let last = span.range().end() - Bytes::new(1);
        // SAFETY: written in `alloc_manual`.
        assert_eq!(unsafe { last.as_ptr::<u8>().read() }, 0xa5, "{:?}", span.range());
        // SAFETY: the span came from this heap, and nobody knows it any more.
        unsafe { self.heap.free_manual(span) };
    }

    /// Returns memory to the system.
    fn scavenge(&self, random: &mut Random) {
        let before = self.counted();
        let bytes = match random.below(4) {
            0 => Bytes::new(usize::MAX),
            _ => Bytes::new(random.below(8 << 20)),
        };
        let force = if random.one_in(2) { Force::Yes } else { Force::No };
        let all = force == Force::Yes && bytes.get() == usize::MAX;
        let released = match all {
            true => self.heap.scavenge_all(&self.os),
            false => self.heap.scavenge(&self.os, bytes, force),
        };
        let after = self.counted();
        if all && self.os.page_size().get() <= PAGE_BYTES {
            for local in &self.local {
                self.heap.take_back(&self.os, &self.memory, local);
            }
            let free = self.counted().pages(MemoryState::Free);
            assert!(free < Bytes::new(self.local.len() * 64 * PAGE_BYTES));
        }
        for (state, more, less) in
            [(MemoryState::Returned, &after, &before), (MemoryState::Free, &before, &after)]
        {
            assert_eq!(more.pages(state) - less.pages(state), released);
        }
    }

    /// Sets some bits in the span's lines, as a life of objects would.
    fn soil(info: &Info, random: &mut Random) {
        let first = info.base;
        let last = info.limit() - Bytes::new(info.slot);
        for table in ALL_TABLES {
            let slot = if random.one_in(2) { first } else { last };
            let run = bits::Run { start: slot, end: slot + Bytes::new(info.slot) };
            bits::set_run(info, table, run);
        }
    }

    fn free(&mut self, index: usize) {
        let (span, stamp) = self.spans.swap_remove(index);
        for at in ends(span.info()) {
            // SAFETY: as in `alloc`.
            let found = unsafe { at.as_ptr::<usize>().read() };
            assert_eq!(found, stamp, "somebody wrote to {:?}", span.info().range());
        }
        self.heap.free_span(span);
    }

    fn step(&mut self, random: &mut Random) -> Result<(), Refused> {
        if !self.spans.is_empty() && (self.spans.len() > 60 || random.one_in(3)) {
            let index = random.below(self.spans.len());
            Bench::soil(self.spans[index].0.info(), random);
            self.free(index);
            return Ok(());
        }
        if !self.manual.is_empty() && (self.manual.len() > 20 || random.one_in(8)) {
            self.free_manual(random.below(self.manual.len()));
            return Ok(());
        }
        if random.one_in(10) {
            self.scavenge(random);
            self.heap.next_scavenge_generation();
        }
        if random.one_in(40) {
            self.heap.take_back(&self.os, &self.memory, &self.local[random.below(2)]);
        }
        match random.below(9) {
            8 => self.alloc_manual(1 + random.below(300), PAGE_BYTES << random.below(4)),
            0..=3 => {
                let class = SizeClass::from_index(2 + random.below(66));
                self.alloc(class, 0, PAGE_BYTES)
            }
            4 | 5 => self.alloc(None, 1 + random.below(40), PAGE_BYTES),
            6 => self.alloc(None, 1 + random.below(60), PAGE_BYTES << random.below(9)),
            _ => self.alloc(None, 1 + random.below(2000), PAGE_BYTES << random.below(9)),
        }
    }

    /// What can be checked quickly: no overlap, counts, the walk over all spans.
    fn check(&self) {
        self.heap.check();
        let mut ranges: Vec<AddrRange> = self.spans.iter().map(|(s, _)| s.info().range()).collect();
        ranges.sort_by_key(|range| range.base());
        let manual = self.manual.iter().map(ManualSpan::range);
        let mut all: Vec<AddrRange> = ranges.iter().copied().chain(manual.clone()).collect();
        all.sort_by_key(|range| range.base());
        for pair in all.windows(2) {
            assert!(pair[0].end() <= pair[1].base(), "{pair:?} overlap");
        }
        let counted = self.counted();
        let in_use = ranges.iter().map(|range| range.bytes()).sum();
        assert_eq!((counted.pages(MemoryState::InUse), self.heap.in_use()), (in_use, in_use));
        assert_eq!(counted.pages(MemoryState::Manual), manual.map(|range| range.bytes()).sum());
        let grown = self.heap.inner.lock().pages.in_use().map(|range| range.bytes()).sum();
        assert_eq!(counted.mapped(), grown);
        assert_eq!(self.heap.retained(), grown - counted.pages(MemoryState::Returned));
        let mut seen = Vec::new();
        // SAFETY: this thread alone uses the heap.
        unsafe { self.heap.for_each_span(|span| seen.push(span.info().range())) };
        seen.sort_by_key(|range| range.base());
        assert_eq!(seen, ranges);
    }

    /// H2 and the page map, for every page of every arena; H1 by the accounts.
    fn check_pages(&self) {
        for local in &self.local {
            self.heap.take_back(&self.os, &self.memory, local);
        }
        self.check_tables_that_are_away();
        let mut owners = std::collections::HashMap::new();
        for span in &self.manual {
            let record = self.heap.arenas().find_map(|arena| {
                let base = span.range().base();
                (arena.base() == base.align_down(ARENA_BYTES))
                    .then(|| arena.span(base.page_in_arena()))
            });
            let record = record.expect("in an arena");
            for page in 0..span.range().bytes().get() / PAGE_BYTES {
                owners.insert(span.range().base() + PageCount::new(page), record);
            }
        }
        for (span, _) in &self.spans {
            for page in 0..span.info().pages.get() {
                let page = span.info().base + PageCount::new(page);
                owners.insert(page, core::ptr::from_ref(span.span()).cast_mut());
            }
        }
        for arena in self.heap.arenas() {
            assert!(core::ptr::eq(map::find(arena.base()), arena));
            for page in 0..ARENA_PAGES {
                let owner = owners.get(&arena.page_base(page)).copied();
                assert_eq!(arena.span(page), owner.unwrap_or(core::ptr::null_mut()));
            }
        }
        let inner = self.heap.inner.lock();
        let mut ready = Bytes::ZERO;
        for range in inner.pages.in_use() {
            let mut page = range.base();
            while page < range.end() {
                let chunk = inner.pages.chunk(page.chunk()).expect("grown");
                let index = page.bytes_since(page.align_down(CHUNK_BYTES)).get() / PAGE_BYTES;
                let scavenged = chunk.scavenged[index / 64] >> (index % 64) & 1 == 1;
                let allocated = chunk.allocated[index / 64] >> (index % 64) & 1 == 1;
                assert_eq!(allocated, owners.contains_key(&page));
                if !scavenged {
                    ready += Bytes::new(PAGE_BYTES);
                }
                let is_clear = |table| {
                    let words = bits::line(table, page);
                    words.iter().all(|word| word.load(Ordering::Relaxed) == 0)
                };
                let arena = self.heap.arenas().find(|a| a.base() == page.align_down(ARENA_BYTES));
                let number = tables::number(&self.os, page);
                let is_away = arena.expect("an arena").first_table_away(number).is_some();
                let is_clean = allocated || is_away || ALL_TABLES.into_iter().all(is_clear);
                assert!(is_clean, "H2 at {page}");
                page = page + PageCount::new(1);
            }
        }
        assert_eq!(self.heap.retained(), ready);
        // Every other category is ready as far as it is mapped, unless the system has refused something, a
        // table is away, or span records are.
        let accounts = self.os.accounting();
        let away = self.heap.returned_tables(&self.os);
        let away = away + inner.spans.cold();
        let others = accounts.mapped_total() - accounts.mapped(Category::Heap) - away;
        let expected = others + ready;
        let is_less = self.was_refused && accounts.ready() < expected;
        assert!(accounts.ready() == expected || is_less, "H1: {expected}, {accounts:?}");
        if let Some(sim) = &self.sim {
            assert_eq!(sim.ready(), accounts.ready());
        }
    }

    /// Tables are away for blocks that have been returned whole, and for no others.
    fn check_tables_that_are_away(&self) {
        let inner = self.heap.inner.lock();
        let block = tables::block(&self.os).get();
        let mut away = 0;
        for arena in self.heap.arenas() {
            for number in 0..ARENA_BYTES / block {
                if arena.first_table_away(number).is_some() {
                    away += 1;
                    let block =
                        AddrRange::at(arena.base() + Bytes::new(number * block), Bytes::new(block));
                    let view = inner.pages.chunk(block.base().chunk()).expect("grown");
                    assert!(tables::is_returned(&view, block), "{block:?}");
                }
            }
        }
        let parts: usize = self.heap.arenas().map(HeapArena::tables_away).sum();
        assert_eq!(inner.blocks_away, away);
        let whole = away * ALL_TABLES.len();
        assert!(parts == whole || (self.was_refused && parts < whole), "{parts} of {whole}");
    }

    fn counted(&self) -> Snapshot {
        let counted = self.heap.counters().snapshot();
        counted.check().unwrap();
        counted
    }

    /// Gives everything back and checks that nothing is left.
    fn end(mut self) {
        for local in &self.local {
            self.heap.take_back(&self.os, &self.memory, local);
        }
        self.spans.clear();
        self.manual.clear();
        let bases: Vec<Addr> = self.heap.arenas().map(HeapArena::base).collect();
        // SAFETY: no span is left, and nobody else knows the heap.
        unsafe { self.heap.release(&self.os) };
        // SAFETY: records of spans, classes and arenas lie here, and nobody uses them any more.
        unsafe { self.memory.release(&self.os) };
        let accounts = self.os.accounting();
        let left = (accounts.mapped_total(), accounts.ready(), accounts.reserved());
        assert_eq!(left, (Bytes::ZERO, Bytes::ZERO, Bytes::ZERO), "{accounts:?}");
        assert_eq!(accounts.leaked(), Bytes::ZERO);
        assert_eq!(self.heap.arenas().count(), 0);
        match self.sim {
            Some(sim) => sim.assert_all_released(),
            // Native heaps ask for addresses that no other heap of the process has ever been told of.
            None => assert!(bases.iter().all(|&base| map::find(base).is_null())),
        }
    }
}

/// Checks that a span is zero from `dirty_to` on.
fn check_clean(dirty_to: Addr, range: AddrRange) {
    assert!(range.base() <= dirty_to && dirty_to <= range.end());
    let mut word = dirty_to;
    while word < range.end() {
        // SAFETY: the span is ready and the caller's.
        assert_eq!(unsafe { word.as_ptr::<u64>().read() }, 0, "{word} in {range:?}");
        word = word + Bytes::new(512);
    }
}

/// The first and the last word of a span.
fn ends(info: &Info) -> [Addr; 2] {
    [info.base, info.range().end() - Bytes::new(size_of::<usize>())]
}

fn run_random(mut bench: Bench, steps: usize, random: &mut Random) {
    for step in 0..steps {
        bench.step(random).expect("the system does not refuse");
        bench.check();
        if step % 50 == 0 {
            bench.check_pages();
        }
    }
    bench.check_pages();
    while !bench.manual.is_empty() {
        bench.free_manual(0);
    }
    while !bench.spans.is_empty() {
        let index = random.below(bench.spans.len());
        Bench::soil(bench.spans[index].0.info(), random);
        bench.free(index);
    }
    bench.check();
    bench.check_pages();
    bench.end();
}

#[test]
fn on_the_native_system() {
    let mut random = Random::new(0x9a6e);
    run_random(Bench::new(Os::native(), None, None).unwrap(), 600, &mut random);
}

#[test]
fn on_a_simulated_system_with_neighbouring_and_with_scattered_arenas() {
    let mut random = Random::new(0x51a0);
    for contiguous in [0, 512 << 20] {
        let sim = SimOs::builder().contiguous(Bytes::new(contiguous)).build();
        run_random(Bench::simulated(sim, None).unwrap(), 400, &mut random);
    }
}

#[test]
fn on_a_simulated_system_with_large_pages() {
    let mut random = Random::new(0x64c0);
    for contiguous in [0, 512 << 20] {
        let sim = SimOs::builder()
            .page_size(Bytes::new(64 << 10))
            .contiguous(Bytes::new(contiguous))
            .build();
        run_random(Bench::simulated(sim, None).unwrap(), 400, &mut random);
    }
}

#[test]
fn a_span_may_cross_the_border_between_two_arenas() {
    let sim = SimOs::builder().contiguous(Bytes::new(4 * ARENA_BYTES)).build();
    let mut bench = Bench::simulated(sim, None).unwrap();
    // Two arenas in one reservation; the first is filled but for three pages, so twenty lie across.
    bench.alloc(None, ARENA_PAGES + 512, PAGE_BYTES).unwrap();
    bench.free(0);
    bench.alloc(None, ARENA_PAGES - 3, PAGE_BYTES).unwrap();
    bench.alloc(None, 20, PAGE_BYTES).unwrap();
    let info = *bench.spans[1].0.info();
    let border = info.range().end().align_down(ARENA_BYTES);
    assert_eq!(border.bytes_since(info.base), PageCount::new(3).bytes(), "{:?}", info.range());
    bench.alloc(None, ARENA_PAGES + 5, PAGE_BYTES).unwrap();
    bench.check();
    bench.check_pages();
    bits::set_run(&info, Table::Odd, bits::Run { start: info.base, end: info.limit() });
    bench.free(1);
    bench.check();
    bench.check_pages();
    bench.end();
}

/// A program that grows several times, in one piece and in several, and goes on when it is refused. It
/// grows by asking for wide alignments, so that little memory is ready in the end.
/// Returns how often it was refused.
fn program(bench: &mut Bench, widest: usize, random: &mut Random) -> usize {
    let mut refused = 0;
    let wide = [PAGE_BYTES, 32 << 20, 64 << 20, 64 << 20];
    for align in wide.into_iter().filter(|&align| align <= widest) {
        refused += usize::from(bench.alloc(None, 1 + random.below(5), align).is_err());
        bench.check();
        for _ in 0..2 {
            let class = SizeClass::from_index(2 + random.below(66));
            refused += usize::from(bench.alloc(class, 0, PAGE_BYTES).is_err());
        }
        if !bench.spans.is_empty() {
            let index = random.below(bench.spans.len());
            Bench::soil(bench.spans[index].0.info(), random);
            bench.free(index);
        }
        bench.check();
    }
    refused
}

/// Runs the program once for each call that the system can refuse, and for each from which on it
/// can refuse everything.
fn refuse_each_call(builder: impl Fn() -> crate::os::sim::SimBuilder, widest: usize) {
    let mut random = Random::new(0xfa11);
    let quiet = builder().build();
    let mut bench = Bench::simulated(quiet.clone(), None).unwrap();
    assert_eq!(program(&mut bench, widest, &mut random), 0);
    bench.check_pages();
    bench.end();
    let mut refusals = 0;
    for call in 1..=quiet.calls() {
        // A lasting refusal hits the same places as a single one and those behind; some will do.
        for lasting in [false, true].into_iter().take(1 + usize::from(call % 4 == 0)) {
            let failing = match lasting {
                false => builder().fail_call(call).build(),
                true => builder().fail_from(call).build(),
            };
            let Ok(mut bench) = Bench::simulated(failing.clone(), None) else {
                failing.assert_all_released();
                refusals += 1;
                continue;
            };
            refusals += program(&mut bench, widest, &mut random);
            // The system has recovered, and so has the heap.
            failing.set_fail_from(None);
            failing.set_fail_call(None);
            let refused = program(&mut bench, 32 << 20, &mut random);
            assert_eq!(refused, 0, "call {call}, lasting: {lasting}");
            bench.end();
        }
    }
    assert!(refusals > quiet.calls(), "{refusals} refusals of {} calls", quiet.calls());
}

#[test]
fn whatever_call_is_refused_everything_goes_back_in_the_end() {
    refuse_each_call(SimOs::builder, 64 << 20);
    let block = Bytes::new(8 * ARENA_BYTES);
    refuse_each_call(|| SimOs::builder().contiguous(block), 64 << 20);
}

#[test]
fn whatever_call_is_refused_on_large_pages_everything_goes_back_in_the_end() {
    refuse_each_call(|| SimOs::builder().page_size(Bytes::new(64 << 10)), 32 << 20);
}

#[test]
fn a_refused_span_leaves_the_pages_as_they_were() {
    let sim = SimOs::builder().build();
    let mut bench = Bench::simulated(sim.clone(), None).unwrap();
    bench.alloc(None, 10, PAGE_BYTES).unwrap();
    bench.alloc(None, 10, PAGE_BYTES).unwrap();
    bench.free(0);
    // Ten ready pages lie below prepared ones. A run over both is refused when it is to be made ready.
    let before = bench.os.accounting().mapped(Category::Heap);
    bench.free(0);
    sim.set_fail_call(Some(sim.calls() + 1));
    assert!(matches!(bench.alloc(None, 200, PAGE_BYTES), Err(Refused::System)));
    bench.check();
    bench.check_pages();
    bench.alloc(None, 200, PAGE_BYTES).unwrap();
    bench.check_pages();
    assert_eq!(bench.os.accounting().mapped(Category::Heap), before);
    bench.end();
}

#[test]
fn requests_that_no_heap_can_meet_are_refused_as_such() {
    let mut bench = Bench::new(Os::native(), None, None).unwrap();
    for pages in [usize::MAX >> 13, 1 << 40, (1 << 34) - 1] {
        let refused = bench.alloc(None, pages, PAGE_BYTES).unwrap_err();
        assert!(matches!(refused, Refused::TooLarge), "{pages} pages: {refused:?}");
    }
    bench.alloc(None, 1, PAGE_BYTES).unwrap();
    bench.check_pages();
    bench.end();
}

#[test]
fn the_limit_is_kept_and_what_fits_below_it_is_given() {
    let mut random = Random::new(0x11317);
    let limit = Bytes::new(24 << 20);
    let sim = SimOs::builder().build();
    let mut bench = Bench::simulated(sim.clone(), Some(limit)).unwrap();
    let (mut refused, mut peak) = (0, Bytes::ZERO);
    for _ in 0..600 {
        match bench.step(&mut random) {
            Ok(()) => {}
            Err(Refused::Limit) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
        assert!(sim.ready() <= limit, "{} ready of {limit}", sim.ready());
        peak = peak.max(sim.ready());
    }
    bench.check();
    bench.check_pages();
    assert!(refused > 10, "{refused} refusals");
    assert!(peak > limit - Bytes::new(4 << 20), "{peak} ready at most");
    bench.end();
}

mod systems;
