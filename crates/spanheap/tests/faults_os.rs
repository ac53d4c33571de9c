//! A whole heap on a system that refuses: rows 1 to 4 and 8 to 12 of the fault matrix, on the simulated system
//! and on the running kernel.
//!
//! Tests that limit, sandbox or lock the process run in a child. What the machine does not allow is
//! printed, and the rest is tested. (What the operating-system layer alone does is in the core's
//! `tests/faults_os.rs`; that every single call may be refused, in `refusal.rs`.)
//!
//! # Safety
//! Maps memory that stands for somebody else's, and asks the kernel about signals.

#[path = "../../spanheap-core/tests/kernel/mod.rs"]
mod kernel;

use kernel::mappings::Burnt;
use kernel::sandbox::{Rule, refuse};
use kernel::{child, sandbox};
use spanheap::os::barrier::BarrierKind;
use spanheap::os::{Feature, NativeBuilder, Os, SimOs};
use spanheap::{
    BuildError, Collected, Gc, GcCell, Heap, HeapBuilder, OutOfMemory, Root, Rootable, Trace,
};
use spanheap_core::addr::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

const MIB: usize = 1 << 20;

#[derive(Trace)]
struct Node<'gc> {
    key: u64,
    check: u64,
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
    padding: [u64; 5],
}

type Chain = Root<Rootable![Node<'_>]>;

/// A chain of nodes under one root; the front node stays, and new ones go behind it.
struct Program {
    root: Chain,
    length: u64,
}

impl Program {
    fn start(heap: &Heap) -> Result<Program, OutOfMemory> {
        let root = heap.enter(|mc| {
            let next = GcCell::new(None);
            Ok::<_, OutOfMemory>(mc.root(mc.try_alloc(Node {
                key: 0,
                check: !0,
                next,
                padding: [0; 5],
            })?))
        })?;
        Ok(Program { root, length: 1 })
    }

    /// Makes the chain longer, and as much garbage besides.
    fn extend(&mut self, heap: &Heap, nodes: u64) -> Result<(), OutOfMemory> {
        for _ in 0..nodes.div_ceil(100) {
            let (root, length) = (&self.root, self.length);
            let made = heap.enter(|mc| {
                let first = root.get(mc);
                for made in 0..100 {
                    let (key, next) = (length + made, GcCell::new(first.next.get()));
                    let padding = [key; 5];
                    match mc.try_alloc(Node { key, check: !key, next, padding }) {
                        Ok(node) => first.next.set(mc, Some(node)),
                        Err(error) => return (made, Err(error)),
                    }
                    if let Err(error) = mc.try_alloc([key; 8]) {
                        return (made + 1, Err(error));
                    }
                }
                (100, Ok(()))
            });
            self.length += made.0;
            made.1?;
        }
        Ok(())
    }

    /// Every node is there, and holds what was put into it.
    fn check(&self, heap: &Heap) {
        heap.enter(|mc| {
            let (mut node, mut count) = (Some(self.root.get(mc)), 0);
            while let Some(this) = node {
                assert_eq!(this.check, !this.key);
                assert!(this.padding.iter().all(|&word| word == this.key));
                count += 1;
                node = this.next.get();
            }
            assert_eq!(count, self.length);
        });
    }
}

fn verified() -> HeapBuilder {
    Heap::builder().checkmark(true).poison(true)
}

/// Counts its end.
struct Token(Arc<AtomicUsize>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[derive(Trace)]
struct Counted(
    #[trace(leaf)]
    #[expect(dead_code, reason = "only dropped")]
    Token,
);

/// A heap does all that it does: threads, growth, collections, destructors.
fn heap_works(builder: HeapBuilder) {
    let dropped = Arc::new(AtomicUsize::new(0));
    let heap = Arc::new(builder.build().unwrap());
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                let mut program = Program::start(&heap).unwrap();
                for _ in 0..4 {
                    program.extend(&heap, 5000).unwrap();
                    heap.enter(|mc| {
                        for _ in 0..50 {
                            mc.alloc(Counted(Token(dropped.clone())));
                        }
                    });
                    assert_eq!(heap.collect(), Collected::Complete);
                    program.check(&heap);
                }
            });
        }
    });
    assert_eq!(heap.collect(), Collected::Complete);
    drop(heap);
    assert_eq!(dropped.load(SeqCst), 3 * 4 * 50);
}

