//! Sizes and alignments at every edge, on the runtime API: what the safe one cannot say, since its types
//! have the sizes that Rust allows. Fault rows 57 to 62; the safe crate has a file of the same name.
//!
//! # Safety
//! Objects are written from their first byte to their last, and read while a root or a closure holds them.
#![allow(unsafe_code)]

use spanheap_core::addr::{Addr, Bytes, PAGE_BYTES};
use spanheap_core::collect::Options;
use spanheap_core::collect::roots::RootRecord;
use spanheap_core::mutator::{Heap, Mutator};
use spanheap_core::observe::Stats;
use spanheap_core::os::{Os, SimOs};
use spanheap_core::span::size_class::{MAX_SMALL_SIZE, SizeClass};
use spanheap_core::span::{DropFn, InvalidType, Shape, TraceFn, Tracer, TypeInfo};
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

static BYTE: TypeInfo = TypeInfo::new(|| "byte", 1, 1, Shape::NoScan, trace_nothing, None);
static HALF: TypeInfo = TypeInfo::new(|| "half", 4, 4, Shape::NoScan, trace_nothing, None);
static POINTER: TypeInfo = TypeInfo::new(|| "pointer", 8, 8, Shape::Words(1), trace_nothing, None);

fn try_info(size: usize, align: usize, shape: Shape) -> Result<TypeInfo, InvalidType> {
    TypeInfo::try_new(|| "test", size, align, shape, trace_nothing, None)
}

/// A description that lives for ever, as types do.
fn info(
    size: usize,
    align: usize,
    trace: Option<TraceFn>,
    drop: Option<DropFn>,
) -> &'static TypeInfo {
    let shape = if trace.is_some() { Shape::Opaque } else { Shape::NoScan };
    let trace = trace.unwrap_or(trace_nothing);
    let made = TypeInfo::try_new(|| "test", size, align, shape, trace, drop);
    Box::leak(Box::new(made.expect("a type")))
}

fn heap() -> Heap {
    let options = Options { poison: true, ..Options::default() };
    Heap::new(Os::native(), options).expect("memory")
}

/// An object whose bytes are all `value`. A closure is open.
fn filled(mutator: &Mutator, ty: &'static TypeInfo, value: u8) -> Addr {
    // SAFETY: a closure is open.
    let slot = unsafe { mutator.alloc(ty) }.expect("memory");
    // SAFETY: the slot is as large as the type.
    unsafe { slot.as_ptr().write_bytes(value, ty.size) };
    // SAFETY: the types that this is called for have no pointers, or trace none in these bytes.
    unsafe { mutator.publish(slot) };
    Addr::of(slot.as_ptr())
}

/// A slice whose bytes are all `value`. A closure is open.
fn filled_slice(mutator: &Mutator, ty: &'static TypeInfo, len: usize, value: u8) -> Addr {
    // SAFETY: a closure is open.
    let slot = unsafe { mutator.alloc_slice(ty, len) }.expect("memory");
    // SAFETY: the slot has room for so many.
    unsafe { slot.start.as_ptr().write_bytes(value, len * ty.size) };
    if let Some(counter) = slot.counter {
        // SAFETY: a word of the slot.
        unsafe { counter.write(len) };
    }
    // SAFETY: as in `filled`.
    unsafe { mutator.publish(slot.start) };
    Addr::of(slot.start.as_ptr())
}

/// Holds an object of the open closure.
fn root(mutator: &Mutator, object: Addr) -> Arc<RootRecord> {
    let object = NonNull::new(object.as_ptr()).expect("objects are not at address 0");
    // SAFETY: the callers name objects of the open closure.
    unsafe { mutator.root(object) }
}

fn bytes_of<'a>(at: Addr, len: usize) -> &'a [u8] {
    // SAFETY: the callers hold an object of that many bytes, and initialised it.
    unsafe { std::slice::from_raw_parts(at.as_ptr(), len) }
}

const ALIGNS: [usize; 22] = {
    let mut aligns = [1; 22];
    let mut log = 0;
    while log < aligns.len() {
        aligns[log] <<= log;
        log += 1;
    }
    aligns
};

static EMPTY_DROPS: AtomicUsize = AtomicUsize::new(0);

