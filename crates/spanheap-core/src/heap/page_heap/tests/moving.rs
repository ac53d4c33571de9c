//! Chunks whose memory moves on: where it goes, what it costs, and what is left when something is refused.
//!
//! # Safety
//! As in the file above: chunks are written to while the test owns them, and their records live as long as the heap.
#![allow(unsafe_code)]

use super::*;
use crate::os::{Feature, Guarding, MOVE_UNIT};
use crate::pages::units::UNIT_PAGES;
use crate::span::Chunk;

/// A chunk that the test owns, with the words that it has written at both ends of each unit.
struct Owned {
    span: OwnedSpan,
    stamp: usize,
}

impl Bench {
    /// A chunk, in which words are written.
    fn alloc_chunk(&mut self, pages: PageCount, align: Bytes) -> Result<Owned, Refused> {
        let layout = core::alloc::Layout::new::<Chunk>();
        let record = self.memory.alloc(&self.os, layout, Category::Metadata)?.cast::<Chunk>();
        // SAFETY: zeroed memory, which is a valid record, and lives until the test ends.
        let chunk: &'static Chunk = unsafe { &*record.as_ptr() };
        let local = &self.local[self.stamp % 2];
        let describe = |base| {
            chunk.describe(AddrRange::at(base, pages.bytes()), 1, core::ptr::null_mut(), false);
            Info::chunk(base, pages)
        };
        let place = (pages, align, false);
        let span = self.heap.alloc_chunk(&self.os, &self.memory, local, place, chunk, describe)?;
        let owned = Owned { span, stamp: self.stamp };
        self.stamp += 1;
        asan::permit_range(owned.range());
        for at in owned.ends() {
            // SAFETY: the word is in the chunk, which is ready and the test's.
            unsafe { at.as_ptr::<usize>().write(owned.stamp) };
        }
        Ok(owned)
    }

    /// What becomes of a chunk whose arena was freed: whether its first unit was moved, as all others are then that can
    /// be; what is not moved is guarded.
    fn bury(&self, chunk: &Owned) -> bool {
        chunk.check();
        let range = chunk.range();
        let mut at = range.base();
        while at.is_aligned(MOVE_UNIT.get()) && at + MOVE_UNIT <= range.end() {
            let unit = AddrRange::at(at, MOVE_UNIT);
            // SAFETY: nobody uses the chunk any more.
            match unsafe { self.heap.move_out(&self.os, &self.memory, unit) } {
                Some(guarding) => assert_eq!(guarding, Guarding::Faults),
                None => break,
            }
            at = at + MOVE_UNIT;
        }
        chunk.span.span().set_freed();
        // SAFETY: the collector's thread would do this.
        unsafe { chunk.span.span().set_quarantined() };
        if at < range.end() {
            // SAFETY: as above.
            let _ = unsafe { self.heap.guard(&self.os, AddrRange::new(at, range.end())) };
        }
        at > range.base()
    }

    fn release_chunk(&self, chunk: Owned) -> Result<(), Owned> {
        let stamp = chunk.stamp;
        let ended = self.heap.end_quarantine(&self.os, chunk.span);
        ended.map_err(|span| Owned { span, stamp })
    }

    fn free_chunk(&self, chunk: Owned) {
        chunk.check();
        // SAFETY: nobody uses the chunk any more.
        unsafe { self.heap.free_chunk(chunk.span) };
    }
}

impl Owned {
    fn range(&self) -> AddrRange {
        self.span.info().range()
    }

    fn ends(&self) -> Vec<Addr> {
        let parts = self.range().cut_at(MOVE_UNIT.get());
        parts.flat_map(|part| [part.base(), part.end() - Bytes::new(8)]).collect()
    }

    fn check(&self) {
        for at in self.ends() {
            // SAFETY: written when the chunk was made, and the test's.
            let found = unsafe { at.as_ptr::<usize>().read() };
            assert_eq!(found, self.stamp, "somebody wrote to {:?}", self.range());
        }
    }
}