/// Row 1, on the simulation: every call that makes a heap is refused once. The error says what was wanted and
/// how much, nothing is left behind, and the next attempt on the same system is as good as the first.
#[test]
fn fault_01_no_memory_for_a_new_heap() {
    for n in 1.. {
        let sim = SimOs::builder().fail_call(n).build();
        match Heap::builder().os(Os::simulated(sim.clone())).build() {
            Ok(heap) => {
                assert!(sim.calls() < n, "call {n} was refused, and the heap made");
                assert!(n > 5, "a heap needs more than {n} calls");
                drop(heap);
                break;
            }
            Err(BuildError::System(error)) => {
                let text = error.to_string();
                assert!(text.contains("did not") && text.contains("errno 12"), "{text}");
                sim.assert_all_released();
            }
            Err(error) => panic!("{error}"),
        }
        let heap = Heap::builder().os(Os::simulated(sim.clone())).build().unwrap();
        let mut program = Program::start(&heap).unwrap();
        program.extend(&heap, 1000).unwrap();
        program.check(&heap);
        drop((program, heap));
        sim.assert_all_released();
    }
}

/// Rows 1 and 9, on the kernel: address space is limited to less and less. Below the minimum, which is
/// a gibibyte for a heap with its first objects (most of it tables for all of the address space, of
/// which only the used parts take memory), there is an error, and nothing is left behind.
#[test]
fn fault_01_no_address_space_for_a_new_heap() {
    child::run("fault_01_no_address_space_for_a_new_heap", || {
        // What the process has once and keeps: a thread's stack, the allocator's first blocks.
        heap_works(Heap::builder());
        let mut refused = 0;
        for allowance in [0, 1, 16, 64, 128, 200, 256, 300, 400, 500, 600, 700, 800, 1024] {
            let before = child::status_bytes("VmSize:");
            let limit = child::limit_address_space(allowance * MIB);
            let built = Heap::builder().build();
            let (made, error) = match built {
                Ok(heap) => {
                    let program = Program::start(&heap).map(|mut program| {
                        let done = program.extend(&heap, 1000);
                        program.check(&heap);
                        done
                    });
                    (matches!(program, Ok(Ok(()))), None)
                }
                Err(BuildError::System(error)) => (false, Some(error)),
                Err(error) => panic!("{error}"),
            };
            child::set_limit(libc::RLIMIT_AS, limit);
            println!("{allowance} MiB: made {made}, {error:?}");
            refused += u32::from(!made);
            assert!(made || allowance < 1024, "a gibibyte is enough");
            assert!(allowance > 64 || error.is_some(), "{allowance} MiB cannot be enough");
            // Threads' stacks are kept for the next thread; heaps are given back whole.
            let kept = child::status_bytes("VmSize:").saturating_sub(before);
            assert!(kept <= 80 * MIB, "{kept} bytes are left behind");
        }
        assert!(refused >= 4);
        heap_works(Heap::builder());
    });
}

/// Row 2: the heap cannot grow any more. `try_alloc` says so, nothing is lost, and with memory to be had
/// again, allocation goes on.
#[test]
fn fault_02_no_memory_to_grow() {
    child::run("fault_02_no_memory_to_grow", || {
        let heap = verified().build().unwrap();
        let mut program = Program::start(&heap).unwrap();
        program.extend(&heap, 1000).unwrap();
        for _ in 0..2 {
            let limit = child::limit_address_space(40 * MIB);
            let error = loop {
                if let Err(error) = program.extend(&heap, 10_000) {
                    break error;
                }
                assert!(program.length < 10_000_000, "the limit is not felt");
            };
            // Again and again the same answer, and no harm.
            for _ in 0..10 {
                let _ = program.extend(&heap, 100);
            }
            program.check(&heap);
            child::set_limit(libc::RLIMIT_AS, limit);
            assert!(error.to_string().contains("the system gives no more"), "{error}");
            assert_eq!(heap.collect(), Collected::Complete);
            program.check(&heap);
            program.extend(&heap, 10_000).unwrap();
            program.check(&heap);
        }
    });
}

/// Row 2, on the simulation: from some call on there is nothing, and then there is again.
#[test]
fn fault_02_no_more_ready_memory_for_a_while() {
    for budget in [8, 12, 20, 33] {
        let sim = SimOs::builder().budget(Bytes::new(budget * MIB)).build();
        let heap = verified().os(Os::simulated(sim.clone())).build().unwrap();
        let mut program = Program::start(&heap).unwrap();
        while program.extend(&heap, 1000).is_ok() {
            assert!(program.length < 1_000_000, "the budget is not felt");
        }
        assert!(sim.ready() <= Bytes::new(budget * MIB));
        program.check(&heap);
        assert_eq!(heap.collect(), Collected::Complete);
        program.check(&heap);
        sim.set_budget(None);
        program.extend(&heap, 20_000).unwrap();
        program.check(&heap);
        drop((program, heap));
        sim.assert_all_released();
    }
}

