//! The lock of one word, its condition, and the alarm, as they are; only the system calls are the checker's.
//!
//! # Safety
//! Each holding of the raw lock is given up once, by the thread that has it.
#![allow(unsafe_code)]

use crate::checker::{Watched, explore};
use crate::mutant;
use loom::sync::Arc;
use loom::thread;

/// The files of the core's `sync`, with the given versions of two of them.
macro_rules! world {
    ($world:ident, $futex:ident, $alarm:ident) => {
        #[allow(unused, clippy::all)]
        mod $world {
            pub use alarm::Alarm;
            pub use futex::RawLock;
            pub use rank::Rank;
            include!(concat!(env!("OUT_DIR"), "/lock.rs"));
            pub mod rank {
                include!(concat!(env!("OUT_DIR"), "/rank.rs"));
            }
            mod profile {
                include!(concat!(env!("OUT_DIR"), "/profile.rs"));
            }
            pub mod futex {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($futex), ".rs"));
            }
            pub mod alarm {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($alarm), ".rs"));
            }
        }
    };
}

world!(real, futex, alarm);
world!(unlock_relaxed, futex_unlock_relaxed, alarm);
world!(lock_relaxed, futex_lock_relaxed, alarm);
world!(slow_relaxed, futex_slow_relaxed, alarm);
world!(nobody_woken, futex_nobody_woken, alarm);
world!(same_sequence, futex_same_sequence, alarm);
world!(rung_before, futex, alarm_rung_before);

/// `threads` threads use a number under the lock, and so does the last one.
macro_rules! excludes {
    ($world:ident, $threads:expr, $preemptions:expr) => {
        explore($preemptions, || {
            let shared = Arc::new(($world::RawLock::new(), Watched::new()));
            let visit = |shared: &($world::RawLock, Watched)| {
                shared.0.lock();
                shared.1.touch();
                // SAFETY: N1, N2: taken above, and nothing is used any more.
                unsafe { shared.0.unlock() };
            };
            let others: Vec<_> = (1..$threads)
                .map(|_| {
                    let shared = shared.clone();
                    thread::spawn(move || visit(&shared))
                })
                .collect();
            visit(&shared);
            others.into_iter().for_each(|other| other.join().expect("it ends"));
            shared.0.lock();
            assert_eq!(shared.1.touch(), $threads);
        })
    };
}

/// Somebody sleeps until he was rung, which may be before.
macro_rules! wakes {
    ($world:ident) => {
        explore(8, || {
            let shared = Arc::new(($world::Alarm::new(), Watched::new()));
            let ringer = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.1.touch();
                    shared.0.ring();
                })
            };
            while !shared.0.sleep(None) {}
            assert_eq!(shared.1.touch(), 1, "what came before the ring is visible");
            ringer.join().expect("it ends");
        })
    };
}

#[test]
fn the_lock_excludes_and_wakes_two() {
    excludes!(real, 2, 10);
}

#[test]
fn the_lock_excludes_and_wakes_three() {
    excludes!(real, 3, 4);
}

mutant!(a_relaxed_unlock_is_found, "Causality violation", excludes!(unlock_relaxed, 2, 5));

mutant!(a_relaxed_lock_is_found, "Causality violation", excludes!(lock_relaxed, 2, 5));

mutant!(a_relaxed_slow_path_is_found, "Causality violation", excludes!(slow_relaxed, 2, 5));

mutant!(an_unlock_that_wakes_nobody_is_found, "deadlock", excludes!(nobody_woken, 2, 5));

#[test]
fn a_ring_is_never_lost() {
    wakes!(real);
}

mutant!(a_ring_before_it_is_noted_is_found, "deadlock", wakes!(rung_before));

mutant!(a_condition_that_does_not_count_is_found, "deadlock", wakes!(same_sequence));
