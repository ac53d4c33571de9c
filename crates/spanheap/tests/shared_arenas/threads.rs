//! Random programs with arenas on several threads, while the heap collects all the time.
//!
//! The threads share a board, an object with places for objects, for values and for a list of values under a lock. Each
//! makes values and objects that lead to what it has found on the board, puts them there, walks along whatever it
//! finds, and has a few arenas that it fills, frees, abandons or gives to an object that dies. Most of the
//! time the board is full of pointers into arenas that are gone.
//!
//! - Whatever is reached is whole: each node has a canary, freed objects are poisoned, freed values fault.
//! - A value that was there stays whole until the closure ends, and one that was gone does not come back.
//! - At the end nothing is left: no object, no chunk, no address in quarantine.
//!
//! Each run prints its seed. `SPANHEAP_STRESS_ROUNDS=n` multiplies the length of the runs.

use crate::{Node, done};
use spanheap::{
    ArenaGc, Collected, Gc, GcCell, GcMutex, GcVec, Heap, HeapBuilder, Mutator, Root, Rootable,
    SharedArena, Trace,
};
use std::num::NonZeroUsize;

const PLACES: usize = 32;
const THREADS: u64 = 3;
const ARENAS: usize = 4;

/// A generator of numbers: xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

#[derive(Trace)]
struct Board<'gc> {
    objects: Vec<GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>>,
    values: Vec<GcCell<'gc, Option<ArenaGc<'gc, Node<'gc>>>>>,
    list: GcMutex<'gc, GcVec<'gc, ArenaGc<'gc, Node<'gc>>>>,
}

/// An object that owns an arena.
#[derive(Trace)]
struct Owner {
    #[allow(dead_code, reason = "its destructor frees the arena")]
    arena: SharedArena,
}

struct Program<'h> {
    heap: &'h Heap,
    board: &'h Root<Rootable![Board<'_>]>,
    random: Random,
    arenas: Vec<SharedArena>,
    /// Nodes that were reached, and pointers that led nowhere any more.
    reached: u64,
    gone: u64,
}

impl Program<'_> {
    /// Follows pointers from a node at random, and checks what it finds.
    fn walk<'gc>(&mut self, mc: &Mutator<'gc>, mut node: &'gc Node<'gc>) {
        let mut held = Vec::new();
        for _ in 0..8 {
            node.check();
            held.push(node);
            self.reached += 1;
            let next = match self.random.below(2) {
                0 => node.object.get().map(Gc::as_ref),
                _ => node.value.get().and_then(|value| self.open(mc, value)),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        held.iter().for_each(|node| done(node.check()));
    }

    /// The value, if it is there. If it is not, it stays away.
    fn open<'gc>(
        &mut self,
        mc: &Mutator<'gc>,
        value: ArenaGc<'gc, Node<'gc>>,
    ) -> Option<&'gc Node<'gc>> {
        let opened = value.get(mc);
        match opened {
            Some(node) => done(node.check()),
            None => {
                self.gone += 1;
                assert!(value.get(mc).is_none(), "a freed value has come back");
            }
        }
        opened
    }

    /// A node that leads to something of the board.
    fn node<'gc>(&mut self, board: &Board<'gc>) -> Node<'gc> {
        let object = board.objects[self.random.below(PLACES)].get();
        let value = board.values[self.random.below(PLACES)].get();
        Node::leading(self.random.below(1 << 30) as u64, object, value)
    }

    fn step<'gc>(&mut self, mc: &Mutator<'gc>, board: &'gc Board<'gc>) {
        let place = self.random.below(PLACES);
        let arena = self.random.below(ARENAS);
        match self.random.below(12) {
            0..3 => {
                let node = self.node(board);
                let value = self.arenas[arena].alloc(mc, node);
                board.values[place].set(mc, Some(value));
            }
            3 => {
                let count = self.random.below(50);
                let nodes: Vec<_> = (0..count).map(|_| self.node(board)).collect();
                let writer = self.arenas[arena].writer(mc);
                let mut list = board.list.lock(mc);
                for node in nodes {
                    let value = writer.alloc(node);
                    writer.alloc_str("a leaf between the nodes");
                    board.values[place].set(mc, Some(value));
                    list.push(mc, value);
                }
                let excess = list.len().saturating_sub(100);
                (0..excess).for_each(|_| done(list.pop(mc)));
            }
            4..6 => {
                let object = mc.alloc(self.node(board));
                board.objects[place].set(mc, Some(object));
            }
            6 => {
                // What is behind an edge comes to the front, and the edge is cut.
                let Some(value) = board.values[place].get() else { return };
                let Some(node) = self.open(mc, value) else { return };
                board.values[self.random.below(PLACES)].set(mc, node.value.take(mc));
                board.objects[self.random.below(PLACES)].set(mc, node.object.take(mc));
                node.check();
            }
            7 => {
                board.values[place].take(mc);
                board.objects[place].take(mc);
            }
            8 => {
                let list = board.list.lock(mc);
                let at = self.random.below(list.len().max(1));
                if let Some(node) = list.get(at).and_then(|value| self.open(mc, *value)) {
                    self.walk(mc, node);
                }
            }
            9 => {
                if let Some(node) = board.values[place].get().and_then(|v| self.open(mc, v)) {
                    self.walk(mc, node);
                }
            }
            _ => {
                if let Some(object) = board.objects[place].get() {
                    self.walk(mc, object.as_ref());
                }
            }
        }
    }

    /// Another arena in the place of one, which goes in one of the ways in which arenas go.
    fn replace(&mut self, mc: &Mutator<'_>) {
        let at = self.random.below(ARENAS);
        let arena = std::mem::replace(&mut self.arenas[at], self.heap.shared_arena());
        match self.random.below(4) {
            0 => arena.free(),
            1 => drop(arena),
            2 => arena.abandon(),
            _ => done(mc.alloc(Owner { arena })),
        }
    }

    /// So many closures, and as many more as it takes until the heap has completed `cycles`.
    fn run(&mut self, closures: usize, cycles: u64) {
        for closure in 0.. {
            if closure >= closures && self.heap.stats().cycles >= cycles {
                break;
            }
            let heap = self.heap;
            heap.enter(|mc| {
                let board = self.board.get(mc).as_ref();
                for _ in 0..self.random.below(20) {
                    self.step(mc, board);
                }
                if self.random.below(8) == 0 {
                    self.replace(mc);
                    self.step(mc, board);
                }
            });
        }
    }
}