/// Row 3: nothing is given while the collector works. It completes its cycles, and finds the same objects.
#[test]
fn fault_03_no_memory_while_collecting() {
    for page in [4096, 65_536] {
        let sim = SimOs::builder().page_size(Bytes::new(page)).build();
        // No checkmark here: its own table needs memory.
        let heap = Heap::builder().poison(true).os(Os::simulated(sim.clone())).build().unwrap();
        let mut program = Program::start(&heap).unwrap();
        program.extend(&heap, 6000).unwrap();
        for _ in 0..2 {
            sim.set_fail_from(Some(0));
            let before = heap.stats().cycles;
            for _ in 0..3 {
                assert_eq!(heap.collect(), Collected::Complete);
            }
            assert!(heap.stats().cycles >= before + 3);
            program.check(&heap);
            sim.set_fail_from(None);
            program.extend(&heap, 2000).unwrap();
        }
        assert_eq!(heap.collect(), Collected::Complete);
        assert!(!heap.stats().retained_everything);
        program.check(&heap);
        drop((program, heap));
        sim.assert_all_released();
    }
}

/// Row 3, on the kernel: the process may not get another page of address space during the cycles.
#[test]
fn fault_03_no_address_space_while_collecting() {
    child::run("fault_03_no_address_space_while_collecting", || {
        let heap = Heap::builder().poison(true).build().unwrap();
        let mut program = Program::start(&heap).unwrap();
        program.extend(&heap, 30_000).unwrap();
        // The collector's thread is up: the standard library ends a process in which a new thread has no
        // memory for its signal stack.
        assert_eq!(heap.collect(), Collected::Complete);
        let limit = child::limit_address_space(0);
        for _ in 0..3 {
            assert_eq!(heap.collect(), Collected::Complete);
            program.check(&heap);
        }
        child::set_limit(libc::RLIMIT_AS, limit);
        program.extend(&heap, 30_000).unwrap();
        assert_eq!(heap.collect(), Collected::Complete);
        program.check(&heap);
    });
}

/// Row 4: what a heap gives back is not taken. That is counted and ends nothing.
#[test]
fn fault_04_memory_that_is_not_taken_back() {
    for n in 1.. {
        let sim = SimOs::builder().fail_release(n).build();
        let heap = Heap::builder().os(Os::simulated(sim.clone())).build().unwrap();
        let mut program = Program::start(&heap).unwrap();
        program.extend(&heap, 2000).unwrap();
        assert_eq!(heap.collect(), Collected::Complete);
        program.check(&heap);
        drop((program, heap));
        sim.assert_all_released();
        if sim.releases() < n {
            assert!(n > 5, "a heap gives more than {n} ranges back");
            break;
        }
    }
}

/// Row 4, on the kernel: a heap comes to its end while the process has all the mappings that it may have.
#[test]
fn fault_04_the_end_of_a_heap_without_mappings() {
    child::run("fault_04_the_end_of_a_heap_without_mappings", || {
        let heap = Heap::builder().build().unwrap();
        let mut program = Program::start(&heap).unwrap();
        program.extend(&heap, 30_000).unwrap();
        let Some(mut burnt) = Burnt::all_but(0) else { return };
        let grown = (0..1000).find_map(|_| program.extend(&heap, 1000).err());
        program.check(&heap);
        drop((program, heap));
        burnt.give(64);
        assert!(grown.is_some(), "growing needs mappings, sooner or later");
        heap_works(Heap::builder());
    });
}

