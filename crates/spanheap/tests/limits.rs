//! Limits on the memory of a heap, soft and hard, and what is changed while it is in use: rows 13, 15 to 20 of the
//! fault matrix.
//!
//! What is asserted of processor time is what the collector promises whatever the machine does: it holds for any
//! schedule.

#[path = "../../spanheap-core/tests/kernel/mod.rs"]
mod kernel;

use kernel::child;
use spanheap::os::{Os, SimOs};
use spanheap::{
    BuildError, Collected, Gc, GcCell, Heap, LimitError, MemoryLimit, OutOfMemory, Root, Rootable,
    Trace,
};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

type Block = Root<Rootable![[u8]]>;

fn block(heap: &Heap, bytes: usize) -> Result<Block, OutOfMemory> {
    heap.enter(|mc| Ok(mc.root(mc.try_alloc_slice((0..bytes).map(|i| i as u8))?)))
}

fn blocks(heap: &Heap, count: usize) -> Vec<Block> {
    (0..count).map(|_| block(heap, MIB).expect("memory")).collect()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what} does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Processor time of the process.
fn process_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks: u64 =
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    // A tick is a hundredth of a second on every Linux of today.
    Duration::from_millis(ticks * 10)
}

/// Row 13: with 64 MiB of address space there is a clean error, or a heap that says no, and nothing is broken.
#[test]
fn fault_13_little_address_space() {
    child::run("fault_13_little_address_space", || {
        // What the process has once and keeps.
        drop(blocks(&Heap::new(), 4));
        let limit = child::limit_address_space(64 * MIB);
        let mut errors = 0;
        for _ in 0..20 {
            match Heap::builder().build() {
                Ok(heap) => errors += u32::from(block(&heap, MIB).is_err()),
                Err(BuildError::System(error)) => {
                    errors += 1;
                    assert!(error.to_string().starts_with("no "), "{error}");
                }
                Err(error) => panic!("{error}"),
            }
        }
        child::set_limit(libc::RLIMIT_AS, limit);
        assert_eq!(errors, 20, "an arena and its tables are more than that");
        assert_eq!(blocks(&Heap::new(), 8).len(), 8);
    });
}

/// Row 15: a soft limit that follows the control group. The simulated machine gives no more than 95 % of what the group
/// allows, as a kernel would that is about to end the process; the heap never gets there.
#[test]
fn fault_15_a_heap_stays_below_its_control_group() {
    let group = 80 * MIB;
    let sim = SimOs::builder()
        .file("/proc/meminfo", "MemTotal: 16777216 kB\n")
        .file("/proc/self/cgroup", "0::/job\n")
        .file("/proc/self/mountinfo", "30 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n")
        .file("/cg/job/memory.max", &format!("{group}\n"))
        .budget(spanheap_core::addr::Bytes::new(group / 100 * 95))
        .build();
    let os = || Os::simulated(sim.clone());
    let heap = Heap::builder().os(os()).memory_limit(MemoryLimit::Cgroup).build().expect("a heap");
    assert_eq!(heap.memory_limit(), Some(64 * MIB));
    let kept: Vec<Block> = blocks(&heap, 44).into_iter().step_by(2).collect();
    assert_eq!(heap.collect(), Collected::Complete);
    // Every second block is free, and this fits in none of the holes.
    let large =
        heap.enter(|mc| Ok::<Block, OutOfMemory>(mc.root(mc.try_alloc_zeroed::<u8>(30 * MIB)?)));
    large.expect("the holes make room for it");
    let stats = heap.stats();
    assert!(stats.ready_bytes <= 64 * MIB, "{stats:?}");
    assert_eq!((stats.refusals, stats.times_over_limit, kept.len()), (0, 0, 22));
    drop((kept, heap));
    // Without the limit the same program meets the wall.
    let heap = Heap::builder().os(os()).return_memory(false).build().expect("a heap");
    let kept: Vec<Block> = blocks(&heap, 44).into_iter().step_by(2).collect();
    assert_eq!(heap.collect(), Collected::Complete);
    heap.enter(|mc| mc.try_alloc_zeroed::<u8>(40 * MIB).map(|_| ())).expect_err("too much");
    assert_eq!(heap.stats().refusals, 1);
    drop((kept, heap));
    sim.assert_all_released();
}

