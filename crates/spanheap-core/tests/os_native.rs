//! What the running kernel does with each region state.
//!
//! The proof that Reserved memory faults needs a process that may die: the test starts this very
//! program again with one ignored test selected, which touches memory of the kind named in a
//! variable.
//!
//! # Safety
//! Makes slices of ranges that the test has made Ready and owns alone, and asks the kernel about
//! them. The child process breaks the rule on purpose, and dies of it.

mod kernel;

use kernel::{Probe, mappings};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use spanheap_core::addr::{Addr, AddrRange, Bytes};
use spanheap_core::os::{Category, Feature, Guarding, NativeBuilder, Os, OsError};

const VARIABLE: &str = "SPANHEAP_TEST_TOUCH";

// The operations under the contract of ranges, with the promise of this file.

fn map(os: &Os, range: AddrRange, category: Category) -> Result<(), OsError> {
    // SAFETY: the tests pass ranges that they have got from this system and own alone (O1), and use
    // nothing of what they give up (O2).
    unsafe { os.map(range, category) }
}

fn used(os: &Os, range: AddrRange, prepared: Bytes) -> Result<(), OsError> {
    // SAFETY: as above.
    unsafe { os.used(range, prepared) }
}

fn unused(os: &Os, range: AddrRange, ready: Bytes) {
    // SAFETY: as above.
    unsafe { os.unused(range, ready) };
}

fn fault(os: &Os, range: AddrRange, category: Category, ready: Bytes) -> Result<(), OsError> {
    // SAFETY: as above.
    unsafe { os.fault(range, category, ready) }
}

fn guard(os: &Os, range: AddrRange) -> Guarding {
    // SAFETY: as above.
    unsafe { os.guard(range, Category::Heap, range.bytes()) }
}

fn unguard(os: &Os, range: AddrRange) -> Result<(), OsError> {
    // SAFETY: as above.
    unsafe { os.unguard(range, Category::Heap) }
}

fn release(os: &Os, range: AddrRange, category: Category, mapped: Bytes, ready: Bytes) {
    // SAFETY: as above.
    unsafe { os.release(range, category, mapped, ready) };
}

/// A Ready range of `pages` pages, made step by step.
fn ready_range(os: &Os, pages: usize) -> AddrRange {
    let bytes = Bytes::new(pages * os.page_size().get());
    let range = AddrRange::at(os.reserve(None, bytes).unwrap(), bytes);
    map(os, range, Category::Heap).unwrap();
    used(os, range, bytes).unwrap();
    range
}

fn release_ready(os: &Os, range: AddrRange) {
    release(os, range, Category::Heap, range.bytes(), range.bytes());
    assert_eq!(os.accounting().reserved(), Bytes::ZERO);
    assert_eq!(os.accounting().mapped_total(), Bytes::ZERO);
    assert_eq!(os.accounting().ready(), Bytes::ZERO);
    assert_eq!(os.accounting().leaked(), Bytes::ZERO);
}

fn bytes_of(range: AddrRange) -> &'static mut [u8] {
    // SAFETY: the tests pass ranges that are Ready, use one slice at a time, and none after a
    // change of state.
    unsafe { std::slice::from_raw_parts_mut(range.base().as_ptr(), range.bytes().get()) }
}

/// How many pages of the range are in memory.
fn resident_pages(os: &Os, range: AddrRange) -> usize {
    let mut pages = vec![0u8; range.bytes().get() / os.page_size().get()];
    // SAFETY: the range is mapped and the vector has one byte for each of its pages.
    let status =
        unsafe { libc::mincore(range.base().as_ptr(), range.bytes().get(), pages.as_mut_ptr()) };
    assert_eq!(status, 0);
    pages.iter().filter(|&&page| page & 1 != 0).count()
}

#[test]
fn ready_memory_is_zero_and_can_be_written() {
    let os = Os::native();
    let range = ready_range(&os, 5);
    assert!(bytes_of(range).iter().all(|&byte| byte == 0));
    bytes_of(range).fill(1);
    release_ready(&os, range);
    let bytes = os.page_size();
    let range = AddrRange::at(os.alloc(bytes, Category::Heap).unwrap(), bytes);
    assert!(bytes_of(range).iter().all(|&byte| byte == 0));
    bytes_of(range).fill(1);
    release_ready(&os, range);
}

