//! The simulated system itself: it must catch what a caller does wrong, and fail when told to.
//!
//! # Safety
//! Reads and writes bytes of simulated pages, whose backing memory is there in every shadow state
//! but None. Breaks the contract of ranges only where the simulation panics before it does anything.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use spanheap_core::addr::{Addr, AddrRange, Bytes};
use spanheap_core::os::{Category, Operation, Os, OsError, SimOs, sim};

const PAGE: Bytes = Bytes::new(16384);

fn start() -> (Os, Arc<SimOs>) {
    let sim = SimOs::builder().page_size(PAGE).build();
    (Os::simulated(sim.clone()), sim)
}

fn pages(count: usize) -> Bytes {
    Bytes::new(count * PAGE.get())
}

// The operations under the contract of ranges, with the promise of this file.

fn map(os: &Os, range: AddrRange, category: Category) -> Result<(), OsError> {
    // SAFETY: ranges of this system that the test owns alone (O1), or that the simulation panics on
    // before it changes anything. Nothing refers to what a test gives up (O2); `byte_at` looks at the
    // backing memory, and says why it may.
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

fn release(os: &Os, range: AddrRange, category: Category, mapped: Bytes, ready: Bytes) {
    // SAFETY: as above.
    unsafe { os.release(range, category, mapped, ready) };
}

/// Four pages: None (given back), Reserved, Prepared, Ready.
fn one_of_each(os: &Os) -> [AddrRange; 4] {
    let base = os.reserve(None, pages(4)).unwrap();
    let page = |i: usize| AddrRange::at(base + pages(i), PAGE);
    release(os, page(0), Category::Heap, Bytes::ZERO, Bytes::ZERO);
    map(os, AddrRange::at(base + pages(2), pages(2)), Category::Heap).unwrap();
    used(os, page(3), PAGE).unwrap();
    [page(0), page(1), page(2), page(3)]
}

/// The message of the panic that `act` ends in, if it does.
fn panic_of(act: impl FnOnce()) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(act)).err()?;
    Some(payload.downcast_ref::<String>().expect("a formatted message").clone())
}

#[test]
fn every_transition_is_legal_from_exactly_the_states_of_the_diagram() {
    type Act = fn(&Os, AddrRange, Bytes, Bytes);
    let acts: [(&str, Act, [bool; 4]); 6] = [
        ("map", |os, r, _, _| map(os, r, Category::Roots).unwrap(), [false, true, false, false]),
        ("used", |os, r, m, y| used(os, r, m - y).unwrap(), [false, false, true, true]),
        ("unused", |os, r, _, y| unused(os, r, y), [false, false, true, true]),
        (
            "fault",
            |os, r, _, y| fault(os, r, Category::Heap, y).unwrap(),
            [false, false, true, true],
        ),
        ("release", |os, r, m, y| release(os, r, Category::Heap, m, y), [false, true, true, true]),
        ("hint_huge", |os, r, _, _| os.hint_huge(r, true), [false, true, true, true]),
    ];
    let states = ["None", "Reserved", "Prepared", "Ready"];
    for (name, act, legal) in acts {
        for state in 0..4 {
            let (os, sim) = start();
            let range = one_of_each(&os)[state];
            let mapped = if state >= 2 { PAGE } else { Bytes::ZERO };
            let ready = if state == 3 { PAGE } else { Bytes::ZERO };
            let before = (format!("{:?}", os.accounting()), sim.calls());
            match panic_of(|| act(&os, range, mapped, ready)) {
                None => assert!(legal[state], "{name} of {} went through", states[state]),
                Some(text) => {
                    assert!(!legal[state], "{text}");
                    let place = format!("{name} {range:?}");
                    assert!(text.contains(&place) && text.contains(states[state]), "{text}");
                    assert_eq!((format!("{:?}", os.accounting()), sim.calls()), before);
                }
            }
        }
    }
}

#[test]
fn wrong_counts_and_categories_are_panics() {
    let (os, _sim) = start();
    let [_, reserved, prepared, ready] = one_of_each(&os);
    let both = AddrRange::new(prepared.base(), ready.end());
    let all = AddrRange::new(reserved.base(), ready.end());
    let expect = |act: &dyn Fn(), part: &str| {
        let text = panic_of(act).expect(part);
        assert!(text.contains(part), "{text}");
    };
    expect(&|| used(&os, both, pages(2)).unwrap(), "16 KiB are Prepared, the caller said 32 KiB");
    expect(&|| unused(&os, both, pages(0)), "16 KiB are Ready, the caller said 0 B");
    expect(&|| fault(&os, both, Category::Roots, PAGE).unwrap(), "Prepared (heap)");
    expect(&|| release(&os, all, Category::Heap, PAGE, PAGE), "32 KiB are mapped");
    expect(&|| release(&os, all, Category::Heap, pages(2), pages(2)), "16 KiB are Ready");
    let beyond = AddrRange::at(ready.base(), pages(2));
    expect(&|| unused(&os, beyond, PAGE), "state None");
    let foreign = AddrRange::at(Addr::new(PAGE.get()), PAGE);
    expect(&|| unused(&os, foreign, Bytes::ZERO), "state None");
    // None of it did anything.
    release(&os, all, Category::Heap, pages(2), PAGE);
    assert_eq!(os.accounting().reserved(), Bytes::ZERO);
}

