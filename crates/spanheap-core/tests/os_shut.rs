//! Memory that is shut and opened on the running kernel, small and so large that it is moved aside: an access faults,
//! the memory stays where it can stay, and nothing is left over. And what becomes of it when the kernel refuses: a
//! part of rows 5 and 6 of the fault matrix.
//!
//! Each test has a process of its own, because it counts mappings, uses them up, or enters a sandbox.
//!
//! # Safety
//! Uses memory that the tests have made Ready and own alone, and asks the kernel about the rest.

mod kernel;

use kernel::mappings::Burnt;
use kernel::sandbox::refuse;
use kernel::{Probe, child, sandbox};
use spanheap_core::addr::{AddrRange, Bytes};
use spanheap_core::os::{Category, Feature, Guarding, NativeBuilder, Os};

const UNIT: usize = 2 << 20;

/// The flags of a move that replaces what is at its place and leaves nothing behind.
const BACK: i32 = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;

fn ready(os: &Os, bytes: usize) -> AddrRange {
    let bytes = Bytes::new(bytes);
    let range = AddrRange::at(os.reserve(None, bytes).unwrap(), bytes);
    // SAFETY: O1, O2: reserved above.
    unsafe { os.map(range, Category::Heap) }.unwrap();
    // SAFETY: as above.
    unsafe { os.used(range, range.bytes()) }.unwrap();
    range
}

fn release(os: &Os, range: AddrRange, mapped: Bytes) {
    // SAFETY: O1, O2: the tests give up what is theirs.
    unsafe { os.release(range, Category::Heap, mapped, mapped) };
}

fn shut(os: &Os, range: AddrRange) -> bool {
    // SAFETY: as above.
    unsafe { os.shut(range) }
}

fn open(os: &Os, range: AddrRange) {
    // SAFETY: as above.
    unsafe { os.open(range) }.unwrap();
}

fn guard(os: &Os, range: AddrRange) -> Guarding {
    // SAFETY: as above.
    unsafe { os.guard(range, Category::Heap, range.bytes()) }
}

fn unguard(os: &Os, range: AddrRange) {
    // SAFETY: as above.
    unsafe { os.unguard(range, Category::Heap) }.unwrap();
    // SAFETY: as above.
    unsafe { os.used(range, range.bytes()) }.unwrap();
}

/// A word in each page: which page it is.
fn write(os: &Os, range: AddrRange) {
    for_each_page(os, range, |at, word| {
        // SAFETY: the tests pass ranges that are Ready and theirs alone.
        unsafe { at.write(word) };
    });
}

/// How many pages have their word; all others are zeros.
fn count_words(os: &Os, range: AddrRange) -> usize {
    let mut found = 0;
    for_each_page(os, range, |at, word| {
        // SAFETY: as above.
        let read = unsafe { at.read() };
        assert!(read == word || read == 0, "{read:#x} at {at:?}");
        found += usize::from(read == word);
    });
    found
}

fn for_each_page(os: &Os, range: AddrRange, mut visit: impl FnMut(*mut usize, usize)) {
    let mut at = range.base();
    while at < range.end() {
        visit(at.as_ptr(), at.get() + 1);
        at = at + os.page_size();
    }
}

fn pages(os: &Os, range: AddrRange) -> usize {
    range.bytes().get() / os.page_size().get()
}

fn resident(os: &Os, range: AddrRange) -> usize {
    let (mut sum, mut end) = (0, range.base());
    os.resident(range, &mut |run: AddrRange| {
        assert!(end <= run.base() && run.end() <= range.end(), "in order");
        (sum, end) = (sum + pages(os, run), run.end());
    });
    sum
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").expect("a kernel with /proc").lines().count()
}

/// Faults wherever the range begins, ends, or has a unit.
fn faults(os: &Os, probe: &Probe, range: AddrRange) {
    let mut at = range.base();
    while at < range.end() {
        assert_eq!(probe.read(at), None, "{at}");
        let step = Bytes::new((UNIT / 2).min(range.end().bytes_since(at).get()));
        assert_eq!(probe.read(at + step - Bytes::new(1)), None, "before {}", at + step);
        at = at + step;
    }
    assert_eq!(probe.read(range.end() - os.page_size()), None);
}

#[test]
fn what_is_shut_faults_and_what_is_opened_is_as_it_was() {
    child::run("what_is_shut_faults_and_what_is_opened_is_as_it_was", || {
        for moves in [true, false] {
            let os = Os::native_with(&NativeBuilder::default().moves(moves));
            let (probe, page) = (Probe::new(), os.page_size());
            for (before, bytes) in
                [(0, UNIT), (page.get(), UNIT), (page.get(), 3 * UNIT), (5 * page.get(), 9 << 20)]
            {
                let all = ready(&os, before + bytes + page.get());
                let range = AddrRange::at(all.base() + Bytes::new(before), Bytes::new(bytes));
                write(&os, all);
                let count = mappings();
                for _ in 0..20 {
                    assert!(shut(&os, range));
                    faults(&os, &probe, range);
                    assert_eq!(resident(&os, all), pages(&os, all), "the memory stays");
                    assert_eq!(os.accounting().ready(), all.bytes());
                    open(&os, range);
                    assert_eq!(count_words(&os, all), pages(&os, all));
                }
                assert!(mappings() <= count, "{} mappings, and were {count}", mappings());
                assert_eq!(os.features().splits, 0);
                // And the end of a heap finds it shut.
                assert!(shut(&os, range));
                release(&os, all, all.bytes());
                assert_eq!(os.accounting().leaked(), Bytes::ZERO);
            }
            println!("{}", os.features());
            let expected = if moves { Feature::Works } else { Feature::Off };
            assert_eq!(os.features().moves, expected, "on a kernel since 5.7");
        }
    });
}

