//! The line of a cycle: it is read back as a tool for Go's `gctrace=1` reads it, and compared with the statistics. Then
//! the hook that gets the same figures: whatever it does, the heap goes on.

#[path = "../../spanheap-core/tests/kernel/mod.rs"]
mod kernel;

use kernel::child;
use spanheap::os::{Os, SimOs};
use spanheap::{
    ArenaGc, Collected, CycleArenas, CycleReason, CycleTrace, Gc, GcCell, Heap, HeapBuilder,
};
use spanheap::{Root, Rootable, SharedArena, Stats, Trace};
use spanheap_core::addr::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Trace)]
struct Node<'gc> {
    value: GcCell<'gc, Option<ArenaGc<'gc, [u64; 1000]>>>,
    next: Option<Gc<'gc, Node<'gc>>>,
}

type NodeRoot = Root<Rootable![Node<'_>]>;

/// A line, as it was read.
#[derive(Debug)]
struct Line {
    cycle: u64,
    /// Milliseconds since the heap was made.
    at: u64,
    percent: u64,
    clock: [f64; 3],
    cpu: [f64; 5],
    heap: [u64; 3],
    goal: u64,
    globals: u64,
    processors: u64,
    is_forced: bool,
    keys: BTreeMap<String, String>,
}

/// What is left of a line.
struct Reader<'a>(&'a str);

impl Reader<'_> {
    /// Text that has to come next.
    #[track_caller]
    fn text(&mut self, text: &str) -> &mut Self {
        self.0 = self.0.strip_prefix(text).unwrap_or_else(|| panic!("{text:?}, not {:?}", self.0));
        self
    }

    /// A number of digits and no more than one point: nothing negative, no exponent, no word.
    #[track_caller]
    fn number<N: std::str::FromStr>(&mut self) -> N {
        let end = self.0.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.0.len());
        let (number, rest) = self.0.split_at(end);
        let plain = number.starts_with(|c: char| c.is_ascii_digit()) && !number.ends_with('.');
        let read = number.parse().ok().filter(|_| plain);
        let number = read.unwrap_or_else(|| panic!("a number, not {:?}", self.0));
        self.0 = rest;
        number
    }
}

/// Reads a line by the pattern of Go's documentation, and what is behind the bar as keys and values.
#[track_caller]
fn read(line: &str) -> Line {
    let mut reader = Reader(line);
    let cycle = reader.text("gc ").number();
    let at = reader.text(" @").number::<String>().replace('.', "").parse().unwrap();
    let percent = reader.text("s ").number();
    let a = reader.text("%: ").number();
    let b = reader.text("+").number();
    let clock = [a, b, reader.text("+").number()];
    let first = reader.text(" ms clock, ").number();
    let assists = reader.text("+").number();
    let marking = reader.text("/").number();
    let offered = reader.text("/").number();
    let cpu = [first, assists, marking, offered, reader.text("+").number()];
    let before = reader.text(" ms cpu, ").number();
    let marked = reader.text("->").number();
    let heap = [before, marked, reader.text("->").number()];
    let goal = reader.text(" MB, ").number();
    assert_eq!(reader.text(" MB goal, ").number::<u64>(), 0, "no stack is ever scanned");
    let globals = reader.text(" MB stacks, ").number();
    let processors = reader.text(" MB globals, ").number();
    let (tail, keys) = reader.text(" P").0.split_once(" | ").expect("a bar");
    assert!(["", " (forced)"].contains(&tail), "{tail:?}");
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').expect("key=value");
        (key.to_owned(), value.to_owned())
    };
    let is_forced = !tail.is_empty();
    let keys = keys.split(' ').map(pair).collect();
    Line { cycle, at, percent, clock, cpu, heap, goal, globals, processors, is_forced, keys }
}

impl Line {
    #[track_caller]
    fn key(&self, key: &str) -> &str {
        self.keys.get(key).unwrap_or_else(|| panic!("{key} is missing: {self:?}"))
    }

