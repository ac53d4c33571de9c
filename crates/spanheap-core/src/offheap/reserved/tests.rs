//! Reserved arrays: what is committed, what it costs, every history of refusals, and what is refused to a
//! wrong system.

use super::*;
use crate::os::SimOs;

const LEN: usize = 20_000;

fn mapped(os: &Os) -> usize {
    os.accounting().mapped(Category::PageTables).get()
}

#[test]
fn a_committed_part_is_zero_and_the_rest_costs_nothing() {
    for page in [4096, 16384, 65536] {
        let sim = SimOs::builder().page_size(Bytes::new(page)).build();
        let os = Os::simulated(sim.clone());
        let mut array = ReservedArray::<u64>::new(&os, LEN, Category::PageTables).unwrap();
        let (block, empty) = (page.max(BLOCK_BYTES), mapped(&os));
        assert_eq!(empty, page, "one page of bitmaps");
        assert!(!array.is_committed(0) && !array.is_committed(LEN - 1));

        // One element on either side of a block's end.
        let edge = block / 8;
        array.commit(&os, edge - 1..edge + 1).unwrap();
        assert_eq!(mapped(&os), empty + 2 * block);
        assert!(array.is_committed(0) && array.is_committed((2 * edge - 1).min(LEN - 1)));
        assert!(array.slice(edge - 1..edge + 1).iter().all(|&x| x == 0));
        *array.get_mut(edge) = 7;

        // What is committed already is neither counted nor cleared again.
        let calls = sim.calls();
        array.commit(&os, 0..edge + 1).unwrap();
        assert_eq!((mapped(&os), sim.calls()), (empty + 2 * block, calls));
        array.commit(&os, 0..LEN).unwrap();
        assert_eq!(mapped(&os), empty + (8 * LEN).next_multiple_of(block));
        assert_eq!(os.accounting().ready().get(), mapped(&os));
        assert_eq!((*array.get(edge), *array.get(LEN - 1)), (7, 0));

        array.release(&os);
        array.release(&os);
        assert_eq!((array.len(), mapped(&os)), (0, 0));
        assert_eq!(os.accounting().reserved(), Bytes::ZERO);
        sim.assert_all_released();
    }
}

#[test]
fn an_element_across_two_blocks_needs_both() {
    let os = Os::simulated(SimOs::builder().build());
    let mut array = ReservedArray::<[u64; 3]>::new(&os, LEN, Category::PageTables).unwrap();
    let across = BLOCK_BYTES / 24;
    assert_ne!(BLOCK_BYTES % 24, 0);
    array.commit(&os, 0..across).unwrap();
    assert!(array.is_committed(across - 1) && !array.is_committed(across));
    array.commit(&os, across..across + 1).unwrap();
    assert_eq!(array.get(across), &[0; 3]);
    array.release(&os);
}

/// Every history of refusals: the n-th call alone, or all from the n-th on until the system
/// recovers.
#[test]
fn a_refusal_at_any_call_can_be_repeated() {
    for (n, lasting) in (1..=12).flat_map(|n| [(n, false), (n, true)]) {
        let sim = SimOs::builder().build();
        let os = Os::simulated(sim.clone());
        let arm = |n| if lasting { sim.set_fail_from(n) } else { sim.set_fail_call(n) };
        arm(Some(n));
        let array = ReservedArray::<u32>::new(&os, LEN, Category::PageTables);
        let mut array = array.unwrap_or_else(|_| {
            assert_eq!(os.accounting().reserved(), Bytes::ZERO, "call {n} failed in new");
            arm(None);
            ReservedArray::new(&os, LEN, Category::PageTables).unwrap()
        });
        let mut expected = [false; LEN];
        for range in [5000..5001, 0..1, 0..LEN, 3..9000] {
            let before = os.accounting().ready().get();
            if array.commit(&os, range.clone()).is_err() {
                arm(None);
                // A single refusal is undone; only one that lasts can leave a block mapped.
                let ready = os.accounting().ready().get();
                assert!(lasting || mapped(&os) == ready, "call {n} left a block mapped");
                assert!(ready >= before, "call {n} took something back");
                assert!(expected.iter().enumerate().all(|(i, &was)| !was || array.is_committed(i)));
                array.commit(&os, range.clone()).unwrap();
            }
            expected[range].fill(true);
            assert!((0..LEN).all(|i| !expected[i] || *array.get(i) == 0));
        }
        assert_eq!(mapped(&os), (4 * LEN).next_multiple_of(BLOCK_BYTES) + 4096);
        assert_eq!(os.accounting().ready().get(), mapped(&os));
        array.release(&os);
        assert_eq!(os.accounting().reserved(), Bytes::ZERO);
        sim.assert_all_released();
    }
}