/// Arenas one after the other have the memory of one, wherever they are.
#[test]
fn memory_goes_from_chunk_to_chunk() {
    for is_native in [false, true] {
        let mut bench = match is_native {
            true => Bench::new(Os::native(), None, None).unwrap(),
            false => Bench::simulated(SimOs::builder().split_limit(4096).build(), None).unwrap(),
        };
        let (mut waiting, mut retained, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..200 {
            let chunk = bench.alloc_chunk(UNIT_PAGES, MOVE_UNIT).unwrap();
            places.push(chunk.range().base());
            if !bench.bury(&chunk) {
                assert!(is_native && bench.os.features().moves != Feature::Works);
                return;
            }
            retained.push(bench.heap.retained());
            waiting.push(chunk);
            if round % 40 == 39 {
                // A cycle has found no pointers.
                let ended = waiting.drain(..).try_for_each(|chunk| bench.release_chunk(chunk));
                assert!(ended.is_ok());
                bench.check();
                bench.check_pages();
            }
        }
        assert!(retained.iter().all(|&bytes| bytes == MOVE_UNIT), "never more than one unit");
        let distinct: std::collections::BTreeSet<_> = places.iter().collect();
        assert!(distinct.len() <= 42, "{} places: addresses come back", distinct.len());
        let grown: Bytes = bench.heap.inner.lock().pages.in_use().map(|r| r.bytes()).sum();
        assert!(grown <= Bytes::new(84 << 20), "{grown}");
        bench.end();
    }
}

/// The lowest cold unit gets the memory; what is warm is handed out first, unless somebody has taken a page of it.
#[test]
fn the_lowest_cold_unit_gets_the_memory() {
    let mut bench = Bench::simulated(SimOs::builder().build(), None).unwrap();
    let chunks: Vec<Owned> =
        (0..4).map(|_| bench.alloc_chunk(UNIT_PAGES, MOVE_UNIT).unwrap()).collect();
    let base = chunks[0].range().base();
    let unit = |i: usize| base + Bytes::new(i * MOVE_UNIT.get());
    for (i, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk.range().base(), unit(i));
        assert!(bench.bury(chunk));
        assert!(bench.heap.inner.lock().pages.is_warm_unit(unit(4 + i)), "unit {i}");
    }
    // Somebody takes a page of the lowest two, and one comes back from quarantine.
    bench.alloc_manual(300, PAGE_BYTES).unwrap();
    let mut chunks = chunks.into_iter();
    assert!(bench.release_chunk(chunks.next().unwrap()).is_ok());
    let next = bench.alloc_chunk(UNIT_PAGES, MOVE_UNIT).unwrap();
    assert_eq!(next.range().base(), unit(7), "the latest");
    assert!(bench.bury(&next));
    assert!(bench.heap.inner.lock().pages.is_warm_unit(unit(0)), "which had come back");
    let two = [(); 2].map(|()| bench.alloc_chunk(UNIT_PAGES, MOVE_UNIT).unwrap());
    assert_eq!(two.each_ref().map(|chunk| chunk.range().base()), [unit(0), unit(6)]);
    // No unit is warm as a whole any more, and the next one is got as all pages are.
    let third = bench.alloc_chunk(UNIT_PAGES, MOVE_UNIT).unwrap();
    assert_eq!(third.range().base(), unit(8));
    two.into_iter().chain([third]).for_each(|chunk| bench.free_chunk(chunk));
    let ended = chunks.chain([next]).try_for_each(|chunk| bench.release_chunk(chunk));
    assert!(ended.is_ok());
    bench.free_manual(0);
    bench.check();
    bench.check_pages();
    bench.end();
}

/// Random requests for spans and chunks of all sizes, with and without refusals, on pages of several sizes.
#[test]
fn spans_and_chunks_that_move_do_not_get_into_each_others_way() {
    let mut moved = 0;
    for seed in 0..12_u64 {
        println!("seed {seed}");
        let mut random = Random::new(0x0e0e_0000 + seed);
        let sim = SimOs::builder()
            .page_size(Bytes::new([4096, 8192, 16384, 65536][seed as usize % 4]))
            .zero_after_unused(seed % 3 != 0)
            .split_limit([4096, 8][seed as usize / 4 % 2])
            .build();
        let limit = (seed % 2 == 1).then(|| Bytes::new(64 << 20));
        let mut bench = Bench::simulated(sim.clone(), limit).unwrap();
        let (mut open, mut waiting): (Vec<Owned>, Vec<Owned>) = (Vec::new(), Vec::new());
        for step in 0..1500 {
            if seed >= 6 && random.one_in(20) {
                sim.set_fail_call(Some(sim.calls() + 1 + random.below(6)));
            }
            match random.below(8) {
                0 if open.len() < 8 => {
                    let (pages, align) = match random.below(3) {
                        0 => (UNIT_PAGES, MOVE_UNIT),
                        1 => (PageCount::new(UNIT_PAGES.get() + 64 * random.below(6)), MOVE_UNIT),
                        _ => (PageCount::new(8 << random.below(4)), Bytes::new(1)),
                    };
                    open.extend(bench.alloc_chunk(pages, align));
                }
                1 if !open.is_empty() => {
                    let chunk = open.swap_remove(random.below(open.len()));
                    moved += usize::from(bench.bury(&chunk));
                    waiting.push(chunk);
                }
                2 if !open.is_empty() && random.one_in(4) => {
                    bench.free_chunk(open.swap_remove(random.below(open.len())));
                }
                3 if waiting.len() > 8 => {
                    for chunk in core::mem::take(&mut waiting) {
                        waiting.extend(bench.release_chunk(chunk).err());
                    }
                }
                _ => drop(bench.step(&mut random)),
            }
            assert!(limit.is_none_or(|limit| sim.ready() <= limit));
            if step % 100 == 99 {
                bench.heap.check();
                assert_eq!(sim.ready(), bench.os.accounting().ready());
            }
        }
        sim.set_fail_call(None);
        bench.was_refused = seed >= 6;
        open.into_iter().for_each(|chunk| bench.free_chunk(chunk));
        let ended = waiting.into_iter().try_for_each(|chunk| bench.release_chunk(chunk));
        assert!(ended.is_ok());
        bench.check();
        bench.check_pages();
        bench.end();
    }
    assert!(moved > 200, "{moved} chunks have been moved");
}