/// Row 16: a soft limit of a third of what is live. Nothing is refused, and the collector has half of the
/// processor time at most.
#[test]
fn fault_16_a_soft_limit_below_what_is_live() {
    child::run("fault_16_a_soft_limit_below_what_is_live", || {
        let builder = Heap::builder().gc_percent_off().memory_limit(8 * MIB);
        let heap = builder.build().expect("a heap");
        #[derive(Trace)]
        struct Cell<'gc> {
            number: u64,
            next: GcCell<'gc, Option<Gc<'gc, Cell<'gc>>>>,
        }
        let begun = Instant::now();
        let chain: Root<Rootable![Cell<'_>]> = heap.enter(|mc| {
            let cell = |number, next| mc.alloc(Cell { number, next: GcCell::new(next) });
            let last =
                (1..1_000_000u64).fold(cell(0, None), |next, number| cell(number, Some(next)));
            mc.root(last)
        });
        let (mut longest, mut seen) = (Duration::ZERO, heap.stats());
        let mut rounds = 0;
        // The collector comes to its turn, sooner or later.
        while rounds < 400 || (seen.cycles < 10 && rounds < 1_000_000) {
            rounds += 1;
            heap.enter(|mc| {
                (0..2000u64).for_each(|number| {
                    mc.alloc(Cell { number, next: GcCell::new(None) });
                })
            });
            let now = heap.stats();
            // A cycle, or some: then the estimate is too high, which is no harm.
            if now.cycles > seen.cycles {
                longest = longest.max(now.gc_cpu - seen.gc_cpu);
                seen = now;
            }
        }
        let stats = heap.stats();
        let (wall, process) = (begun.elapsed(), process_time());
        assert!(stats.times_over_limit >= 1 && stats.refusals == 0, "{stats:?}");
        assert!(stats.cycles > 2 && stats.live_bytes >= 16_000_000, "{stats:?}");
        let (credit, ticks) = (Duration::from_millis(100), Duration::from_millis(40));
        let others = process.saturating_sub(stats.gc_cpu).max(wall / 4);
        let most = others + credit + longest + ticks;
        println!("{:?} of {process:?} in {wall:?}, at most {most:?}", stats.gc_cpu);
        assert!(stats.gc_cpu <= most, "{stats:?}");
        heap.enter(|mc| assert_eq!(chain.get(mc).number, 999_999));
    });
}

#[derive(Trace)]
struct Session<'gc> {
    number: u64,
    before: Option<Gc<'gc, Session<'gc>>>,
    padding: [u64; 30],
}

#[derive(Trace)]
struct Pixel([u64; 32]);

