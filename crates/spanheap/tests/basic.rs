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