    /// Kibibytes; of two figures the second one.
    #[track_caller]
    fn kib(&self, key: &str) -> usize {
        let value = self.key(key).strip_suffix("KiB").expect("KiB");
        value.rsplit("->").next().and_then(|kib| kib.parse().ok()).expect("a number")
    }
}

/// What was told of a cycle, and the statistics as the hook has seen them.
type Told = (CycleTrace, Option<Stats>);

/// What was told of each cycle of a heap.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    heap: Option<Heap>,
    told: Vec<Told>,
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A heap of which everything is noted.
    fn build(&self, builder: HeapBuilder) -> Heap {
        let notes = self.clone();
        let hook = move |cycle: &CycleTrace| {
            let Inner { heap, told } = &mut *notes.lock();
            told.push((*cycle, heap.as_ref().map(Heap::stats)));
        };
        let heap = builder.on_cycle(hook).build().unwrap();
        self.lock().heap = Some(heap.clone());
        heap
    }

    /// Notes no more statistics: if it went on to, the heap would not end.
    fn take(&self) -> Vec<Told> {
        let Inner { heap, told } = std::mem::take(&mut *self.lock());
        drop(heap);
        told
    }
}

/// A root of a list of nodes.
fn list(heap: &Heap, len: usize) -> NodeRoot {
    heap.enter(|mc| {
        let node = |next| mc.alloc(Node { value: GcCell::new(None), next });
        mc.root((1..len).fold(node(None), |next, _| node(Some(next))))
    })
}

/// An arena with a value that the first node leads to from now on.
fn lead(heap: &Heap, root: &NodeRoot) -> SharedArena {
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        let value = arena.alloc(mc, [7; 1000]);
        root.get(mc).value.set(mc, Some(value));
    });
    arena
}

/// In a heap with a limit all that lies outside counts for the goal, so the sums are exact.
#[test]
fn the_line_says_what_the_statistics_say() {
    let notes = Notes::default();
    let heap = notes.build(Heap::builder().gc_percent_off().memory_limit(1usize << 30));
    let root = list(&heap, 10_000);
    let _account = heap.account(5 << 20);
    let others = [heap.shared_arena(), heap.shared_arena()];
    heap.enter(|mc| others.each_ref().map(|arena| _ = arena.alloc(mc, [3u64; 9000])));
    let freed = lead(&heap, &root);
    freed.free();
    let before = heap.stats();
    for _ in 0..3 {
        assert_eq!(heap.collect(), Collected::Complete);
    }
    let after = heap.stats();
    let told = notes.take();
    assert_eq!(told.len() as u64, after.cycles, "each cycle is told of once");
    let mut goal = before.goal_bytes;
    for (n, (cycle, stats)) in told.iter().enumerate() {
        let stats = stats.as_ref().expect("a hook may ask for the statistics");
        let line = read(&cycle.to_string());
        assert_eq!((line.cycle, line.cycle), (n as u64 + 1, stats.cycles));
        assert!(line.is_forced && line.key("why") == "asked");
        let outside = stats.accounted_bytes + stats.arenas.live_bytes;
        assert_eq!(stats.accounted_bytes, 5 << 20);
        assert_eq!(cycle.heap_live.get(), stats.live_bytes + outside);
        assert!(cycle.heap_live <= cycle.heap_marked, "{cycle:?}");
        assert!(cycle.heap_live <= cycle.heap_before, "{cycle:?}");
        let figures = [cycle.heap_before, cycle.heap_marked, cycle.heap_live];
        assert_eq!(line.heap, figures.map(|bytes| bytes.get() as u64 >> 20));
        assert_eq!(line.goal, goal as u64 >> 20, "the goal of this cycle, not of the next one");
        goal = stats.goal_bytes;
        assert_eq!((line.globals, cycle.roots.get()), (0, stats.roots * size_of::<usize>()));
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        assert_eq!(line.processors, processors as u64);
        assert_eq!(line.key("objects"), stats.live_objects.to_string());
        assert_eq!(line.kib("marked"), stats.live_bytes >> 10);
        assert_eq!((line.key("retained"), stats.retained_everything), ("live", false));
        assert_eq!(line.kib("outside"), stats.accounted_bytes >> 10);
        let arenas = &stats.arenas;
        assert_eq!(line.key("arenas"), format!("{}/{}", arenas.open, arenas.freed));
        assert_eq!((arenas.open, arenas.freed), (2, 1));
        let bytes = ["arena_live", "quarantined"].map(|key| line.kib(key) << 10);
        assert_eq!(bytes, [arenas.live_bytes, arenas.quarantined_bytes]);
        assert!(arenas.live_bytes > 0 && arenas.quarantined_bytes > 0, "{arenas:?}");
        assert!(cycle.arenas.quarantined <= cycle.arenas.quarantined_before, "{cycle:?}");
        assert_eq!(arenas.kept_bytes, 0, "the cycle has looked at it");
        assert_eq!(line.key("escapes"), arenas.escapes.to_string());
        assert_eq!(arenas.escapes, n as u64 + 1, "each cycle finds the one pointer");
    }
    let last = &told[2].0;
    assert_eq!(last.marked.get(), after.live_bytes, "and so do others, as soon as it is over");
    assert_eq!(last.arenas.escapes, after.arenas.escapes);
}