type SessionRoot = Root<Rootable![Session<'_>]>;
type PixelRoot = Root<Rootable![Pixel]>;

/// Row 16, with a hard limit: a leak gets its error, is told what it is, and the program goes on when it lets go.
#[test]
fn fault_16_a_leak_against_a_hard_limit() {
    let heap = Heap::builder().hard_limit(24 * MIB).build().expect("a heap");
    for round in 0..3 {
        // What the last round has let go of.
        assert_eq!(heap.collect(), Collected::Complete);
        let mut last: Option<SessionRoot> = None;
        let pixels: Vec<PixelRoot> =
            (0..1000).map(|_| heap.enter(|mc| mc.root(mc.alloc(Pixel([7; 32]))))).collect();
        let error = (0..1_000_000).find_map(|number| {
            let made = heap.enter(|mc| {
                let before = last.as_ref().map(|last| last.get(mc));
                let session = mc.try_alloc(Session { number, before, padding: [1; 30] })?;
                Ok::<_, OutOfMemory>(mc.root(session))
            });
            made.map(|root| last = Some(root)).err()
        });
        let error = error.expect("24 MiB are not enough");
        assert_eq!(error.limit.map(|limit| limit.get()), Some(24 * MIB), "{error}");
        let held = heap.enter(|mc| last.as_ref().expect("some").get(mc).number) as usize;
        assert!(held > 40_000, "round {round}: {held} of 256 bytes fit in 24 MiB");
        assert!(heap.stats().ready_bytes <= 24 * MIB);

        assert_eq!(heap.collect(), Collected::Complete);
        let live = heap.explain_live();
        let first = &live.types[0];
        assert!(first.name.contains("Session"), "{live}");
        assert!(first.bytes.get() > 10 * MIB && first.objects as usize > 40_000, "{live}");
        assert!(live.types.iter().any(|ty| ty.name.contains("Pixel")), "{live}");
        assert!(live.to_string().contains("Session"), "{live}");
        let sum: u64 = live.types.iter().map(|ty| ty.objects).sum();
        assert_eq!(sum, live.objects);
        assert!(heap.enter(|mc| pixels.iter().all(|pixel| pixel.get(mc).0[31] == 7)));
    }
    assert!(heap.stats().refusals >= 3);
}

/// A program that is refused again and again does not keep the collector busy.
#[test]
fn fault_16_refusals_do_not_ask_for_cycle_after_cycle() {
    let heap = Heap::builder().gc_percent_off().hard_limit(16 * MIB).build().expect("a heap");
    let mut kept = Vec::new();
    while let Ok(one) = block(&heap, MIB) {
        kept.push(one);
    }
    // The cycle that the first refusal has begun may still run.
    assert_eq!(heap.collect(), Collected::Complete);
    let (before, begun) = (heap.stats(), Instant::now());
    for _ in 0..20_000 {
        heap.enter(|mc| mc.try_alloc_zeroed::<u8>(MIB).map(|_| ())).expect_err("full");
    }
    let after = heap.stats();
    assert_eq!(after.refusals - before.refusals, 20_000);
    let cycles = u128::from(after.cycles - before.cycles);
    let most = 3 + begun.elapsed().as_millis() / 100;
    assert!(cycles <= most, "{cycles} cycles, and {most} at most");
    // Who lets go, and says so, need not wait.
    kept.clear();
    assert_eq!(heap.collect(), Collected::Complete);
    block(&heap, MIB).expect("there is room");
}

/// Row 17: what makes no sense is refused, and changes nothing.
#[test]
fn fault_17_settings_are_validated() {
    let heap = Heap::new();
    assert_eq!(
        (heap.gc_percent(), heap.memory_limit(), heap.hard_limit()),
        (Some(100), None, None)
    );
    heap.set_memory_limit(32 * MIB).expect("a limit");
    heap.set_hard_limit(64 * MIB).expect("a limit");
    let small = LimitError::TooSmall { limit: 0, smallest: 8 * MIB };
    assert_eq!(heap.set_memory_limit(0), Err(small));
    assert_eq!(heap.set_hard_limit(0), Err(small));
    for percent in [0, 101, 255] {
        let error = LimitError::Percent { percent, most: 100 };
        assert_eq!(heap.set_memory_limit(MemoryLimit::PercentOfMachine(percent)), Err(error));
        let error = LimitError::Percent { percent, most: 95 };
        assert_eq!(heap.set_hard_limit(MemoryLimit::PercentOfCgroup(percent)), Err(error));
    }
    assert_eq!((heap.memory_limit(), heap.hard_limit()), (Some(32 * MIB), Some(64 * MIB)));
    let stats = heap.stats();
    assert_eq!((stats.memory_limit, stats.hard_limit), (Some(32 * MIB), Some(64 * MIB)));
    heap.set_memory_limit(usize::MAX).expect("more than there can be is none");
    heap.set_hard_limit(MemoryLimit::Off).expect("none");
    assert_eq!((heap.memory_limit(), heap.hard_limit()), (None, None));
    for percent in [Some(0), Some(u32::MAX), None] {
        heap.set_gc_percent(percent);
        assert_eq!(heap.gc_percent(), percent);
    }
    assert_eq!(heap.stats().goal_bytes, usize::MAX, "no cycle is planned");
}

/// Row 17: the next cycle is planned anew at once.
#[test]
fn fault_17_a_change_holds_at_once() {
    let heap = Heap::builder().gc_percent(1000).build().expect("a heap");
    let kept = blocks(&heap, 20);
    assert_eq!(heap.collect(), Collected::Complete);
    let goal = || heap.stats().goal_bytes;
    // But for the words of the root table, which are scanned, too.
    let retained = goal() / 11;
    assert!(retained >= 20 * MIB, "{retained}");
    heap.set_gc_percent(Some(100));
    assert!(goal().abs_diff(2 * retained) <= retained / 100, "{} and {retained}", goal());
    heap.set_memory_limit(32 * MIB).expect("a limit");
    assert!(goal() < 32 * MIB && goal() > 20 * MIB, "{}", goal());
    heap.set_memory_limit(MemoryLimit::Off).expect("none");
    assert!(goal().abs_diff(2 * retained) <= retained / 100, "{} and {retained}", goal());
    // Garbage below the goal stays, until the goal is lower than that.
    heap.set_gc_percent(Some(1000));
    drop(blocks(&heap, 60));
    let cycles = heap.stats().cycles;
    assert!(heap.stats().used_bytes > 75 * MIB);
    heap.set_gc_percent(Some(100));
    wait_until("the cycle that is due now", || heap.stats().cycles > cycles);
    // With a hard limit below what is live there is no more memory; what is there stays, and it can be raised again.
    let _ = heap.release_memory();
    heap.set_hard_limit(16 * MIB).expect("a limit");
    block(&heap, MIB).map(|_| ()).expect_err("20 MiB are live");
    heap.set_hard_limit(64 * MIB).expect("a limit");
    block(&heap, MIB).expect("there is room again");
    heap.enter(|mc| assert!(kept.iter().all(|block| block.get(mc)[77] == 77)));
}

/// Row 17: several threads change settings while others allocate; in the end the last ones hold.
#[test]
fn fault_17_changes_from_several_threads() {
    let heap = Heap::builder().hard_limit(64 * MIB).build().expect("a heap");
    std::thread::scope(|scope| {
        for seed in 0..2u32 {
            let heap = &heap;
            scope.spawn(move || {
                for step in 0..2000u32 {
                    let random = (step.wrapping_mul(2_654_435_761) >> 20) ^ seed;
                    heap.set_gc_percent((random % 7 > 0).then_some(random % 300 + 1));
                    heap.set_memory_limit(8 * MIB + (random as usize % 64) * MIB).expect("a limit");
                    heap.set_hard_limit(32 * MIB + (random as usize % 9) * MIB).expect("a limit");
                    let goal = heap.stats().goal_bytes;
                    assert!(goal > 0, "seed {seed}, step {step}");
                }
            });
            scope.spawn(move || {
                for _ in 0..300 {
                    // Refused or not: it may be as little as 32 MiB.
                    let step = |mc: &spanheap::Mutator<'_>| {
                        mc.try_alloc_slice((0..20_000u32).map(u64::from)).map(|slice| slice.len())
                    };
                    assert!(
                        heap.enter(step).is_ok_and(|len| len == 20_000)
                            || heap.hard_limit().is_some()
                    );
                }
            });
        }
    });
    heap.set_gc_percent(Some(100));
    heap.set_memory_limit(MemoryLimit::Off).expect("none");
    heap.set_hard_limit(MemoryLimit::Off).expect("none");
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(heap.stats().goal_bytes, 4 * MIB, "nothing is live");
}

