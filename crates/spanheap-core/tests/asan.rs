//! What AddressSanitizer reports about managed memory, and that it reports nothing else: each way of
//! using memory that is not an object's, in a process of its own, which has to end with a report.
//!
//! The heap tells the sanitizer what may be accessed in builds with `--cfg spanheap_asan` only, which
//! `scripts/sanitize address` makes. In any other build the tests say that they were left out.
//!
//! # Safety
//! The mistakes are the point of this file: each is made in a child process, which the sanitizer ends
//! before anything comes of it.
#![allow(unsafe_code)]

use spanheap_core::addr::{Addr, AddrRange, Bytes};
use spanheap_core::collect::Options;
use spanheap_core::mutator::{ArenaOptions, Heap, Mutator};
use spanheap_core::os::{Category, Os};
use spanheap_core::span::{Shape, Tracer, TypeInfo};
use std::process::{Command, Output};

/// The exit code that the sanitizer is asked for: no other part of a test process ends with it.
const REPORTED: i32 = 77;

/// Names the mistake that a child process is to make.
const CASE: &str = "SPANHEAP_ASAN_CASE";

/// Reports nothing: the types here have no pointers, or at fixed words.
unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

unsafe fn drop_nothing(_: *mut u8, _: usize) {}

static PLAIN: TypeInfo = TypeInfo::new(|| "plain", 40, 8, Shape::NoScan, trace_nothing, None);
static PAIR: TypeInfo = TypeInfo::new(|| "pair", 16, 8, Shape::Words(0b11), trace_nothing, None);
static BYTE: TypeInfo = TypeInfo::new(|| "byte", 1, 1, Shape::NoScan, trace_nothing, None);
static HALF: TypeInfo = TypeInfo::new(|| "half", 4, 4, Shape::NoScan, trace_nothing, None);
static DROPS: TypeInfo =
    TypeInfo::new(|| "drops", 24, 8, Shape::NoScan, trace_nothing, Some(drop_nothing));
static POINTER: TypeInfo = TypeInfo::new(|| "pointer", 8, 8, Shape::Words(1), trace_nothing, None);

fn heap() -> Heap {
    Heap::new(Os::native(), Options::default()).expect("memory")
}

/// An object of zeros. A closure is open.
fn make(mutator: &Mutator, ty: &'static TypeInfo) -> Addr {
    // SAFETY: a closure is open.
    let slot = unsafe { mutator.alloc(ty) }.expect("memory");
    // SAFETY: the slot is as large as the type.
    unsafe { slot.as_ptr().write_bytes(0, ty.size) };
    // SAFETY: zeros are a value of every type here.
    unsafe { mutator.publish(slot) };
    Addr::of(slot.as_ptr())
}

/// A slice of zeros. A closure is open.
fn make_slice(mutator: &Mutator, ty: &'static TypeInfo, len: usize) -> Addr {
    // SAFETY: a closure is open.
    let slot = unsafe { mutator.alloc_slice(ty, len) }.expect("memory");
    // SAFETY: the slot has room for so many values.
    unsafe { slot.start.as_ptr().write_bytes(0, len * ty.size) };
    if let Some(counter) = slot.counter {
        // SAFETY: a word of the slot.
        unsafe { counter.write(len) };
    }
    // SAFETY: as above.
    unsafe { mutator.publish(slot.start) };
    Addr::of(slot.start.as_ptr())
}

/// Reads the byte at `at`, which is the mistake.
fn read(at: Addr) {
    // SAFETY: it is not in order, and the sanitizer says so.
    let byte = unsafe { at.as_ptr::<u8>().read_volatile() };
    println!("read {byte} without a report");
}

/// Writes the byte at `at`, which is the mistake.
fn write(at: Addr) {
    // SAFETY: as in `read`.
    unsafe { at.as_ptr::<u8>().write_volatile(1) };
    println!("written without a report");
}

/// The objects that `make` makes die, and one of the same kind before them lives.
fn dead(make: impl Fn(&Mutator) -> Addr) -> (Heap, Addr) {
    let heap = heap();
    let mutator = heap.attach();
    mutator.enter();
    let kept = make(&mutator);
    // SAFETY: the closure holds the object.
    let root = unsafe { mutator.root(core::ptr::NonNull::new(kept.as_ptr()).expect("not null")) };
    let object = make(&mutator);
    mutator.leave();
    heap.collect();
    // The kept one is there, and so is its span.
    // SAFETY: the root retains it.
    assert_eq!(unsafe { kept.as_ptr::<u8>().read() }, 0);
    drop(root);
    (heap, object)
}

