//! Heaps by the thousand, one after the other and at the same time, each with objects, threads and
//! destructors: afterwards the process is as it was before.
//!
//! What is compared is what the kernel says of the process: its mappings, its memory, its threads. So
//! nothing else may happen in the process meanwhile, and the tests of this file take turns.

use spanheap::{Gc, GcCell, Heap, Root, Rootable, Trace};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Destructors that have run.
static DROPPED: AtomicUsize = AtomicUsize::new(0);

#[derive(Trace)]
struct Counted(#[trace(leaf)] u64);

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Trace)]
struct Node<'gc> {
    counted: Counted,
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
}

type List = Root<Rootable![Node<'_>]>;
type Numbers = Root<Rootable![[u64]]>;

/// Makes a list of `len` nodes.
fn list(heap: &Heap, len: u64) -> List {
    heap.enter(|mc| {
        let mut first = None;
        for key in 0..len {
            first = Some(mc.alloc(Node { counted: Counted(key), next: GcCell::new(first) }));
        }
        mc.root(first.expect("a list of something"))
    })
}

fn sum(heap: &Heap, list: &List) -> u64 {
    heap.enter(|mc| {
        let (mut node, mut sum) = (Some(list.get(mc)), 0);
        while let Some(this) = node {
            sum += this.counted.0;
            node = this.next.get();
        }
        sum
    })
}

const KEPT: u64 = 50;
const LOST: u64 = 150;

/// A heap with a life: objects kept and lost, a second thread, a cycle, a large object.
fn live(number: usize) -> (Heap, List) {
    let heap = Heap::builder().build().expect("the system gives memory");
    let kept = list(&heap, KEPT);
    if number % 2 == 0 {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| drop(list(&heap, LOST)));
            other.join().expect("no panic");
        });
    } else {
        drop(list(&heap, LOST));
    }
    if number % 3 == 0 {
        let _ = heap.collect();
        assert_eq!(heap.stats().live_objects, KEPT);
    }
    if number % 5 == 0 {
        heap.enter(|mc| assert_eq!(mc.alloc_slice((0..20_000u32).map(u64::from)).len(), 20_000));
    }
    (heap, kept)
}

/// How many heaps come one after the other. Under a sanitizer, which follows each mapping, a heap takes long.
const MANY: usize = if cfg!(spanheap_asan) { 300 } else { 3000 };

/// What the kernel knows of the process.
#[derive(Debug)]
struct Process {
    mappings: usize,
    /// Bytes of all mappings.
    mapped: usize,
    /// Bytes in memory.
    resident: usize,
    /// Mappings at the addresses that heaps ask for, and their bytes.
    heaps: (usize, usize),
    /// The end of the highest of them.
    highest: usize,
    /// Threads that heaps have made.
    threads: usize,
}

/// Where heaps ask for address space first, up to what nobody gets to here, and nothing else of a process lies.
const HINTS: std::ops::Range<usize> = 0xc0 << 32..0x1000 << 32;

impl Process {
    fn now() -> Process {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has this file");
        let number = |text: &str| usize::from_str_radix(text, 16).expect("an address");
        let mut process = Process {
            mappings: 0,
            mapped: 0,
            resident: resident(),
            heaps: (0, 0),
            highest: 0,
            threads: threads(),
        };
        for line in maps.lines() {
            let range = line.split(' ').next().expect("a range");
            let (from, to) = range.split_once('-').expect("a range");
            let (from, to) = (number(from), number(to));
            process.mappings += 1;
            process.mapped += to - from;
            // A sanitizer has its own memory there, and heaps are elsewhere.
            if HINTS.contains(&from) && HINTS.contains(&to) {
                process.heaps.0 += 1;
                process.heaps.1 += to - from;
                process.highest = process.highest.max(to);
            }
        }
        process
    }
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has this file");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    let kilobytes = line.split_whitespace().nth(1).expect("a number");
    kilobytes.parse::<usize>().expect("a number") << 10
}

/// Threads whose names are those of a heap's.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has this folder");
    let names =
        tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("spanheap-")).count()
}