/// The tables of the unit that memory moves to become ready, and those of the other stay so.
#[test]
fn nothing_moves_where_its_tables_would_go_beyond_the_limit() {
    let sim = SimOs::builder().zero_after_unused(true).build();
    let mut bench = Bench::simulated(sim.clone(), None).unwrap();
    let chunks: Vec<_> =
        (0..4).map(|_| bench.alloc_chunk(UNIT_PAGES, MOVE_UNIT).unwrap()).collect();
    let [first, second, third, fourth] = chunks.try_into().ok().unwrap();
    bench.free_chunk(third);
    bench.free_chunk(fourth);
    bench.heap.scavenge_all(&bench.os);
    let room = Bytes::new(32 << 10);
    let allowed = sim.ready() + room;
    bench.heap.limits().set_hard(Some(Bytes::new(allowed.get() / 31 * 32)));
    assert!(bench.heap.limits().allowed() <= allowed);
    assert!(!bench.bury(&first), "it was moved");
    assert!(sim.ready() <= bench.heap.limits().allowed());
    bench.heap.limits().set_hard(None);
    assert!(bench.bury(&second), "nothing is in the way");
    for chunk in [first, second] {
        assert!(bench.release_chunk(chunk).is_ok());
    }
    bench.check();
    bench.check_pages();
    bench.end();
}

/// Whichever call the system refuses, and whether it refuses all that follow: nothing is lost.
#[test]
fn whatever_is_refused_a_move_happens_or_has_never_been() {
    // The heap is full of other things when memory is to move, and has to grow; and tables are away.
    let run = |sim: &Arc<SimOs>, fail: &dyn Fn(usize)| {
        let mut bench = Bench::simulated(sim.clone(), None).unwrap();
        let chunk = bench.alloc_chunk(UNIT_PAGES, MOVE_UNIT).unwrap();
        let other = bench.alloc_chunk(UNIT_PAGES, MOVE_UNIT).unwrap();
        let third = bench.alloc_chunk(UNIT_PAGES, MOVE_UNIT).unwrap();
        bench.free_chunk(third);
        bench.heap.scavenge_all(&bench.os);
        let filler = bench.alloc_manual(300, PAGE_BYTES);
        assert!(filler.is_ok());
        let before = sim.calls();
        fail(before);
        let moved = [bench.bury(&chunk), bench.bury(&other)];
        let mut waiting = vec![chunk, other];
        let next = bench.alloc_chunk(UNIT_PAGES, MOVE_UNIT);
        waiting = waiting.into_iter().filter_map(|c| bench.release_chunk(c).err()).collect();
        let calls = sim.calls() - before;
        sim.set_fail_call(None);
        sim.set_fail_from(None);
        bench.was_refused = true;
        next.into_iter().for_each(|chunk| bench.free_chunk(chunk));
        assert!(waiting.into_iter().all(|chunk| bench.release_chunk(chunk).is_ok()));
        bench.check();
        bench.check_pages();
        bench.end();
        (calls, moved)
    };
    let start = || SimOs::builder().zero_after_unused(true).build();
    let sim = start();
    let (calls, moved) = run(&sim, &|_| ());
    assert_eq!(moved, [true, true]);
    assert!(calls > 6, "{calls} calls");
    for n in 1..=calls {
        let sim = start();
        run(&sim, &|before| sim.set_fail_call(Some(before + n)));
        sim.assert_all_released();
        let sim = start();
        run(&sim, &|before| sim.set_fail_from(Some(before + n)));
        sim.assert_all_released();
    }
}