/// Inside a closure, what `mistake` does.
fn inside(mistake: impl Fn(&Mutator)) {
    let heap = heap();
    let mutator = heap.attach();
    mutator.enter();
    mistake(&mutator);
    mutator.leave();
}

/// Makes the mistake of that name.
fn commit(case: &str) {
    let bytes = |n| Bytes::new(n);
    match case {
        "read of a swept slot" => read(dead(|mutator| make(mutator, &PLAIN)).1),
        "write to a swept slot" => write(dead(|mutator| make(mutator, &PAIR)).1 + bytes(8)),
        "read of a swept tiny block" => {
            // Two blocks, or the object that is kept would keep the bytes of the other.
            let pair = |mutator: &Mutator| {
                let first = make_slice(mutator, &BYTE, 12);
                make_slice(mutator, &BYTE, 12);
                first
            };
            read(dead(pair).1);
        }
        "read of a dropped value" => {
            let (heap, object) = dead(|mutator| make(mutator, &DROPS));
            // A value is counted when nobody may look at it any more.
            while spanheap_core::observe::Stats::of(&heap).dropped == 0 {
                std::thread::yield_now();
            }
            read(object);
        }
        "read of a freed span" => {
            let heap = heap();
            let mutator = heap.attach();
            mutator.enter();
            let large = make_slice(&mutator, &BYTE, 100_000);
            mutator.leave();
            heap.collect();
            assert_eq!(spanheap_core::observe::Stats::of(&heap).spans, Bytes::ZERO);
            read(large + bytes(50_000));
        }
        "write to a slot's tail" => inside(|mutator| write(make(mutator, &PLAIN) + bytes(40))),
        "write behind bytes" => inside(|mutator| write(make_slice(mutator, &BYTE, 21) + bytes(21))),
        "write behind a tiny object" => inside(|mutator| write(make(mutator, &HALF) + bytes(4))),
        "write behind a large object" => {
            inside(|mutator| write(make_slice(mutator, &BYTE, 40_001) + bytes(40_001)));
        }
        "write between values and their count" => {
            inside(|mutator| write(make_slice(mutator, &DROPS, 5) + bytes(5 * 24)));
        }
        "read of a slot that was never handed out" => {
            inside(|mutator| read(make(mutator, &PLAIN) + bytes(48)));
        }
        "use of a dropped heap" => {
            let heap = heap();
            let mutator = heap.attach();
            mutator.enter();
            let object = make(&mutator, &PAIR);
            mutator.leave();
            drop(mutator);
            drop(heap);
            read(object);
        }
        "use of a pointer that its type does not name" => {
            let heap = heap();
            let mutator = heap.attach();
            mutator.enter();
            let holder = make(&mutator, &PLAIN);
            let target = make(&mutator, &PAIR);
            // SAFETY: the holder is as large; that its type claims to have no pointers is the mistake.
            unsafe { holder.as_ptr::<Addr>().write(target) };
            let object = core::ptr::NonNull::new(holder.as_ptr()).expect("not null");
            // SAFETY: the closure holds the object.
            let _root = unsafe { mutator.root(object) };
            mutator.leave();
            heap.collect();
            // SAFETY: the root retains the holder.
            read(unsafe { holder.as_ptr::<Addr>().read() });
        }
        "use of a freed arena" => {
            let heap = heap();
            let mutator = heap.attach();
            let arena = heap.new_arena(ArenaOptions::default());
            mutator.enter();
            // SAFETY: a closure is open; all zeros is a value of the type.
            let value = unsafe { mutator.arena_alloc(&arena, &PAIR) }.expect("memory");
            // SAFETY: the closure holds the value. The root keeps its memory from being used again.
            let _root = unsafe { mutator.root(value) };
            arena.free().expect("it was not freed before");
            // The closure may go on to use it.
            // SAFETY: as above.
            assert_eq!(unsafe { value.read() }, 0);
            mutator.leave();
            heap.collect();
            read(Addr::of(value.as_ptr()));
        }
        "read of pages that were given back" => {
            let (os, range) = pages();
            // SAFETY: allocated above; that somebody uses them after this is the mistake.
            unsafe { os.unused(range, range.bytes()) };
            read(range.base() + bytes(5000));
        }
        "nothing wrong" => {
            give_and_take();
            inside(correct);
            let heap = heap();
            dead(|mutator| make(mutator, &PLAIN));
            drop(heap);
            reuse_addresses();
            println!("nothing wrong");
        }
        other => panic!("there is no case {other:?}"),
    }
}

