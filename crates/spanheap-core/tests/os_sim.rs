//! The simulated system itself: it must catch what a caller does wrong, and fail when told to.
//!
//! # Safety
//! Reads and writes bytes of simulated pages, whose backing memory is there in every shadow state
//! but None. Breaks the contract of ranges only where the simulation panics before it does anything.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use spanheap_core::addr::{Addr, AddrRange, Bytes};
use spanheap_core::os::{Category, Guarding, MOVE_UNIT, Operation, Os, OsError, SimOs, sim};

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

fn guard(os: &Os, range: AddrRange, category: Category, ready: Bytes) -> Guarding {
    // SAFETY: as above.
    unsafe { os.guard(range, category, ready) }
}

fn unguard(os: &Os, range: AddrRange, category: Category) -> Result<(), OsError> {
    // SAFETY: as above.
    unsafe { os.unguard(range, category) }
}

fn release(os: &Os, range: AddrRange, category: Category, mapped: Bytes, ready: Bytes) {
    // SAFETY: as above.
    unsafe { os.release(range, category, mapped, ready) };
}

/// Five pages: None (given back), Reserved, Prepared, Ready, Guarded.
fn one_of_each(os: &Os) -> [AddrRange; 5] {
    let base = os.reserve(None, pages(5)).unwrap();
    let page = |i: usize| AddrRange::at(base + pages(i), PAGE);
    release(os, page(0), Category::Heap, Bytes::ZERO, Bytes::ZERO);
    map(os, AddrRange::at(base + pages(2), pages(3)), Category::Heap).unwrap();
    used(os, page(3), PAGE).unwrap();
    assert_eq!(guard(os, page(4), Category::Heap, Bytes::ZERO), Guarding::Faults);
    [page(0), page(1), page(2), page(3), page(4)]
}

/// The message of the panic that `act` ends in, if it does.
fn panic_of(act: impl FnOnce()) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(act)).err()?;
    Some(payload.downcast_ref::<String>().expect("a formatted message").clone())
}

