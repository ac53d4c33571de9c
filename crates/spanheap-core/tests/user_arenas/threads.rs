//! Arenas and several threads: freed under readers, by the thousand, and at random while the heap collects.
//!
//! # Safety
//! As in `world`.

use crate::kernel::child::run;
use crate::random::Random;
use crate::world::*;
use spanheap_core::addr::{Addr, Bytes};
use spanheap_core::collect::roots::RootRecord;
use spanheap_core::collect::{Options, Policy};
use spanheap_core::mutator::{Heap, Mutator, UserArena};
use spanheap_core::observe::{MemoryState, Stats};
use spanheap_core::os::Os;
use spanheap_core::span::lookup::{ArenaState, Lookup};
use spanheap_core::span::{Shape, Tracer, TypeInfo};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Many more steps on request.
fn is_long() -> bool {
    std::env::var_os("SPANHEAP_LONG").is_some()
}

/// A list of values hangs on an object; one thread replaces arena and list, and frees the old one, while others walk
/// over it. Whoever found the first value live reads all of them.
#[test]
fn fault_50_readers_finish_what_they_have_begun_when_the_arena_is_freed() {
    const LENGTH: usize = 300;
    let options = Options { continuously: true, checkmark: true, ..Options::default() };
    let heap = Heap::new(Os::native(), options).expect("a heap");
    let mutator = heap.attach();
    let anchor = inside(&mutator, |mutator| root(mutator, object(mutator, 0, None)));
    let (done, walked, refused) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mutator = heap.attach();
                while !done.load(Ordering::Relaxed) {
                    inside(&mutator, |mutator| {
                        let Some(first) = follow(&node(held(&anchor)).left) else { return };
                        if !is_live(mutator, first) {
                            refused.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                        let (mut at, mut expected) = (Some(first), LENGTH);
                        while let Some(value) = at {
                            expected -= 1;
                            assert_eq!(node(value).number, expected);
                            at = follow(&node(value).left);
                        }
                        assert_eq!(expected, 0);
                        walked.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
        let mut round = 0;
        while round < 300 || walked.load(Ordering::Relaxed) < 100 {
            round += 1;
            let arena = new_arena(&heap);
            inside(&mutator, |mutator| {
                let mut values = writer(mutator, &arena);
                let mut last = None;
                for number in 0..LENGTH {
                    last = Some(value(&mut values, &NODE, number, last).expect("memory"));
                }
                set_left(mutator, held(&anchor), last);
            });
            std::thread::yield_now();
            arena.free().expect("once");
        }
        done.store(true, Ordering::Relaxed);
    });
    println!("{walked:?} lists were read, {refused:?} were not live");
    inside(&mutator, |mutator| set_left(mutator, held(&anchor), None));
    heap.collect();
    heap.collect();
    assert_eq!(pages(&heap, MemoryState::Quarantined), Bytes::ZERO);
    verify(&heap);
}

#[test]
fn fault_54_ten_thousand_arenas_at_once() {
    let heap = heap();
    let mutator = heap.attach();
    let arenas: Vec<UserArena> = (0..10_000).map(|_| new_arena(&heap)).collect();
    let kept = inside(&mutator, |mutator| {
        let mut last = object(mutator, 0, None);
        for (number, arena) in arenas.iter().enumerate() {
            last = value(&mut writer(mutator, arena), &NODE, number, Some(last)).expect("memory");
        }
        root(mutator, last)
    });
    heap.collect();
    assert_eq!(pages(&heap, MemoryState::Arena), Bytes::new(10_000 * PAGE));
    // Every second one is freed; a list that leads through freed values ends there.
    for arena in arenas.iter().step_by(2) {
        arena.free().expect("once");
    }
    wait_for_guards(&heap, 5000 * PAGE as u64);
    verify(&heap);
    inside(&mutator, |mutator| {
        let last = held(&kept);
        let before = follow(&node(last).left).expect("a pointer");
        assert!(is_live(mutator, last) && !is_live(mutator, before));
    });
    heap.collect();
    // Only the one that a live value points to is kept.
    assert_eq!(pages(&heap, MemoryState::Quarantined), Bytes::new(PAGE));
    drop((kept, arenas));
    heap.collect();
    heap.collect();
    assert_eq!(pages(&heap, MemoryState::Arena), Bytes::ZERO);
    assert_eq!(pages(&heap, MemoryState::Quarantined), Bytes::ZERO);
    verify(&heap);
}

/// Quarantine alone makes cycles begin, so neither memory nor address space grows with the number of arenas.
#[test]
fn fault_54_one_hundred_thousand_arenas_one_after_the_other() {
    let many = if is_long() { 1_000_000 } else { 100_000 };
    let heap = quiet_heap(Os::native(), false);
    let mutator = heap.attach();
    let mut most = [Bytes::ZERO; 2];
    for number in 0..many {
        let arena = new_arena(&heap);
        inside(&mutator, |mutator| {
            let mut values = writer(mutator, &arena);
            for index in 0..3 {
                value(&mut values, &NODE, index, None).expect("memory");
            }
        });
        arena.free().expect("once");
        if number % 1000 == 999 {
            wait_for_guards(&heap, (number as u64 + 1) * PAGE as u64);
            let stats = Stats::of(&heap);
            let grown = stats.counted.mapped() + stats.counted.pages(MemoryState::Quarantined);
            most = [most[0].max(grown), most[1].max(stats.ready)];
        }
    }
    println!(
        "at most {} of addresses, {} ready; {} cycles",
        most[0],
        most[1],
        Stats::of(&heap).cycles
    );
    assert!(most[0] < Bytes::new(576 * MIB), "{}", most[0]);
    assert!(most[1] < Bytes::new(64 * MIB), "{}", most[1]);
    assert!(Stats::of(&heap).cycles >= 2);
    assert_eq!(Stats::of(&heap).arenas.freed, many as u64);
}

/// What arenas hold weighs like objects: a heap that fills one is collected, and one that frees it is not any more.
#[test]
fn what_arenas_hold_makes_cycles_begin() {
    let heap =
        Heap::new(Os::native(), Options { periodic: None, ..Options::default() }).expect("a heap");
    let mutator = heap.attach();
    let arena = new_arena(&heap);
    let begun = std::time::Instant::now();
    let mut filled = 0;
    // Each cycle raises the goal: twice what the arena holds.
    while Stats::of(&heap).cycles < 3 && begun.elapsed().as_secs() < 60 {
        inside(&mutator, |mutator| {
            // SAFETY: a closure is open.
            let leaf = unsafe { writer(mutator, &arena).alloc_leaf(bytes_of(64 << 10, 8)) };
            leaf.expect("memory");
        });
        filled += 64 << 10;
    }
    let stats = Stats::of(&heap);
    assert!(stats.cycles >= 3, "{filled} bytes");
    assert_eq!(stats.outside, Bytes::ZERO, "they are told apart");
    assert!(stats.arenas.live.get() >= filled);
    assert!(stats.goal.get() > filled / 2, "goal {} for {filled} bytes in an arena", stats.goal);
    arena.free().expect("once");
    heap.collect();
    assert_eq!(Stats::of(&heap).arenas.live, Bytes::ZERO);
    assert!(Stats::of(&heap).goal <= Bytes::new(4 * MIB), "{}", Stats::of(&heap).goal);
}

static ATTEMPTS: AtomicUsize = AtomicUsize::new(0);

/// Reports its pointer at the fourth attempt: until then, somebody holds its lock.
///
/// # Safety
/// `object` points to a node.
unsafe fn trace_locked(object: *const u8, count: usize, tracer: &mut Tracer<'_>) {
    if ATTEMPTS.fetch_add(1, Ordering::Relaxed) % 4 != 3 {
        return tracer.defer();
    }
    // SAFETY: the caller's promise.
    unsafe { trace_nodes(object, count, tracer) };
}

static LOCKED: TypeInfo =
    TypeInfo::new(|| "locked node", size_of::<Node>(), 8, Shape::Opaque, trace_locked, None);

#[test]
fn a_value_whose_lock_is_held_is_tried_again() {
    let heap = quiet_heap(Os::native(), false);
    let mutator = heap.attach();
    let arena = new_arena(&heap);
    let (_held, kept) = inside(&mutator, |mutator| {
        let kept = object(mutator, 1, None);
        let mut values = writer(mutator, &arena);
        let plain = value(&mut values, &NODE, 2, Some(kept)).expect("memory");
        let locked = value(&mut values, &LOCKED, 3, Some(plain)).expect("memory");
        (root(mutator, locked), kept)
    });
    for round in 1..4 {
        heap.collect();
        assert_eq!(ATTEMPTS.load(Ordering::Relaxed), 4 * round);
        assert!(is_object(&mutator, address(Some(kept))));
        assert_eq!(Stats::of(&heap).marked_objects, 1, "values are not counted as objects");
    }
}

#[test]
fn a_forked_child_reads_values_and_is_refused_the_rest() {
    run("threads::a_forked_child_reads_values_and_is_refused_the_rest", || {
        let heap = heap();
        let mutator = heap.attach();
        let arena = new_arena(&heap);
        let at = inside(&mutator, |mutator| value(&mut writer(mutator, &arena), &NODE, 7, None));
        let at = at.expect("memory");
        // SAFETY: the child uses nothing that another thread may have locked, and exits at once.
        match unsafe { libc::fork() } {
            0 => {
                let refused = |action: &dyn Fn()| {
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(action)).is_err()
                };
                let ok = refused(&|| _ = arena.free())
                    && refused(&|| arena.abandon())
                    && refused(&|| drop(new_arena(&heap)))
                    && inside(&mutator, |mutator| is_live(mutator, at) && node(at).number == 7);
                drop(arena);
                // SAFETY: ends the child without running what is the parent's to do.
                unsafe { libc::_exit(if ok { 0 } else { 1 }) }
            }
            child => {
                let mut status = -1;
                // SAFETY: waits for the child that was just made.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert_eq!(status, 0);
                arena.free().expect("the parent's is open");
            }
        }
    });
}

/// One of the threads that do everything at random.
struct Player<'h> {
    mutator: Mutator,
    heap: &'h Heap,
    arenas: &'h Mutex<Vec<UserArena>>,
    registers: Vec<Arc<RootRecord>>,
    random: Random,
    stale: usize,
}

