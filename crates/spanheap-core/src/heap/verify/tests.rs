//! Each structure is broken by hand, one at a time; the look at the heap has to name it, and nothing else when it
//! is whole again. (Fault row 81.)
//!
//! # Safety
//! Allocates objects of plain words; breaks records and bits of a heap that nobody else uses.
#![allow(unsafe_code)]

use super::*;
use crate::collect::{Options, Policy};
use crate::mutator::{Heap, Mutator};
use crate::os::Os;
use crate::span::layout::{Shape, TypeInfo};
use crate::span::{OwnedSpan, Taken};
use std::sync::mpsc;

unsafe fn trace(_: *const u8, _: usize, _: &mut crate::span::Tracer<'_>) {}

unsafe fn drop_words(_: *mut u8, _: usize) {}

static WORDS: TypeInfo = TypeInfo::new(|| "words", 48, 8, Shape::NoScan, trace, None);
static OWNERS: TypeInfo = TypeInfo::new(|| "owners", 24, 8, Shape::NoScan, trace, Some(drop_words));
static LARGE: TypeInfo = TypeInfo::new(|| "large", 100_000, 8, Shape::NoScan, trace, None);

/// A heap with objects under roots: some of each kind.
struct Bench {
    heap: Heap,
    _mutator: Mutator,
    objects: Vec<std::sync::Arc<crate::collect::roots::RootRecord>>,
}

impl Bench {
    fn new() -> Bench {
        let policy = Policy { percent: None, limit: None };
        let options = Options { policy, return_memory: false, ..Options::default() };
        let heap = Heap::new(Os::native(), options).expect("memory");
        let mutator = heap.attach();
        mutator.enter();
        let mut objects = Vec::new();
        for ty in [&WORDS, &OWNERS, &LARGE] {
            for _ in 0..20 {
                // SAFETY: a closure is open, the type holds no pointers, and any bytes are a value.
                let object = unsafe { mutator.alloc(ty) }.expect("memory");
                // SAFETY: as above.
                unsafe { mutator.publish(object) };
                // SAFETY: the object is new, and the closure is open.
                objects.push(unsafe { mutator.root(object) });
            }
        }
        // Garbage, which leaves pages behind that are free and ready.
        // SAFETY: as above.
        let garbage = unsafe { mutator.alloc(&LARGE) }.expect("memory");
        // SAFETY: as above.
        unsafe { mutator.publish(garbage) };
        mutator.leave();
        heap.collect();
        Bench { heap, _mutator: mutator, objects }
    }

    fn central(&self) -> &Central {
        self.heap.collector().central()
    }

    /// The span of the `n`-th object.
    fn span(&self, n: usize) -> &'static Span {
        let object = self.objects[n].object();
        lookup::object_start(self.heap.number(), object).expect("an object")
    }

    /// Breaks something, looks, and mends it.
    #[track_caller]
    fn broken(&self, structure: &str, break_it: impl FnOnce(), mend: impl FnOnce()) {
        self.whole();
        break_it();
        let found = self.heap.verify();
        mend();
        let named = found.findings.iter().any(|finding| finding.structure == structure);
        assert!(named, "{structure}: {:#?}", found.findings);
        assert!(found.findings.iter().all(|f| !f.to_string().is_empty()));
        self.whole();
    }

    #[track_caller]
    fn whole(&self) {
        let found = self.heap.verify();
        assert_eq!(found.findings, []);
        assert_eq!((found.objects, found.owed), (60, 0));
        assert_eq!(found.bytes, Bytes::new(20 * (48 + 24 + 13 * 8192)));
    }
}

#[test]
fn fault_81_bits_that_are_flipped_are_named() {
    let bench = Bench::new();
    for n in [0, 25, 45] {
        let (span, object) = (bench.span(n), bench.objects[n].object());
        let now = span.generation();
        for (name, table) in [("mark bits", now.next().table()), ("scanned bits", Table::Scanned)] {
            bench.broken(name, || bits::set(table, object), || _ = bits::clear(table, object));
        }
        bench.broken(
            "counters",
            || _ = bits::clear(now.table(), object),
            || bits::set(now.table(), object),
        );
        bench.broken(
            "drop queue",
            || bits::set(Table::Drops, object),
            || _ = bits::clear(Table::Drops, object),
        );
        // Behind the first granule of a slot.
        if n != 25 {
            let inside = object + Bytes::new(GRANULE_BYTES);
            let table = now.table();
            bench.broken(
                "allocation bits",
                || bits::set(table, inside),
                || _ = bits::clear(table, inside),
            );
        }
    }
    // A slot that is free.
    let span = bench.span(0);
    let free = bits::next_free_run(span.info(), span.generation(), span.info().base).unwrap().start;
    bench.broken(
        "drops bits",
        || bits::set(Table::Drops, free),
        || _ = bits::clear(Table::Drops, free),
    );
}

