//! What the operating-system layer does when the kernel refuses: rows 4 to 7 and 9 to 12 of the fault
//! matrix, on the running kernel. (Rows 1 to 3, 8, and what a whole heap makes of the others are in the
//! tests of the crate `spanheap`.)
//!
//! Each test has a process of its own, because it uses that up: all mappings, a sandbox that cannot be left,
//! memory that stays locked. What the machine does not allow is printed, and the rest is tested.
//!
//! # Safety
//! Uses memory that the tests have made Ready and own alone, asks the kernel about the rest, and in the
//! last test touches a file beyond its end, and dies of it.

mod kernel;

use kernel::mappings::{self, Burnt};
use kernel::sandbox::{Rule, refuse};
use kernel::{Probe, child, sandbox};
use spanheap_core::addr::{Addr, AddrRange, Bytes};
use spanheap_core::os::barrier::{BarrierKind, ProcessBarrier};
use spanheap_core::os::{Category, Feature, Guarding, NativeBuilder, Operation, Os, OsError};

const GUARD_INSTALL: i32 = 102;
const GUARD_REMOVE: i32 = 103;
const COLLAPSE: i32 = 25;
const PR_SET_VMA: i32 = 0x5356_4d41;

/// Refuses an advice.
fn refuse_advice(advice: i32, errno: i32) -> Rule {
    refuse(libc::SYS_madvise, errno).when_equal(2, advice)
}

fn pages(os: &Os, count: usize) -> Bytes {
    Bytes::new(count * os.page_size().get())
}

/// A Ready range, made step by step.
fn ready_range(os: &Os, count: usize) -> AddrRange {
    let range = AddrRange::at(os.reserve(None, pages(os, count)).unwrap(), pages(os, count));
    // SAFETY: O1, O2: reserved above.
    unsafe { os.map(range, Category::Heap) }.unwrap();
    // SAFETY: as above.
    unsafe { os.used(range, range.bytes()) }.unwrap();
    range
}

fn part(os: &Os, range: AddrRange, first: usize, count: usize) -> AddrRange {
    let part = AddrRange::at(range.base() + pages(os, first), pages(os, count));
    assert!(part.end() <= range.end());
    part
}

fn fill(range: AddrRange, byte: u8) {
    // SAFETY: the tests pass ranges that are Ready and theirs alone.
    unsafe { range.base().as_ptr::<u8>().write_bytes(byte, range.bytes().get()) };
}

fn holds_only(range: AddrRange, byte: u8) -> bool {
    // SAFETY: as above.
    let bytes =
        unsafe { core::slice::from_raw_parts(range.base().as_ptr::<u8>(), range.bytes().get()) };
    bytes.iter().all(|&found| found == byte)
}

// The operations under the contract of ranges, with the promise of this file, for ranges of one category.

fn used(os: &Os, range: AddrRange) {
    // SAFETY: ranges that the test got from this system and owns alone (O1); nobody uses what is given
    // up (O2).
    unsafe { os.used(range, range.bytes()) }.unwrap();
}

fn unused(os: &Os, range: AddrRange) {
    // SAFETY: as above.
    unsafe { os.unused(range, range.bytes()) };
}

fn fault(os: &Os, range: AddrRange) -> Result<(), OsError> {
    // SAFETY: as above.
    unsafe { os.fault(range, Category::Heap, range.bytes()) }
}

fn guard(os: &Os, range: AddrRange) -> Guarding {
    // SAFETY: as above.
    unsafe { os.guard(range, Category::Heap, range.bytes()) }
}

fn unguard(os: &Os, range: AddrRange) -> Result<(), OsError> {
    // SAFETY: as above.
    unsafe { os.unguard(range, Category::Heap) }
}

fn shut(os: &Os, range: AddrRange) -> bool {
    // SAFETY: as above.
    unsafe { os.shut(range) }
}

fn open(os: &Os, range: AddrRange) {
    // SAFETY: as above.
    unsafe { os.open(range) }.unwrap();
}

/// Gives back a range of which `mapped` bytes are Ready and the others Reserved.
fn release(os: &Os, range: AddrRange, mapped: Bytes) {
    // SAFETY: as above.
    unsafe { os.release(range, Category::Heap, mapped, mapped) };
}