/// Row 8: somebody else is where the heap would like to be. It goes elsewhere and touches nothing.
#[test]
fn fault_08_foreign_memory_at_the_hints() {
    child::run("fault_08_foreign_memory_at_the_hints", || {
        let (first, arena, count) = (0xc0_usize << 32, 64 * MIB, 200);
        // In every second arena a page in the middle, in the others the very first or last one.
        let places: Vec<usize> = (0..count)
            .map(|i| first + i * arena + [arena / 2, 0, arena / 2, arena - 4096][i % 4])
            .collect();
        for (i, &place) in places.iter().enumerate() {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
            let access = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new mapping; the flag keeps it from replacing another one.
            let found = unsafe { libc::mmap(place as *mut _, 4096, access, flags, -1, 0) };
            assert_eq!(found as usize, place, "the place was free");
            // SAFETY: the page was mapped above.
            unsafe { found.cast::<u8>().write_bytes(i as u8 | 1, 4096) };
        }
        let intact = || {
            places.iter().enumerate().all(|(i, &place)| {
                // SAFETY: mapped above, and nobody writes to it (or the test is to find out).
                let page = unsafe { core::slice::from_raw_parts(place as *const u8, 4096) };
                page.iter().all(|&byte| byte == i as u8 | 1)
            })
        };
        let heap = verified().build().unwrap();
        let mut program = Program::start(&heap).unwrap();
        for _ in 0..5 {
            program.extend(&heap, 200_000).unwrap();
            assert!(intact());
        }
        // One object that needs several arenas in a row.
        heap.enter(|mc| {
            let large = mc.alloc_slice((0..20 * MIB).map(|n| n ^ 0x5a));
            assert!(large.iter().enumerate().all(|(i, &word)| word == i ^ 0x5a));
        });
        assert_eq!(heap.collect(), Collected::Complete);
        program.check(&heap);
        heap_works(Heap::builder());
        drop((program, heap));
        assert!(intact());
    });
}

/// Row 9: reservations without accounting are refused, and all that are larger than the documented minimum:
/// one table of the page allocator, of less than 384 MiB.
#[test]
fn fault_09_only_small_accounted_reservations() {
    child::run("fault_09_only_small_accounted_reservations", || {
        let rules = [
            refuse(libc::SYS_mmap, libc::EPERM).when_bits(3, libc::MAP_NORESERVE),
            refuse(libc::SYS_mmap, libc::ENOMEM).when_at_least(1, 384 << 20),
        ];
        if !sandbox::enter(&rules) {
            return;
        }
        heap_works(Heap::builder());
        let heap = verified().build().unwrap();
        let mut program = Program::start(&heap).unwrap();
        // Many arenas, one after the other.
        program.extend(&heap, 1_000_000).unwrap();
        assert!(heap.stats().heap_bytes > 64 * MIB);
        program.check(&heap);
        // An object for which there is no reservation.
        let refused = heap.enter(|mc| mc.try_alloc_slice(0..64 * MIB).is_err());
        assert!(refused);
        program.extend(&heap, 1000).unwrap();
        program.check(&heap);
        // And smaller than the minimum: an error.
        let rules = [refuse(libc::SYS_mmap, libc::ENOMEM).when_at_least(1, 32 << 20)];
        assert!(sandbox::enter(&rules));
        assert!(matches!(Heap::builder().build(), Err(BuildError::System(_))));
        program.check(&heap);
    });
}

/// Row 10: membarrier, markers, collapse, names and hints are refused, in both ways in which it is done. The
/// protocol between threads and collector falls back to fences; everything works.
#[test]
fn fault_10_a_kernel_without_the_optional_calls() {
    for errno in [libc::ENOSYS, libc::EPERM] {
        child::run_variant(
            "fault_10_a_kernel_without_the_optional_calls",
            &errno.to_string(),
            || {
                if sandbox::enter(&without_optional_calls(errno)) {
                    heap_works(verified());
                    let heap = Heap::builder().build().unwrap();
                    let features = heap.features();
                    println!("{features}");
                    assert_eq!(features.barrier, BarrierKind::Fences);
                    for feature in [features.names, features.guard_markers, features.collapse] {
                        let refused = feature == Feature::Refused(errno);
                        assert!(refused || feature == Feature::Off, "{feature}");
                    }
                    heap_works(Heap::builder().collect_continuously(true));
                }
            },
        );
    }
}

fn without_optional_calls(errno: i32) -> Vec<Rule> {
    let mut rules = vec![
        refuse(libc::SYS_membarrier, errno),
        refuse(libc::SYS_prctl, errno).when_equal(0, 0x5356_4d41),
    ];
    let advices = [libc::MADV_HUGEPAGE, libc::MADV_NOHUGEPAGE, 25, 102, 103];
    rules.extend(advices.map(|advice| refuse(libc::SYS_madvise, errno).when_equal(2, advice)));
    rules
}

/// Row 10: the sandbox is closed when the heap is running. Its barrier had the expedited call, and must do
/// without from now on.
#[test]
fn fault_10_a_sandbox_that_closes_later() {
    child::run("fault_10_a_sandbox_that_closes_later", || {
        // The collector's thread has to be in the sandbox, and begins before. So the sandbox is closed
        // between two heaps of one process, and the second one inherits what the first has registered.
        heap_works(Heap::builder());
        if sandbox::enter(&without_optional_calls(libc::EPERM)) {
            heap_works(verified());
        }
    });
}