#[test]
fn unused_memory_leaves_and_comes_back_as_zeros() {
    let os = Os::native();
    assert!(os.zero_after_unused());
    let range = ready_range(&os, 8);
    assert_eq!(resident_pages(&os, range), 0);
    bytes_of(range).fill(1);
    assert_eq!(resident_pages(&os, range), 8);
    let page = os.page_size();
    let part = AddrRange::at(range.base() + page + page, page + page + page);
    unused(&os, part, part.bytes());
    assert_eq!(resident_pages(&os, range), 5);
    assert_eq!(os.accounting().ready(), range.bytes() - part.bytes());
    used(&os, range, part.bytes()).unwrap();
    let ones = bytes_of(range).iter().filter(|&&byte| byte == 1).count();
    let zeros = bytes_of(range).iter().filter(|&&byte| byte == 0).count();
    assert_eq!((ones, zeros), (5 * page.get(), 3 * page.get()));
    release_ready(&os, range);
}

#[test]
fn faulted_memory_is_gone_and_comes_back_as_zeros() {
    let os = Os::native();
    let range = ready_range(&os, 4);
    bytes_of(range).fill(1);
    fault(&os, range, Category::Heap, range.bytes()).unwrap();
    assert_eq!(resident_pages(&os, range), 0);
    assert_eq!(os.accounting().mapped_total(), Bytes::ZERO);
    assert_eq!(os.accounting().reserved(), range.bytes());
    map(&os, range, Category::Heap).unwrap();
    used(&os, range, range.bytes()).unwrap();
    assert!(bytes_of(range).iter().all(|&byte| byte == 0));
    release_ready(&os, range);
}

#[test]
fn a_hint_is_taken_when_free_and_never_lands_on_foreign_memory() {
    let os = Os::native();
    let bytes = Bytes::new(1 << 20);
    let place = Addr::new(0xc7_0000_0000);
    let first = os.reserve(Some(place), bytes).unwrap();
    assert_eq!(first, place);
    let second = os.reserve(Some(place), bytes).unwrap();
    assert_ne!(second, place);

    let foreign = vec![0x5au8; 64 << 10];
    let inside = Addr::of(foreign.as_ptr()) + os.page_size();
    let third = os.reserve(Some(inside.align_down(os.page_size().get())), bytes).unwrap();
    assert!(!AddrRange::at(third, bytes).contains(inside));
    assert!(foreign.iter().all(|&byte| byte == 0x5a));
    for base in [first, second, third] {
        release(&os, AddrRange::at(base, bytes), Category::Heap, Bytes::ZERO, Bytes::ZERO);
    }
    assert_eq!(os.accounting().reserved(), Bytes::ZERO);
}

#[test]
fn an_aligned_reservation_keeps_exactly_what_was_asked_for() {
    let os = Os::native();
    let bytes = Bytes::new(3 << 20);
    for shift in [12, 16, 22, 26, 30] {
        // A hint that is off by a page forces the way over a larger reservation.
        let hint = Addr::new(0xc8_0000_1000);
        for hint in [None, Some(hint)] {
            let base = os.reserve_aligned(hint, bytes, Bytes::new(1 << shift)).unwrap();
            assert!(base.is_aligned(1 << shift));
            assert_eq!(os.accounting().reserved(), bytes);
            let range = AddrRange::at(base, bytes);
            map(&os, range, Category::Heap).unwrap();
            used(&os, range, bytes).unwrap();
            bytes_of(range)[0] = 1;
            bytes_of(range)[bytes.get() - 1] = 1;
            release_ready(&os, range);
        }
    }
}

