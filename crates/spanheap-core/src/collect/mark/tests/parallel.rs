//! Several workers on one graph, and large objects in pieces.
//!
//! Helpers run as they do in a heap; assists come and go as mutators' do, a page at a time; shared queues range
//! from ample to none. Whoever has found what, the marks are the twin's, each object is counted once, and
//! when the collector's worker says that nothing is left, nothing is.
//!
//! # Safety
//! As in the tests around it; the helpers read what was written before they were started.
#![allow(unsafe_code)]

use super::*;
use crate::collect::page_ring::PageRing;
use crate::collect::scan::PIECE;
use std::sync::atomic::AtomicBool;

/// Elements of slices that only a trace function understands: a word, a pointer, a word.
static TRIPLES: TypeInfo =
    TypeInfo::new(|| "triple", 3 * WORD_BYTES, WORD_BYTES, Shape::Opaque, trace_triples, None);

/// An element this large is longer than a piece.
static GIANT: TypeInfo = ty(40_000, Shape::Words(0b10), None);

unsafe fn trace_triples(object: *const u8, count: usize, tracer: &mut Tracer<'_>) {
    for index in 0..count {
        let at = Addr::of(object) + Bytes::new(index * TRIPLES.size);
        if LOCKED.with_borrow(|locked| locked.contains(&at.get())) {
            tracer.defer();
            continue;
        }
        // SAFETY: so many elements lie there.
        let edge = unsafe { word_of(at, 1).read() };
        // SAFETY: it is the element's pointer.
        unsafe { tracer.edge(Addr::new(edge)) };
    }
}

impl World {
    /// A slice of `len` values of `ty`, which has a pointer in word `word`, all of them to what is there already.
    fn add_slice(
        &mut self,
        ty: &'static TypeInfo,
        word: usize,
        len: usize,
        random: &mut Random,
    ) -> Addr {
        let (used, wanted) = ty.slice_extent(len).expect("small");
        let tint = self.tint();
        let (at, bytes) = self.cache.alloc_slice(&self.central, ty, wanted, tint).expect("memory");
        asan::permit(at, bytes);
        // SAFETY: the slot is ours.
        unsafe { at.as_ptr::<u8>().write_bytes(0, bytes.get()) };
        if ty.slice_counting() == crate::span::Counting::Trailer {
            // SAFETY: the last word of the slot, which has room for it.
            unsafe { word_of(at, bytes.get() / WORD_BYTES - 1).write(len) };
        }
        let step = ty.size / WORD_BYTES;
        assert_eq!(used.get(), len * ty.size);
        self.link(at, (0..len).map(|n| n * step + word), random);
        at
    }
}

