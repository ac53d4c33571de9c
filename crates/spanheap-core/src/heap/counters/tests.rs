//! Snapshots while others write: a whole update or nothing, and what came before it, too.
//!
//! # Safety
//! The memory of shards is released when the threads of the test have ended.
#![allow(unsafe_code)]

use super::*;
use crate::tests::Random;
use std::sync::atomic::AtomicBool;

const PAGE: Bytes = Bytes::new(PAGE_BYTES);

fn class(size: usize) -> SizeClass {
    SizeClass::for_size(Bytes::new(size)).expect("small")
}

/// What a snapshot says of pages, and of the tiny objects.
fn figures(snapshot: &Snapshot) -> ([usize; 3], u64) {
    let pages = |state| snapshot.pages(state).get() / PAGE_BYTES;
    let states = [MemoryState::InUse, MemoryState::Free, MemoryState::Returned];
    (states.map(pages), snapshot.tiny())
}

#[test]
fn every_update_is_added_once_over_many_snapshots() {
    let (counters, os, memory) = (Counters::new(), Os::native(), Persistent::new());
    let seats = [Seat::default(), Seat::default(), Seat::default()];
    let mut random = Random::new(0xc0de);
    let mut twin = [0u64; COUNTERS];
    for _ in 0..3000 {
        let writer = match random.below(5) {
            0 => counters.pages(),
            1 => counters.shared(),
            n => counters.writer(&seats[n - 2], &os, &memory),
        };
        let update = writer.update();
        for _ in 0..random.below(4) {
            let (counter, n) = (random.below(COUNTERS), random.below(1000) as u64);
            update.add(counter, n);
            twin[counter] += n;
        }
        drop(update);
        if random.one_in(4) {
            assert_eq!(counters.snapshot().counts, twin);
        }
    }
    assert_eq!(counters.snapshot().counts, twin);
    assert_eq!(counters.shards().count(), 5, "one shard for each seat");
    // SAFETY: nobody uses the shards any more.
    unsafe { memory.release(&os) };
}

#[test]
fn a_snapshot_waits_for_the_updates_that_were_open_and_leaves_out_what_comes_later() {
    let counters = Counters::new();
    let early = counters.pages().update();
    early.mapped(MemoryState::Returned, PAGE);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| counters.snapshot());
        // The reader has turned; it cannot get on, since the update is open.
        patiently(|| counters.writing.load(Ordering::SeqCst) == 1);
        counters.shared().update().allocated_tiny(5);
        assert!(!reader.is_finished());
        early.moved(MemoryState::Returned, MemoryState::InUse, PAGE);
        drop(early);
        let snapshot = reader.join().expect("no panic");
        assert_eq!(figures(&snapshot), ([1, 0, 0], 0));
    });
    assert_eq!(figures(&counters.snapshot()), ([1, 0, 0], 5));
    assert_eq!(figures(&counters.snapshot()), ([1, 0, 0], 5));
}

#[test]
fn writers_of_one_shard_wait_for_each_other() {
    let counters = Counters::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    counters.shared().update().allocated_tiny(1);
                }
            });
        }
        while counters.snapshot().tiny() < 60_000 {
            std::thread::yield_now();
        }
    });
    assert_eq!(counters.snapshot().tiny(), 60_000);
}

#[test]
fn without_memory_for_a_shard_the_shared_one_serves() {
    use crate::os::SimOs;
    let sim = SimOs::builder().fail_call(1).build();
    let (os, memory) = (Os::simulated(sim.clone()), Persistent::new());
    let (counters, seat) = (Counters::new(), Seat::default());
    counters.writer(&seat, &os, &memory).update().allocated_tiny(3);
    assert_eq!(counters.shards().count(), 2);
    counters.writer(&seat, &os, &memory).update().allocated_tiny(4);
    assert_eq!(counters.shards().count(), 3);
    assert_eq!(counters.snapshot().tiny(), 7);
    // SAFETY: nobody uses the shards any more.
    unsafe { memory.release(&os) };
    sim.assert_all_released();
}

/// Ends the threads of a test that fails, too.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// One thread takes pages and allocates, a second one frees what the first one has told it of, and
/// gives the pages back. A snapshot that took the second one's updates without the first one's
/// would show more freed than allocated, or objects outside of pages.
#[test]
fn snapshots_respect_what_happened_before_what() {
    let (counters, os, memory) = (Counters::new(), Os::native(), Persistent::new());
    let class = class(1024);
    let (told, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    counters.pages().update().mapped(MemoryState::Free, Bytes::new(4 * PAGE_BYTES));
    let rounds = std::thread::scope(|scope| {
        let (counters, os, memory) = (&counters, &os, &memory);
        let (told, stop) = (&told, &stop);
        let allocator = scope.spawn(move || {
            let (seat, mut rounds) = (Seat::default(), 0);
            while !stop.load(Ordering::Acquire) {
                rounds += 1;
                counters.pages().update().moved(MemoryState::Free, MemoryState::InUse, PAGE);
                let writer = counters.writer(&seat, os, memory);
                writer.update().began_run(class, 8);
                writer.update().ended_run(class, 5, 3);
                told.store(1, Ordering::Release);
                patiently(|| told.load(Ordering::Acquire) == 0);
            }
            told.store(2, Ordering::Release);
            rounds
        });
        scope.spawn(move || {
            loop {
                patiently(|| told.load(Ordering::Acquire) != 0);
                if told.load(Ordering::Acquire) == 2 {
                    return;
                }
                let freed = counters.shared().update();
                freed.add(class_counter(PerClass::Freed, class.index()), 5);
                drop(freed);
                counters.pages().update().moved(MemoryState::InUse, MemoryState::Free, PAGE);
                told.store(0, Ordering::Release);
            }
        });
        let stopping = StopAtEnd(stop);
        let mut before = Objects::default();
        let mut different = 0u64;
        while different < 1000 {
            let snapshot = counters.snapshot();
            snapshot.check().unwrap();
            assert_eq!(snapshot.mapped(), Bytes::new(4 * PAGE_BYTES));
            let now = snapshot.small(class);
            assert!(now.allocated >= before.allocated && now.freed >= before.freed);
            assert!(now.present() == 0 || now.present() == 5);
            different += u64::from(now != before);
            before = now;
        }
        drop(stopping);
        allocator.join().expect("no panic")
    });
    let end = counters.snapshot().small(class);
    assert_eq!((end.allocated, end.freed, end.in_runs), (5 * rounds, 5 * rounds, 0));
    // SAFETY: the threads have ended.
    unsafe { memory.release(&os) };
}

#[test]
fn the_check_finds_what_cannot_be() {
    let broken = |change: &dyn Fn(&Update<'_>)| {
        let counters = Counters::new();
        let update = counters.shared().update();
        update.mapped(MemoryState::InUse, PAGE);
        change(&update);
        drop(update);
        counters.snapshot().check().is_err()
    };
    assert!(!broken(&|_| ()));
    assert!(!broken(&|update| update.began_run(class(64), 128)));
    assert!(broken(&|update| update.began_run(class(64), 129)));
    assert!(broken(&|update| update.ended_run(class(64), 0, 1)));
    assert!(broken(&|update| update.add(class_counter(PerClass::Freed, 5), 1)));
    assert!(broken(&|update| update.add(Single::LargeFreed as usize, 1)));
    assert!(broken(&|update| update.add(Single::Owed as usize, 1)));
    assert!(broken(&|update| update.moved(MemoryState::Free, MemoryState::InUse, PAGE)));
    assert!(broken(&|update| update.mapped(MemoryState::Free, Bytes::new(100))));
}
