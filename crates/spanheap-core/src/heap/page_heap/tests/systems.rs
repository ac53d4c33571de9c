//! The page heap on systems of many kinds: physical pages from half of ours to a block of a mutator's own
//! pages, memory that comes back as zeros and memory that does not, and every call refused once.
//!
//! # Safety
//! Pages are returned to the system that the test has taken from the page allocator for that, as the
//! scavenger does.
#![allow(unsafe_code)]

use super::*;
use crate::os::sim::SimBuilder;

const PAGE_SIZES: [usize; 6] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 512 << 10];

fn system(page_size: usize, zero: bool) -> SimBuilder {
    SimOs::builder().page_size(Bytes::new(page_size)).zero_after_unused(zero)
}

#[test]
fn on_systems_of_every_kind() {
    let mut random = Random::new(0x5157);
    for page_size in PAGE_SIZES {
        for zero in [true, false] {
            for contiguous in [0, 512 << 20] {
                let sim = system(page_size, zero).contiguous(Bytes::new(contiguous)).build();
                run_random(Bench::simulated(sim, None).unwrap(), 120, &mut random);
            }
        }
    }
}

/// A program that returns memory and takes it again, in spans of all kinds. Returns how often it was refused.
fn returning(bench: &mut Bench, random: &mut Random) -> usize {
    let mut refused = 0;
    for round in 0..3 {
        for step in 0..6 {
            let done = match step % 3 {
                0 => bench.alloc(SizeClass::from_index(2 + random.below(66)), 0, PAGE_BYTES),
                1 => bench.alloc(None, 1 + random.below(20), PAGE_BYTES << random.below(4)),
                _ => bench.alloc_manual(1 + random.below(70), PAGE_BYTES),
            };
            refused += usize::from(done.is_err());
            bench.check();
        }
        // In the second round everything goes, and side tables go with it.
        let keep = usize::from(round != 1);
        while bench.spans.len() > keep {
            let index = random.below(bench.spans.len());
            Bench::soil(bench.spans[index].0.info(), random);
            bench.free(index);
        }
        while bench.manual.len() > keep {
            bench.free_manual(0);
        }
        for local in &bench.local {
            bench.heap.take_back(&bench.os, &bench.memory, local);
        }
        bench.scavenge(random);
        bench.heap.scavenge_all(&bench.os);
        bench.check();
    }
    refused
}

#[test]
fn whatever_call_is_refused_when_memory_is_taken_again_nothing_is_lost() {
    for page_size in PAGE_SIZES {
        for zero in [true, false] {
            let quiet = system(page_size, zero).build();
            let mut bench = Bench::simulated(quiet.clone(), None).unwrap();
            assert_eq!(returning(&mut bench, &mut Random::new(0xfa11)), 0);
            bench.check_pages();
            bench.end();
            for call in 1..=quiet.calls() {
                let failing = system(page_size, zero).fail_call(call).build();
                let mut random = Random::new(0xfa11);
                let Ok(mut bench) = Bench::simulated(failing.clone(), None) else {
                    failing.assert_all_released();
                    continue;
                };
                returning(&mut bench, &mut random);
                failing.set_fail_call(None);
                assert_eq!(returning(&mut bench, &mut random), 0, "call {call} of {page_size}");
                bench.end();
            }
        }
    }
}

#[test]
fn a_limit_is_kept_on_systems_of_every_kind() {
    let mut random = Random::new(0x11317);
    let limit = Bytes::new(24 << 20);
    let mut all_refused = 0;
    for page_size in PAGE_SIZES {
        for zero in [true, false] {
            let sim = system(page_size, zero).build();
            let mut bench = Bench::simulated(sim.clone(), Some(limit)).unwrap();
            let mut refused = 0;
            for _ in 0..300 {
                match bench.step(&mut random) {
                    Ok(()) => {}
                    Err(Refused::Limit) => refused += 1,
                    Err(other) => panic!("{other:?}"),
                }
                assert!(sim.ready() <= limit, "{} of {limit} with {page_size}", sim.ready());
            }
            bench.check();
            bench.check_pages();
            all_refused += refused;
            bench.end();
        }
    }
    assert!(all_refused > 100, "{all_refused} refusals");
}

#[test]
fn a_limit_is_kept_near_its_end_however_the_heap_grows() {
    for page_size in PAGE_SIZES {
        for limit in (20..28).map(|mib| Bytes::new(mib << 20)) {
            for align in [PAGE_BYTES, 64 << 20] {
                let sim = system(page_size, true).build();
                let mut bench = Bench::simulated(sim.clone(), Some(limit)).unwrap();
                while bench.alloc(None, 128, align).is_ok() || bench.alloc(None, 8, align).is_ok() {
                    assert!(sim.ready() <= limit, "{} of {limit} by {page_size}", sim.ready());
                }
                assert!(sim.ready() <= limit, "{} of {limit} by {page_size}", sim.ready());
                bench.check_pages();
                bench.end();
            }
        }
    }
}

