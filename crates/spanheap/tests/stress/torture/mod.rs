//! The adversarial mutator: random steps that do all that the protocol has to withstand, as fast as they can.
//!
//! - Pointers are hidden and shown behind the wavefront: taken out of the only place where they are, kept in a
//!   closure, and put where the collector has been already; in cells, in locked collections, in locks in locks,
//!   under other objects, under roots, and with whole containers that change places.
//! - Pointers are only looked at, while others pass them on, free them, and make new ones of the same number.
//! - The same through growable containers whose storage is scanned apart from them, fields that are set once, and
//!   tags that only a weak map leads to; contents change places as a whole.
//! - The same in values of shared arenas, small and large ones, which are freed, dropped and abandoned while others look
//!   into them, in closures and between two.
//! - Objects are found by weak pointers in their last moment, kept, and looked at. What has died is revived.
//! - Closures are short, and long enough to span several phases; they nest, in one heap and across two.
//! - Threads end all the time: between closures, by a panic inside of one, inside of several, with a lock held.
//! - A thread that has nothing to do helps the collector, or changes the limits of the heaps.
//! - A graph of each thread's own, with a shadow ([`crate::shadow`]), changes beside all that.
//!
//! What must be true is known from outside of the heap ([`world`]): each object has a canary made of its number and
//! its address, and each number has one living generation. Every access checks it; and after each round, all that
//! can be reached is compared with the ledger, and the number of objects that a collection retains with the
//! number that was reached.
//!
//! Some million steps by default. `SPANHEAP_LONG=1` makes it a thousand million, and says each minute how far it is
//! (with `--nocapture`); `SPANHEAP_SEED` begins elsewhere, and `SPANHEAP_MODE` runs only what has these words in its
//! name. Equal seeds make equal choices, but the threads
//! meet as the machine pleases.
//!
//! A lost object may have been a lock, and whoever waits for it waits for ever. So a run that has made no step for
//! a minute ends the process.

mod player;
mod world;

use crate::{Random, rounds};
use player::Player;
use spanheap::{Heap, HeapBuilder};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use world::{Traits, World};

/// With what a thread unwinds that was meant to die.
struct Death;

const PLAYERS: u64 = 3;
/// Steps of each player between two comparisons with the ledger.
const ROUND: u64 = 40_000;

/// A way to run.
struct Mode {
    name: &'static str,
    builder: fn(HeapBuilder) -> HeapBuilder,
    /// Whether each cycle is verified by a second mark.
    verified: bool,
    /// Whether memory may be refused.
    limited: bool,
    /// What an idle thread does meanwhile.
    idle: Idle,
    /// How many times longer than others it takes.
    cost: u64,
}

/// What a thread does that has nothing to do with the players.
#[derive(Clone, Copy, PartialEq)]
enum Idle {
    Nothing,
    /// It offers its time.
    Collects,
    /// It changes limits.
    Changes,
}

const QUICK: Mode = Mode {
    name: "",
    builder: |builder| builder,
    verified: false,
    limited: false,
    idle: Idle::Nothing,
    cost: 1,
};

