//! Pictures of heaps whose contents are known: against the walk over all spans, page by page, and while
//! everything changes.
//!
//! # Safety
//! The objects of these tests have no pointers and are never used; the walk is taken when nothing runs.
#![allow(unsafe_code)]

use super::*;
use crate::addr::WORD_BYTES;
use crate::collect::{Options, Policy};
use crate::mutator::Mutator;
use crate::observe::{Stats, Walk};
use crate::os::{Os, SimOs};
use crate::pages::CACHE_PAGES;
use crate::span::{Shape, Tracer, TypeInfo};

/// Reports nothing: no type of these tests has pointers.
unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

const fn words(name: fn() -> &'static str, words: usize) -> TypeInfo {
    TypeInfo::new(name, words * WORD_BYTES, WORD_BYTES, Shape::NoScan, trace_nothing, None)
}

static SMALL: TypeInfo = words(|| "small", 8);
/// Several to a span of several pages, with a tail that is in no slot.
static MEDIUM: TypeInfo = words(|| "medium", 850);
static LARGE: TypeInfo = words(|| "large", 9000);

/// A heap that collects on request only.
fn heap() -> Heap {
    let options = Options { policy: Policy { percent: None, limit: None }, ..Options::default() };
    Heap::new(Os::simulated(SimOs::builder().build()), options).expect("memory")
}

/// Allocates `count` objects of a type in one closure and forgets them.
fn allocate(mutator: &Mutator, ty: &'static TypeInfo, count: usize) {
    mutator.enter();
    for _ in 0..count {
        // SAFETY: a closure is open; the object has no pointers and is not used.
        unsafe { mutator.alloc(ty) }.expect("memory");
    }
    mutator.leave();
}

fn walk(heap: &Heap) -> Walk {
    // SAFETY: the tests call this with no closure open and no cycle due, and nothing has a destructor.
    unsafe { Walk::of(heap) }
}

/// What the picture says about the objects of a type.
fn class(picture: &Picture, name: &str) -> ClassPicture {
    let mut found = picture.classes.iter().filter(|class| class.type_name == name);
    let class = *found.next().expect("the class has a span");
    assert!(found.next().is_none(), "two classes are called {name}");
    class
}

#[test]
fn an_empty_heap_has_no_arenas() {
    let picture = Picture::of(&heap());
    assert!(picture.arenas.is_empty() && picture.classes.is_empty());
    assert_eq!(picture.totals(), PageTotals::default());
}

#[test]
fn a_picture_agrees_with_the_walk_and_with_the_statistics() {
    let heap = heap();
    let mutator = heap.attach();
    for (ty, count) in [(&SMALL, 1000), (&MEDIUM, 700), (&LARGE, 90)] {
        allocate(&mutator, ty, count);
    }
    let (picture, walk) = (Picture::of(&heap), walk(&heap));
    let sum = |field: fn(&ClassPicture) -> usize| picture.classes.iter().map(field).sum::<usize>();
    assert_eq!(sum(|class| class.pages.get()) * PAGE_BYTES, walk.pages.get());
    assert_eq!(sum(|class| class.objects) as u64, walk.objects);
    assert_eq!(picture.object_bytes(), walk.bytes);
    let totals = picture.totals();
    assert_eq!(totals.small + totals.large, Stats::of(&heap).spans);
    // The mutator keeps some pages of one block for its next spans.
    assert!(totals.held < CACHE_PAGES.bytes(), "{}", totals.held);
    let spans = totals.small + totals.large;
    let sum = totals.reserved + totals.returned + totals.free + totals.held + spans;
    assert_eq!(sum, Bytes::new(picture.arenas.len() * ARENA_BYTES));
    assert!(totals.reserved > Bytes::ZERO && totals.returned > Bytes::ZERO);
}