/// Uses memory in every way, and looks whether it does what it should. What the system refuses may cost
/// memory, mappings or the fault of an access, and nothing else.
fn memory_works(os: &Os) {
    let probe = Probe::new();
    let range = ready_range(os, 16);
    assert!(holds_only(range, 0));
    fill(range, 0x5a);
    let middle = part(os, range, 4, 8);
    unused(os, middle);
    used(os, middle);
    assert!(holds_only(middle, 0), "zeros after unused");
    assert!(holds_only(part(os, range, 0, 4), 0x5a), "and nothing else has changed");
    fill(middle, 1);
    os.hint_huge(range, true);
    os.collapse(range);
    os.hint_huge(range, false);
    assert!(holds_only(middle, 1));
    let guarding = guard(os, middle);
    let expected = if guarding == Guarding::Faults { None } else { Some(0) };
    assert_eq!(probe.read(middle.base()), expected);
    unguard(os, middle).unwrap();
    used(os, middle);
    assert!(holds_only(middle, 0), "zeros after unguard");
    fill(middle, 2);
    if shut(os, middle) {
        assert_eq!(probe.read(middle.base()), None, "shut");
        assert_eq!(probe.read(middle.end() - Bytes::new(1)), None, "to the last byte");
        open(os, middle);
        assert!(holds_only(middle, 2), "open, and the memory has stayed");
    }
    if shut(os, middle) {
        assert_eq!(guard(os, middle), Guarding::Faults, "it faulted before");
        assert_eq!(probe.read(middle.base()), None, "guarded");
        unguard(os, middle).unwrap();
        used(os, middle);
        assert!(holds_only(middle, 0), "zeros after shut, guard and unguard");
        fill(middle, 2);
    }
    fault(os, middle).unwrap();
    assert_eq!(probe.read(middle.base()), None);
    // SAFETY: O1, O2: the range is this test's, and nothing is in it.
    unsafe { os.map(middle, Category::Heap) }.unwrap();
    used(os, middle);
    assert!(holds_only(middle, 0), "zeros after fault and map");
    release(os, range, range.bytes());
    let block = AddrRange::at(os.alloc(pages(os, 4), Category::Roots).unwrap(), pages(os, 4));
    assert!(holds_only(block, 0));
    // SAFETY: O1, O2: allocated above, and not used any more.
    unsafe { os.release(block, Category::Roots, block.bytes(), block.bytes()) };
    assert_eq!(os.accounting().reserved(), Bytes::ZERO);
    assert_eq!(os.accounting().leaked(), Bytes::ZERO);
}

/// Row 4: `munmap` in the middle of a mapping needs a mapping that there is not. The range is kept and
/// counted, its memory goes, and nothing else happens.
#[test]
fn fault_04_a_range_that_the_kernel_does_not_take_back() {
    child::run("fault_04_a_range_that_the_kernel_does_not_take_back", || {
        let (os, probe) = (Os::native(), Probe::new());
        let range = ready_range(&os, 9);
        fill(range, 1);
        let Some(mut burnt) = Burnt::all_but(0) else { return };
        let middle = part(&os, range, 3, 3);
        release(&os, middle, middle.bytes());
        let (leaked, reserved) = (os.accounting().leaked(), os.accounting().reserved());
        let read = probe.read(middle.base());
        burnt.give(64);
        assert_eq!(leaked, middle.bytes());
        assert_eq!(reserved, range.bytes() - middle.bytes());
        assert_eq!(read, Some(0), "still mapped, and its memory is gone");
        // With mappings to spare, the next range goes as it should, and the first one stays.
        let other = part(&os, range, 7, 1);
        release(&os, other, other.bytes());
        assert_eq!(os.accounting().leaked(), middle.bytes());
        assert_eq!(probe.read(other.base()), None);
        assert!(holds_only(part(&os, range, 0, 3), 1));
        assert_eq!(os.accounting().ready(), pages(&os, 5));
    });
}