/// Reserve, map, make ready, allocate, take away: five fallible calls.
fn scenario(os: &Os) -> Result<(), Operation> {
    let range = AddrRange::at(os.reserve(None, pages(2)).map_err(|e| e.op())?, pages(2));
    let none = Bytes::ZERO;
    let mut state = (none, none);
    let outcome = (|| {
        map(os, range, Category::Heap)?;
        state.0 = pages(2);
        used(os, range, pages(2))?;
        state.1 = pages(2);
        let other = AddrRange::at(os.alloc(PAGE, Category::Roots)?, PAGE);
        release(os, other, Category::Roots, PAGE, PAGE);
        fault(os, range, Category::Heap, pages(2))?;
        state = (none, none);
        Ok(())
    })();
    release(os, range, Category::Heap, state.0, state.1);
    outcome.map_err(|error: OsError| error.op())
}

#[test]
fn exactly_the_ordered_call_fails() {
    let (os, sim) = start();
    assert_eq!(scenario(&os), Ok(()));
    let order =
        [Operation::Reserve, Operation::Map, Operation::Used, Operation::Alloc, Operation::Fault];
    assert_eq!(sim.calls(), order.len());
    for (i, op) in order.into_iter().enumerate() {
        let sim = SimOs::builder().page_size(PAGE).fail_call(i + 1).build();
        let os = Os::simulated(sim.clone());
        assert_eq!(scenario(&os), Err(op));
        assert_eq!(scenario(&os), Ok(()), "only one call fails");
        sim.assert_all_released();

        let sim = SimOs::builder().page_size(PAGE).fail_from(i + 1).build();
        let os = Os::simulated(sim.clone());
        assert_eq!(scenario(&os), Err(op));
        assert_eq!(scenario(&os), Err(Operation::Reserve), "all further calls fail");
        sim.set_fail_from(None);
        assert_eq!(scenario(&os), Ok(()));
        assert_eq!(os.accounting().mapped_total(), Bytes::ZERO);
        sim.assert_all_released();
    }
}

#[test]
fn an_aligned_reservation_that_fails_half_way_leaves_nothing() {
    let align = Bytes::new(1 << 30);
    let sim = SimOs::builder().page_size(PAGE).fail_call(2).build();
    let os = Os::simulated(sim.clone());
    assert!(os.reserve_aligned(None, PAGE, align).is_err());
    assert_eq!(os.accounting().reserved(), Bytes::ZERO);
    sim.assert_all_released();
    let base = os.reserve_aligned(None, PAGE, align).unwrap();
    assert!(base.is_aligned(align.get()));
    assert_eq!(os.accounting().reserved(), PAGE);
}

#[test]
fn the_budget_bounds_ready_bytes() {
    let sim = SimOs::builder().page_size(PAGE).budget(pages(3)).build();
    let os = Os::simulated(sim.clone());
    let range = AddrRange::at(os.reserve(None, pages(4)).unwrap(), pages(4));
    map(&os, range, Category::Heap).unwrap();
    assert_eq!(used(&os, range, pages(4)).unwrap_err().op(), Operation::Used);
    let half = AddrRange::at(range.base(), pages(2));
    used(&os, half, pages(2)).unwrap();
    assert!(os.alloc(pages(2), Category::Heap).is_err());
    let other = AddrRange::at(os.alloc(PAGE, Category::Heap).unwrap(), PAGE);
    used(&os, half, Bytes::ZERO).expect("nothing more becomes Ready");
    sim.set_budget(Some(pages(2)));
    unused(&os, half, pages(2));
    assert_eq!(sim.ready(), PAGE);
    assert!(used(&os, half, pages(2)).is_err());
    release(&os, other, Category::Heap, PAGE, PAGE);
    used(&os, half, pages(2)).unwrap();
    assert_eq!(os.accounting().ready(), pages(2));
}

#[test]
fn a_range_that_is_not_taken_back_is_counted_as_leaked() {
    let sim = SimOs::builder().page_size(PAGE).fail_release(1).build();
    let os = Os::simulated(sim.clone());
    let kept = AddrRange::at(os.alloc(pages(2), Category::Heap).unwrap(), pages(2));
    release(&os, kept, Category::Heap, pages(2), pages(2));
    assert_eq!(os.accounting().leaked(), pages(2));
    assert_eq!(os.accounting().reserved(), Bytes::ZERO);
    assert_eq!(os.accounting().mapped_total(), Bytes::ZERO);
    assert_eq!(os.accounting().ready(), Bytes::ZERO);
    assert!(panic_of(|| unused(&os, kept, Bytes::ZERO)).unwrap().contains("Leaked"));
    sim.assert_all_released();
}

