//! The core's shared code under loom, a model checker of interleavings and memory orderings.
//!
//! # What
//! `cargo test -p spanheap-interleavings` compiles files of `spanheap-core`, taken as they are by the build
//! script, against the checker's locks and atomics, and runs small programs of two or three threads over them in
//! *every* interleaving (up to a number of preemptions, where a test says so), with every value that a load may
//! return by its ordering. Memory whose use an ordering is to protect stands in a cell that the checker watches,
//! so a missing ordering is a data race that it reports, and a missing wake-up is a deadlock.
//!
//! | file | what it checks |
//! |---|---|
//! | `locks` | the lock of one word, its condition, and the alarm on top of them |
//! | `alarms` | mutators that ring when the trigger is reached, against a collector that moves it and goes to sleep |
//! | `buffers` | the barrier buffer: push, steal, flush |
//! | `queue` | the grey queue: nothing lost, each object once, and marking against the last look of a round |
//! | `upgrades` | weak pointers that are upgraded while it is decided what is dead |
//! | `roots` | roots that are cloned and dropped while the table is trimmed and scanned |
//! | `ring` | a marking worker's ring: its owner and thieves |
//! | `crew` | when nothing is left to mark: who is busy, against the queue and the rings |
//! | `handshake` | grace periods: state counter, phase word and process barrier; who is rung when somebody leaves |
//! | `caches` | who may use a mutator's span caches (K1 and K2) |
//! | `records` | what a signal handler reads about freed arenas, while it is written and recycled |
//! | `spans` | which of several sweepers gets a span, and what is visible when the backlog is clear |
//! | `arenas` | user arenas: what a new value looks like to a marker, and freeing against everybody else |
//! | `checker` | stand-ins for what those files use |
//!
//! # Why one may trust it
//! Each test has *mutants*: the same code with one ordering weakened, one lock left out, or one condition
//! dropped. The test must fail on each of them, so it is able to.
//!
//! # What it cannot show
//! The checker knows nothing of processors or of the system: the process-wide barrier is a full fence on both
//! sides here, and the futex is a lock and a condition. It lets `SeqCst` accesses be weaker than they are
//! and explores no value that a thread could only guess. And the programs are small.
//!
//! Nothing of this runs under Miri, which could not finish it.
//!
//! # Safety
//! Stand-ins hand out what the checker watches, so a use that is not allowed ends the test.
#![allow(unsafe_code)]
#![cfg(not(miri))]

mod alarms;
mod arenas;
mod buffers;
mod caches;
mod checker;
mod crew;
mod handshake;
mod locks;
mod queue;
mod records;
mod ring;
mod roots;
mod spans;
mod upgrades;

use spanheap_core::addr;

/// A module with the text of a file of the core, or of a mutant.
macro_rules! code {
    ($($name:ident)*) => { $(
        // Only what the tests use is used; lints look at the files where they are.
        #[allow(unused, clippy::all)]
        pub(crate) mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    )* };
}
use code;

/// A test that a program fails on a mutant, with a message that contains `$expected`.
macro_rules! mutant {
    ($(#[$doc:meta])* $name:ident, $expected:expr, $program:expr) => {
        $(#[$doc])*
        #[test]
        fn $name() {
            let name = concat!(module_path!(), "::", stringify!($name));
            crate::checker::must_fail(name, $expected, || $program);
        }
    };
}
use mutant;

/// The locks and atomics of the core, as the checker has them.
mod sync {
    pub(crate) use crate::checker::{Condition, Guard, Lock};
    pub(crate) use alarm::Alarm;
    pub(crate) use rank::Rank;
    pub(crate) mod atomic {
        pub(crate) use loom::sync::atomic::Ordering;
        pub(crate) use loom::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8};
        pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, fence};
    }
    crate::code! { alarm rank }
}

/// The collector's files, and their mutants.
mod collect {
    crate::code! { phase gap control }
    crate::code! { buffer buffer_push_relaxed buffer_steal_relaxed buffer_still_taken }
    crate::code! { grey grey_settled_unlocked grey_emptied_unlocked grey_appended_late }
    crate::code! { grey_appended_twice grey_entries_ignored grey_taken_in_late }
    crate::code! { roots roots_trimmed_early }
    crate::code! { page_ring ring_push_relaxed ring_steal_relaxed ring_tail_first }
    crate::code! { ring_advance_unchecked ring_overfull ring_read_late }
    crate::code! { crew crew_busy_ignored crew_queue_ignored crew_joined_late crew_helped_late }
    crate::code! { crew_told_late crew_left_silently crew_stopped_late }
    pub(crate) mod page_queue {
        pub(crate) use crate::checker::PageQueue;
    }
    crate::code! { registry registry_leave_relaxed registry_enter_relaxed registry_look_relaxed }
    crate::code! { registry_note_relaxed registry_inside_ignored registry_inside_relaxed }
    crate::code! { registry_caches_unlocked registry_no_fence }
}

mod heap {
    pub(crate) use crate::checker::Central;
    crate::code! { outside }
    pub(crate) mod cache {
        pub(crate) use crate::checker::{SpanCache, Tint};
    }
    pub(crate) mod verify {
        pub(crate) use spanheap_core::heap::verify::Verified;
    }
}

mod os {
    pub(crate) use crate::checker::{Category, Os};
    pub(crate) mod barrier {
        pub(crate) use crate::checker::ProcessBarrier;
    }
    pub(crate) mod thread {
        pub(crate) use crate::checker::current_id;
    }
    /// No time passes.
    pub(crate) mod clock {
        use std::time::Duration;

        pub(crate) fn thread_cpu_time() -> Duration {
            Duration::ZERO
        }

        pub(crate) fn cpu_time_of(_: i32) -> Option<Duration> {
            None
        }
    }
}

mod offheap {
    pub(crate) use crate::checker::Persistent;
}

mod span {
    pub(crate) use spanheap_core::span::Generation;
}