/// Row 5: no mapping is left, and access is to be taken away. Markers need none; without them, memory is
/// returned and reads as zeros, and the answer says so; `fault`, which promises to fault, refuses.
#[test]
fn fault_05_no_more_mappings_for_protection() {
    child::run("fault_05_no_more_mappings_for_protection", || {
        let with = Os::native();
        let without = Os::native_with(&NativeBuilder::default().guard_markers(false));
        let probe = Probe::new();
        let (marked, open) = (ready_range(&with, 9), ready_range(&without, 9));
        fill(marked, 1);
        fill(open, 1);
        // The list of splits has its memory before there is none.
        assert_eq!(guard(&without, part(&without, open, 0, 1)), Guarding::Faults);
        let Some(mut burnt) = Burnt::all_but(0) else { return };
        let (a, b) = (part(&with, marked, 3, 3), part(&without, open, 3, 3));
        let answers = (guard(&with, a), guard(&without, b));
        let reads = (probe.read(a.base()), probe.read(b.base()));
        let refused = fault(&without, part(&without, open, 7, 1));
        let kept = probe.read(part(&without, open, 7, 1).base());
        let features = (with.features(), without.features());
        let back = (unguard(&with, a), unguard(&without, b));
        burnt.give(64);
        println!("{}", features.0);
        if features.0.guard_markers == Feature::Works {
            assert_eq!((answers.0, reads.0), (Guarding::Faults, None));
        }
        assert_eq!((answers.1, reads.1), (Guarding::ReadsZero, Some(0)));
        assert_eq!(features.1.guards_without_fault, 1);
        assert_eq!(features.1.splits, 2, "what was refused is not counted");
        let refused = refused.expect_err("there was no mapping for it");
        assert_eq!((refused.op(), refused.is_exhaustion()), (Operation::Fault, true));
        assert_eq!(kept, Some(1), "a refusal changes nothing");
        assert_eq!(back, (Ok(()), Ok(())));
        // With mappings to spare it faults again.
        assert_eq!(guard(&without, part(&without, open, 7, 1)), Guarding::Faults);
        for (os, range) in [(&with, a), (&without, b)] {
            used(os, range);
            assert!(holds_only(range, 0));
        }
    });
}

/// Row 5, the other half: a part of a protected range cannot be unguarded when there is no mapping for the
/// remainders. That is an error and not a change.
#[test]
fn fault_05_no_more_mappings_for_unguarding_a_part() {
    child::run("fault_05_no_more_mappings_for_unguarding_a_part", || {
        let os = Os::native_with(&NativeBuilder::default().guard_markers(false));
        let probe = Probe::new();
        let range = ready_range(&os, 9);
        let whole = part(&os, range, 2, 5);
        assert_eq!(guard(&os, whole), Guarding::Faults);
        let Some(mut burnt) = Burnt::all_but(0) else { return };
        let middle = part(&os, range, 4, 1);
        let refused = unguard(&os, middle);
        let read = probe.read(middle.base());
        let mapped = os.accounting().mapped_total();
        burnt.give(64);
        assert_eq!(refused.expect_err("no mapping").op(), Operation::Unguard);
        assert_eq!(read, None);
        assert_eq!(mapped, pages(&os, 4));
        unguard(&os, middle).unwrap();
        assert_eq!(os.features().splits, 4);
        assert_eq!(probe.read(middle.base()), Some(0));
        assert_eq!(probe.read(middle.end()), None);
        unguard(&os, part(&os, range, 2, 2)).unwrap();
        unguard(&os, part(&os, range, 5, 2)).unwrap();
        assert_eq!(os.features().splits, 0);
        release(&os, range, pages(&os, 4));
    });
}

/// Row 6: each advice is refused, with each error number that kernels and sandboxes answer with.
#[test]
fn fault_06_refused_advice_degrades() {
    for (name, errno) in [
        ("invalid", libc::EINVAL),
        ("again", libc::EAGAIN),
        ("forbidden", libc::EPERM),
        ("missing", libc::ENOSYS),
    ] {
        child::run_variant("fault_06_refused_advice_degrades", name, || {
            let rules = [
                libc::MADV_DONTNEED,
                libc::MADV_FREE,
                libc::MADV_HUGEPAGE,
                libc::MADV_NOHUGEPAGE,
                COLLAPSE,
                GUARD_INSTALL,
                GUARD_REMOVE,
            ]
            .map(|advice| refuse_advice(advice, errno));
            if !sandbox::enter(&rules) {
                return;
            }
            let os = Os::native();
            memory_works(&os);
            memory_works(&os);
            let features = os.features();
            println!("{features}");
            let lasting = matches!(errno, libc::EPERM | libc::ENOSYS);
            let refused = Feature::Refused(errno);
            assert_eq!(features.guard_markers, refused, "asked before the first use");
            assert_eq!(features.discard, if lasting { refused } else { Feature::Untried });
            assert!(features.collapse == refused || features.collapse == Feature::Off);
            assert_eq!(features.guards_without_fault, 0, "protection stands in");
        });
    }
}