#[test]
fn what_does_not_fit_in_the_address_space_is_refused() {
    let os = Os::native();
    let page = os.page_size();
    let huge = Bytes::new(usize::MAX & !(page.get() - 1));
    assert!(os.reserve(None, huge).unwrap_err().is_exhaustion());
    assert!(os.reserve(Some(Addr::new(1 << 46)), Bytes::new(1 << 47)).is_err());
    assert!(os.reserve_aligned(None, page, Bytes::new(1 << 62)).is_err());
    assert!(os.alloc(huge, Category::Heap).is_err());
    assert_eq!(os.accounting().reserved(), Bytes::ZERO);
    assert_eq!(os.accounting().mapped_total(), Bytes::ZERO);
}

/// The flags line of the mapping that holds `addr`, as `/proc/self/smaps` shows it.
fn mapping_flags(addr: Addr) -> String {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in text.lines() {
        let bounds = line.split(' ').next().unwrap().split_once('-').and_then(|(base, end)| {
            let parse = |hex| usize::from_str_radix(hex, 16).ok();
            Some(parse(base)?..parse(end)?)
        });
        if let Some(bounds) = bounds {
            inside = bounds.contains(&addr.get());
        } else if inside && line.starts_with("VmFlags:") {
            return line.to_string() + " ";
        }
    }
    panic!("{addr} is not mapped");
}

#[test]
fn a_huge_page_hint_changes_flags_and_nothing_else() {
    let os = Os::native();
    let huge = os.huge_page_size();
    let align = Bytes::new(huge.get().max(4 << 20));
    let bytes = Bytes::new(2 * align.get());
    let range = AddrRange::at(os.reserve_aligned(None, bytes, align).unwrap(), bytes);
    map(&os, range, Category::Heap).unwrap();
    used(&os, range, bytes).unwrap();
    bytes_of(range)[77] = 7;
    for (wanted, flag) in [(true, " hg "), (false, " nh ")] {
        os.hint_huge(range, wanted);
        assert_eq!(bytes_of(range)[77], 7);
        if huge != Bytes::ZERO {
            let flags = mapping_flags(range.base());
            assert!(flags.contains(flag), "{flags}");
        }
    }
    release_ready(&os, range);
}

/// Memory with huge pages and without: a collapse puts resident pages together, and never changes what is
/// in them.
#[test]
fn a_collapse_changes_no_contents() {
    let os = Os::native();
    let huge = Bytes::new(os.huge_page_size().get().max(2 << 20));
    let bytes = Bytes::new(3 * huge.get());
    let range = AddrRange::at(os.reserve_aligned(None, bytes, huge).unwrap(), bytes);
    map(&os, range, Category::Heap).unwrap();
    used(&os, range, bytes).unwrap();
    for (i, byte) in bytes_of(range).iter_mut().enumerate() {
        *byte = (i / 4096 + i) as u8;
    }
    let inner = AddrRange::new(range.base() + os.page_size(), range.end());
    os.collapse(inner);
    let same = bytes_of(range).iter().enumerate().all(|(i, &byte)| byte == (i / 4096 + i) as u8);
    assert!(same);
    // Nothing to put together, and less than a huge page: refused or ignored, silently.
    os.collapse(AddrRange::at(range.base(), os.page_size()));
    let state = os.features().collapse;
    println!("collapse: {state}");
    let expected = if os.huge_page_size() == Bytes::ZERO { state == Feature::Off } else { true };
    assert!(expected, "{state}");
    release_ready(&os, range);
}