#[test]
fn what_was_not_released_is_listed() {
    let (os, sim) = start();
    let [_, reserved, prepared, ready] = one_of_each(&os);
    let text = panic_of(|| sim.assert_all_released()).unwrap();
    for (range, state) in [(reserved, "Reserved"), (prepared, "Prepared"), (ready, "Ready")] {
        assert!(text.contains(&format!("{range:?} 16 KiB: {state}")), "{text}");
    }
}

fn byte_at(addr: Addr) -> u8 {
    // SAFETY: the backing memory of a simulated page is there whatever its shadow state; looking at
    // what a page holds after it was forfeited is the point of the test.
    unsafe { addr.as_ptr::<u8>().read() }
}

#[test]
fn forfeited_contents_are_lost_and_mapped_memory_is_zero() {
    let (os, _sim) = start();
    let range = AddrRange::at(os.reserve(None, pages(2)).unwrap(), pages(2));
    let last = range.end() - Bytes::new(1);
    map(&os, range, Category::Heap).unwrap();
    let mut seen = Vec::new();
    for _ in 0..32 {
        used(&os, range, pages(2)).unwrap();
        // SAFETY: the page is Ready and ours.
        unsafe { last.as_ptr::<u8>().write(1) };
        unused(&os, range, pages(2));
        seen.push(byte_at(last));
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [0, sim::UNUSED_JUNK], "both happen");

    used(&os, range, pages(2)).unwrap();
    fault(&os, range, Category::Heap, pages(2)).unwrap();
    assert_eq!(byte_at(last), sim::FAULT_JUNK);
    map(&os, range, Category::Heap).unwrap();
    used(&os, range, pages(2)).unwrap();
    assert_eq!(byte_at(last), 0);
}

#[test]
fn a_system_that_promises_zeros_keeps_the_promise() {
    let sim = SimOs::builder().page_size(PAGE).zero_after_unused(true).build();
    let os = Os::simulated(sim);
    assert!(os.zero_after_unused() && !start().0.zero_after_unused());
    let range = AddrRange::at(os.alloc(PAGE, Category::Heap).unwrap(), PAGE);
    for _ in 0..32 {
        // SAFETY: the page is Ready and ours.
        unsafe { range.base().as_ptr::<u8>().write(1) };
        unused(&os, range, PAGE);
        used(&os, range, PAGE).unwrap();
        assert_eq!(byte_at(range.base()), 0);
    }
}

#[test]
fn a_contiguous_block_honours_hints_and_fills_from_below() {
    let sim = SimOs::builder().page_size(PAGE).contiguous(pages(64)).build();
    let os = Os::simulated(sim.clone());
    let first = os.reserve(None, pages(4)).unwrap();
    assert_eq!(os.reserve(Some(first + pages(4)), pages(4)), Ok(first + pages(4)));
    assert_eq!(os.reserve(Some(first + pages(40)), pages(4)), Ok(first + pages(40)));
    assert_eq!(os.reserve(Some(first), pages(4)), Ok(first + pages(8)), "the hint was taken");
    let elsewhere = os.reserve(None, pages(64)).unwrap();
    assert!(elsewhere >= first + pages(64) || elsewhere + pages(64) <= first);
    // One range may cover reservations that follow each other.
    let three = AddrRange::at(first, pages(12));
    map(&os, three, Category::Heap).unwrap();
    release(&os, three, Category::Heap, pages(12), Bytes::ZERO);
    assert_eq!(os.reserve(None, pages(12)), Ok(first));
}

#[test]
fn threads_use_it_at_once() {
    let sim = SimOs::builder().page_size(Bytes::new(1 << 21)).build();
    let os = Os::simulated(sim.clone());
    let bytes = Bytes::new(1 << 22);
    std::thread::scope(|s| {
        for category in [Category::Heap, Category::Roots, Category::Metadata] {
            let os = &os;
            s.spawn(move || {
                for i in 0..200u64 {
                    let range = AddrRange::at(os.reserve(None, bytes).unwrap(), bytes);
                    map(os, range, category).unwrap();
                    used(os, range, bytes).unwrap();
                    let word = range.base().as_ptr::<u64>();
                    // SAFETY: the range is Ready and this thread's own.
                    let old = unsafe { word.replace(i) };
                    assert_eq!(old, 0);
                    release(os, range, category, bytes, bytes);
                }
            });
        }
    });
    assert_eq!(os.accounting().mapped_total(), Bytes::ZERO);
    sim.assert_all_released();
}