#[test]
fn what_was_shut_at_once_is_opened_and_guarded_in_parts() {
    child::run("what_was_shut_at_once_is_opened_and_guarded_in_parts", || {
        for markers in [true, false] {
            let os = Os::native_with(&NativeBuilder::default().guard_markers(markers));
            let (probe, page) = (Probe::new(), os.page_size());
            let all = ready(&os, 10 << 20);
            write(&os, all);
            assert!(shut(&os, all));
            let middle = AddrRange::new(
                all.base() + Bytes::new(3 << 20) + page,
                all.base() + Bytes::new(6 << 20) - page,
            );
            let before = AddrRange::new(all.base(), middle.base());
            let behind = AddrRange::new(middle.end(), all.end());
            assert_eq!(guard(&os, middle), Guarding::Faults);
            faults(&os, &probe, all);
            assert_eq!(resident(&os, all), pages(&os, all) - pages(&os, middle));
            open(&os, behind);
            assert_eq!(count_words(&os, behind), pages(&os, behind), "markers: {markers}");
            faults(&os, &probe, before);
            faults(&os, &probe, middle);
            open(&os, before);
            assert_eq!(count_words(&os, before), pages(&os, before));
            faults(&os, &probe, middle);
            unguard(&os, middle);
            assert_eq!(count_words(&os, middle), 0, "zeros");
            // What was shut in two is opened as one.
            write(&os, all);
            assert!(shut(&os, before) && shut(&os, middle));
            faults(&os, &probe, AddrRange::new(all.base(), middle.end()));
            open(&os, AddrRange::new(all.base(), middle.end()));
            assert_eq!(count_words(&os, all), pages(&os, all));
            assert_eq!(os.features().splits, 0);
            release(&os, all, all.bytes());
        }
    });
}

/// Row 6: moves are refused from the beginning, or when memory is to be brought back: then it is dropped.
#[test]
fn fault_06_moves_of_shut_memory_are_refused() {
    for (name, errno) in [
        ("invalid", libc::EINVAL),
        ("forbidden", libc::EPERM),
        ("missing", libc::ENOSYS),
        ("memory", libc::ENOMEM),
    ] {
        for back in [false, true] {
            let variant = format!("{name}-{back}");
            child::run_variant("fault_06_moves_of_shut_memory_are_refused", &variant, || {
                let (os, probe) = (Os::native(), Probe::new());
                let all = ready(&os, 9 << 20);
                write(&os, all);
                let rule = refuse(libc::SYS_mremap, errno);
                let rule = if back { rule.when_equal(3, BACK) } else { rule };
                if !sandbox::enter(&[rule]) {
                    return;
                }
                for _ in 0..3 {
                    write(&os, all);
                    assert!(shut(&os, all));
                    faults(&os, &probe, all);
                    open(&os, all);
                    let found = count_words(&os, all);
                    assert_eq!(found == pages(&os, all), !back, "{found} pages");
                }
                let lasting = !back && errno != libc::ENOMEM;
                let expected = match (lasting, back) {
                    (true, _) => Feature::Refused(errno),
                    (_, true) => Feature::Works,
                    _ => Feature::Untried,
                };
                assert_eq!(os.features().moves, expected);
                release(&os, all, all.bytes());
                assert_eq!(os.accounting().leaked(), Bytes::ZERO);
            });
        }
    }
}

/// Row 5: the process has no more mappings, or only so many. What is refused changes nothing, what is opened can be
/// used, and what is guarded faults or reads as zeros.
#[test]
fn fault_05_no_more_mappings_for_shut_memory() {
    for left in 0..8 {
        let variant = left.to_string();
        child::run_variant("fault_05_no_more_mappings_for_shut_memory", &variant, || {
            let (os, probe) = (Os::native(), Probe::new());
            let all = ready(&os, 9 << 20);
            let page = os.page_size();
            let range = AddrRange::new(all.base() + page, all.end() - page);
            write(&os, all);
            let Some(mut burnt) = Burnt::all_but(left) else { return };
            let was_shut = shut(&os, range);
            let read = (probe.read(range.base()), probe.read(range.end() - Bytes::new(1)));
            // SAFETY: O1, O2: it is this test's.
            let opened = was_shut && unsafe { os.open(range) }.is_ok();
            let again = (!was_shut || opened) && shut(&os, range);
            let half = AddrRange::new(range.base(), range.base() + Bytes::new(UNIT) + page);
            let guarding = guard(&os, half);
            let reads = probe.read(half.base());
            burnt.give(64);
            println!("{left}: shut {was_shut}, opened {opened}, again {again}, {guarding:?}");
            assert_eq!(read.0.is_none() && read.1.is_none(), was_shut);
            let expected = if guarding == Guarding::Faults { None } else { Some(0) };
            assert_eq!(reads, expected);
            unguard(&os, half);
            let rest = AddrRange::new(half.end(), range.end());
            if again || (was_shut && !opened) {
                open(&os, rest);
            }
            assert_eq!(count_words(&os, half), 0);
            let _ = count_words(&os, rest);
            write(&os, all);
            assert_eq!(count_words(&os, all), pages(&os, all), "it can be used");
            release(&os, all, all.bytes());
        });
    }
}