/// Row 18: what is live grows by a factor of forty in one closure, while which no cycle can end. A soft limit
/// is exceeded then, and a hard one holds; the next goal follows what is live now.
#[test]
fn fault_18_a_sudden_jump_of_what_is_live() {
    let heap =
        Heap::builder().memory_limit(32 * MIB).hard_limit(128 * MIB).build().expect("a heap");
    let kept = blocks(&heap, 2);
    assert_eq!(heap.collect(), Collected::Complete);
    let more = heap.enter(|mc| {
        let block = |_| mc.root(mc.alloc_zeroed::<u8>(MIB));
        (0..80).map(block).collect::<Vec<Block>>()
    });
    assert_eq!(heap.collect(), Collected::Complete);
    let stats = heap.stats();
    assert!(stats.live_bytes >= 82 * MIB && stats.times_over_limit >= 1, "{stats:?}");
    // The limit is far below, so the goal is as near as it can be.
    assert!(stats.goal_bytes <= stats.live_bytes + stats.live_bytes / 32, "{stats:?}");
    let refused = heap.enter(|mc| (0..80).any(|_| mc.try_alloc_zeroed::<u8>(MIB).is_err()));
    assert!(refused && heap.stats().ready_bytes <= 128 * MIB);
    drop(more);
    assert_eq!(heap.collect(), Collected::Complete);
    assert!(heap.stats().goal_bytes < 32 * MIB);
    assert_eq!(kept.len(), 2);
}

