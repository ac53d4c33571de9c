//! Memory that a heap does not own and counts, and memory that it owns and does not collect.
//!
//! # Safety
//! Blocks are read and written while the test holds them, and given back once, where they came from, with the
//! layout that they were asked for with.
#![allow(unsafe_code)]

use crate::Mode;
use allocator_api2_02::alloc::Allocator as _;
use allocator_api2_02::vec::Vec as Vec02;
use allocator_api2_04::vec::Vec as Vec04;
use spanheap::{Account, Heap, HeapAlloc, Trace};
use std::alloc::Layout;
use std::time::Duration;

#[derive(Trace)]
#[trace(leaf)]
struct Image {
    pixels: Vec<u8>,
    account: Account,
}

const MIB: usize = 1 << 20;

fn image(heap: &Heap, bytes: usize) -> Image {
    Image { pixels: vec![0; bytes], account: heap.account(bytes) }
}

/// Nothing but what is accounted for makes these cycles begin: the objects themselves are a few kilobytes.
#[test]
fn what_is_accounted_for_makes_cycles_begin() {
    let heap = Heap::new();
    let mut most = 0;
    while heap.stats().cycles < 5 || heap.stats().dropped < 100 {
        heap.enter(|mc| {
            let image = mc.alloc(image(&heap, MIB));
            assert_eq!((image.pixels.len(), image.account.bytes()), (MIB, MIB));
        });
        most = most.max(heap.stats().accounted_bytes);
        let stats = heap.stats();
        let (cycles, dropped) = (stats.cycles, stats.dropped);
        let objects = stats.allocated_bytes;
        assert!(
            objects < 3 * MIB as u64,
            "{objects} bytes of objects, {cycles} cycles, {dropped} dropped"
        );
        // The collector and the destructors have their turn, on a machine that is busy with other things, too.
        if most > 64 * MIB {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    assert!(most >= 3 * MIB);
    let _ = heap.collect();
    while heap.stats().accounted_bytes > 0 {
        std::thread::yield_now();
    }
    // Without anything outside, as many small objects are no reason for a cycle.
    let cycles = heap.stats().cycles;
    heap.enter(|mc| (0..1000).map(|n| *mc.alloc(n)).sum::<i32>());
    assert_eq!(heap.stats().cycles, cycles);
}

#[test]
fn accounts_grow_shrink_and_end() {
    let heap = Heap::builder().gc_percent_off().build().unwrap();
    let accounted = || heap.stats().accounted_bytes;
    let (a, b) = (heap.account(100), heap.account(0));
    b.grow(50);
    assert_eq!((accounted(), a.bytes(), b.bytes()), (150, 100, 50));
    a.shrink(30);
    b.shrink(usize::MAX);
    assert_eq!((accounted(), a.bytes(), b.bytes()), (70, 70, 0));
    b.resize(1000);
    a.resize(5);
    assert_eq!(accounted(), 1005);
    drop(b);
    assert_eq!(accounted(), 5);
    let all = heap.account(usize::MAX);
    assert_eq!(accounted(), usize::MAX / 2);
    drop(all);
    assert_eq!(accounted(), 5);
    // An account may outlive its heap.
    drop(heap);
    a.grow(7);
    assert_eq!(a.bytes(), 12);
}

#[test]
fn the_goal_follows_what_is_accounted_for() {
    let heap = Heap::new();
    let account = heap.account(100 * MIB);
    let _ = heap.collect();
    assert!((200 * MIB..201 * MIB).contains(&heap.stats().goal_bytes), "{:?}", heap.stats());
    drop(account);
    let _ = heap.collect();
    assert!(heap.stats().goal_bytes <= 4 * MIB);
}

#[test]
fn an_account_is_shared_by_threads() {
    let heap = Heap::builder().gc_percent_off().build().unwrap();
    let account = heap.account(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for size in 0..1000 {
                    account.grow(size);
                    account.shrink(size / 2);
                }
            });
        }
    });
    let expected = 4 * (0..1000).map(|size| size - size / 2).sum::<usize>();
    assert_eq!((account.bytes(), heap.stats().accounted_bytes), (expected, expected));
}

#[derive(Trace)]
#[trace(leaf)]
struct Owner {
    #[trace(leaf)]
    bytes: Vec02<u8, HeapAlloc>,
}

#[test]
fn collections_of_both_versions_live_in_the_heap() {
    let heap = Mode::Watched.heap();
    let alloc = heap.allocator();
    let mut one = Vec02::new_in(alloc.clone());
    let mut other = Vec04::new_in(alloc.clone());
    for number in 0..100_000u64 {
        one.push(number);
        other.push(!number);
    }
    assert!(one.iter().copied().eq(0..100_000));
    assert!(other.iter().map(|number| !number).eq(0..100_000));
    assert!(heap.stats().manual_bytes >= 2 * 800_000);
    assert_eq!(heap.stats().accounted_bytes, heap.stats().manual_bytes);
    drop((one, other));
    // One chunk of each class is kept for the next block.
    assert!(heap.stats().manual_bytes <= 10 * 32 * 1024);
    drop(alloc);
    assert_eq!(heap.stats().manual_bytes, 0);
    assert_eq!(heap.stats().accounted_bytes, 0);
}

