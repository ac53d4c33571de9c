//! The reclaimer by itself: what it looks at, how often, and what becomes of the surplus.
//!
//! # Safety
//! The heaps whose arenas are looked through live until the end of each test.
#![allow(unsafe_code)]

use super::*;
use crate::addr::{Addr, PAGE_BYTES};
use crate::heap::central::tests::World;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;

/// A reclaimer of its own for a heap in which a generation has just begun.
fn reclaimer(world: &World) -> Reclaimer {
    let reclaimer = Reclaimer::new();
    // SAFETY: the heap outlives the reclaimer.
    unsafe { reclaimer.begin(world.central.generation(), world.central.pages().arenas().next()) };
    reclaimer
}

/// What the reclaimer shows of all there is to look at, with how often. Nothing is swept.
fn candidates(reclaimer: &Reclaimer) -> BTreeMap<Addr, usize> {
    let mut seen = BTreeMap::new();
    let enough = reclaimer.reclaim(PageCount::new(usize::MAX), &mut Budget(usize::MAX), |span| {
        *seen.entry(span.info().base).or_default() += 1;
        PageCount::ZERO
    });
    assert!(!enough);
    seen
}

#[test]
fn every_dead_span_of_every_arena_is_shown_once() {
    let world = World::new(None);
    // Objects of all lengths, over three arenas and more: some reach over the end of a chunk or an arena.
    let mut dead = BTreeSet::new();
    let mut pages = 0;
    for n in 0usize.. {
        let length = 5 + n * 37 % 600;
        let object = world.alloc(length * PAGE_BYTES).expect("memory");
        match n % 3 {
            0 => world.mark(object),
            _ => drop(dead.insert(object)),
        }
        pages += length;
        if pages > 3 * ARENA_PAGES {
            break;
        }
    }
    let arenas = world.central.pages().arenas().count();
    assert!(arenas >= 4, "{arenas} arenas");
    world.begin_generation(false);
    let seen = candidates(&reclaimer(&world));
    assert!(seen.keys().copied().collect::<BTreeSet<_>>().is_superset(&dead), "one was missed");
    // A span that reaches over from one arena to the next one may be shown twice, alive or dead.
    let twice: usize = seen.values().map(|&n| n - 1).sum();
    let alive = seen.keys().filter(|base| !dead.contains(base)).count();
    assert!(twice + alive < arenas, "{twice} twice, {alive} alive");

    // What has been swept is not shown again.
    assert!(!world.central.sweep_batch(usize::MAX));
    assert!(candidates(&reclaimer(&world)).is_empty());
    world.release();
}

#[test]
fn several_threads_share_the_work() {
    let world = World::new(None);
    let objects: BTreeSet<_> = world.large(600, 64).into_iter().collect();
    world.begin_generation(false);
    let start = Barrier::new(3);
    for _ in 0..100 {
        let reclaimer = reclaimer(&world);
        let all = std::thread::scope(|scope| {
            let work = || {
                start.wait();
                candidates(&reclaimer)
            };
            let threads = [scope.spawn(work), scope.spawn(work), scope.spawn(work)];
            threads.map(|thread| thread.join().unwrap())
        });
        let mut seen = BTreeSet::new();
        for (base, times) in all.into_iter().flatten() {
            assert!(times == 1 && seen.insert(base), "{base} was shown twice");
        }
        assert_eq!(seen, objects);
    }
    world.release();
}

#[test]
fn the_surplus_of_a_block_serves_the_next_callers() {
    let world = World::new(None);
    // 32 blocks with a dead span each.
    world.large(32, BLOCK_PAGES);
    world.begin_generation(false);
    let reclaimer = reclaimer(&world);
    let ask = |pages: usize| {
        let mut looked_at = 0;
        let enough = reclaimer.reclaim(PageCount::new(pages), &mut Budget(usize::MAX), |span| {
            looked_at += 1;
            span.info().pages
        });
        (looked_at, enough)
    };
    assert_eq!(ask(25), (2, true), "two blocks");
    assert_eq!(ask(5), (0, true), "7 pages of credit");
    assert_eq!(ask(2), (0, true));
    assert_eq!(ask(33), (3, true), "three blocks");
    assert_eq!(ask(15), (0, true));
    assert_eq!(ask(10_000), (27, false), "the last ones");
    assert_eq!(ask(1), (0, false));
    // The credit of a generation ends with it.
    // SAFETY: as above.
    unsafe {
        reclaimer.begin(world.central.generation(), world.central.pages().arenas().next());
    }
    assert_eq!(ask(1), (1, true));
    let newer = world.central.generation().next();
    // SAFETY: as above.
    unsafe { reclaimer.begin(newer, None) };
    assert_eq!((ask(1), ask(600)), ((0, false), (0, false)), "nothing to reclaim");
    world.release();
}

#[test]
fn the_number_of_the_next_block_stays_near_the_last_one() {
    let world = World::new(None);
    world.large(1, 64);
    world.begin_generation(false);
    let reclaimer = reclaimer(&world);
    let one = PageCount::new(1);
    let fails = |_| !reclaimer.reclaim(one, &mut Budget::of(one), |_| PageCount::ZERO);
    assert!((0..1000).all(fails));
    assert_eq!(block_of(reclaimer.next.load(Ordering::Relaxed)), BLOCKS_PER_ARENA);
    world.release();
}