unsafe fn count_drops(_: *mut u8, count: usize) {
    EMPTY_DROPS.fetch_add(count, Ordering::Relaxed);
}

/// Each value without a size has an address of its own, aligned, and a destructor if its type has one.
#[test]
fn fault_57_values_without_size() {
    let heap = heap();
    let mutator = heap.attach();
    mutator.enter();
    let mut addresses = BTreeSet::new();
    let mut made = 0;
    for align in ALIGNS {
        let plain = info(0, align, None, None);
        let drops = info(0, align, None, Some(count_drops as DropFn));
        for ty in [plain, drops] {
            assert!(ty.object_bytes().expect("it has an address").get() >= 16);
            for round in 0..3 {
                let lens: [usize; 3] = [0, 1000, if ty.drop.is_some() { 3 } else { usize::MAX }];
                let objects = [filled(&mutator, ty, 0), filled_slice(&mutator, ty, lens[round], 0)];
                for at in objects {
                    assert!(!at.is_null() && at.is_aligned(align), "{at} for {align}");
                    assert!(addresses.insert(at), "two values at {at}");
                }
                if ty.drop.is_some() {
                    made += 1 + lens[round];
                }
            }
        }
    }
    mutator.leave();
    drop(mutator);
    // The end of the heap runs the destructors that are owed.
    drop(heap);
    assert_eq!(EMPTY_DROPS.load(Ordering::Relaxed), made);
}

/// Sizes that are no sizes are values of the error type, and nothing has been asked of the system.
#[test]
fn fault_58_sizes_that_overflow() {
    const MOST: usize = isize::MAX as usize;
    for (size, align) in [
        (MOST + 1, 1),
        (usize::MAX, 1),
        (MOST, 2),
        (MOST - 6, 8),
        (1, 1 << 63),
        (usize::MAX, 1 << 63),
    ] {
        assert_eq!(
            try_info(size, align, Shape::NoScan).err(),
            Some(InvalidType::Size { size, align })
        );
    }
    let mask = Shape::Words(0b100);
    assert!(try_info(24, 8, mask).is_ok());
    for (size, align) in [(23, 8), (16, 8), (0, 8), (24, 4), (24, 1)] {
        let error = try_info(size, align, mask).err();
        assert_eq!(error, Some(InvalidType::Mask { mask: 0b100, size, align }));
    }

    let sim = SimOs::builder().build();
    let heap = Heap::new(Os::simulated(sim.clone()), Options::default()).expect("memory");
    let mutator = heap.attach();
    mutator.enter();
    filled(&mutator, &HALF, 1);
    let before = (sim.calls(), state(&heap));
    let drops = info(24, 8, None, Some(count_drops as DropFn));
    let large = info(MOST, 1, None, None);
    for (ty, len) in [
        (&BYTE, MOST + 1),
        (&BYTE, usize::MAX),
        (&HALF, usize::MAX / 4 + 1),
        (&HALF, usize::MAX / 2),
        (&POINTER, usize::MAX / 8 + 1),
        (&POINTER, 1 << 60),
        (drops, usize::MAX / 24 + 1),
        (drops, MOST / 24 + 1),
        (large, 2),
        (large, 3),
    ] {
        assert_eq!(ty.slice_bytes(len), None, "{len} times {}", ty.size);
        // SAFETY: a closure is open.
        let error = unsafe { mutator.alloc_slice(ty, len) }.expect_err("no heap has that");
        assert_eq!(error.requested, Bytes::new(usize::MAX));
    }
    // A size that can be said and that nobody has.
    // SAFETY: a closure is open.
    let error = unsafe { mutator.alloc(large) }.expect_err("no heap has that");
    assert_eq!(error.requested, Bytes::new(MOST));
    assert_eq!((sim.calls(), state(&heap)), before, "a refusal has changed something");
    mutator.leave();
}