/// What each means of guarding does to mappings, memory and access.
#[test]
fn a_guarded_page_costs_no_mapping_with_markers_and_two_without() {
    for markers in [true, false] {
        let options = NativeBuilder::default().guard_markers(markers);
        let (os, probe) = (Os::native_with(&options), Probe::new());
        let (page, count) = (os.page_size(), 64);
        let range = ready_range(&os, count);
        bytes_of(range).fill(1);
        let before = mappings::count_in(range);
        let odd =
            |i: usize| AddrRange::at(range.base() + Bytes::new((2 * i + 1) * page.get()), page);
        let has_markers = matches!(os.features().guard_markers, Feature::Untried);
        for i in 0..count / 4 {
            assert_eq!(guard(&os, odd(i)), Guarding::Faults);
            assert_eq!(probe.read(odd(i).base()), None);
            assert_eq!(probe.read(odd(i).end()), Some(1));
            let more = mappings::count_in(range) - before;
            assert_eq!(more, if has_markers { 0 } else { 2 * (i + 1) });
            assert_eq!(os.features().splits, more, "counted exactly");
        }
        assert_eq!(resident_pages(&os, range), count - count / 4);
        assert_eq!(os.accounting().ready(), range.bytes() - Bytes::new(page.get() * count / 4));
        assert_eq!(os.accounting().mapped_total(), os.accounting().ready());
        for i in 0..count / 4 {
            unguard(&os, odd(i)).unwrap();
        }
        assert_eq!(mappings::count_in(range), before);
        assert_eq!(os.features().splits, 0);
        used(&os, range, Bytes::new(page.get() * count / 4)).unwrap();
        let zeros = bytes_of(range).iter().filter(|&&byte| byte == 0).count();
        assert_eq!(zeros, page.get() * count / 4);
        release_ready(&os, range);
    }
}

/// Threads guard and unguard pages that lie between each other's; the share is not enough for all of them.
#[test]
fn threads_guard_pages_side_by_side() {
    let options = NativeBuilder::default().guard_markers(false).split_limit(16);
    let (os, threads, rounds) = (Os::native_with(&options), 4, 300);
    let range = ready_range(&os, threads * 16);
    let page = os.page_size();
    std::thread::scope(|s| {
        for t in 0..threads {
            let os = &os;
            s.spawn(move || {
                let probe = Probe::new();
                for round in 0..rounds {
                    let index = (round * 7 % 16) * threads + t;
                    let at = range.base() + Bytes::new(index * page.get());
                    let mine = AddrRange::at(at, page);
                    bytes_of(mine).fill(1);
                    let expected = match guard(os, mine) {
                        Guarding::Faults => None,
                        Guarding::ReadsZero => Some(0),
                    };
                    assert_eq!(probe.read(at), expected);
                    unguard(os, mine).unwrap();
                    used(os, mine, page).unwrap();
                    assert!(bytes_of(mine).iter().all(|&byte| byte == 0));
                }
            });
        }
    });
    assert_eq!(os.features().splits, 0);
    assert_eq!(mappings::count_in(range), 1);
    release_ready(&os, range);
}

#[test]
fn guarding_by_policy_reads_zeros_and_forgets_what_was_written() {
    let options = NativeBuilder::default().guard_markers(false).split_limit(0);
    let (os, probe) = (Os::native_with(&options), Probe::new());
    let range = ready_range(&os, 4);
    bytes_of(range).fill(1);
    assert_eq!(guard(&os, range), Guarding::ReadsZero);
    assert_eq!(resident_pages(&os, range), 0);
    assert_eq!(probe.read(range.base()), Some(0));
    assert_eq!(os.features().guards_without_fault, 1);
    // A write through a pointer that should not exist any more.
    //
    // SAFETY: the mapping is writable, and nobody else uses it.
    unsafe { range.base().as_ptr::<u8>().write_volatile(7) };
    unguard(&os, range).unwrap();
    used(&os, range, range.bytes()).unwrap();
    assert!(bytes_of(range).iter().all(|&byte| byte == 0));
    release_ready(&os, range);
}