#[test]
fn nobody_is_refused_for_what_is_just_being_returned() {
    let sim = SimOs::builder().build();
    let mut bench = Bench::simulated(sim, Some(Bytes::new(24 << 20))).unwrap();
    bench.alloc(None, 2000, PAGE_BYTES).unwrap();
    bench.alloc(None, 500, PAGE_BYTES).unwrap();
    bench.free(0);
    bench.heap.take_back(&bench.os, &bench.memory, &bench.local[0]);
    bench.heap.take_back(&bench.os, &bench.memory, &bench.local[1]);
    // What the first half of `scavenge_one` does, until nothing is left: everything is on its way.
    let mut taken = Vec::new();
    let mut inner = bench.heap.inner.lock();
    let (one, all) = (PageCount::new(1), PageCount::new(512));
    while let Some(range) = inner.pages.take_for_scavenging(true, one, all, 0) {
        inner.returns[0] += 1;
        taken.push(range);
    }
    drop(inner);
    let Bench { os, memory, heap, .. } = &bench;
    let asked = std::sync::Barrier::new(2);
    let span = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let local = LocalPages::default();
            asked.wait();
            let (pages, align) = (PageCount::new(1800), Bytes::new(PAGE_BYTES));
            let span = heap.alloc_manual(os, memory, &local, pages, align);
            heap.take_back(os, memory, &local);
            span
        });
        asked.wait();
        // The other one looks for room in this time, and finds none. (If it comes later, it finds some.)
        std::thread::sleep(std::time::Duration::from_millis(50));
        for range in taken {
            // SAFETY: O1, O2: free pages that were taken above.
            unsafe { heap.unuse(os, range, range.bytes()) };
            let mut inner = heap.inner.lock();
            inner.pages.finish_scavenging(range);
            inner.returns[1] += 1;
        }
        other.join().expect("no panic")
    });
    bench.manual.push(span.expect("there is room when everything has been returned"));
    bench.check();
    bench.check_pages();
    bench.end();
}

/// While somebody else counts in a mutator's shard, the mutator cannot count that its pages are free. So they
/// are not: whoever took one of them would count that, and there would be less than no free pages.
#[test]
fn own_pages_are_counted_as_free_before_anybody_can_take_them() {
    let (os, memory, page) = (Os::native(), Persistent::new(), PageCount::new(1));
    let heap = PageHeap::new(&os, map::new_heap_number(), Limits::new(None, None)).unwrap();
    let local = LocalPages::default();
    let alloc = |pages: usize| {
        let (pages, align) = (PageCount::new(pages), Bytes::new(PAGE_BYTES));
        heap.alloc_manual(&os, &memory, &local, pages, align).expect("memory")
    };
    let ready = alloc(32);
    let base = ready.range().base();
    // SAFETY: the span came from this heap, and nobody else knows it.
    unsafe { heap.free_manual(ready) };
    let first = alloc(1);
    assert!(first.range().base() == base && !local.is_without_pages());
    let block = crate::pages::CACHE_PAGES.bytes();
    let own = AddrRange::at(base, block);
    let open = heap.writer(&os, &memory, &local).update();
    std::thread::scope(|scope| {
        let (heap, os, memory) = (&heap, &os, &memory);
        scope.spawn(move || {
            let other = LocalPages::default();
            for _ in 0..5000 {
                let alloc = heap.alloc_manual(os, memory, &other, page, Bytes::new(PAGE_BYTES));
                let span = alloc.expect("memory");
                let taken = span.range().base();
                // SAFETY: the span came from this heap, and nobody else knows it.
                unsafe { heap.free_manual(span) };
                heap.take_back(os, memory, &other);
                if own.contains(taken) {
                    drop(open);
                    panic!("{taken} was free before it was counted");
                }
                std::thread::yield_now();
            }
            drop(open);
        });
        heap.take_back(os, memory, &local);
    });
    // SAFETY: as above.
    unsafe { heap.free_manual(first) };
    heap.counters().snapshot().check().unwrap();
    // SAFETY: nobody uses the heap any more.
    unsafe { heap.release(&os) };
    // SAFETY: as above.
    unsafe { memory.release(&os) };
}

/// What of the tables of the block at `base` is in memory, in the order of [`ALL_TABLES`].
fn tables_in_memory(bench: &Bench, base: Addr) -> [bool; 4] {
    // SAFETY: a span of the test begins there, so its arena is published.
    let arena = unsafe { &*map::find(base) };
    let block = AddrRange::at(base.align_down(512 << 10), Bytes::new(512 << 10));
    ALL_TABLES.map(|table| {
        let mut is_in_memory = false;
        let range = arena.table_range(table, block);
        bench.os.resident(range, &mut |_| is_in_memory = true);
        is_in_memory
    })
}

#[test]
fn tables_have_memory_before_anybody_reads_them_but_in_small_heaps() {
    let mut bench = Bench::new(Os::native(), None, None).unwrap();
    if bench.os.page_size().get() != 4096 {
        println!(
            "pages of {} here: a table has memory because of its neighbours",
            bench.os.page_size()
        );
        return bench.end();
    }
    bench.alloc(None, 1, PAGE_BYTES).unwrap();
    assert_eq!(tables_in_memory(&bench, bench.spans[0].0.info().base), [false; 4]);
    bench.alloc(None, (4 << 20) / PAGE_BYTES, PAGE_BYTES).unwrap();
    // From the page allocator, as the heap grows; and from the mutators' own pages.
    bench.alloc(None, 200, PAGE_BYTES).unwrap();
    (0..400).for_each(|_| bench.alloc(None, 1, PAGE_BYTES).unwrap());
    for (span, _) in &bench.spans[2..] {
        assert_eq!(tables_in_memory(&bench, span.info().base), [true, true, true, false]);
    }
    bench.end();
}
