//! Objects that die, under everything that looks at the dead: weak pointers, ephemerons, cleanups and revival.
//!
//! Threads make objects with a number, hang a cleanup and sometimes a finalizer on each, and put strong pointers
//! to them, weak ones, and entries of a weak map with them as keys, on a common board; others overwrite these,
//! upgrade and look up. Meanwhile cycle follows cycle. At the end
//! - no upgrade has returned an object once and None the next time, or the other way round, in one closure,
//! - each registered object was revived once, and its cleanup came after that,
//! - each cleanup has run once,
//! - and nothing is left.

use crate::{Random, canary, modes, on_threads, rounds};
use spanheap::{
    Collected, FinalizerQueue, Gc, GcCell, Heap, Mutator, Root, Rootable, Trace, Weak, WeakMap,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

const PLACES: usize = 48;
const THREADS: u64 = 3;

#[derive(Trace)]
struct Mortal<'gc> {
    id: u64,
    canary: u64,
    next: GcCell<'gc, Option<Gc<'gc, Mortal<'gc>>>>,
    next_weak: GcCell<'gc, Option<Weak<'gc, Mortal<'gc>>>>,
}

#[derive(Trace)]
struct Board<'gc> {
    strong: Vec<GcCell<'gc, Option<Gc<'gc, Mortal<'gc>>>>>,
    weak: Vec<GcCell<'gc, Option<Weak<'gc, Mortal<'gc>>>>>,
    map: WeakMap<'gc, Mortal<'gc>, Mortal<'gc>>,
}

type Queue = FinalizerQueue<Rootable![Mortal<'_>]>;

/// What has become of each object, by its number.
#[derive(Default)]
struct Fate {
    registered: AtomicU8,
    revived: AtomicU8,
    cleaned: AtomicU8,
}

struct Program {
    heap: Heap,
    board: Root<Rootable![Board<'_>]>,
    queue: Queue,
    fates: Arc<Vec<Fate>>,
    made: AtomicU64,
    early: Arc<AtomicU64>,
}

fn check(object: &Mortal<'_>) {
    assert_eq!(object.canary, canary(object.id), "object {} was freed", object.id);
    if let Some(next) = object.next.get() {
        assert_eq!(next.canary, canary(next.id));
    }
}

impl Program {
    fn make<'gc>(&self, mc: &Mutator<'gc>, random: &mut Random) -> Option<Gc<'gc, Mortal<'gc>>> {
        let id = self.made.fetch_add(1, Ordering::Relaxed);
        let fate = self.fates.get(id as usize)?;
        let (next, next_weak) = (GcCell::new(None), GcCell::new(None));
        let object = mc.alloc(Mortal { id, canary: canary(id), next, next_weak });
        let (fates, early) = (self.fates.clone(), self.early.clone());
        mc.cleanup(object, move || {
            let fate = &fates[id as usize];
            fate.cleaned.fetch_add(1, Ordering::Relaxed);
            if fate.revived.load(Ordering::Relaxed) < fate.registered.load(Ordering::Relaxed) {
                early.fetch_add(1, Ordering::Relaxed);
            }
        });
        if random.one_in(3) {
            fate.registered.store(1, Ordering::Relaxed);
            assert!(self.queue.register(mc, object));
        }
        Some(object)
    }

    /// Upgrades, and compares with what was seen before.
    fn upgrade<'gc>(
        &self,
        mc: &Mutator<'gc>,
        weak: Weak<'gc, Mortal<'gc>>,
    ) -> Option<Gc<'gc, Mortal<'gc>>> {
        let first = weak.upgrade(mc);
        let second = weak.upgrade(mc);
        match (first, second) {
            (Some(a), Some(b)) => {
                assert!(Gc::ptr_eq(a, b));
                check(&a);
            }
            (None, None) => {}
            _ => panic!("an object came back, or died while it was held"),
        }
        first
    }

    fn step<'gc>(&self, mc: &Mutator<'gc>, random: &mut Random) {
        let board = self.board.get(mc);
        let (at, other) = (random.below(PLACES), random.below(PLACES));
        match random.below(12) {
            0..=2 => {
                let Some(object) = self.make(mc, random) else { return };
                object.next.set(mc, board.strong[other].get());
                board.weak[at].set(mc, Some(mc.downgrade(object)));
                board.strong[at].set(mc, Some(object));
            }
            3 | 4 => board.strong[at].set(mc, None),
            5 | 6 => {
                if let Some(object) = board.weak[at].get().and_then(|w| self.upgrade(mc, w)) {
                    board.strong[other].set(mc, Some(object));
                    if let Some(weak) = object.next_weak.get() {
                        self.upgrade(mc, weak);
                    }
                }
            }
            7 => {
                if let (Some(a), Some(b)) = (board.strong[at].get(), board.strong[other].get()) {
                    a.next_weak.set(mc, Some(mc.downgrade(b)));
                    a.next.set(mc, None);
                    assert!(self.upgrade(mc, a.next_weak.get().unwrap()).is_some());
                }
            }
            8 => {
                if let (Some(key), Some(value)) =
                    (board.strong[at].get(), board.strong[other].get())
                {
                    board.map.insert(mc, key, value);
                    check(&board.map.get(mc, key).unwrap_or(value));
                }
            }
            9 => {
                if let Some(key) = board.strong[at].get() {
                    if let Some(value) = board.map.get(mc, key) {
                        check(&value);
                        board.strong[other].set(mc, Some(value));
                    }
                }
            }
            10 if random.one_in(8) => {
                for (key, value) in board.map.entries(mc) {
                    check(&key);
                    check(&value);
                }
            }
            _ => self.see_revived(mc, &board, other),
        }
    }

    /// Finds through weak pointers what there is, and makes some of it reachable again.
    fn upgrade_all<'gc>(&self, mc: &Mutator<'gc>, random: &mut Random) {
        let board = self.board.get(mc);
        let found = board.weak.iter().filter_map(|weak| self.upgrade(mc, weak.get()?));
        for object in found {
            if random.one_in(4) {
                board.strong[random.below(PLACES)].set(mc, Some(object));
            }
        }
        for (key, value) in board.map.entries(mc) {
            check(&key);
            if random.one_in(4) {
                board.strong[random.below(PLACES)].set(mc, Some(value));
            }
        }
    }

    fn see_revived<'gc>(&self, mc: &Mutator<'gc>, board: &Board<'gc>, at: usize) {
        if let Some(object) = self.queue.pop(mc) {
            check(&object);
            let fate = &self.fates[object.id as usize];
            assert_eq!(fate.revived.fetch_add(1, Ordering::Relaxed), 0, "revived twice");
            assert_eq!(fate.cleaned.load(Ordering::Relaxed), 0, "cleaned up and revived");
            board.strong[at].set(mc, Some(object));
        }
    }
}

