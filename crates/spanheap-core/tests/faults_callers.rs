//! Mistakes of those who build on the runtime API: rows 30, 31, 34 and 35 of the fault matrix, where the safe
//! crate's types do not stand in the way.
//!
//! # Safety
//! Keeps the contract of the runtime API, but for the one promise that each test breaks, and which is found out.

use spanheap_core::addr::Addr;
use spanheap_core::collect::Options;
use spanheap_core::collect::roots::RootRecord;
use spanheap_core::mutator::{Heap, Mutator};
use spanheap_core::observe::Stats;
use spanheap_core::os::Os;
use spanheap_core::span::layout::{Shape, TypeInfo};
use spanheap_core::span::tracer::Tracer;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

unsafe fn nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

/// A word that holds null or a pointer, and a number.
static CELL: TypeInfo = TypeInfo::new(|| "cell", 16, 8, Shape::Words(1), nothing, None);

fn heap(options: Options) -> Heap {
    Heap::new(Os::native(), options).expect("memory and a thread")
}

fn alloc(mutator: &Mutator) -> NonNull<u8> {
    // SAFETY: a closure is open, in every test that calls this.
    let object = unsafe { mutator.alloc(&CELL) }.expect("memory");
    // SAFETY: the slot is ours.
    unsafe { object.cast::<[usize; 2]>().write([0, 7]) };
    // SAFETY: initialised just now.
    unsafe { mutator.publish(object) };
    object
}

fn root(mutator: &Mutator, object: NonNull<u8>) -> Arc<RootRecord> {
    // SAFETY: the object was made in the open closure.
    unsafe { mutator.root(object) }
}

fn message(act: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(act)).expect_err("a panic");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().map_or_else(String::new, |&s| s.to_owned()),
    }
}

/// Debug builds notice a pointer into another heap when it is stored, and when it is to become a root.
#[test]
#[cfg(debug_assertions)]
fn fault_30_a_pointer_into_another_heap_is_noticed_when_it_is_stored() {
    let (one, other) = (heap(Options::default()), heap(Options::default()));
    let (here, there) = (one.attach(), other.attach());
    here.enter();
    there.enter();
    let (own, foreign) = (alloc(&here), alloc(&there));
    // SAFETY: the first word of the object, which is a pointer field.
    let field = unsafe { own.cast::<AtomicUsize>().as_ref() };
    let target = Addr::of(foreign.as_ptr());
    // SAFETY: none: U5 is what is broken here, and noticed before anything is stored.
    let told = message(|| unsafe { here.write(field, target) });
    assert!(told.contains(&format!("is stored in heap {}", here.heap_number())), "{told}");
    // SAFETY: as above.
    let told = message(|| _ = unsafe { here.swap(field, target) });
    assert!(told.contains(&format!("in heap Some({})", there.heap_number())), "{told}");
    // SAFETY: as above.
    let told = message(|| _ = unsafe { here.root(foreign) });
    assert!(told.contains("is stored in heap"), "{told}");
    assert_eq!(field.load(SeqCst), 0);
    here.leave();
    there.leave();
}

/// Release builds store it, and the collector ignores it: neither heap is broken by it.
#[test]
#[cfg(not(debug_assertions))]
fn fault_30_a_pointer_into_another_heap_is_ignored() {
    let options = Options { checkmark: true, poison: true, ..Options::default() };
    let (one, other) = (heap(options), heap(options));
    let here = one.attach();
    let kept = {
        let there = other.attach();
        here.enter();
        there.enter();
        let (own, foreign) = (alloc(&here), alloc(&there));
        // SAFETY: the first word of the object, which is a pointer field.
        let field = unsafe { own.cast::<AtomicUsize>().as_ref() };
        // SAFETY: U5 is what is broken here.
        unsafe { here.write(field, Addr::of(foreign.as_ptr())) };
        let kept = root(&here, own);
        here.leave();
        there.leave();
        kept
    };
    for _ in 0..3 {
        one.collect();
        other.collect();
    }
    assert_eq!((Stats::of(&one).marked_objects, Stats::of(&other).marked_objects), (1, 0));
    drop(other);
    one.collect();
    assert_eq!(Stats::of(&one).marked_objects, 1);
    assert_eq!(one.verify().findings, []);
    drop(kept);
}

/// What outlives a heap is of no use and does no harm: mutators cannot enter, roots lead nowhere, and both can be
/// dropped at any time.
#[test]
fn fault_31_what_outlives_a_heap_is_refused_or_harmless() {
    for _ in 0..20 {
        let heap = heap(Options { continuously: true, ..Options::default() });
        let mutator = heap.attach();
        mutator.enter();
        let kept = root(&mutator, alloc(&mutator));
        mutator.leave();
        drop(heap);
        assert!(message(|| mutator.enter()).contains("has been dropped"));
        assert!(!mutator.is_inside());
        drop(mutator);
        drop(kept);
    }
}

/// A trace function of a runtime that keeps a mutator at hand, and enters with it.
#[test]
fn fault_35_a_trace_function_cannot_enter_with_a_mutator_of_its_own() {
    thread_local!(static OWN: std::cell::OnceCell<Mutator> = const { std::cell::OnceCell::new() });
    static HEAP: std::sync::Mutex<Option<Arc<Heap>>> = std::sync::Mutex::new(None);
    unsafe fn enters(_: *const u8, _: usize, _: &mut Tracer<'_>) {
        let heap = HEAP.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        OWN.with(|own| own.get_or_init(|| heap.unwrap().attach()).enter());
    }
    static ENTERS: TypeInfo = TypeInfo::new(|| "enters", 16, 8, Shape::Opaque, enters, None);
    std::panic::set_hook(Box::new(|_| {}));
    let heap = Arc::new(heap(Options::default()));
    *HEAP.lock().unwrap() = Some(heap.clone());
    let mutator = heap.attach();
    mutator.enter();
    // SAFETY: a closure is open, and any bytes are a value.
    let object = unsafe { mutator.alloc(&ENTERS) }.expect("memory");
    // SAFETY: as above.
    unsafe { mutator.publish(object) };
    let kept = root(&mutator, object);
    mutator.leave();
    for round in 1..=3 {
        heap.collect();
        let stats = Stats::of(&heap);
        assert!(stats.retained_everything);
        assert_eq!((stats.trace_panics, stats.broken_cycles), (round, round));
    }
    HEAP.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    drop((mutator, kept));
}