/// What waits for a cycle is told of as it was when marking began, and as it is. It is on a simulated system, because not
/// each one can make memory inaccessible and keep it. Waiting for a cycle has an end, after a second.
#[test]
fn memory_of_freed_arenas_that_waits_for_a_cycle_is_told_of() {
    let notes = Notes::default();
    let os = Os::simulated(SimOs::builder().moves(false).build());
    let heap = notes.build(Heap::builder().gc_percent_off().os(os));
    let root = list(&heap, 1);
    lead(&heap, &root).free();
    assert_eq!(heap.collect(), Collected::Complete);
    let held = heap.stats().arenas.quarantined_bytes;
    assert!(held > 0, "a freed arena is pointed to");
    for _ in 0..100 {
        let arena = heap.shared_arena();
        heap.enter(|mc| _ = arena.alloc_zeroed::<u8>(mc, 1 << 20));
        let bytes = heap.stats().arenas.live_bytes;
        arena.free();
        assert_eq!(heap.collect(), Collected::Complete);
        let (cycle, _) = notes.lock().told.pop().expect("a cycle");
        let CycleArenas { quarantined_before: before, kept, quarantined, .. } = cycle.arenas;
        assert_eq!((before + kept).get(), held + bytes);
        assert_eq!(quarantined.get(), held);
        let line = read(&cycle.to_string());
        let figures = format!("{}->{}KiB", before.get() >> 10, held >> 10);
        assert_eq!((line.key("quarantined"), line.kib("kept")), (&*figures, kept.get() >> 10));
        if kept > Bytes::ZERO {
            notes.take();
            return;
        }
    }
    panic!("nothing is ever kept");
}