/// Marks from `roots` with `helpers` threads and one that assists again and again, on a shared queue of
/// `entries`; what they have marked.
fn mark_together(world: &World, roots: &[Addr], helpers: usize, entries: usize) -> Marked {
    let (crew, central, cycle) = (crew_of(world, entries), &world.central, world.cycle());
    let over = AtomicBool::new(false);
    let tally = std::thread::scope(|scope| {
        for worker in 1..=helpers {
            let crew = &crew;
            scope.spawn(move || {
                while let Some(cycle) = crew.wait_for_work(None) {
                    let mut marker = Marker::new(central, crew, worker, cycle).with_grip(entries);
                    marker.work(|_| true);
                    marker.leave();
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                if crew.waiting() > 0 && crew.join(cycle) {
                    let ring = PageRing::new();
                    let mut marker = Marker::on(central, &crew, &ring, cycle).with_grip(2);
                    marker.work(|tally| tally.work < 20_000);
                    marker.leave();
                }
                std::thread::yield_now();
            }
        });
        let mut marker = Marker::new(central, &crew, 0, cycle).with_grip(entries);
        for &root in roots {
            marker.mark(root);
            assert!(marker.drain(), "no locks are taken");
        }
        marker.take_found();
        assert!(marker.drain() && !marker.take_found(), "nothing was left");
        over.store(true, Ordering::Release);
        crew.stop();
        marker.tally()
    });
    end(world, &crew, tally)
}

#[test]
fn several_workers_mark_what_one_would_have_marked() {
    let mut random = Random::new(0x9a4a);
    let mut world = World::new();
    for (helpers, entries) in [(1, 2048), (3, 2048), (3, 16), (2, 1), (3, 0), (3, 2048)] {
        for _ in 0..6000 {
            world.add(&mut random);
        }
        world.add_slice(&ELEMENT, 1, 30_000, &mut random);
        world.add_slice(&TRIPLES, 1, 30_000, &mut random);
        world.cache.give_back_all(&world.central, world.tint());
        let roots: Vec<_> = world.objects.iter().rev().take(6).copied().collect();
        let counted = mark_together(&world, &roots, helpers, entries);
        let reachable = world.reachable(&roots);
        let (marks, bytes) = world.marks();
        assert_eq!(marks, reachable, "{helpers} helpers, a queue of {entries}");
        assert_eq!((counted.objects, counted.bytes.get()), (marks.len() as u64, bytes));
        assert!(reachable.len() > 1000, "{} of {}", reachable.len(), world.objects.len());
        world.end_cycle();
        assert_eq!(world.allocated(), reachable);
    }
    world.release();
}

/// Somebody comes for a page or two and goes, again and again, and the collector's worker does nothing. Whatever has
/// waited in somebody's line is in the queue when he has left: when that is empty, everything is marked.
#[test]
fn who_leaves_after_a_page_leaves_nothing_in_his_line() {
    let mut random = Random::new(0x1ea7e);
    for kernel in Kernel::all() {
        for most in [1, 2, 7] {
            let mut world = World::new();
            (0..3000).for_each(|_| world.add(&mut random));
            world.add_slice(&ELEMENT, 1, 5000, &mut random);
            let mut roots = lists(&mut world, 5, 300);
            roots.extend(world.objects.iter().rev().skip(1500).take(6));
            let (crew, central, cycle) = (crew_of(&world, 1 << 20), &world.central, world.cycle());
            let mut visitors = 0;
            loop {
                // Otherwise there is nothing that somebody could begin with.
                crew.set_has_roots(true);
                assert_eq!(crew.wait_for_work(None), Some(cycle));
                crew.set_has_roots(false);
                let ring = PageRing::new();
                let marker = Marker::on(central, &crew, &ring, cycle).with_kernel(Some(kernel));
                let mut marker = marker.with_grip(1 + random.below(8));
                if visitors == 0 {
                    roots.iter().for_each(|&root| marker.mark(root));
                }
                let mut pages = 0..most;
                marker.work(|_| pages.next().is_some());
                marker.leave();
                visitors += 1;
                if crew.waiting() == 0 {
                    break;
                }
            }
            assert!(!crew.take_rescan(), "the queue had room for everything");
            let counted = end(&world, &crew, Tally::default());
            let (marks, bytes) = world.marks();
            assert_eq!(
                marks,
                world.reachable(&roots),
                "{kernel:?}, {most} pages, {visitors} visitors"
            );
            assert_eq!((counted.objects, counted.bytes.get()), (marks.len() as u64, bytes));
            assert!(visitors > 50 / most && marks.len() > 1500);
            world.release();
        }
    }
}

/// Fault rows 61 and 66: the pointer in the last element of a large slice is followed, and so are all others, in
/// whatever pieces they lie; also when elements straddle the pieces or are longer than these.
#[test]
fn fault_61_66_every_element_of_a_large_slice_is_scanned_once() {
    let mut random = Random::new(0x61_66);
    for entries in [2048, 3, 0] {
        let mut world = World::new();
        for (ty, word, len) in [
            (&ELEMENT, 1, 10_000_000 / 24),
            (&TRIPLES, 1, 1_000_003),
            (&TRIPLES, 1, PIECE.get() / 24),
            (&ELEMENT, 1, PIECE.get() / 24 + 1),
            (&GIANT, 1, 7),
            (&PAIR, 1, PIECE.get() / 16 * 2),
        ] {
            let leaf = |world: &mut World, random: &mut Random| {
                let (at, _) = world.make(&BYTES, 0);
                world.link(at, [], random);
                at
            };
            let leaves: Vec<_> = (0..64).map(|_| leaf(&mut world, &mut random)).collect();
            let slice = world.add_slice(ty, word, len, &mut random);
            // Only one element in a hundred points anywhere, and the last one does.
            let step = ty.size / WORD_BYTES;
            let edges = (0..len).map(|n| match n + 1 == len || random.one_in(100) {
                true => leaves[random.below(leaves.len())],
                false => Addr::NULL,
            });
            let edges: Vec<_> = edges.collect();
            for (n, edge) in edges.iter().enumerate() {
                // SAFETY: the pointers of the slice.
                unsafe { word_of(slice, n * step + word).write(edge.get()) };
            }
            let edges = edges.into_iter().filter(|edge| !edge.is_null()).collect();
            world.edges.insert(slice, edges);
        }
        world.cache.give_back_all(&world.central, world.tint());
        let roots: Vec<_> =
            world.objects.iter().copied().filter(|at| !world.edges[at].is_empty()).collect();
        assert_eq!(roots.len(), 6);
        let counted = mark_together(&world, &roots, 2, entries);
        let (marks, bytes) = world.marks();
        assert_eq!(marks, world.reachable(&roots), "a queue of {entries}");
        assert_eq!((counted.objects, counted.bytes.get()), (marks.len() as u64, bytes));
        world.release();
    }
}

/// Pieces with locked elements come back, however many there are, and the object is counted once.
#[test]
fn locked_elements_of_large_slices_are_scanned_when_the_locks_are_free() {
    let mut random = Random::new(0x10c6);
    let mut world = World::new();
    let slices: Vec<_> =
        (0..8).map(|_| world.add_slice(&TRIPLES, 1, 250_000, &mut random)).collect();
    world.cache.give_back_all(&world.central, world.tint());
    // An element of each piece, which are more than can be put aside.
    let locked = slices.iter().flat_map(|&slice| {
        (0..250_000).step_by(PIECE.get() / 24 / 2).map(move |n| slice.get() + n * 24)
    });
    LOCKED.set(locked.collect());
    let crew = crew_of(&world, 2048);
    let mut marker = marker_of(&world, &crew, 64);
    slices.iter().for_each(|&slice| marker.mark(slice));
    for _ in 0..3 {
        assert!(!marker.drain());
        marker.retry_aside();
    }
    assert!(LOCKED.with_borrow(|locked| locked.len()) > ASIDE);
    let mut rounds = 0;
    while !marker.drain() {
        rounds += 1;
        LOCKED.with_borrow_mut(|locked| locked.retain(|_| !random.one_in(3)));
        marker.retry_aside();
    }
    assert!(rounds > 2, "{rounds} rounds");
    let counted = end(&world, &crew, marker.tally());
    let (marks, bytes) = world.marks();
    assert_eq!(marks, slices.iter().copied().collect());
    assert_eq!((counted.objects, counted.bytes.get()), (marks.len() as u64, bytes));
    LOCKED.take();
    world.release();
}

/// A mutator cannot join the marking of another cycle than its own, nor when there is nothing to take.
#[test]
fn nobody_joins_a_marking_that_is_over() {
    let world = World::new();
    let crew = crew_of(&world, 16);
    assert!(!crew.join(world.cycle()), "there are no pages");
    assert_eq!(crew.push(&[Addr::new(8192)]), 1);
    assert!(!crew.join(world.cycle() + 1) && crew.join(world.cycle()));
    let ring = PageRing::new();
    assert_eq!(crew.exchange(&[], &ring, 64), 0);
    assert_eq!(ring.pop(), Some(Addr::new(8192)));
    crew.leave(Tally::default());
    end(&world, &crew, Tally::default());
    assert_eq!(crew.wait_for_work(Some(std::time::Instant::now())), None);
    world.release();
}
