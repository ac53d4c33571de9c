//! The statistics of a heap against what the kernel says: the sum of all states is what is mapped for us.
//!
//! ```text
//!     readable and writable in the arenas  =  in use + manual + free + cached + returned
//!     the same in the whole process        =  what it was without the heap + all that is counted as mapped
//!     written and kept  <=  in memory      <= in use + manual + free + cached
//! ```
//!
//! The last bound does not hold where the kernel gives huge pages to everybody, unasked, and is not looked
//! at there. The test has a process of its own, with an allocator that maps nothing: the second line is about all of it.
//!
//! # Safety
//! The programs keep U1 to U5 of the runtime API.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod kernel;

use kernel::{child, mappings};
use spanheap_core::addr::{ARENA_BYTES, AddrRange, Bytes};
use spanheap_core::collect::roots::RootRecord;
use spanheap_core::collect::{Options, Policy};
use spanheap_core::mutator::{Heap, Mutator};
use spanheap_core::observe::{MemoryState, Picture, Stats};
use spanheap_core::os::Os;
use spanheap_core::span::{Shape, Tracer, TypeInfo};
use std::sync::Arc;

const MIB: usize = 1 << 20;

unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

const fn bytes(size: usize) -> TypeInfo {
    TypeInfo::new(|| "bytes", size, 8, Shape::NoScan, trace_nothing, None)
}

static TYPES: [TypeInfo; 8] = [
    bytes(16),
    bytes(48),
    bytes(320),
    bytes(2048),
    bytes(9000),
    bytes(32 << 10),
    bytes(200_000),
    bytes(3 * MIB),
];

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n as u64) as usize
    }
}

/// A new object, written to from end to end and held by a root. A closure is open.
fn make(mutator: &Mutator, ty: &'static TypeInfo) -> Arc<RootRecord> {
    // SAFETY: a closure is open.
    let slot = unsafe { mutator.alloc(ty) }.expect("memory");
    // SAFETY: the slot is ours and so large.
    unsafe { slot.as_ptr().write_bytes(0x5a, ty.size) };
    // SAFETY: it is initialised.
    unsafe { mutator.publish(slot) };
    // SAFETY: the closure holds it.
    unsafe { mutator.root(slot) }
}

/// The process's memory that has no name, is no file and belongs to no allocator: bytes that are accessible.
fn anonymous() -> usize {
    let list = mappings::list();
    let ours = |m: &&mappings::Mapping| m.name.is_empty() || m.name.starts_with("[anon:spanheap");
    let open = |m: &&mappings::Mapping| m.access.starts_with("rw");
    list.iter().filter(ours).filter(open).map(|m| m.range.bytes().get()).sum()
}

/// What a thread has mapped that another thread before it has not left behind.
fn thread_bytes() -> usize {
    let run = || std::thread::spawn(anonymous).join().expect("no panic");
    run();
    run() - anonymous()
}

/// Bytes of `ranges`, which are in order, that are in memory or were swapped out.
fn resident(ranges: &[AddrRange]) -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps").expect("the list");
    let (mut inside, mut sum) = (false, 0);
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or("");
        if let Some((base, _)) = first.split_once('-') {
            let base = usize::from_str_radix(base, 16).expect("an address");
            inside = ranges.iter().any(|r| r.base().get() <= base && base < r.end().get());
        } else if inside && (first == "Rss:" || first == "Swap:") {
            sum += words.next().and_then(|kib| kib.parse::<usize>().ok()).expect("kB") << 10;
        }
    }
    sum
}

struct Program {
    heap: Heap,
    random: Random,
    kept: Vec<(Arc<RootRecord>, usize)>,
    /// What the process would have mapped without the heap.
    without: usize,
}

impl Program {
    fn step(&mut self) {
        let ty = &TYPES[self.random.below(TYPES.len())];
        let most = (MIB / ty.size).clamp(1, 400);
        let mutator = self.heap.attach();
        mutator.enter();
        for _ in 0..1 + self.random.below(most) {
            self.kept.push((make(&mutator, ty), ty.size));
        }
        mutator.leave();
        let total: usize = self.kept.iter().map(|(_, size)| size).sum();
        if total > 48 * MIB || self.random.below(12) == 0 {
            let share = 1 + self.random.below(4);
            self.kept.retain(|_| self.random.below(4) >= share);
        }
    }

    /// No cycle is running and nobody allocates, so what is mapped stays the same; the collector's thread
    /// may sweep and return memory meanwhile.
    fn check(&self) {
        let stats = Stats::of(&self.heap);
        stats.counted.check().expect("counts that add up");
        let arenas = Picture::of(&self.heap).arenas.into_iter();
        let arenas: Vec<AddrRange> =
            arenas.map(|arena| AddrRange::at(arena.base, Bytes::new(ARENA_BYTES))).collect();
        let (open, _) = mappings::accessible_and_not(&arenas);
        assert_eq!(open, stats.counted.mapped(), "{:?}", stats.counted);
        assert_eq!(anonymous(), self.without + stats.mapped.get(), "{stats:?}");
        let returned = stats.counted.pages(MemoryState::Returned);
        let (found, ready) = (resident(&arenas), (stats.counted.mapped() - returned).get());
        let kept: usize = self.kept.iter().map(|(_, size)| size).sum();
        assert!(kept <= found, "{kept} bytes are kept, {found} in memory");
        let thp = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        if !thp.is_ok_and(|text| text.contains("[always]")) {
            assert!(found <= ready, "{found} bytes in memory, {ready} are ready");
        }
    }
}

fn run(seed: u64, policy: Policy, thread: usize) {
    println!("seed {seed}");
    let without = anonymous() + thread;
    let options = Options { policy, ..Options::default() };
    let heap = Heap::new(Os::native(), options).expect("memory");
    let mut program = Program { heap, random: Random(seed), kept: Vec::new(), without };
    for round in 0..30 {
        for _ in 0..10 {
            program.step();
        }
        program.heap.collect();
        program.check();
        if round % 4 == 3 {
            program.heap.release_free_memory();
            program.check();
        }
    }
    program.kept.clear();
    program.heap.collect();
    program.check();
    program.heap.release_free_memory();
    program.check();
    drop(program);
    assert_eq!(anonymous(), without - thread, "a heap that is gone has left something");
}

#[test]
fn the_kernel_has_mapped_what_the_states_add_up_to() {
    // The C library takes all it needs from the break, which has a name.
    let environment = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_MAX_", "0")];
    let test = "the_kernel_has_mapped_what_the_states_add_up_to";
    child::run_variant_with(test, "only", &environment, || {
        let thread = thread_bytes();
        println!("a thread has {thread} bytes of its own");
        for (seed, percent) in [(1, None), (2, Some(100)), (3, Some(25))] {
            run(seed, Policy { percent, limit: None }, thread);
        }
    });
}