#[test]
fn every_transition_is_legal_from_exactly_the_states_of_the_diagram() {
    type Act = fn(&Os, AddrRange, Bytes, Bytes);
    // None, Reserved, Prepared, Ready, Guarded.
    let acts: [(&str, Act, [u8; 5]); 8] = [
        ("map", |os, r, _, _| map(os, r, Category::Roots).unwrap(), [0, 1, 0, 0, 0]),
        ("used", |os, r, m, y| used(os, r, m - y).unwrap(), [0, 0, 1, 1, 0]),
        ("unused", |os, r, _, y| unused(os, r, y), [0, 0, 1, 1, 0]),
        ("fault", |os, r, _, y| fault(os, r, Category::Heap, y).unwrap(), [0, 0, 1, 1, 0]),
        (
            "guard",
            |os, r, _, y| assert_ne!(guard(os, r, Category::Heap, y), Guarding::ReadsZero),
            [0, 0, 1, 1, 0],
        ),
        ("unguard", |os, r, _, _| unguard(os, r, Category::Heap).unwrap(), [0, 0, 0, 0, 1]),
        ("release", |os, r, m, y| release(os, r, Category::Heap, m, y), [0, 1, 1, 1, 1]),
        ("hint_huge", |os, r, _, _| os.hint_huge(r, true), [0, 1, 1, 1, 1]),
    ];
    let states = ["None", "Reserved", "Prepared", "Ready", "Guarded"];
    for (name, act, legal) in acts {
        for state in 0..states.len() {
            let (os, sim) = start();
            let range = one_of_each(&os)[state];
            let is_mapped = matches!(states[state], "Prepared" | "Ready");
            let mapped = if is_mapped { PAGE } else { Bytes::ZERO };
            let ready = if states[state] == "Ready" { PAGE } else { Bytes::ZERO };
            let before = (format!("{:?}", os.accounting()), sim.calls());
            match panic_of(|| act(&os, range, mapped, ready)) {
                None => assert!(legal[state] != 0, "{name} of {} went through", states[state]),
                Some(text) => {
                    assert!(legal[state] == 0, "{text}");
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
    let [_, reserved, prepared, ready, guarded] = one_of_each(&os);
    let both = AddrRange::new(prepared.base(), ready.end());
    let all = AddrRange::new(reserved.base(), ready.end());
    let expect = |act: &dyn Fn(), part: &str| {
        let text = panic_of(act).expect(part);
        assert!(text.contains(part), "{text}");
    };
    expect(&|| used(&os, both, pages(2)).unwrap(), "16 KiB are Prepared, the caller said 32 KiB");
    expect(&|| unused(&os, both, pages(0)), "16 KiB are Ready, the caller said 0 B");
    expect(&|| fault(&os, both, Category::Roots, PAGE).unwrap(), "Prepared (heap)");
    let guard = |category, ready| assert_eq!(guard(&os, both, category, ready), Guarding::Faults);
    expect(&|| guard(Category::Heap, pages(2)), "16 KiB are Ready");
    expect(&|| guard(Category::Roots, PAGE), "Prepared (heap)");
    expect(&|| unguard(&os, guarded, Category::Roots).unwrap(), "Guarded (heap)");
    expect(&|| release(&os, all, Category::Heap, PAGE, PAGE), "32 KiB are mapped");
    expect(&|| release(&os, all, Category::Heap, pages(2), pages(2)), "16 KiB are Ready");
    let beyond = AddrRange::at(guarded.base(), pages(2));
    expect(&|| unused(&os, beyond, PAGE), "state None");
    let foreign = AddrRange::at(Addr::new(PAGE.get()), PAGE);
    expect(&|| unused(&os, foreign, Bytes::ZERO), "state None");
    // None of it did anything.
    release(&os, AddrRange::new(all.base(), guarded.end()), Category::Heap, pages(2), PAGE);
    assert_eq!(os.accounting().reserved(), Bytes::ZERO);
}

/// Reserve, map, make ready, allocate, guard and back, take away: six fallible calls.
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
        assert_eq!(guard(os, range, Category::Heap, pages(2)), Guarding::Faults);
        state = (none, none);
        unguard(os, range, Category::Heap)?;
        state.0 = pages(2);
        fault(os, range, Category::Heap, none)?;
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
    let order = [
        Operation::Reserve,
        Operation::Map,
        Operation::Used,
        Operation::Alloc,
        Operation::Unguard,
        Operation::Fault,
    ];
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
    let [_, reserved, prepared, ready, guarded] = one_of_each(&os);
    let text = panic_of(|| sim.assert_all_released()).unwrap();
    let states =
        [(reserved, "Reserved"), (prepared, "Prepared"), (ready, "Ready"), (guarded, "Guarded")];
    for (range, state) in states {
        assert!(text.contains(&format!("{range:?} 16 KiB: {state}")), "{text}");
    }
}

/// A huge page is larger than a page, so each state gets one, in a range that begins and ends elsewhere.
#[test]
fn only_whole_and_ready_huge_pages_are_collapsed() {
    let huge = pages(4);
    let sim = SimOs::builder().page_size(PAGE).huge_page_size(huge).build();
    let os = Os::simulated(sim.clone());
    assert_eq!(os.huge_page_size(), huge);
    let base = os.reserve_aligned(None, pages(12), huge).unwrap();
    let all = AddrRange::at(base, pages(12));
    os.collapse(AddrRange::at(base + PAGE, pages(6)));
    let text = panic_of(|| os.collapse(AddrRange::at(base + PAGE, pages(7)))).unwrap();
    assert!(text.contains("collapse") && text.contains("Reserved"), "{text}");
    map(&os, all, Category::Heap).unwrap();
    let text = panic_of(|| os.collapse(all)).unwrap();
    assert!(text.contains("Prepared"), "{text}");
    used(&os, AddrRange::at(base, pages(8)), pages(8)).unwrap();
    os.collapse(AddrRange::at(base + PAGE, pages(10)));
    let text = panic_of(|| os.collapse(all)).unwrap();
    assert!(text.contains("Prepared"), "{text}");
    assert!(panic_of(|| os.collapse(AddrRange::at(base, Bytes::new(4096)))).is_some());
    release(&os, all, Category::Heap, pages(12), pages(8));
    sim.assert_all_released();
    // Without huge pages there is nothing to ask for.
    start().0.collapse(all);
}

#[test]
fn guarding_without_markers_stops_at_the_share_and_can_go_on_later() {
    let sim = SimOs::builder().page_size(PAGE).guard_markers(false).split_limit(5).build();
    let os = Os::simulated(sim.clone());
    let all = AddrRange::at(os.alloc(pages(16), Category::Heap).unwrap(), pages(16));
    let part = |i: usize, count: usize| AddrRange::at(all.base() + pages(i), pages(count));
    let guard = |i, count| guard(&os, part(i, count), Category::Heap, pages(count));
    assert_eq!((guard(1, 1), guard(4, 1)), (Guarding::Faults, Guarding::Faults));
    assert_eq!(os.features().splits, 4);
    assert_eq!(guard(8, 1), Guarding::ReadsZero, "a third range, six mappings");
    assert_eq!(byte_at(part(8, 1).base()), 0);
    assert_eq!(guard(2, 2), Guarding::Faults, "joins the two that are there");
    assert_eq!(os.features().splits, 2);
    assert_eq!(guard(10, 1), Guarding::Faults);
    // What `fault` takes comes out of the same share.
    fault(&os, part(6, 1), Category::Heap, PAGE).unwrap();
    unguard(&os, part(10, 1), Category::Heap).unwrap();
    assert_eq!(guard(12, 1), Guarding::ReadsZero);
    map(&os, part(6, 1), Category::Heap).unwrap();
    assert_eq!(guard(14, 1), Guarding::Faults);
    assert_eq!(os.features().guards_without_fault, 2);
    assert_eq!((os.features().splits, os.features().split_limit), (4, 4));
    // One call for parts that were guarded in different ways.
    unguard(&os, part(1, 4), Category::Heap).unwrap();
    unguard(&os, part(8, 1), Category::Heap).unwrap();
    used(&os, part(8, 1), PAGE).unwrap();
    assert_eq!(byte_at(part(8, 1).base()), 0);
    // Ready: 0, 5, 7, 8, 9, 11, 13, 15. Prepared: 1 to 4, 6, 10. Guarded: 12, 14.
    assert_eq!(os.accounting().ready(), pages(8));
    release(&os, all, Category::Heap, pages(14), pages(8));
    assert_eq!(os.features().splits, 0);
    sim.assert_all_released();
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
    let sim = SimOs::builder().page_size(Bytes::new(1 << 19)).build();
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

/// What is shut is Ready, and nothing may be done with it but opening, guarding and releasing it.
#[test]
fn what_is_shut_counts_and_is_left_alone() {
    let sim = SimOs::builder().page_size(PAGE).guard_markers(false).split_limit(8).build();
    let os = Os::simulated(sim.clone());
    let all = AddrRange::at(os.alloc(pages(16), Category::Heap).unwrap(), pages(16));
    let part = |i: usize, count: usize| AddrRange::at(all.base() + pages(i), pages(count));
    // SAFETY: as above.
    let shut = |i, count| unsafe { os.shut(part(i, count)) };
    // SAFETY: as above.
    let open = |i, count| unsafe { os.open(part(i, count)) };
    assert!(shut(2, 2) && shut(6, 1));
    assert!(!shut(10, 1), "half of the share is for those who cannot do without");
    assert!(shut(4, 1), "what joins costs nothing");
    assert_eq!((os.accounting().ready(), sim.ready()), (pages(16), pages(16)));
    assert_eq!(os.features().splits, 4);
    assert!(panic_of(|| unused(&os, part(2, 1), PAGE)).is_some());
    assert!(
        panic_of(|| {
            let _ = unguard(&os, part(2, 1), Category::Heap);
        })
        .is_some()
    );
    assert!(
        panic_of(|| {
            let _ = open(9, 1);
        })
        .is_some()
    );
    // In one call what was shut in two.
    open(2, 3).unwrap();
    assert!(
        panic_of(|| {
            let _ = open(2, 1);
        })
        .is_some()
    );
    assert_eq!(os.features().splits, 2);
    assert!(shut(12, 2));
    // What was shut is guarded with what was not.
    assert_eq!(guard(&os, part(5, 2), Category::Heap, pages(2)), Guarding::Faults);
    assert_eq!(os.accounting().ready(), pages(14));
    unguard(&os, part(5, 2), Category::Heap).unwrap();
    release(&os, all, Category::Heap, pages(16), pages(14));
    assert_eq!(os.features().splits, 0);
    sim.assert_all_released();
}

/// Units: Ready, Prepared, Prepared for something else, Reserved, guarded.
fn units(os: &Os) -> [AddrRange; 5] {
    let bytes = Bytes::new(5 * MOVE_UNIT.get());
    let base = os.reserve_aligned(None, bytes, MOVE_UNIT).unwrap();
    let unit = |i: usize| AddrRange::at(base + Bytes::new(i * MOVE_UNIT.get()), MOVE_UNIT);
    for (i, category) in [Category::Heap, Category::Heap, Category::Roots].into_iter().enumerate() {
        map(os, unit(i), category).unwrap();
    }
    map(os, unit(4), Category::Heap).unwrap();
    used(os, unit(0), MOVE_UNIT).unwrap();
    assert_eq!(guard(os, unit(4), Category::Heap, Bytes::ZERO), Guarding::Faults);
    [unit(0), unit(1), unit(2), unit(3), unit(4)]
}

fn move_memory(os: &Os, from: AddrRange, to: Addr) -> Option<Guarding> {
    // SAFETY: as above.
    unsafe { os.move_memory(from, to, Category::Heap) }
}

#[test]
fn memory_is_moved_from_ready_to_prepared_and_no_other_way() {
    let (os, sim) = start();
    let units = units(&os);
    let before = (format!("{:?}", os.accounting()), sim.calls());
    for from in 0..5 {
        for to in 0..5 {
            if (from, to) == (0, 1) || from == to {
                continue;
            }
            let text =
                panic_of(|| assert_eq!(move_memory(&os, units[from], units[to].base()), None));
            let text = text.unwrap_or_else(|| panic!("{from} to {to} went through"));
            assert!(text.contains("move_memory"), "{text}");
        }
    }
    assert!(panic_of(|| assert_eq!(move_memory(&os, units[0], units[0].base()), None)).is_some());
    assert!(
        panic_of(|| assert_eq!(move_memory(&os, units[0], units[1].base() + PAGE), None)).is_some()
    );
    assert_eq!((format!("{:?}", os.accounting()), sim.calls()), before);

    let words = |unit: AddrRange| unit.base().as_ptr::<u64>();
    // SAFETY: the unit is Ready and the test's own.
    unsafe { words(units[0]).write(7) };
    assert_eq!(move_memory(&os, units[0], units[1].base()), Some(Guarding::Faults));
    // SAFETY: Ready since it has been moved there.
    assert_eq!(unsafe { words(units[1]).read() }, 7);
    assert_eq!((os.accounting().ready(), sim.ready()), (MOVE_UNIT, MOVE_UNIT));
    assert_eq!(os.accounting().mapped(Category::Heap), MOVE_UNIT);
    // And back, with what was left there.
    unguard(&os, units[0], Category::Heap).unwrap();
    assert_eq!(move_memory(&os, units[1], units[0].base()), Some(Guarding::Faults));
    unguard(&os, units[1], Category::Heap).unwrap();
    used(&os, units[1], MOVE_UNIT).unwrap();
    // SAFETY: Ready.
    assert_eq!(unsafe { words(units[0]).read() }, 7);
    // SAFETY: Ready.
    assert_eq!(unsafe { words(units[1]).read() }, 0);
}

#[test]
fn moves_are_refused_on_order_and_beyond_the_share() {
    let sim = SimOs::builder().page_size(PAGE).split_limit(0).build();
    let os = Os::simulated(sim);
    let there = units(&os);
    assert_eq!(move_memory(&os, there[0], there[1].base()), None, "there is no share");

    let os = Os::simulated(SimOs::builder().page_size(PAGE).moves(false).build());
    let there = units(&os);
    assert!(!os.can_move());
    assert_eq!(move_memory(&os, there[0], there[1].base()), None);

    let (os, sim) = start();
    let there = units(&os);
    sim.set_fail_call(Some(sim.calls() + 1));
    let before = format!("{:?}", os.accounting());
    assert_eq!(move_memory(&os, there[0], there[1].base()), None, "on order");
    assert_eq!(format!("{:?}", os.accounting()), before);
    assert_eq!(move_memory(&os, there[0], there[1].base()), Some(Guarding::Faults));
}