const MODES: [Mode; 12] = [
    Mode {
        name: "continuous",
        builder: |builder| builder.poison(true).collect_continuously(true),
        ..QUICK
    },
    Mode {
        name: "continuous, full fences, slots used again as they are",
        builder: |builder| builder.collect_continuously(true).symmetric_fences(true),
        ..QUICK
    },
    Mode {
        name: "continuous, two mark, and an idle thread with them",
        builder: |builder| with_threads(builder.poison(true).collect_continuously(true), 2),
        idle: Idle::Collects,
        ..QUICK
    },
    Mode {
        name: "continuous, every allocation assists",
        builder: |builder| {
            let builder = builder.poison(true).collect_continuously(true);
            with_threads(builder.always_assist(true), 1)
        },
        ..QUICK
    },
    Mode {
        name: "continuous, four mark, every allocation assists, slots used again as they are",
        builder: |builder| with_threads(builder.collect_continuously(true).always_assist(true), 4),
        ..QUICK
    },
    Mode {
        name: "continuous, verified, full fences, three mark",
        builder: |builder| {
            let builder = builder.poison(true).collect_continuously(true);
            with_threads(builder.symmetric_fences(true), 3)
        },
        verified: true,
        cost: 6,
        ..QUICK
    },
    Mode {
        name: "paced, verified, trace functions too",
        builder: |builder| builder.poison(true).gc_percent(10).verify_trace(true),
        verified: true,
        cost: 6,
        ..QUICK
    },
    Mode {
        name: "paced, by an idle thread too, every allocation assists",
        builder: |builder| builder.poison(true).gc_percent(20).always_assist(true),
        idle: Idle::Collects,
        ..QUICK
    },
    Mode {
        // The collector sleeps most of the time: so whoever lets go of a bale may see to it himself.
        name: "paced, full fences",
        builder: |builder| builder.poison(true).gc_percent(50).symmetric_fences(true),
        ..QUICK
    },
    Mode {
        name: "by a small limit only",
        builder: |builder| builder.poison(true).gc_percent_off().memory_limit(12 << 20),
        limited: true,
        cost: 2,
        ..QUICK
    },
    Mode {
        name: "by a hard limit only, two mark",
        builder: |builder| {
            let builder = builder.poison(true).gc_percent_off();
            with_threads(builder.hard_limit(12 << 20), 2)
        },
        limited: true,
        cost: 2,
        ..QUICK
    },
    Mode {
        name: "paced, limits that change",
        builder: |builder| builder.poison(true).gc_percent(30),
        limited: true,
        idle: Idle::Changes,
        ..QUICK
    },
];

fn with_threads(builder: HeapBuilder, count: usize) -> HeapBuilder {
    builder.mark_threads(NonZeroUsize::new(count).unwrap())
}

/// How many steps all modes together make.
fn wanted_steps() -> u64 {
    match std::env::var_os("SPANHEAP_LONG").is_some_and(|value| value != "0") {
        true => 1_000_000_000,
        false => 5_000_000 * rounds() as u64,
    }
}