#[test]
fn classes_tell_objects_from_free_slots() {
    let heap = heap();
    let mutator = heap.attach();
    allocate(&mutator, &SMALL, 1000);
    allocate(&mutator, &LARGE, 3);
    // A mutator has taken whole runs; it gives back what is left of them.
    drop(mutator);
    let picture = Picture::of(&heap);
    // 64 bytes, 128 to a page.
    let small = class(&picture, "small");
    assert_eq!((small.slot, small.spans, small.slots), (Some(Bytes::new(64)), 8, 1024));
    assert_eq!((small.objects, small.free_slots()), (1000, 24));
    assert!((small.free_percent() - 2.34).abs() < 0.01, "{}", small.free_percent());
    // 72,000 bytes are nine pages.
    let large = class(&picture, "large");
    assert_eq!((large.slot, large.spans, large.pages.get()), (None, 3, 27));
    assert_eq!((large.objects, large.free_slots()), (3, 0));
}

#[test]
fn pages_say_what_they_are_and_how_full() {
    let heap = heap();
    let mutator = heap.attach();
    allocate(&mutator, &SMALL, 128 + 32);
    allocate(&mutator, &LARGE, 1);
    drop(mutator);
    let picture = Picture::of(&heap);
    let pages = &picture.arenas[0].pages;
    let small = class(&picture, "small").class;
    assert_eq!(pages[0], PageState::Small { class: small, live: 100 });
    assert_eq!(pages[1], PageState::Small { class: small, live: 25 });
    let large = PageState::Large { class: class(&picture, "large").class };
    assert_eq!(pages[2..11], [large; 9]);
    // The rest of the chunk has never had memory, and the rest of the arena has never been grown.
    assert_eq!(pages[11..CHUNK_PAGES], [PageState::Returned; CHUNK_PAGES - 11]);
    assert!(pages[CHUNK_PAGES..].iter().all(|&state| state == PageState::Reserved));
}

#[test]
fn a_span_over_the_border_of_two_chunks_counts_once() {
    let heap = heap();
    let mutator = heap.attach();
    // 6,800 bytes fill spans of several pages, which do not divide a chunk.
    allocate(&mutator, &MEDIUM, 2000);
    let (picture, walk) = (Picture::of(&heap), walk(&heap));
    let medium = class(&picture, "medium");
    assert_eq!((medium.objects as u64, medium.pages.bytes()), (walk.objects, walk.pages));
    assert_eq!(picture.totals().small, walk.pages);
}

#[test]
fn what_a_cycle_frees_becomes_free_pages() {
    let heap = heap();
    let mutator = heap.attach();
    allocate(&mutator, &MEDIUM, 500);
    let before = Picture::of(&heap).totals();
    // The second cycle frees the span that the first found in the mutator's hands.
    heap.collect();
    heap.collect();
    let picture = Picture::of(&heap);
    let after = picture.totals();
    assert_eq!(picture.object_bytes(), Bytes::ZERO);
    assert_eq!(after.small, walk(&heap).pages);
    let (spans, others) = (before.small, before.held + before.returned);
    assert_eq!(after.free + after.held + after.returned + after.small, spans + others);
}

#[test]
fn pictures_can_be_taken_while_everything_changes() {
    let heap = heap();
    std::thread::scope(|scope| {
        let work = [(&SMALL, 2000), (&MEDIUM, 40), (&LARGE, 4)];
        let workers = work.map(|(ty, count)| {
            let heap = &heap;
            scope.spawn(move || {
                let mutator = heap.attach();
                (0..100).for_each(|_| allocate(&mutator, ty, count));
            })
        });
        let mut pictures = 0;
        while pictures < 20 || workers.iter().any(|worker| !worker.is_finished()) {
            let picture = Picture::of(&heap);
            for class in &picture.classes {
                assert!(class.objects <= class.slots, "{class:?}");
                assert!(class.object_bytes <= class.pages.bytes(), "{class:?}");
                assert!(["small", "medium", "large"].contains(&class.type_name), "{class:?}");
            }
            pictures += 1;
            if pictures % 5 == 0 {
                heap.collect();
            }
        }
    });
}