/// Times add up: no step is counted twice, and none is longer than all of them.
#[test]
fn times_are_those_that_have_passed() {
    let notes = Notes::default();
    let begun = Instant::now();
    let builder = Heap::builder().mark_threads(2.try_into().unwrap()).always_assist(true);
    let heap = notes.build(builder);
    let Stats { mut goal_bytes, gc_cpu: mut spent, .. } = heap.stats();
    let mut goals = BTreeSet::new();
    for round in 0..5 {
        let _root = list(&heap, 20_000 << round);
        heap.enter(|mc| (0..1000).for_each(|n| _ = mc.alloc(n)));
        assert_eq!(heap.collect(), Collected::Complete);
    }
    let elapsed = begun.elapsed();
    let mut last = Duration::ZERO;
    for (cycle, stats) in notes.take() {
        let (clock, cpu) = (cycle.clock, cycle.cpu);
        let steps = [clock.arming, clock.marking, clock.ending, clock.sweeping];
        assert!(cycle.began >= last, "it begins after the last one has ended: {cycle:?}");
        last = cycle.began + steps.iter().sum::<Duration>();
        assert!(last <= elapsed, "{cycle:?}");
        assert!(clock.marking > Duration::ZERO && clock.sweeping > Duration::ZERO, "{cycle:?}");
        let parts = [cpu.arming, cpu.assists, cpu.marking, cpu.offered, cpu.ending];
        let stats = stats.expect("statistics");
        assert_eq!(cycle.goal.get(), goal_bytes, "that of this cycle, not of the next one");
        goal_bytes = stats.goal_bytes;
        goals.insert(goal_bytes);
        let all = stats.gc_cpu;
        assert!(parts.iter().sum::<Duration>() <= all - spent, "{cycle:?}");
        spent = all;
        assert!(cycle.percent <= 100);
        let line = read(&cycle.to_string());
        assert_eq!(u128::from(line.at), cycle.began.as_millis());
        assert_eq!(line.percent, u64::from(cycle.percent));
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let pairs = line.clock.into_iter().zip(steps).chain(line.cpu.into_iter().zip(parts));
        for (said, time) in pairs {
            // Two digits, cut off, and no fraction of a microsecond.
            let least = (millis(time) * 0.9 - 0.001).max(0.0);
            assert!(said <= millis(time) && said >= least, "{said} for {time:?}");
        }
        assert_eq!(line.key("rounds"), cycle.rounds.to_string());
        assert!(cycle.rounds >= 1);
    }
    assert!(goals.len() > 1, "they are all the same: {goals:?}");
}

/// Waits until a cycle has been told of that nobody has asked for.
#[track_caller]
fn why(builder: HeapBuilder, mut act: impl FnMut(&Heap)) -> CycleReason {
    let notes = Notes::default();
    let heap = notes.build(builder);
    let begun = Instant::now();
    loop {
        act(&heap);
        let first = notes.lock().told.first().map(|(cycle, _)| *cycle);
        if let Some(cycle) = first {
            let line = read(&cycle.to_string());
            assert_eq!(line.key("why"), cycle.reason.name());
            assert_eq!(line.is_forced, cycle.reason == CycleReason::Asked);
            notes.take();
            return cycle.reason;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no cycle has begun");
    }
}

#[test]
fn each_cycle_says_why_it_began() {
    let off = || Heap::builder().gc_percent_off().periodic_collection(None);
    let garbage = |heap: &Heap| heap.enter(|mc| _ = mc.alloc_slice(vec![1u64; 10_000]));
    let rest = |_: &Heap| std::thread::yield_now();
    assert_eq!(why(off(), |heap| _ = heap.collect()), CycleReason::Asked);
    assert_eq!(why(off().gc_percent(100), garbage), CycleReason::Goal);
    assert_eq!(why(off().memory_limit(16usize << 20), garbage), CycleReason::Limit);
    assert_eq!(why(off().collect_every(3), garbage), CycleReason::Every);
    assert_eq!(why(off().collect_continuously(true), rest), CycleReason::Continuous);
    let soon = Some(Duration::from_millis(1));
    assert_eq!(why(Heap::builder().periodic_collection(soon), rest), CycleReason::Periodic);
    let too_much = |heap: &Heap| {
        heap.enter(|mc| assert!(mc.try_alloc_zeroed::<u8>(60 << 20).is_err()));
    };
    assert_eq!(why(off().hard_limit(32usize << 20), too_much), CycleReason::Refusal);
    let arenas = |heap: &Heap| {
        let arena = heap.shared_arena();
        heap.enter(|mc| _ = arena.alloc_zeroed::<u8>(mc, 1 << 20));
        arena.free();
    };
    assert_eq!(why(off(), arenas), CycleReason::Quarantine);
}

/// On the collector's thread: each attempt ends with a panic in the hook, and nothing waits for itself.
#[test]
fn a_hook_that_panics_or_uses_the_heap_is_contained() {
    static HEAP: Mutex<Option<Heap>> = Mutex::new(None);
    static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() != Some("spanheap-gc") {
            usual(info);
        }
    }));
    let heap = Heap::builder().gc_percent_off().on_cycle(|cycle| {
        let heap = HEAP.lock().unwrap().clone().unwrap();
        let caught = catch_unwind(AssertUnwindSafe(|| match cycle.cycle {
            1 => heap.enter(|mc| _ = mc.alloc(1u64)),
            2 => _ = heap.collect(),
            3 => _ = heap.verify(),
            _ => panic_any(String::from("the hook itself")),
        }));
        let payload = caught.unwrap_err();
        HEARD.lock().unwrap().push(payload.downcast_ref::<String>().cloned().unwrap());
        std::panic::resume_unwind(payload);
    });
    let heap = heap.build().unwrap();
    *HEAP.lock().unwrap() = Some(heap.clone());
    let _root = list(&heap, 100);
    for cycle in 1..=4 {
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(heap.stats().cycles, cycle);
    }
    assert!(heap.verify().is_ok());
    let heard = HEARD.lock().unwrap();
    for (said, what) in heard.iter().zip(["attach to a heap", "collect", "verify a heap"]) {
        assert!(said.starts_with("a hook on the collector's thread may not "), "{said}");
        assert!(said.contains(what), "{said}");
    }
    assert_eq!((heard.len(), &*heard[3]), (4, "the hook itself"));
    HEAP.lock().unwrap().take();
}

