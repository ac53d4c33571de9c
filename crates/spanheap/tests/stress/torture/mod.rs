//! The adversarial mutator: random steps that do all that the protocol has to withstand, as fast as they can.
//!
//! - Pointers are hidden and shown behind the wavefront: taken out of the only place where they are, kept in a
//!   closure, and put where the collector has been already; in cells, in locked collections, in locks in locks,
//!   under other objects, under roots, and with whole containers that change places.
//! - Pointers are only looked at, while others pass them on, free them, and make new ones of the same number.
//! - Closures are short, and long enough to span several phases; they nest, in one heap and across two.
//! - Threads end all the time: between closures, by a panic inside of one, inside of several, with a lock held.
//! - A graph of each thread's own, with a shadow ([`crate::shadow`]), changes beside all that.
//!
//! What must be true is known from outside of the heap ([`world`]): each object has a canary made of its number and
//! its address, and each number has one living generation. Every access checks it; and after each round, all that
//! can be reached is compared with the ledger, and the number of objects that a collection retains with the
//! number that was reached.
//!
//! Some million steps by default. `SPANHEAP_LONG=1` makes it a thousand million, and says each minute how far it is
//! (with `--nocapture`); `SPANHEAP_SEED` begins elsewhere. Equal seeds make equal choices, but the threads
//! meet as the machine pleases.
//!
//! A lost object may have been a lock, and whoever waits for it waits for ever. So a run that has made no step for
//! a minute ends the process.

mod player;
mod world;

use crate::{Random, rounds};
use player::Player;
use spanheap::{Heap, HeapBuilder};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use world::World;

/// With what a thread unwinds that was meant to die.
struct Death;

const PLAYERS: u64 = 3;
/// Steps of each player between two comparisons with the ledger.
const ROUND: u64 = 50_000;

/// A way to run: a name, what the heaps are like, and how many times longer than others it takes.
struct Mode {
    name: &'static str,
    /// Whether each cycle is verified by a second mark.
    verified: bool,
    builder: fn() -> HeapBuilder,
    cost: u64,
}

const MODES: [Mode; 6] = [
    Mode {
        name: "continuous",
        verified: false,
        builder: || Heap::builder().poison(true).collect_continuously(true),
        cost: 1,
    },
    Mode {
        name: "continuous, full fences, slots used again as they are",
        verified: false,
        builder: || Heap::builder().collect_continuously(true).symmetric_fences(true),
        cost: 1,
    },
    Mode {
        name: "continuous, verified, full fences",
        verified: true,
        builder: || {
            let builder = Heap::builder().poison(true);
            builder.collect_continuously(true).symmetric_fences(true)
        },
        cost: 4,
    },
    Mode {
        name: "paced, verified",
        verified: true,
        builder: || Heap::builder().poison(true).gc_percent(2),
        cost: 2,
    },
    Mode {
        name: "paced",
        verified: false,
        builder: || Heap::builder().poison(true).gc_percent(20),
        cost: 1,
    },
    Mode {
        name: "by a small limit only",
        verified: false,
        builder: || Heap::builder().poison(true).gc_percent_off().memory_limit(9 << 20),
        cost: 1,
    },
];

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
    let shares: u64 = MODES.iter().map(|mode| 12 / mode.cost).sum();
    let mut done = 0;
    for mode in &MODES {
        println!("torture: {}, seed {seed}", mode.name);
        done += torture(mode, seed, wanted_steps() * (12 / mode.cost) / shares);
    }
    assert!(done >= wanted_steps() / 100 * 99, "only {done} steps");
}

/// Runs one mode for so many steps, and returns how many it made.
fn torture(mode: &Mode, seed: u64, steps: u64) -> u64 {
    let started = Instant::now();
    // The second heap has more to mark, so its phases are longer than most closures.
    let worlds = [(0, 0), (10_000, 3_000)].map(|(ballast, cars)| {
        let builder = (mode.builder)().checkmark(mode.verified);
        World::new(builder.build().unwrap(), mode.verified, ballast, cars)
    });
    let closures = Arc::new(AtomicU64::new(0));
    let player = |number| Player::new(&worlds, seed, number, closures.clone());
    let mut players: Vec<_> = (0..PLAYERS).map(player).collect();
    let _watch = watch(closures.clone());
    let (mut done, mut told) = (0, Instant::now());
    while done < steps {
        let round = ROUND.min((steps - done).div_ceil(PLAYERS));
        done = play_round(&worlds, &mut players, round);
        if told.elapsed() >= Duration::from_secs(60) {
            told = Instant::now();
            let cycles = worlds.each_ref().map(|world| world.heap.stats().cycles);
            println!("  {done} of {steps} steps, {cycles:?} cycles, {:?}", started.elapsed());
        }
    }
    let cycles = worlds.each_ref().map(|world| world.heap.stats().cycles);
    assert!(cycles.iter().all(|&cycles| cycles >= 2), "{cycles:?} cycles");
    println!("  {done} steps in {:?}, {cycles:?} cycles", started.elapsed());
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
fn play_round(worlds: &[World], players: &mut [Player], steps: u64) -> u64 {
    let seats: Vec<_> = players.iter_mut().map(Mutex::new).collect();
    crate::on_threads(PLAYERS, |number| {
        let mut player = seats[number as usize].lock().unwrap();
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