/// How often the threads of this process have gone to sleep.
fn sleeps() -> u64 {
    let mut all = 0;
    for thread in std::fs::read_dir("/proc/self/task").expect("threads") {
        let thread = thread.expect("a thread").path();
        let name = std::fs::read_to_string(thread.join("comm")).unwrap_or_default();
        let status = std::fs::read_to_string(thread.join("status")).unwrap_or_default();
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        if name.starts_with("spanheap-") {
            all += count.map_or(0, |count| count.trim().parse::<u64>().expect("a number"));
        }
    }
    all
}

/// Row 19: a program that does nothing any more is left alone: no more than one wake-up in a second, all threads of
/// its heaps together; also if it rests above its soft limit.
#[test]
fn fault_19_nobody_wakes_in_an_idle_program() {
    child::run("fault_19_nobody_wakes_in_an_idle_program", || {
        let usual = Heap::new();
        let above =
            Heap::builder().memory_limit(8 * MIB).on_pressure(|_| spanheap::Response::Refuse);
        let above = above.build().expect("a heap");
        let kept = [blocks(&usual, 4), blocks(&above, 24)];
        drop(blocks(&usual, 40));
        drop(blocks(&above, 40));
        // What there is to collect and to return goes first, and takes as long as it takes.
        let quiet = (0..30).any(|_| {
            let (before, begun) = (sleeps(), Instant::now());
            std::thread::sleep(Duration::from_secs(2));
            let (woken, seconds) = (sleeps() - before, begun.elapsed().as_secs());
            println!("{woken} wake-ups in {seconds} s");
            woken <= seconds
        });
        assert!(quiet, "the heaps' threads never rest");
        assert_eq!(kept.iter().map(Vec::len).sum::<usize>(), 28);
    });
}

/// Row 20: every second object of each class is freed, and then the next class is filled. What is left serves its
/// own class again, and the rest is shown.
#[test]
fn fault_20_every_second_object_of_each_class() {
    let heap = Heap::new();
    let fill = |total: usize, bytes: usize| -> Vec<Block> {
        let count = total / bytes;
        heap.enter(|mc| (0..count).map(|_| mc.root(mc.alloc_zeroed::<u8>(bytes))).collect())
    };
    let mut kept: Vec<Block> = Vec::new();
    let classes = [32, 64, 128, 256, 512, 1024];
    for bytes in classes {
        kept.extend(fill(2 * MIB, bytes).into_iter().step_by(2));
        assert_eq!(heap.collect(), Collected::Complete);
    }
    let before = heap.stats();
    // Half of each class, and what a class wastes at the ends of its spans.
    assert!(before.heap_bytes <= 2 * before.live_bytes + MIB, "{before:?}");
    let free: Vec<f64> = heap.picture().classes.iter().map(|class| class.free_percent()).collect();
    assert!(free.iter().filter(|&&free| free > 45.0).count() >= classes.len(), "{free:?}");
    // The holes are used before new pages.
    for bytes in classes {
        kept.extend(fill(MIB, bytes));
    }
    let after = heap.stats();
    assert!(after.heap_bytes <= before.heap_bytes + before.heap_bytes / 8, "{before:?} {after:?}");
    assert!(kept.len() > 10_000);
}
