//! First steps: objects, cycles, roots, cells.
use spanheap::{Collected, Gc, GcCell, GcMutex, Heap, Root, Rootable, Trace};

#[derive(Trace)]
struct Node<'gc> {
    key: u64,
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
}

#[test]
fn a_rooted_cycle_is_retained_and_a_lost_one_is_freed() {
    let heap = Heap::builder().checkmark(true).poison(true).build().unwrap();
    let list: Root<Rootable![Node<'_>]> = heap.enter(|mc| {
        let b = mc.alloc(Node { key: 2, next: GcCell::new(None) });
        let a = mc.alloc(Node { key: 1, next: GcCell::new(Some(b)) });
        b.next.set(mc, Some(a));
        mc.root(a)
    });
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(heap.stats().live_objects, 2);
    heap.enter(|mc| {
        let a = list.get(mc);
        let b = a.next.get().unwrap();
        assert_eq!((a.key, b.key), (1, 2));
        assert!(Gc::ptr_eq(b.next.get().unwrap(), a));
        assert_eq!(heap.collect(), Collected::Requested);
    });
    drop(list);
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(heap.collect(), Collected::Complete);
    let stats = heap.stats();
    assert_eq!(stats.live_objects, 0);
    assert_eq!(stats.heap_bytes, 0, "{stats:?}");
}

#[test]
fn many_objects_of_many_kinds() {
    let heap = Heap::builder().checkmark(true).poison(true).build().unwrap();
    type Table<'gc> = GcMutex<'gc, Vec<(Gc<'gc, str>, Gc<'gc, [u64]>)>>;
    let table: Root<Rootable![Table<'_>]> = heap.enter(|mc| {
        let table: Gc<'_, Table<'_>> = mc.alloc(GcMutex::new(Vec::new()));
        mc.root(table)
    });
    for round in 0..200u64 {
        heap.enter(|mc| {
            let table = table.get(mc);
            for i in 0..100 {
                let name =
                    mc.alloc_str(&format!("{}-{}", "x".repeat((i % 40) as usize), i + round));
                let numbers = mc.alloc_slice((0..i as u32 * 3).map(|n| u64::from(n) + round));
                table.lock(mc).push((name, numbers));
            }
            if round % 3 == 0 {
                table.lock(mc).drain(..50);
            }
        });
        if round % 20 == 0 {
            let _ = heap.collect();
        }
    }
    heap.enter(|mc| {
        for (name, numbers) in table.get(mc).lock(mc).iter() {
            let round = if numbers.is_empty() { 0 } else { numbers[0] };
            assert!(numbers.iter().enumerate().all(|(i, &n)| n == i as u64 + round));
            assert!(name.contains('-'));
        }
    });
    println!("{:?}", heap.stats());
    drop(table);
    let _ = heap.collect();
    let _ = heap.collect();
    assert_eq!(heap.stats().live_objects, 0);
    // The vector of the table is dropped on the drop thread, which frees the last page.
    while heap.stats().heap_bytes > 0 {
        std::thread::yield_now();
    }
    assert_eq!((heap.stats().dropped, heap.stats().drop_panics), (1, 0));
}

/// Bulk stores against an array, in all phases, while every cycle is compared with a second mark.
#[test]
fn many_cells_change_as_single_ones_do() {
    const CELLS: usize = 40;
    type Cells<'gc> = [GcCell<'gc, Option<Gc<'gc, u64>>>];
    for collecting in [false, true] {
        let heap = Heap::builder().checkmark(collecting).poison(collecting);
        let heap = heap.collect_continuously(collecting).build().unwrap();
        let cells: Root<Rootable![Cells<'_>]> = heap.enter(|mc| mc.root(mc.alloc_zeroed(CELLS)));
        let mut twin = [None; CELLS];
        let mut random = 7_usize;
        let mut below = |bound: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % bound
        };
        for round in 0..4000_u64 {
            let (first, other) = (below(CELLS), below(CELLS));
            let len = below(CELLS + 1 - first.max(other));
            heap.enter(|mc| {
                let all = cells.get(mc).as_ref();
                let part = &all[first..first + len];
                match round % 4 {
                    0 => {
                        GcCell::fill(part, mc, Some(mc.alloc(round)));
                        twin[first..first + len].fill(Some(round));
                    }
                    1 => {
                        let values: Vec<_> = (0..len as u64).map(|n| round * 100 + n).collect();
                        let new: Vec<_> = values.iter().map(|&n| Some(mc.alloc(n))).collect();
                        GcCell::copy_from_slice(part, mc, &new);
                        (0..len).for_each(|n| twin[first + n] = Some(values[n]));
                    }
                    2 => {
                        GcCell::copy_within(all, mc, first..first + len, other);
                        twin.copy_within(first..first + len, other);
                    }
                    _ => {
                        let copy: Vec<_> =
                            part.iter().map(|cell| GcCell::new(cell.get())).collect();
                        GcCell::fill(part, mc, None);
                        assert!(part.iter().all(|cell| cell.get().is_none()));
                        GcCell::copy_from_cells(part, mc, &copy);
                    }
                }
                let held = all.iter().map(|cell| cell.get().map(|number| *number));
                assert!(held.eq(twin), "round {round}");
            });
        }
    }
}

#[test]
#[should_panic(expected = "3 values are copied to 2 cells")]
fn as_many_values_as_cells_are_copied() {
    Heap::new().enter(|mc| {
        let cells: [GcCell<'_, Option<Gc<'_, u64>>>; 2] = [GcCell::default(), GcCell::default()];
        GcCell::copy_from_slice(&cells, mc, &[None; 3]);
    });
}

#[test]
#[should_panic(expected = "behind the last number")]
fn a_range_that_overflows_is_no_empty_one() {
    Heap::new().enter(|mc| {
        let cells: [GcCell<'_, Option<Gc<'_, u64>>>; 2] = [GcCell::default(), GcCell::default()];
        GcCell::copy_within(&cells, mc, 0..=usize::MAX, 0);
    });
}