/// What must not change when a request is refused.
fn state(heap: &Heap) -> (Bytes, Bytes, Bytes, u64, Vec<(&'static str, Bytes)>) {
    let stats = Stats::of(heap);
    (stats.mapped, stats.ready, stats.spans, stats.allocated, stats.by_category)
}

#[test]
fn fault_59_alignments() {
    for align in [0, 3, 5, 6, 7, 9, 12, 24, 100, 4095, 8191, (1 << 21) + 1, usize::MAX] {
        let error = try_info(8, align, Shape::NoScan).err();
        assert_eq!(error, Some(InvalidType::Align { align }));
    }
    let heap = heap();
    let mutator = heap.attach();
    for align in ALIGNS {
        mutator.enter();
        let sizes = [1, align / 2, align - 1, align, align + 1, 2 * align, 3 * align, 4096, 40_000];
        let mut kept = Vec::new();
        for (index, size) in sizes.into_iter().enumerate() {
            let ty = info(size, align, None, None);
            for round in 0..3 {
                let value = (index * 3 + round) as u8;
                kept.push((filled(&mutator, ty, value), size, value));
                kept.push((filled_slice(&mutator, ty, 2, value), 2 * size, value));
            }
        }
        for (at, size, value) in kept {
            assert!(at.is_aligned(align), "{size} bytes at {at} for an alignment of {align}");
            assert!(bytes_of(at, size).iter().all(|&byte| byte == value), "{size} bytes at {at}");
        }
        mutator.leave();
    }
    heap.collect();
    assert_eq!(Stats::of(&heap).spans, Bytes::ZERO);
    // Beyond what anybody needs: honoured, or refused as a value. (A sanitizer would need memory for what a
    // TiB of address space is.)
    let largest = if cfg!(spanheap_asan) { 30 } else { 62 };
    for log in [22, 26, 30, 40, 47, 62].into_iter().filter(|&log| log <= largest) {
        let ty = info(8, 1 << log, None, None);
        mutator.enter();
        // SAFETY: a closure is open.
        match unsafe { mutator.alloc(ty) } {
            Ok(slot) => assert!(Addr::of(slot.as_ptr()).is_aligned(1 << log)),
            Err(error) => println!("an alignment of 2^{log}: {error}"),
        }
        mutator.leave();
    }
}

/// 64 objects of a page, aligned to a cache line and more: alignment alone costs no span per object.
#[test]
fn fault_59_objects_of_a_page_with_small_alignments() {
    let heap = heap();
    let mutator = heap.attach();
    mutator.enter();
    for align in [1, 64, 4096] {
        let ty = info(4096, align, None, None);
        assert_eq!(ty.object_bytes(), Some(Bytes::new(4096)));
        for value in 0..64 {
            assert!(filled(&mutator, ty, value).is_aligned(align));
        }
    }
    mutator.leave();
    assert_eq!(Stats::of(&heap).allocated, 3 * 64 * 4096);
}

/// Nothing grows for a request that cannot be met: no pages, no tables, no call of the system.
#[test]
fn fault_60_sixteen_tebibytes() {
    const SIXTEEN_TEBIBYTES: usize = 16 << 40;
    let sim = SimOs::builder().build();
    let heap = Heap::new(Os::simulated(sim.clone()), Options::default()).expect("memory");
    let mutator = heap.attach();
    mutator.enter();
    filled(&mutator, &HALF, 1);
    let before = (sim.calls(), state(&heap));
    let value = info(SIXTEEN_TEBIBYTES, 8, None, None);
    for _ in 0..100 {
        // SAFETY: a closure is open.
        let error = unsafe { mutator.alloc_slice(&POINTER, SIXTEEN_TEBIBYTES / 8) };
        assert_eq!(error.expect_err("too large").requested, Bytes::new(SIXTEEN_TEBIBYTES));
        // SAFETY: as above.
        let error = unsafe { mutator.alloc(value) }.expect_err("too large");
        assert_eq!(error.requested, Bytes::new(SIXTEEN_TEBIBYTES));
    }
    assert_eq!((sim.calls(), state(&heap)), before);
    // As much as the tables can describe, and more than this system has: it is asked, and refuses.
    sim.set_fail_from(Some(sim.calls() + 1));
    // SAFETY: as above.
    assert!(unsafe { mutator.alloc_slice(&BYTE, 1 << 40) }.is_err());
    sim.set_fail_from(None);
    assert_eq!(sim.calls(), before.0 + 1);
    assert_eq!(state(&heap), before.1);
    filled(&mutator, &HALF, 2);
    mutator.leave();
    drop((mutator, heap));
    sim.assert_all_released();
}

const TEN_MILLION: usize = 10_000_000;

/// Traces what the last word of an array of ten million points to.
unsafe fn trace_last_word(object: *const u8, _: usize, tracer: &mut Tracer<'_>) {
    let last = Addr::of(object) + Bytes::new((TEN_MILLION - 1) * 8);
    // SAFETY: the caller says that a value is there, and its last word is a pointer.
    let last = unsafe { &*last.as_ptr::<AtomicUsize>() };
    // SAFETY: it holds an object of the heap, or 0.
    unsafe { tracer.edge(Addr::new(last.load(Ordering::Acquire))) };
}

/// An array of ten million words, as one value and as a slice: its last word alone is a pointer.
#[test]
fn fault_61_ten_million_words_with_a_pointer_at_the_end() {
    let heap = heap();
    let mutator = heap.attach();
    let value = info(TEN_MILLION * 8, 8, Some(trace_last_word), None);
    for slice in [false, true] {
        mutator.enter();
        let array = match slice {
            true => filled_slice(&mutator, &POINTER, TEN_MILLION, 0),
            false => filled(&mutator, value, 0),
        };
        let held = root(&mutator, array);
        let target = filled_slice(&mutator, &BYTE, 100, 0x5a);
        let lost = filled_slice(&mutator, &BYTE, 100, 0x5b);
        let last = (array + Bytes::new((TEN_MILLION - 1) * 8)).as_ptr::<AtomicUsize>();
        // SAFETY: the last word of the array.
        let last = unsafe { &*last };
        // SAFETY: a pointer field of a published object, and an object of the open closure.
        unsafe { mutator.write(last, target) };
        assert_ne!(target, lost);
        mutator.leave();
        for _ in 0..3 {
            let begun = Instant::now();
            heap.collect();
            println!("a cycle over ten million words, slice: {slice}: {:?}", begun.elapsed());
            let stats = Stats::of(&heap);
            assert_eq!(stats.marked_objects, 2, "the array and what it points to");
            mutator.enter();
            assert_eq!(last.load(Ordering::Acquire), target.get());
            assert!(bytes_of(target, 100).iter().all(|&byte| byte == 0x5a));
            mutator.leave();
        }
        drop(held);
        heap.collect();
        assert_eq!(Stats::of(&heap).marked_objects, 0);
    }
}

/// A GiB without pointers costs a cycle nothing: its pages are not even touched.
#[test]
fn fault_61_a_gibibyte_without_pointers() {
    const GIB: usize = 1 << 30;
    let heap = Heap::new(Os::native(), Options::default()).expect("memory");
    let mutator = heap.attach();
    mutator.enter();
    // SAFETY: a closure is open; bytes are initialised whatever they are, because fresh pages are zero.
    let slot = unsafe { mutator.alloc_slice(&BYTE, GIB) }.expect("address space");
    let (first, last) =
        (Addr::of(slot.start.as_ptr()), Addr::of(slot.start.as_ptr()) + Bytes::new(GIB - 1));
    for at in [first, last] {
        // SAFETY: a byte of the slot.
        unsafe { at.as_ptr::<u8>().write(0x77) };
    }
    // SAFETY: see above.
    unsafe { mutator.publish(slot.start) };
    let held = root(&mutator, first);
    mutator.leave();
    let begun = Instant::now();
    heap.collect();
    println!("a cycle over a GiB without pointers: {:?}", begun.elapsed());
    let stats = Stats::of(&heap);
    assert_eq!((stats.marked_objects, stats.marked), (1, Bytes::new(GIB)));
    assert_eq!((bytes_of(first, 1), bytes_of(last, 1)), (&[0x77][..], &[0x77][..]));
    drop(held);
    heap.collect();
    assert_eq!(Stats::of(&heap).spans, Bytes::ZERO);
}

/// Sizes around every class: as many bytes as were said, in as many as the description says.
#[test]
fn fault_62_every_class_and_one_byte_around_it() {
    let heap = heap();
    let mutator = heap.attach();
    let classes: Vec<usize> = SizeClass::all().map(|class| class.size().get()).collect();
    assert_eq!((classes[0], classes[classes.len() - 1]), (16, MAX_SMALL_SIZE.get()));
    for (index, &class) in classes.iter().enumerate() {
        for size in [class - 1, class, class + 1] {
            let usable = match size > class {
                false => class,
                true => classes.get(index + 1).copied().unwrap_or(5 * PAGE_BYTES),
            };
            let single = info(size, 1, None, None);
            // A slice with a counter, which is in the last word wherever the values end.
            let counted = info(1, 1, None, Some(drop_nothing as DropFn));
            let counted_bytes = counted.slice_bytes(size).expect("small").get();
            assert!(counted_bytes >= size + 8 && counted_bytes % 8 == 0);
            assert_eq!(single.object_bytes(), Some(Bytes::new(usable)), "{size}");
            assert_eq!(BYTE.slice_bytes(size), Some(Bytes::new(usable)), "{size}");
            mutator.enter();
            // Of the smallest class, fifteen bytes share a block with nobody: not even two such fit.
            let objects = [
                (filled(&mutator, single, 1), 1u8),
                (filled_slice(&mutator, &BYTE, size, 2), 2),
                (filled_slice(&mutator, counted, size, 3), 3),
            ];
            let held = objects.map(|(at, _)| root(&mutator, at));
            mutator.leave();
            heap.collect();
            for (at, value) in objects {
                assert!(bytes_of(at, size).iter().all(|&byte| byte == value), "{size} bytes");
            }
            let stats = Stats::of(&heap);
            let expected = 2 * usable + counted_bytes;
            assert_eq!((stats.marked_objects, stats.marked), (3, Bytes::new(expected)), "{size}");
            drop(held);
            heap.collect();
        }
    }
}

unsafe fn drop_nothing(_: *mut u8, _: usize) {}

/// What is behind the elements of a slice with pointers is zero up to the end of its slot, because the
/// collector reads it. The slots have been full of a pattern before.
#[test]
fn fault_62_the_rest_of_a_slice_with_pointers_is_zero() {
    let heap = heap();
    let mutator = heap.attach();
    for class in SizeClass::all().map(|class| class.size().get()) {
        for len in [class / 8, class / 8 - 1] {
            let usable = POINTER.slice_bytes(len).expect("small");
            for round in 0..2 {
                mutator.enter();
                for _ in 0..20 {
                    // SAFETY: a closure is open.
                    let slot = unsafe { mutator.alloc_slice(&POINTER, len) }.expect("memory");
                    let at = Addr::of(slot.start.as_ptr());
                    let rest = at + Bytes::new(len * 8);
                    let rest_bytes = (at + usable).bytes_since(rest).get();
                    assert!(
                        bytes_of(rest, rest_bytes).iter().all(|&byte| byte == 0),
                        "round {round}"
                    );
                    // Old contents, which no pointer of an object has.
                    // SAFETY: the slot has room for `len` words. It is never published and dies unseen.
                    unsafe { slot.start.as_ptr().write_bytes(0, len * 8) };
                    // SAFETY: null pointers.
                    unsafe { mutator.publish(slot.start) };
                }
                mutator.leave();
                // Swept, and filled with the pattern.
                heap.collect();
            }
        }
    }
}

/// Small objects without pointers share a block, and one of them retains it.
#[test]
fn fault_62_tiny_objects_share_a_block() {
    let heap = heap();
    let mutator = heap.attach();
    mutator.enter();
    let objects: Vec<Addr> = (0..8).map(|value| filled(&mutator, &HALF, value)).collect();
    let blocks: BTreeSet<usize> = objects.iter().map(|at| at.get() / 16).collect();
    assert_eq!(blocks.len(), 2, "four of four bytes each: {objects:?}");
    let held = root(&mutator, objects[2]);
    mutator.leave();
    heap.collect();
    let stats = Stats::of(&heap);
    assert_eq!((stats.marked_objects, stats.marked), (1, Bytes::new(16)));
    mutator.enter();
    // Nobody gets what is left of the block, nor the block.
    for value in 100..200 {
        filled(&mutator, &HALF, value);
        filled_slice(&mutator, &BYTE, 15, value);
    }
    assert_eq!(bytes_of(objects[2], 4), [2; 4]);
    mutator.leave();
    drop(held);
    heap.collect();
    assert_eq!(Stats::of(&heap).marked_objects, 0);
}