/// Row 6: the sandbox is closed when markers are already there. What was guarded can be used again.
#[test]
fn fault_06_markers_refused_after_their_first_use() {
    child::run("fault_06_markers_refused_after_their_first_use", || {
        let (os, probe) = (Os::native(), Probe::new());
        let range = ready_range(&os, 8);
        fill(range, 1);
        let marked = part(&os, range, 1, 4);
        let first = guard(&os, marked);
        assert_eq!(first, Guarding::Faults);
        let rules = [GUARD_INSTALL, GUARD_REMOVE].map(|advice| refuse_advice(advice, libc::EPERM));
        if !sandbox::enter(&rules) {
            return;
        }
        let later = part(&os, range, 6, 1);
        assert_eq!(guard(&os, later), Guarding::Faults);
        assert_eq!((probe.read(marked.base()), probe.read(later.base())), (None, None));
        unguard(&os, part(&os, range, 1, 2)).unwrap();
        unguard(&os, part(&os, range, 3, 2)).unwrap();
        unguard(&os, later).unwrap();
        used(&os, marked);
        assert!(holds_only(marked, 0));
        assert!(holds_only(part(&os, range, 0, 1), 1));
        fill(marked, 3);
        assert_eq!(os.features().splits, 0);
        let state = os.features().guard_markers;
        assert_eq!(state, Feature::Refused(libc::EPERM), "no second try");
        memory_works_beside(&os, range);
    });
}

fn memory_works_beside(os: &Os, range: AddrRange) {
    release(os, range, range.bytes() - os.page_size());
    memory_works(os);
}

/// Row 7: all memory of the process is locked. Markers and the return of pages are refused; memory is
/// zeroed all the same.
#[test]
fn fault_07_locked_memory_is_zeroed() {
    child::run("fault_07_locked_memory_is_zeroed", || {
        let (before, early) = {
            let os = Os::native();
            let range = ready_range(&os, 8);
            fill(range, 1);
            (os, range)
        };
        // SAFETY: no memory is changed.
        let locked = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } == 0;
        if !locked {
            println!("not allowed to lock memory: {}", std::io::Error::last_os_error());
        }
        // Locked later than it was made Ready, and in use as before.
        let middle = part(&before, early, 2, 4);
        let answer = guard(&before, middle);
        assert_eq!(answer, Guarding::Faults, "protection stands in");
        assert_eq!(before.features().splits, if locked { 2 } else { before.features().splits });
        unguard(&before, middle).unwrap();
        used(&before, middle);
        assert!(holds_only(middle, 0));
        release(&before, early, early.bytes());
        // By policy, on locked memory.
        let options = NativeBuilder::default().guard_markers(false).split_limit(0);
        for os in [Os::native(), Os::native_with(&options), before] {
            memory_works(&os);
            assert!(!matches!(os.features().discard, Feature::Refused(_)), "it was about a range");
        }
    });
}

/// Row 9: the kernel refuses reservations that are not accounted, and large ones.
#[test]
fn fault_09_reservations_are_refused_unless_small_and_accounted() {
    child::run("fault_09_reservations_are_refused_unless_small_and_accounted", || {
        let rules = [
            refuse(libc::SYS_mmap, libc::EPERM).when_bits(3, libc::MAP_NORESERVE),
            refuse(libc::SYS_mmap, libc::ENOMEM).when_at_least(1, 130 << 20),
        ];
        if !sandbox::enter(&rules) {
            return;
        }
        let os = Os::native();
        let large = os.reserve(None, Bytes::new(256 << 20)).unwrap_err();
        assert_eq!((large.op(), large.is_exhaustion()), (Operation::Reserve, true));
        let arena = Bytes::new(64 << 20);
        // An aligned reservation takes its size twice, for a moment at most.
        let base = os.reserve_aligned(None, arena, arena).unwrap();
        release(&os, AddrRange::at(base, arena), Bytes::ZERO);
        assert_eq!(os.features().uncharged, Feature::Refused(libc::EPERM));
        memory_works(&os);
    });
}