/// A heap grows in chunks inside reservations, its tables in many small steps. Neither may cost a mapping
/// per step, whatever the mappings are called.
#[test]
fn growing_costs_no_mapping_per_step() {
    for named in [true, false] {
        let os = Os::native_with(&NativeBuilder::default().names(named));
        let (arena, chunk) = (Bytes::new(64 << 20), Bytes::new(4 << 20));
        let base = os.reserve_aligned(None, arena, arena).unwrap();
        let steps = arena.get() / chunk.get();
        for i in 0..steps {
            let part = AddrRange::at(base + Bytes::new(i * chunk.get()), chunk);
            map(&os, part, Category::Heap).unwrap();
            used(&os, part, chunk).unwrap();
            bytes_of(part)[0] = 1;
            let inside = AddrRange::at(base, Bytes::new((i + 1) * chunk.get()));
            assert_eq!(mappings::count_in(inside), 1, "after {} steps", i + 1);
        }
        // Four tables side by side, each growing by a sixteenth at a time.
        let table = Bytes::new(512 << 10);
        let tables = Bytes::new(4 * table.get());
        let place = os.reserve(None, tables).unwrap();
        let step = Bytes::new(table.get() / 16);
        for i in 0..16 {
            for t in 0..4 {
                let at = place + Bytes::new(t * table.get() + i * step.get());
                map(&os, AddrRange::at(at, step), Category::SideTables).unwrap();
                used(&os, AddrRange::at(at, step), step).unwrap();
            }
            let count = mappings::count_in(AddrRange::at(place, tables));
            assert!(count <= 8, "{count} mappings after {} steps", i + 1);
        }
        let name = os.features().names;
        println!("names: {name}");
        for mapping in mappings::list() {
            let expected = match mapping.range.contains(base) {
                true => "[anon:spanheap: heap]",
                false if mapping.range.contains(place) => "[anon:spanheap: side tables]",
                false => continue,
            };
            let expected = if name == Feature::Works { expected } else { "" };
            assert_eq!(mapping.name, expected);
        }
        release(&os, AddrRange::at(base, arena), Category::Heap, arena, arena);
        release(&os, AddrRange::at(place, tables), Category::SideTables, tables, tables);
        assert_eq!(os.accounting().reserved(), Bytes::ZERO);
    }
}

#[test]
#[should_panic(expected = "does not consist of whole pages")]
fn a_range_of_part_of_a_page_is_a_panic() {
    let os = Os::native();
    unused(&os, AddrRange::at(Addr::new(0x1000_0010), os.page_size()), Bytes::ZERO);
}

#[test]
fn only_ready_memory_can_be_touched() {
    let dies_of = |kind: &str| {
        let program = std::env::current_exe().unwrap();
        let arguments = ["--ignored", "--exact", "touch_memory_of_the_named_kind"];
        let mut child = Command::new(program);
        child.args(arguments).env(VARIABLE, kind);
        let output = child.output().unwrap();
        (output.status.signal(), output.status.code())
    };
    assert_eq!(dies_of("ready"), (None, Some(0)), "the child itself works");
    assert_eq!(dies_of("reserved"), (Some(libc::SIGSEGV), None));
    assert_eq!(dies_of("faulted"), (Some(libc::SIGSEGV), None));
    assert_eq!(dies_of("behind"), (Some(libc::SIGSEGV), None));
    assert_eq!(dies_of("guarded"), (Some(libc::SIGSEGV), None));
    assert_eq!(dies_of("protected"), (Some(libc::SIGSEGV), None));
}

#[test]
#[ignore = "dies on purpose; started by only_ready_memory_can_be_touched"]
fn touch_memory_of_the_named_kind() {
    let Ok(kind) = std::env::var(VARIABLE) else {
        // Selected by hand, together with everything else: nothing was asked for.
        return;
    };
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is valid for the call. Without a core file the death is quick.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
    let os = Os::native_with(&NativeBuilder::default().guard_markers(kind != "protected"));
    let (page, bytes) = (os.page_size(), Bytes::new(4 * os.page_size().get()));
    let range = AddrRange::at(os.reserve(None, bytes).unwrap(), bytes);
    let half = AddrRange::at(range.base(), page + page);
    map(&os, half, Category::Heap).unwrap();
    used(&os, half, half.bytes()).unwrap();
    bytes_of(half).fill(1);
    let target = match kind.as_str() {
        "ready" => half.base(),
        "reserved" => range.base() + page + page + page,
        "behind" => half.end(),
        "faulted" => {
            fault(&os, half, Category::Heap, half.bytes()).unwrap();
            half.base()
        }
        "guarded" | "protected" => {
            assert_eq!(guard(&os, half), Guarding::Faults);
            half.base()
        }
        other => panic!("unknown kind {other}"),
    };
    // SAFETY: volatile, so it happens; for every kind but "ready" the process is meant to die of
    // it.
    let value = unsafe { target.as_ptr::<u8>().read_volatile() };
    assert_eq!(value, 1);
}