const REGISTERS: usize = 6;
const ARENAS: usize = 8;

impl Player<'_> {
    /// What a register, or a field, leads to, if it may be used: the collector knows whether it lies in an arena.
    fn usable(&mut self, at: Option<NonNull<u8>>) -> Option<NonNull<u8>> {
        let at = at?;
        match self.mutator.find_object(Addr::of(at.as_ptr())) {
            Lookup::Object(_) => {}
            Lookup::Arena(place) => {
                let live = is_live(&self.mutator, at);
                // It may be freed between the two questions, and never comes back.
                assert!(!live || place.state == ArenaState::Open, "{place:?}");
                if !live {
                    self.stale += 1;
                    return None;
                }
            }
            other => panic!("{at:?} leads to {other:?}"),
        }
        // The complement says that it is a node.
        let _ = node(at);
        Some(at)
    }

    fn some(&mut self) -> Option<NonNull<u8>> {
        let register = self.random.below(REGISTERS);
        let mut at = self.usable(Some(held(&self.registers[register])))?;
        for _ in 0..self.random.below(4) {
            let field = match self.random.below(2) {
                0 => follow(&node(at).left),
                _ => follow(&node(at).right),
            };
            match self.usable(field) {
                Some(next) => at = next,
                None => break,
            }
        }
        Some(at)
    }

    fn step(&mut self, step: usize) {
        let arena = {
            let arenas = self.arenas.lock().expect("no panic");
            arenas[self.random.below(ARENAS)].clone()
        };
        self.mutator.enter();
        let target = self.some();
        let ty = if self.random.below(3) == 0 { &TRACED } else { &NODE };
        let new = match self.random.below(4) {
            0 => Some(object(&self.mutator, step, target)),
            1 | 2 => {
                let mut values = writer(&self.mutator, &arena);
                let mut last = target;
                for _ in 0..self.random.below(12) {
                    last = value(&mut values, ty, step, last).ok().or(last);
                    if self.random.below(4) == 0 {
                        // SAFETY: a closure is open.
                        let _ = unsafe { values.alloc_leaf(bytes_of(step % 300, 1)) };
                    }
                }
                last
            }
            _ => target,
        };
        let new = self.usable(new);
        if let Some(place) = self.some() {
            let field =
                if self.random.below(2) == 0 { &node(place).left } else { &node(place).right };
            // SAFETY: the closure holds both.
            unsafe { self.mutator.write(field, Addr::new(address(new))) };
        }
        if let Some(new) = new {
            let register = self.random.below(REGISTERS);
            self.registers[register] = root(&self.mutator, new);
        }
        self.mutator.leave();
        if self.random.below(60) == 0 {
            let fresh = new_arena(self.heap);
            let index = self.random.below(ARENAS);
            let old = std::mem::replace(&mut self.arenas.lock().expect("no panic")[index], fresh);
            match self.random.below(3) {
                0 => old.abandon(),
                1 => drop(old.free()),
                // The last handle may be another thread's.
                _ => drop(old),
            }
        }
    }
}