#[test]
fn the_dead_are_seen_once_and_never_again() {
    for (mode, builder) in modes() {
        println!("afterlife: {mode}, seeds 21 to 23");
        let heap = builder.build().unwrap();
        let (board, queue) = heap.enter(|mc| {
            let strong = (0..PLACES).map(|_| GcCell::new(None)).collect();
            let weak = (0..PLACES).map(|_| GcCell::new(None)).collect();
            let board = mc.alloc(Board { strong, weak, map: WeakMap::new() });
            (mc.root::<Rootable![Board<'_>]>(board), mc.finalizer_queue())
        });
        let steps = 10_000 * rounds();
        let fates = (0..THREADS as usize * steps).map(|_| Fate::default()).collect();
        let (fates, early) = (Arc::new(fates), Arc::new(AtomicU64::new(0)));
        let made = AtomicU64::new(0);
        let program = Program { heap, board, queue, fates, made, early };
        on_threads(THREADS, |number| {
            let mut random = Random::new(21 + number);
            let mut left = steps;
            while left > 0 {
                let some = (1 + random.below(12)).min(left);
                program.heap.enter(|mc| {
                    // Closures that upgrade late hold rounds up, and meet the decision.
                    if random.one_in(16) {
                        std::thread::sleep(Duration::from_micros(random.below(200) as u64));
                        program.upgrade_all(mc, &mut random);
                    }
                    (0..some).for_each(|_| program.step(mc, &mut random));
                });
                left -= some;
            }
        });
        let Program { heap, board, queue, fates, made, early } = program;
        drop(board);
        // What is revived may be all that leads to something else that is registered.
        loop {
            assert_eq!(heap.collect(), Collected::Complete);
            let more = heap.enter(|mc| {
                let mut any = false;
                while let Some(object) = queue.pop(mc) {
                    check(&object);
                    fates[object.id as usize].revived.fetch_add(1, Ordering::Relaxed);
                    any = true;
                }
                any
            });
            if !more {
                break;
            }
        }
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(heap.stats().live_objects, 0, "{mode}");
        drop(heap);
        let made = made.load(Ordering::Relaxed) as usize;
        for (id, fate) in fates[..made.min(fates.len())].iter().enumerate() {
            let count = |count: &AtomicU8| count.load(Ordering::Relaxed);
            assert_eq!(count(&fate.revived), count(&fate.registered), "object {id}");
            assert_eq!(count(&fate.cleaned), 1, "object {id}");
        }
        assert_eq!(early.load(Ordering::Relaxed), 0, "cleanups that came before the revival");
    }
}