/// Row 10: a kernel without membarrier, markers, collapse and names.
#[test]
fn fault_10_a_kernel_without_the_optional_calls() {
    for errno in [libc::ENOSYS, libc::EPERM] {
        let variant = errno.to_string();
        child::run_variant("fault_10_a_kernel_without_the_optional_calls", &variant, || {
            let mut rules = vec![
                refuse(libc::SYS_membarrier, errno),
                refuse(libc::SYS_prctl, errno).when_equal(0, PR_SET_VMA),
            ];
            let advices = [COLLAPSE, GUARD_INSTALL, GUARD_REMOVE];
            rules.extend(advices.map(|advice| refuse_advice(advice, libc::EINVAL)));
            if !sandbox::enter(&rules) {
                return;
            }
            let (os, fence) = (Os::native(), ProcessBarrier::detect());
            memory_works(&os);
            fence.heavy();
            fence.light();
            let features = os.features().with_barrier(fence.kind());
            println!("{features}");
            assert_eq!(features.barrier, BarrierKind::Fences);
            assert_eq!(BarrierKind::offered(), BarrierKind::Fences);
            assert_eq!(features.names, Feature::Refused(errno));
            assert_eq!(features.guard_markers, Feature::Refused(libc::EINVAL));
            let collapse = features.collapse;
            assert!(matches!(collapse, Feature::Off | Feature::Refused(libc::EINVAL)));
        });
    }
}

/// Row 11: huge pages for everything, and for nothing. What is in memory is bounded by what is Ready,
/// as long as it is Ready in whole huge pages; and it all goes when it is unused.
#[test]
fn fault_11_huge_pages_always_and_never() {
    child::run("fault_11_huge_pages_always_and_never", || {
        for never in [false, true] {
            // SAFETY: a switch of the process, without pointers.
            let status =
                unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, i32::from(never), 0, 0, 0) };
            assert_eq!(status, 0);
            let os = Os::native();
            let huge = os.huge_page_size().get().max(os.page_size().get());
            let bytes = Bytes::new(huge * 8);
            let base = os.reserve_aligned(None, bytes, Bytes::new(huge)).unwrap();
            let range = AddrRange::at(base, bytes);
            // SAFETY: O1, O2: reserved above.
            unsafe { os.map(range, Category::Heap) }.unwrap();
            let half = AddrRange::at(base, Bytes::new(huge * 4));
            used(&os, half);
            os.hint_huge(range, true);
            for i in 0..4 {
                fill(AddrRange::at(base + Bytes::new(i * huge), Bytes::new(8)), 1);
            }
            os.collapse(half);
            let resident = mappings::resident_bytes(&os, range);
            assert!(resident <= os.accounting().ready().get(), "{resident}, never: {never}");
            assert!(resident >= 4 * os.page_size().get());
            unused(&os, half);
            assert_eq!(mappings::resident_bytes(&os, range), 0);
            used(&os, half);
            assert!(holds_only(half, 0));
            release(&os, AddrRange::new(half.end(), range.end()), Bytes::ZERO);
            release(&os, half, half.bytes());
        }
    });
}

/// A mapping of a file that is empty: the first touch is a bus error.
fn beyond_a_file() -> Addr {
    // SAFETY: the name is terminated.
    let file = unsafe { libc::memfd_create(c"empty".as_ptr(), 0) };
    assert!(file >= 0);
    let null = core::ptr::null_mut();
    // SAFETY: a new mapping at a place of the kernel's choice.
    let place = unsafe { libc::mmap(null, 4096, libc::PROT_READ, libc::MAP_PRIVATE, file, 0) };
    assert_ne!(place, libc::MAP_FAILED);
    Addr::of(place.cast_const())
}

/// Row 12: a bus error is not ours to handle. The process dies of it, and the kernel's record of it names
/// the address.
#[test]
fn fault_12_a_bus_error_ends_the_process() {
    let outcome = child::outcome("fault_12_a_bus_error_ends_the_process", "only", || {
        let os = Os::native();
        memory_works(&os);
        let place = beyond_a_file();
        // SAFETY: volatile, so it happens; the process is meant to die of it.
        let value = unsafe { place.as_ptr::<u8>().read_volatile() };
        println!("still alive, with {value}");
    });
    if let Some(outcome) = outcome {
        assert_eq!((outcome.signal, outcome.code), (Some(libc::SIGBUS), None));
    }
}