#[test]
fn blocks_are_aligned_apart_and_as_long_as_they_say() {
    let heap = Heap::builder().gc_percent_off().build().unwrap();
    let alloc = heap.allocator();
    let mut taken = Vec::new();
    for align in (0..18).map(|power| 1usize << power) {
        for size in [0, 1, 7, 8, 16, 17, 100, 1000, 4095, 4096, 4097, 8192, 50_000] {
            let layout = Layout::from_size_align(size, align).unwrap();
            let block = alloc.allocate_zeroed(layout).unwrap();
            let start = block.cast::<u8>().as_ptr();
            assert!(start.addr() % align == 0 && block.len() >= size);
            // SAFETY: the block is the test's, and zeroed.
            let bytes = unsafe { core::slice::from_raw_parts_mut(start, block.len()) };
            assert!(bytes.iter().all(|&byte| byte == 0));
            bytes.fill(taken.len() as u8);
            taken.push((block, layout));
        }
    }
    for (index, &(block, _)) in taken.iter().enumerate() {
        // SAFETY: as above; all bytes were written.
        assert!(unsafe { block.as_ref() }.iter().all(|&byte| byte == index as u8));
    }
    // What is given back, and not in the order of taking, serves again.
    for (block, layout) in taken.drain(..).rev() {
        // SAFETY: allocated above with this layout, and not used any more.
        unsafe { alloc.deallocate(block.cast(), layout) };
    }
    let dirty = alloc.allocate_zeroed(Layout::new::<[u64; 12]>()).unwrap();
    // SAFETY: the block is the test's, and zeroed.
    assert!(unsafe { dirty.as_ref() }.iter().all(|&byte| byte == 0));
    // SAFETY: allocated in the lines before.
    unsafe { alloc.deallocate(dirty.cast(), Layout::new::<[u64; 12]>()) };
    drop(alloc);
    assert_eq!(heap.stats().manual_bytes, 0);
}

/// What a dead object owns is freed by its destructor, on the heap's own thread and at the end of the heap; the
/// allocator in it does not keep the heap alive.
#[test]
fn objects_own_memory_of_their_own_heap() {
    let sim = spanheap::os::SimOs::builder().build();
    let heap = Heap::builder().os(spanheap::os::Os::simulated(sim.clone())).build().unwrap();
    let alloc = heap.allocator();
    for round in 0..200u32 {
        heap.enter(|mc| {
            let mut bytes = Vec02::new_in(alloc.clone());
            bytes.resize(1 + round as usize * 97 % 20_000, round as u8);
            let owner = mc.alloc(Owner { bytes });
            assert!(owner.bytes.iter().all(|&byte| byte == round as u8));
        });
        if round % 20 == 0 {
            let _ = heap.collect();
        }
    }
    drop(alloc);
    drop(heap);
    sim.assert_all_released();
}

/// A collection that outlives the heap keeps its memory, and cannot get more.
#[test]
fn memory_that_outlives_its_heap_stays_until_it_is_given_back() {
    let sim = spanheap::os::SimOs::builder().build();
    let heap = Heap::builder().os(spanheap::os::Os::simulated(sim.clone())).build().unwrap();
    let alloc = heap.allocator();
    let mut kept = Vec02::new_in(alloc.clone());
    kept.extend(0..50_000u64);
    let small = Vec04::<u64, _>::with_capacity_in(2, alloc.clone());
    drop(heap);
    assert!(kept.iter().copied().eq(0..50_000));
    assert!(alloc.allocate(Layout::new::<u64>()).is_err());
    assert!(kept.try_reserve(1_000_000).is_err());
    drop((kept, small, alloc));
    sim.assert_all_released();
}

#[test]
fn threads_share_an_allocator_and_take_back_what_others_took() {
    let heap = Mode::Watched.heap();
    let alloc = heap.allocator();
    let (send, receive) = std::sync::mpsc::channel::<Vec02<u64, HeapAlloc>>();
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (send, alloc) = (send.clone(), alloc.clone());
            let heap = &heap;
            scope.spawn(move || {
                for round in 0..300 {
                    let mut values = Vec02::new_in(alloc.clone());
                    // Inside of closures and outside.
                    match round % 2 {
                        0 => values.extend((0..round).map(|n| n * 4 + thread)),
                        _ => heap.enter(|_| values.extend((0..round).map(|n| n * 4 + thread))),
                    }
                    send.send(values).unwrap();
                }
            });
        }
        drop(send);
        for values in receive {
            let thread = values.first().map_or(0, |first| first % 4);
            assert!(values.iter().enumerate().all(|(n, &value)| value == n as u64 * 4 + thread));
        }
    });
    drop(alloc);
    assert_eq!(heap.stats().manual_bytes, 0);
}

/// A limit refuses blocks as it refuses objects, and an allocator goes on when it gets some back.
#[test]
fn a_limit_holds_for_blocks_too() {
    let heap = Heap::builder().hard_limit(16 * MIB).build().unwrap();
    let alloc = heap.allocator();
    let mut taken = Vec::new();
    let layout = Layout::from_size_align(100_000, 8).unwrap();
    while let Ok(block) = alloc.allocate(layout) {
        taken.push(block);
    }
    assert!(taken.len() > 50 && heap.stats().ready_bytes <= 16 * MIB);
    // SAFETY: allocated above with this layout; nobody uses it.
    unsafe { alloc.deallocate(taken.pop().unwrap().cast(), layout) };
    taken.push(alloc.allocate(layout).expect("what was given back serves again"));
    for block in taken {
        // SAFETY: as above.
        unsafe { alloc.deallocate(block.cast(), layout) };
    }
}