/// Uses every kind of object from its first byte to its last.
fn correct(mutator: &Mutator) {
    for ty in [&PLAIN, &PAIR, &BYTE, &HALF, &DROPS, &POINTER] {
        for len in [0, 1, 2, 3, 5, 16, 100, 5000, 50_000] {
            make_slice(mutator, ty, len);
            make(mutator, ty);
        }
    }
}

/// Pages from the system.
fn pages() -> (Os, AddrRange) {
    let os = Os::native();
    let bytes = Bytes::new(64 << 10);
    let base = os.alloc(bytes, Category::Heap).expect("memory");
    (os, AddrRange::at(base, bytes))
}

/// Pages are in order again when they are ready again.
fn give_and_take() {
    let (os, range) = pages();
    for _ in 0..3 {
        // SAFETY: allocated above, and nobody uses what is in them.
        unsafe { os.unused(range, range.bytes()) };
        // SAFETY: as above.
        unsafe { os.used(range, range.bytes()) }.expect("memory");
        // SAFETY: they are ready.
        unsafe { range.base().as_ptr::<u8>().write_bytes(1, range.bytes().get()) };
    }
    // SAFETY: as above.
    unsafe { os.release(range, Category::Heap, range.bytes(), range.bytes()) };
}

/// Memory of heaps that are gone is in order for whoever maps it next.
fn reuse_addresses() {
    for _ in 0..20 {
        inside(correct);
        let os = Os::native();
        let bytes = Bytes::new(64 << 20);
        let base = os.alloc(bytes, Category::Heap).expect("memory");
        for page in (0..bytes.get()).step_by(4096) {
            // SAFETY: the memory was allocated above.
            unsafe { (base + Bytes::new(page)).as_ptr::<u8>().write_volatile(1) };
        }
        let range = AddrRange::at(base, bytes);
        // SAFETY: it was allocated above, and nobody uses it any more.
        unsafe { os.release(range, Category::Heap, bytes, bytes) };
    }
}

/// Commits one case in a process of its own. `None`: this is a build in which nobody would notice.
fn outcome_of(case: &str) -> Option<Output> {
    if !cfg!(spanheap_asan) {
        println!("left out: {case} (scripts/sanitize address builds what notices it)");
        return None;
    }
    let program = std::env::current_exe().expect("this program has a path");
    let child = Command::new(program)
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(CASE, case)
        .env("ASAN_OPTIONS", format!("detect_leaks=0:exitcode={REPORTED}"))
        .output()
        .expect("this program runs once more");
    Some(child)
}

#[test]
#[ignore = "makes the mistake that the environment names: run by the tests below"]
fn child() {
    match std::env::var(CASE) {
        Ok(case) => commit(&case),
        Err(_) => println!("left out: {CASE} names no mistake"),
    }
}

/// The case ends with a report of that kind.
fn is_reported(case: &str, kind: &str) {
    let Some(output) = outcome_of(case) else { return };
    let report = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(REPORTED), "{case}: {output:?}");
    assert!(report.contains(&format!("AddressSanitizer: {kind}")), "{case}: {report}");
    // The instruction is named: the access is in this file, and not in the collector.
    assert!(report.contains("commit"), "{case}: {report}");
}

#[test]
fn uses_after_an_object_has_died_are_reported() {
    for case in [
        "read of a swept slot",
        "write to a swept slot",
        "read of a swept tiny block",
        "read of a dropped value",
        "read of a freed span",
        "use of a pointer that its type does not name",
        "read of pages that were given back",
        "use of a freed arena",
    ] {
        is_reported(case, "use-after-poison");
    }
}

#[test]
fn accesses_behind_an_object_are_reported() {
    for case in [
        "write to a slot's tail",
        "write behind bytes",
        "write behind a tiny object",
        "write behind a large object",
        "write between values and their count",
        "read of a slot that was never handed out",
    ] {
        is_reported(case, "use-after-poison");
    }
}

#[test]
fn a_use_of_a_dropped_heap_is_reported() {
    is_reported("use of a dropped heap", "SEGV");
}

#[test]
fn a_correct_program_is_not_reported() {
    let Some(output) = outcome_of("nothing wrong") else { return };
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("nothing wrong"), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("Sanitizer"), "{output:?}");
}