fn torture(name: &str, builder: HeapBuilder, seed: u64) {
    println!("{name}, seed {seed}");
    let rounds = std::env::var("SPANHEAP_STRESS_ROUNDS");
    let rounds = rounds.ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let heap = builder.build().unwrap();
    let board: Root<Rootable![Board<'_>]> = heap.enter(|mc| {
        mc.root(mc.alloc(Board {
            objects: (0..PLACES).map(|_| GcCell::new(None)).collect(),
            values: (0..PLACES).map(|_| GcCell::new(None)).collect(),
            list: GcMutex::new(GcVec::new()),
        }))
    });
    let (mut reached, mut gone) = (0, 0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (heap, board) = (&heap, &board);
                scope.spawn(move || {
                    let arenas = (0..ARENAS).map(|_| heap.shared_arena()).collect();
                    let random = Random::new(seed * THREADS + thread);
                    let mut program = Program { heap, board, random, arenas, reached: 0, gone: 0 };
                    program.run(2000 * rounds, 20 * rounds as u64);
                    (program.reached, program.gone)
                })
            })
            .collect();
        for thread in threads {
            let counts = thread.join().unwrap();
            (reached, gone) = (reached + counts.0, gone + counts.1);
        }
    });
    assert!(reached > 1000 && gone > 1000, "{reached} nodes reached, {gone} gone: no test");
    // All arenas are freed, abandoned, or owned by the dead; the board still leads everywhere.
    assert_eq!(heap.collect(), Collected::Complete);
    heap.enter(|mc| {
        let board = board.get(mc);
        for place in &board.objects {
            if let Some(object) = place.get() {
                object.check();
            }
            place.set(mc, None);
        }
        board.values.iter().for_each(|place| place.set(mc, None));
        board.list.lock(mc).clear(mc);
    });
    let begun = std::time::Instant::now();
    loop {
        assert_eq!(heap.collect(), Collected::Complete);
        let stats = heap.stats();
        let arenas = stats.arenas;
        let bytes = arenas.live_bytes + arenas.quarantined_bytes;
        // The destructors of owners run on a thread of the heap's.
        if arenas.made == arenas.freed && bytes == 0 {
            assert!(stats.live_objects <= 2, "the board and its list: {}", stats.live_objects);
            break;
        }
        assert!(begun.elapsed().as_secs() < 60, "something is left: {arenas:?}");
    }
    if let Err(findings) = heap.verify() {
        panic!("{findings:?}");
    }
}

#[test]
fn arenas_on_threads_while_the_heap_collects_all_the_time() {
    for seed in 0..2 {
        let builder = Heap::builder().poison(true).collect_continuously(true);
        torture("continuous", builder, seed);
    }
}

#[test]
fn arenas_on_threads_with_workers_and_assists_verified() {
    let builder = Heap::builder().poison(true).collect_continuously(true).checkmark(true);
    let builder = builder.mark_threads(NonZeroUsize::new(4).unwrap()).always_assist(true);
    torture("continuous, verified, four workers and assists", builder.symmetric_fences(true), 2);
}

#[test]
fn arenas_on_threads_paced_and_verified() {
    let builder = Heap::builder().poison(true).gc_percent(2).checkmark(true).verify_trace(true);
    torture("paced, verified", builder, 3);
}
