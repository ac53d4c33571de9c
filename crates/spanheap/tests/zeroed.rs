//! Zeroed slices, whatever the memory has been used for before: garbage of other objects, poison, memory that
//! went to the system and came back.

use spanheap::{Collected, Gc, GcCell, Heap, Root, Rootable};

/// Lengths around the borders of size classes, of pages, and of large objects.
const LENGTHS: [usize; 14] =
    [0, 1, 7, 8, 15, 16, 17, 100, 1016, 4096, 32 << 10, (32 << 10) + 1, 100_000, 3 << 20];

fn check_all(heap: &Heap) {
    heap.enter(|mc| {
        for len in LENGTHS {
            let bytes = mc.alloc_zeroed::<u8>(len);
            assert_eq!(bytes.len(), len);
            assert!(bytes.iter().all(|&byte| byte == 0), "{len} bytes");
            let words = mc.alloc_zeroed::<u64>(len / 8);
            assert!(words.iter().all(|&word| word == 0), "{len} bytes of words");
            let cells = mc.alloc_zeroed::<GcCell<'_, Option<Gc<'_, u64>>>>(len / 8);
            assert!(cells.iter().all(|cell| cell.get().is_none()), "{len} bytes of cells");
        }
    });
}

/// Fills the sizes that are checked, and more, with bytes that are not zero.
fn soil(heap: &Heap) {
    heap.enter(|mc| {
        for len in LENGTHS.into_iter().cycle().take(4 * LENGTHS.len()) {
            mc.alloc_slice((0..len).map(|_| 0xa5_u8));
            mc.alloc_slice((0..len / 8).map(|_| usize::MAX));
            mc.alloc_slice((0..len / 8).map(|_| Some(mc.alloc(7_u64))));
        }
    });
}

#[test]
fn zeroed_slices_are_zero_in_fresh_and_in_used_memory() {
    for poison in [false, true] {
        let heap = Heap::builder().poison(poison).build().expect("a heap");
        for round in 0..6 {
            check_all(&heap);
            soil(&heap);
            if round % 2 == 0 {
                assert_eq!(heap.collect(), Collected::Complete);
            }
            if round % 3 == 2 {
                heap.release_memory();
            }
        }
        check_all(&heap);
    }
}

#[test]
fn cells_of_a_zeroed_slice_hold_what_is_put_in_over_cycles() {
    let heap = Heap::builder().collect_continuously(true).checkmark(true).build().expect("a heap");
    type Table = Rootable![[GcCell<'_, Option<Gc<'_, u64>>>]];
    let table: Root<Table> = heap.enter(|mc| mc.root(mc.alloc_zeroed(5000)));
    for step in 0_u64..20_000 {
        heap.enter(|mc| {
            let cells = table.get(mc);
            let cell = &cells[(step * 7919 % 5000) as usize];
            if let Some(old) = cell.get() {
                assert!(*old < step && *old % 5000 == step % 5000, "{} at {step}", *old);
            }
            cell.set(mc, Some(mc.alloc(step)));
        });
    }
}

#[test]
fn lengths_that_overflow_are_refused() {
    let heap = Heap::new();
    heap.enter(|mc| {
        for len in [usize::MAX, usize::MAX / 8 + 1, isize::MAX as usize / 8 + 1] {
            assert!(mc.try_alloc_zeroed::<u64>(len).is_err(), "{len}");
        }
    });
}

#[test]
fn released_memory_leaves_the_account_and_comes_back() {
    let heap = Heap::new();
    soil(&heap);
    let before = heap.stats().ready_bytes;
    let released = heap.release_memory();
    assert!(released > 8 << 20, "{released} bytes");
    assert!(heap.stats().ready_bytes < before / 2, "{} of {before}", heap.stats().ready_bytes);
    check_all(&heap);
}