/// Row 11: physical pages of 16 KiB, 64 KiB and 512 KiB, which are larger than the heap's own.
#[test]
fn fault_11_large_physical_pages() {
    for page in [16 << 10, 64 << 10, 512 << 10] {
        let sim = SimOs::builder().page_size(Bytes::new(page)).build();
        heap_works(verified().os(Os::simulated(sim.clone())));
        sim.assert_all_released();
        // What is ready is bounded by what is there: chunks of pages, and the records beside them.
        let heap = Heap::builder().os(Os::simulated(sim.clone())).build().unwrap();
        let mut program = Program::start(&heap).unwrap();
        program.extend(&heap, 100_000).unwrap();
        let stats = heap.stats();
        let bound = stats.heap_bytes + stats.heap_bytes / 8 + 8 * MIB + 64 * page;
        assert!(stats.ready_bytes <= bound, "{} bytes ready, {page}", stats.ready_bytes);
        drop((program, heap));
        sim.assert_all_released();
    }
}

/// Row 11: with huge pages as the kernel has them, and with none. What the process has in memory more
/// than before is at most what the heap calls ready, and some for threads and the allocator.
#[test]
fn fault_11_huge_pages_as_set_and_never() {
    for never in [false, true] {
        child::run_variant("fault_11_huge_pages_as_set_and_never", &never.to_string(), || {
            // SAFETY: a switch of the process, without pointers.
            let status =
                unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, i32::from(never), 0, 0, 0) };
            assert_eq!(status, 0);
            heap_works(Heap::builder());
            let before = child::status_bytes("VmRSS:");
            let heap = Heap::builder().build().unwrap();
            let mut program = Program::start(&heap).unwrap();
            program.extend(&heap, 300_000).unwrap();
            program.check(&heap);
            let grown = child::status_bytes("VmRSS:").saturating_sub(before);
            let ready = heap.stats().ready_bytes;
            println!("never {never}: {grown} bytes in memory, {ready} ready");
            assert!(grown <= ready + 8 * MIB, "{grown} bytes for {ready}");
            assert!(grown >= 300_000 * size_of::<Node<'_>>());
            drop((program, heap));
            let after = child::status_bytes("VmRSS:").saturating_sub(before);
            assert!(after <= 8 * MIB, "{after} bytes after the end");
        });
    }
}

/// Row 12: a bus error is the program's affair. A heap installs no handler for any signal, and a process with
/// a heap dies of one like any other.
#[test]
fn fault_12_no_signal_is_taken() {
    let outcome = child::outcome("fault_12_no_signal_is_taken", "only", || {
        let before = signal_actions();
        let heap = Heap::builder().build().unwrap();
        let mut program = Program::start(&heap).unwrap();
        program.extend(&heap, 10_000).unwrap();
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(signal_actions(), before);
        println!("no handler");
        // SAFETY: the name is terminated.
        let file = unsafe { libc::memfd_create(c"empty".as_ptr(), 0) };
        let null = core::ptr::null_mut();
        // SAFETY: a new mapping at a place of the kernel's choice.
        let place = unsafe { libc::mmap(null, 4096, libc::PROT_READ, libc::MAP_PRIVATE, file, 0) };
        assert_ne!(place, libc::MAP_FAILED);
        // SAFETY: volatile, so it happens; the file is empty, and the process is meant to die of it.
        let value = unsafe { place.cast::<u8>().read_volatile() };
        println!("still alive, with {value}");
    });
    if let Some(outcome) = outcome {
        assert!(outcome.output.contains("no handler"));
        assert_eq!((outcome.signal, outcome.code), (Some(libc::SIGBUS), None));
    }
}

/// The handler of each signal.
fn signal_actions() -> Vec<usize> {
    (1..32)
        .map(|signal| {
            let null = core::ptr::null();
            let mut action = core::mem::MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: nothing is set, and there is room for the answer.
            unsafe { libc::sigaction(signal, null, action.as_mut_ptr()) };
            // SAFETY: all zeros, or the kernel's answer.
            unsafe { action.assume_init() }.sa_sigaction
        })
        .collect()
}

/// Rows 6 and 10: a heap on the kernel with every optional thing turned off by hand.
#[test]
fn a_heap_without_names_and_markers() {
    let options = NativeBuilder::default().names(false).guard_markers(false).split_limit(0);
    heap_works(verified().os(Os::native_with(&options)));
    let heap =
        Heap::builder().symmetric_fences(true).os(Os::native_with(&options)).build().unwrap();
    let features = heap.features();
    assert_eq!((features.names, features.guard_markers), (Feature::Off, Feature::Off));
    assert_eq!((features.split_limit, features.barrier), (0, BarrierKind::Fences));
}