/// The variable switches the line on, and only in heaps that look at it; a switch takes effect at once. Whoever holds
/// the lock of standard error may wait for a cycle.
#[test]
fn lines_are_written_if_the_environment_says_so() {
    let name = "lines_are_written_if_the_environment_says_so";
    let outcome = child::outcome_with(name, "on", &[("SPANHEAP_DEBUG", "gctrace=1")], || {
        let heap = Heap::builder().from_env().gc_percent_off().build().unwrap();
        let silent = Heap::builder().gc_percent_off().build().unwrap();
        let collect = |heap: &Heap| assert_eq!(heap.collect(), Collected::Complete);
        collect(&heap);
        collect(&silent);
        let locked = std::io::stderr().lock();
        collect(&heap);
        drop(locked);
        heap.set_trace_cycles(false);
        collect(&heap);
        heap.set_trace_cycles(true);
        collect(&heap);
    });
    let Some(outcome) = outcome else { return };
    assert_eq!((outcome.signal, outcome.code), (None, Some(0)));
    assert!(outcome.output.contains(&format!("the child has run {name}/on")));
    let lines = outcome.output.lines().filter(|line| line.starts_with("gc "));
    let lines: Vec<Line> = lines.map(read).collect();
    let numbers: Vec<u64> = lines.iter().map(|line| line.cycle).collect();
    assert_eq!(numbers, [1, 2, 4], "{}", outcome.output);
    assert!(lines.iter().all(|line| line.key("heap") == lines[0].key("heap")));
}

/// Whatever goes on meanwhile, each line can be read.
#[test]
fn lines_can_be_read_while_threads_allocate_free_and_collect() {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let notes = told.clone();
    let hook = move |cycle: &CycleTrace| notes.lock().unwrap().push(cycle.to_string());
    let builder = Heap::builder().collect_continuously(true).always_assist(true);
    let heap = builder.on_cycle(hook).build().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for round in 0.. {
                    if round >= 100 && told.lock().unwrap().len() >= 5 {
                        break;
                    }
                    let root = list(&heap, 100);
                    let arena = lead(&heap, &root);
                    let account = heap.account((round % 500) << 12);
                    arena.free();
                    drop((account, root));
                    // There may be no processor left for the collector.
                    std::thread::yield_now();
                }
            });
        }
    });
    drop(heap);
    let told = told.lock().unwrap();
    assert!(!told.is_empty());
    for (number, line) in (1..).zip(told.iter()) {
        assert_eq!(read(line).cycle, number, "{line}");
    }
}