#[test]
fn fault_70_no_object_is_lost_to_an_adversary() {
    let seed = std::env::var("SPANHEAP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(70);
    let only = std::env::var("SPANHEAP_MODE").unwrap_or_default();
    let modes = || MODES.iter().filter(|mode| mode.name.contains(&only));
    let shares: u64 = modes().map(|mode| 12 / mode.cost).sum();
    let mut done = 0;
    for mode in modes() {
        println!("torture: {}, seed {seed}", mode.name);
        done += torture(mode, seed, wanted_steps() * (12 / mode.cost) / shares);
    }
    assert!(done >= wanted_steps() / 100 * 99, "only {done} steps");
}

/// Runs one mode for so many steps, and returns how many it made.
fn torture(mode: &Mode, seed: u64, steps: u64) -> u64 {
    let started = Instant::now();
    // The second heap has more to mark, so its phases are longer than most closures.
    let worlds = [(0, 0, 0), (10_000, 3_000, 20_000)].map(|(ballast, cars, places)| {
        let (verified, limited) = (mode.verified, mode.limited);
        let traits = Traits { verified, limited, ballast, cars, places };
        let builder = (mode.builder)(Heap::builder()).checkmark(verified);
        World::new(builder.build().unwrap(), traits)
    });
    let closures = Arc::new(AtomicU64::new(0));
    let player = |number| Player::new(&worlds, seed, number, closures.clone());
    let mut players: Vec<_> = (0..PLAYERS).map(player).collect();
    let _watch = watch(closures.clone());
    let (mut done, mut told) = (0, Instant::now());
    while done < steps {
        let round = ROUND.min((steps - done).div_ceil(PLAYERS));
        done = play_round(&worlds, &mut players, mode.idle, round);
        if told.elapsed() >= Duration::from_secs(60) {
            told = Instant::now();
            let cycles = worlds.each_ref().map(|world| world.heap.stats().cycles);
            println!("  {done} of {steps} steps, {cycles:?} cycles, {:?}", started.elapsed());
        }
    }
    let cycles = worlds.each_ref().map(|world| world.heap.stats().cycles);
    assert!(cycles.iter().all(|&cycles| cycles >= 2), "{cycles:?} cycles");
    let arenas = worlds.each_ref().map(|world| world.heap.stats().arenas);
    let gone = arenas.each_ref().map(|arenas| arenas.freed);
    assert!(gone.iter().sum::<u64>() >= done / 10_000, "{arenas:?}: too few to say anything");
    println!("  {done} steps in {:?}, {cycles:?} cycles, {gone:?} arenas", started.elapsed());
    drop(players);
    worlds.into_iter().for_each(World::close);
    done
}

/// Ends the process when a minute passes without a closure, for as long as the result lives.
fn watch(closures: Arc<AtomicU64>) -> mpsc::Sender<()> {
    let (alive, watched) = mpsc::channel();
    thread::spawn(move || {
        let mut before = u64::MAX;
        while let Err(RecvTimeoutError::Timeout) = watched.recv_timeout(Duration::from_secs(60)) {
            let now = closures.load(Ordering::Relaxed);
            if now == before {
                eprintln!("torture: nobody has ended a closure for a minute");
                std::process::abort();
            }
            before = now;
        }
    });
    alive
}

/// Lets each player make so many steps, and compares everything with the ledgers. Returns how many steps were made
/// since the beginning.
fn play_round(worlds: &[World], players: &mut [Player], idle: Idle, steps: u64) -> u64 {
    let before = players.iter().map(|player| player.steps).sum::<u64>();
    let seats: Vec<_> = players.iter_mut().map(Mutex::new).collect();
    let playing = AtomicU64::new(PLAYERS);
    let threads = PLAYERS + u64::from(idle != Idle::Nothing);
    crate::on_threads(threads, |number| {
        let Some(seat) = seats.get(number as usize) else {
            return be_idle(worlds, idle, steps ^ before, &playing);
        };
        let _ends = EndsPlay(&playing);
        let mut player = seat.lock().unwrap();
        let until = player.steps + steps;
        while player.steps < until {
            one_life(&mut player, worlds, until);
        }
    });
    players.iter_mut().for_each(Player::forget);
    for (at, world) in worlds.iter().enumerate() {
        let spares: Vec<_> = players.iter().map(|player| player.spares[at].clone()).collect();
        let gardens = players.iter_mut().map(|player| player.gardens[at].survivors()).sum();
        world.checkpoint(&spares, gardens);
    }
    players.iter().map(|player| player.steps).sum()
}

/// One player less, when dropped.
struct EndsPlay<'a>(&'a AtomicU64);

impl Drop for EndsPlay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a thread does beside the players, as long as there are any.
fn be_idle(worlds: &[World], idle: Idle, seed: u64, playing: &AtomicU64) {
    let mut random = Random::new(seed);
    while playing.load(Ordering::Relaxed) > 0 {
        let heap = &worlds[random.below(worlds.len())].heap;
        match idle {
            Idle::Nothing => return,
            Idle::Collects => _ = heap.collect_for(Duration::from_micros(300)),
            Idle::Changes => {
                let bytes = (10 << 20) + random.below(8 << 20);
                match random.below(4) {
                    0 => heap.set_gc_percent(Some(5 + random.below(100) as u32)),
                    1 => heap.set_hard_limit(bytes).unwrap(),
                    _ => heap.set_memory_limit(bytes).unwrap(),
                }
            }
        }
        thread::sleep(Duration::from_micros(300));
    }
}

/// Lets a new thread play until it ends.
fn one_life(player: &mut Player, worlds: &[World], until: u64) {
    let life = thread::scope(|scope| {
        let named = thread::Builder::new().name("user, soon dead".into());
        named.spawn_scoped(scope, || player.live(worlds, until)).unwrap().join()
    });
    match life {
        Err(cause) if !cause.is::<Death>() => std::panic::resume_unwind(cause),
        _ => {}
    }
}