fn stress(seed: u64, options: Options, steps: usize) {
    println!("seed {seed:#x}");
    let heap = Heap::new(Os::native(), options).expect("a heap");
    let arenas = Mutex::new((0..ARENAS).map(|_| new_arena(&heap)).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (heap, arenas) = (&heap, &arenas);
            scope.spawn(move || {
                let mutator = heap.attach();
                let registers = inside(&mutator, |mutator| {
                    (0..REGISTERS).map(|n| root(mutator, object(mutator, n, None))).collect()
                });
                let random = Random(seed + thread);
                let mut player = Player { mutator, heap, arenas, registers, random, stale: 0 };
                (0..steps).for_each(|step| player.step(step));
                println!("thread {thread} has met {} stale pointers", player.stale);
            });
        }
    });
    let stats = Stats::of(&heap);
    println!("{} cycles, {:?}", stats.cycles, stats.arenas);
    assert!(!stats.retained_everything && stats.broken_cycles == 0);
    verify(&heap);
    arenas.into_inner().expect("no panic").clear();
    for _ in 0..3 {
        heap.collect();
    }
    verify(&heap);
    assert_eq!(pages(&heap, MemoryState::Arena), Bytes::ZERO);
    assert_eq!(pages(&heap, MemoryState::Quarantined), Bytes::ZERO);
}

#[test]
fn threads_that_do_everything_at_random_lose_nothing() {
    let steps = if is_long() { 400_000 } else { 30_000 };
    let options = Options { continuously: true, checkmark: true, ..Options::default() };
    stress(0x5eed_0001, options, steps);
    stress(0x5eed_0002, Options { mark_threads: std::num::NonZeroUsize::new(3), ..options }, steps);
    let policy = Policy { percent: Some(20), limit: None };
    stress(0x5eed_0003, Options { policy, continuously: false, poison: true, ..options }, steps);
    stress(0x5eed_0004, Options { checkmark: false, poison: true, ..options }, steps);
}