/// Waits until the kernel has buried the heaps' threads: one that has been joined may still be listed.
fn without_threads() -> Process {
    for _ in 0..10_000 {
        if threads() == 0 {
            return Process::now();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("threads of heaps that are gone: {:?}", Process::now());
}

/// How much may be there afterwards that was not before: stacks of threads and arenas that the C library keeps.
const SLACK_MAPPINGS: usize = 24;
const SLACK_MAPPED: usize = 256 << 20;
const SLACK_RESIDENT: usize = 8 << 20;

fn assert_nothing_left(before: &Process, after: &Process) {
    println!("before {before:x?}\nafter  {after:x?}");
    assert!(after.mappings <= before.mappings + SLACK_MAPPINGS);
    assert!(after.mapped <= before.mapped + SLACK_MAPPED);
    if !cfg!(spanheap_asan) {
        // The sanitizer keeps what was freed, and shadows of addresses that were in use.
        assert!(after.resident <= before.resident + SLACK_RESIDENT);
        assert_eq!(after.heaps, (0, 0), "no mapping is left where heaps have been");
    }
}

#[test]
fn three_thousand_heaps_one_after_the_other_leave_nothing() {
    let _turn = turn();
    let mut highest = 0;
    let mut run = |heaps: usize| {
        let begun = Instant::now();
        let dropped = DROPPED.load(Ordering::Relaxed);
        for number in 0..heaps {
            let (heap, kept) = live(number);
            assert_eq!(sum(&heap, &kept), KEPT * (KEPT - 1) / 2);
            if number % 100 == 0 {
                highest = highest.max(Process::now().highest);
            }
        }
        let expected = heaps * (KEPT + LOST) as usize;
        assert_eq!(DROPPED.load(Ordering::Relaxed) - dropped, expected, "each value once");
        println!("{heaps} heaps, {:?} each", begun.elapsed() / heaps as u32);
    };
    // What the process needs once, such as stacks, is there after some.
    run(200);
    let before = without_threads();
    run(MANY);
    assert_nothing_left(&before, &without_threads());
    // All of them were where the first one was, give or take: the arena map is not used up.
    println!("the highest address of a heap: {highest:#x}");
    assert!(highest <= HINTS.start + (16 << 30), "hints have walked to {highest:#x}");
}

#[test]
fn two_hundred_heaps_at_once_leave_nothing() {
    let _turn = turn();
    let run = |heaps: usize| {
        let begun = Instant::now();
        let mut all: Vec<(Heap, List)> = (0..heaps).map(live).collect();
        // Each has its own objects, and grows while the others are in its way.
        for (heap, kept) in &mut all {
            *kept = list(heap, KEPT + 1);
            let _ = heap.collect();
        }
        for (heap, kept) in &all {
            assert_eq!(sum(heap, kept), (KEPT + 1) * KEPT / 2);
        }
        // Gone in another order than they came: the even ones first, and new ones in their place.
        let mut number = 0;
        all.retain(|_| {
            number += 1;
            number % 2 == 0
        });
        all.extend((0..heaps / 4).map(live));
        let process = Process::now();
        assert!(process.threads >= all.len(), "{process:?}");
        drop(all);
        println!("{heaps} heaps at once, {:?} each", begun.elapsed() / heaps as u32);
        process.highest
    };
    run(200);
    let before = without_threads();
    let highest = run(200);
    assert_nothing_left(&before, &without_threads());
    assert!(highest <= HINTS.start + (200 * 4 * (64 << 20)), "hints have walked to {highest:#x}");
}

#[test]
fn heaps_that_grow_in_turns_get_ranges_of_their_own() {
    let _turn = turn();
    let heaps: Vec<Heap> =
        (0..3).map(|_| Heap::builder().gc_percent_off().build().unwrap()).collect();
    let mut kept: Vec<Vec<Numbers>> = vec![Vec::new(), Vec::new(), Vec::new()];
    // 24 MiB each: the third round is beyond the first arena, whose neighbour belongs to another heap.
    for round in 0..6 {
        for (heap, kept) in heaps.iter().zip(&mut kept) {
            kept.push(heap.enter(|mc| {
                mc.root(mc.alloc_slice((0..3u32 << 20).map(|n| u64::from(n) + round)))
            }));
        }
    }
    for (heap, kept) in heaps.iter().zip(&kept) {
        assert_eq!(heap.stats().heap_bytes, 6 * (24 << 20));
        for (round, root) in kept.iter().enumerate() {
            heap.enter(|mc| {
                let slice = root.get(mc);
                assert_eq!(
                    (slice[0], slice[slice.len() - 1]),
                    (round as u64, (3 << 20) - 1 + round as u64)
                );
            });
        }
    }
}

/// Fault row 30: what belongs to one heap is foreign to every other, also when that is gone.
#[test]
fn a_root_is_foreign_to_every_other_heap() {
    let _turn = turn();
    let (heap, kept) = live(1);
    let others: Vec<(Heap, List)> = (0..20).map(live).collect();
    for (other, theirs) in &others {
        for (heap, root) in [(other, &kept), (&heap, theirs)] {
            let refused =
                catch_unwind(AssertUnwindSafe(|| heap.enter(|mc| root.get(mc).counted.0)));
            assert!(refused.is_err(), "a root of another heap was accepted");
        }
    }
    // The same addresses, another heap: a root is not mistaken for one of its successor.
    let stale: Vec<List> = others.into_iter().map(|(_, list)| list).collect();
    for number in 0..20 {
        let (heap, _kept) = live(number);
        for root in &stale {
            let refused =
                catch_unwind(AssertUnwindSafe(|| heap.enter(|mc| root.get(mc).counted.0)));
            assert!(refused.is_err(), "a root of a heap that is gone was accepted");
        }
    }
    assert_eq!(sum(&heap, &kept), KEPT * (KEPT - 1) / 2);
}