#[test]
fn fault_81_records_and_maps_that_are_changed_are_named() {
    let bench = Bench::new();
    let span = bench.span(45);
    let second = span.info().base + PageCount::new(1);
    // SAFETY: M2: the page of a span.
    let arena = unsafe { &*map::find(second) };
    let record = core::ptr::from_ref(span).cast_mut();
    let page = second.page_in_arena();
    bench.broken(
        "page map",
        || arena.set_span(page, core::ptr::null_mut()),
        || arena.set_span(page, record),
    );
    // A free page that seems to belong to a span, and one with a bit.
    let mut free = None;
    for chunk in (0..2).map(|n| crate::addr::ChunkIndex::new(second.chunk().get() + n)) {
        bench.central().pages().for_each_page_of(arena, chunk, |page, usage| {
            if matches!(usage, super::super::page_heap::PageUse::Free) {
                free = Some(page);
            }
        });
    }
    let free = free.expect("a page that is ready and free");
    let index = free.page_in_arena();
    let name = |record| move || arena.set_span(index, record);
    bench.broken("page map", name(record), name(core::ptr::null_mut()));
    let table = Table::Scanned;
    bench.broken("free pages", || bits::set(table, free), || _ = bits::clear(table, free));

    // SAFETY: nobody uses the heap, so the right to the span is nobody's but the list's, which is idle.
    let mut owned = unsafe { OwnedSpan::from_raw(core::ptr::NonNull::from(bench.span(0))) };
    let now = owned.span().generation();
    let other = crate::span::Generation::new(now.get().wrapping_sub(7));
    let mut set = |generation| owned.set_generation(generation);
    set(other);
    let found = bench.heap.verify();
    set(now);
    assert!(found.findings.iter().any(|f| f.structure == "span record"), "{found:?}");
    let _the_list_has_it = owned.into_raw();
    bench.whole();
}

#[test]
fn fault_81_a_lost_span_and_a_wrong_count_are_named() {
    let bench = Bench::new();
    let central = bench.central();
    let class = central.classes().find(|class| class.index() == bench.span(0).info().class);
    let set = class.expect("the class of the span").spans().home_of(bench.span(0).info().base);
    let (generation, backlog) = (central.generation(), central.backlog());
    bench.whole();
    let Some(Taken::Ready(span)) = set.take(generation, backlog) else { panic!("it has room") };
    let found = bench.heap.verify();
    set.put(span, generation, true.into(), backlog);
    assert!(found.findings.iter().any(|f| f.structure == "span lists"), "{found:?}");
    bench.whole();
    central.counters().shared().update().freed(bench.span(0).info(), 1);
    let found = bench.heap.verify();
    assert!(found.findings.iter().all(|f| f.structure == "counters"), "{found:?}");
    assert_eq!(found.findings.len(), 1);
}

#[test]
fn whoever_asks_while_the_heap_is_in_use_gets_an_answer_when_it_is_not() {
    let bench = Bench::new();
    let (inside, is_inside) = mpsc::channel();
    std::thread::scope(|scope| {
        let heap = &bench.heap;
        scope.spawn(move || {
            let mutator = heap.attach();
            for round in 0..200 {
                mutator.enter();
                for _ in 0..50 {
                    // SAFETY: as in `Bench::new`.
                    let object = unsafe { mutator.alloc(&WORDS) }.expect("memory");
                    // SAFETY: as above.
                    unsafe { mutator.publish(object) };
                }
                mutator.leave();
                if round == 10 {
                    inside.send(()).unwrap();
                }
            }
        });
        is_inside.recv().unwrap();
        for _ in 0..20 {
            let found = heap.verify();
            assert_eq!(found.findings, []);
        }
    });
    bench.heap.collect();
    bench.whole();
}

/// The pages of a container's storage may be freed outside of closures, so not even a closed gate stops that.
#[test]
fn manual_spans_may_be_freed_in_the_midst_of_a_look() {
    let bench = Bench::new();
    let mutator = bench.heap.attach();
    mutator.enter();
    let span = mutator.alloc_manual(Bytes::new(100_000), 8).expect("memory");
    mutator.leave();
    let counted = || bench.central().counters().snapshot();
    let (before, mut look) = (counted(), Look::new(bench.central()));
    let pages = bench.central().pages().verify(&mut look.found);
    // SAFETY: nobody has used it.
    unsafe { bench.heap.pages().free_manual(span) };
    look.manual(&before, &counted(), &pages);
    assert_eq!(look.found.findings, []);
    look.manual(&counted(), &counted(), &pages);
    assert_eq!(look.found.findings.len(), 1, "it is none, and was one that was seen");
}