#[test]
fn a_block_that_stayed_mapped_is_counted_and_released() {
    let sim = SimOs::builder().build();
    let os = Os::simulated(sim.clone());
    let mut array = ReservedArray::<u8>::new(&os, LEN, Category::PageTables).unwrap();
    // Of map, used and fault the last two fail.
    sim.set_fail_from(Some(sim.calls() + 2));
    assert_eq!(array.commit(&os, 0..1).unwrap_err().op(), Operation::Used);
    assert!(!array.is_committed(0));
    assert_eq!(mapped(&os), 4096 + BLOCK_BYTES);
    assert_eq!(os.accounting().ready().get(), 4096);
    array.release(&os);
    assert_eq!((mapped(&os), os.accounting().reserved()), (0, Bytes::ZERO));
    sim.assert_all_released();
}

#[test]
fn readers_see_whole_blocks_while_others_commit() {
    let os = Os::native();
    let mut array = ReservedArray::<AtomicUsize>::new(&os, 1 << 18, Category::PageTables).unwrap();
    std::thread::scope(|s| {
        for step in [1, 2] {
            let (array, os) = (&array, &os);
            s.spawn(move || {
                for i in (0..array.len()).step_by(step * 512) {
                    array.commit(os, i..i + 1).unwrap();
                    array.get(i).fetch_add(1, Relaxed);
                }
            });
        }
        let mut last = 0;
        while last < array.len() {
            if array.is_committed(last) {
                assert!(array.get(last).load(Relaxed) <= 2);
                last += 512;
            }
        }
    });
    let sum: usize = array.slice(0..array.len()).iter().map(|x| x.load(Relaxed)).sum();
    assert_eq!(sum, (1 << 18) / 512 + (1 << 18) / 1024);
    assert_eq!(mapped(&os), (8 << 18) + os.page_size().get());
    array.release(&os);
    assert_eq!(os.accounting().reserved(), Bytes::ZERO);
}

#[test]
fn an_array_larger_than_the_address_space_is_refused() {
    let os = Os::native();
    for len in [usize::MAX, 1 << 44, usize::MAX / 8 - 100] {
        assert!(ReservedArray::<u64>::new(&os, len, Category::PageTables).is_err());
    }
    assert_eq!(os.accounting().reserved(), Bytes::ZERO);
    assert!(ReservedArray::<u64>::new(&os, 0, Category::PageTables).unwrap().is_empty());
}

#[test]
fn memory_outlives_a_simulated_system() {
    let (os, mut array) = one_element();
    drop(os);
    *array.get_mut(50_000) = 9;
    assert_eq!(array.get(50_000), &9);
}

#[test]
#[should_panic(expected = "an array of another system's memory")]
fn a_commit_by_another_system_is_a_panic() {
    let (_os, array) = one_element();
    let _ = array.commit(&Os::native(), 0..1);
}

#[test]
#[should_panic(expected = "an array of another system's memory")]
fn a_release_by_another_system_is_a_panic() {
    let (_os, mut array) = one_element();
    array.release(&Os::native());
}

fn one_element() -> (Os, ReservedArray<u8>) {
    let os = Os::simulated(SimOs::builder().build());
    let array = ReservedArray::new(&os, 100_000, Category::PageTables).unwrap();
    array.commit(&os, 50_000..50_001).unwrap();
    (os, array)
}

#[test]
#[should_panic(expected = "element 100000 of an array of 100000")]
fn an_index_behind_the_end_is_a_panic() {
    one_element().1.get(100_000);
}

#[test]
#[should_panic(expected = "element 99999 of 100000 is not committed")]
fn an_element_that_is_not_committed_is_a_panic() {
    one_element().1.get_mut(99_999);
}

#[test]
#[should_panic(expected = "elements 50000..90000 of 100000 are not all committed")]
fn a_slice_that_is_not_committed_is_a_panic() {
    one_element().1.slice(50_000..90_000);
}

#[test]
#[should_panic(expected = "elements 5..100001 of an array of 100000")]
fn a_commit_behind_the_end_is_a_panic() {
    let (os, array) = one_element();
    let _ = array.commit(&os, 5..100_001);
}
