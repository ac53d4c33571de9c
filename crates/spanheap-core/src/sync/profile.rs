//! How often each lock is taken, how long it is held, and how long threads wait for it: by rank, for the whole
//! process. Feature `lock-profile`; without it there is nothing here but empty types.
//!
//! It is what the study of scaling needs: where a second thread waits a little, a hundredth will wait a lot. The times
//! include the reading of the clock, twice for a holding (some tens of nanoseconds), which a reader may
//! subtract: [`clock_cost`]. A lock that is given up for a [`Condition`](super::Condition) and taken again counts
//! as two holdings; the time asleep is in neither.
//!
//! A holding of more than a tenth of a millisecond counts as that: nothing here takes so long, but for its thread
//! having lost its processor.
//!
//! The counts are relaxed additions to words of the rank's own; a snapshot while threads run is approximate.

use super::Rank;
use super::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What a longer holding counts as.
const LONGEST: Duration = Duration::from_micros(100);

/// Every rank, lowest first.
pub const RANKS: [Rank; COUNT] = [
    Rank::Undertaker,
    Rank::Settings,
    Rank::Control,
    Rank::Mutators,
    Rank::MutatorCache,
    Rank::BarrierBuffer,
    Rank::GreyQueue,
    Rank::RootShard,
    Rank::RevivalQueues,
    Rank::Revived,
    Rank::MarkQueue,
    Rank::Classes,
    Rank::SpanSet,
    Rank::DropQueue,
    Rank::Specials,
    Rank::SpecialRecords,
    Rank::Waiting,
    Rank::UserArena,
    Rank::UserArenas,
    Rank::Sites,
    Rank::PageHeap,
    Rank::OffHeap,
    Rank::Mappings,
    Rank::Simulation,
    Rank::Statistics,
    Rank::Alarm,
];

const COUNT: usize = Rank::Alarm as usize + 1;

/// What is known about the locks of one rank.
#[derive(Clone, Copy, Debug)]
pub struct LockUse {
    /// Whose.
    pub rank: Rank,
    /// How often one was taken.
    pub taken: u64,
    /// How often whoever wanted it found it held; those who went away included.
    pub contended: u64,
    /// The time that they were held, added up over all holdings.
    pub held: Duration,
    /// The time that threads waited for them.
    pub waited: Duration,
}

/// The counters of a rank, in a cache line of their own.
#[repr(align(64))]
struct Counts {
    taken: AtomicU64,
    contended: AtomicU64,
    held: AtomicU64,
    waited: AtomicU64,
}

impl Counts {
    const fn new() -> Counts {
        Counts {
            taken: AtomicU64::new(0),
            contended: AtomicU64::new(0),
            held: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        }
    }
}

static COUNTS: [Counts; COUNT] = [const { Counts::new() }; COUNT];

/// What the locks of each rank have been used for since the process began.
pub fn lock_uses() -> [LockUse; COUNT] {
    RANKS.map(|rank| {
        let counts = &COUNTS[rank as usize];
        LockUse {
            rank,
            taken: counts.taken.load(Relaxed),
            contended: counts.contended.load(Relaxed),
            held: Duration::from_nanos(counts.held.load(Relaxed)),
            waited: Duration::from_nanos(counts.waited.load(Relaxed)),
        }
    })
}

/// What two readings of the clock cost, at least: it is in the time of each holding.
pub fn clock_cost() -> Duration {
    let cost = |_| {
        let begun = Instant::now();
        let _ = Instant::now();
        begun.elapsed()
    };
    (0..1000).map(cost).min().unwrap_or_default()
}

/// A holding that is being timed.
pub(super) struct Holding {
    rank: Rank,
    since: Instant,
}

impl Holding {
    /// Takes a lock by `lock`, which says whether it had to wait.
    pub(super) fn begin(rank: Rank, lock: impl FnOnce() -> bool) -> Holding {
        let begun = Instant::now();
        let has_waited = lock();
        let since = Instant::now();
        let counts = &COUNTS[rank as usize];
        counts.taken.fetch_add(1, Relaxed);
        if has_waited {
            counts.contended.fetch_add(1, Relaxed);
            counts.waited.fetch_add(nanoseconds(since - begun), Relaxed);
        }
        Holding { rank, since }
    }

    /// Takes a lock if `lock` can; if not, that counts as contention.
    pub(super) fn attempt(rank: Rank, lock: impl FnOnce() -> bool) -> Option<Holding> {
        if lock() {
            return Some(Holding::begin(rank, || false));
        }
        COUNTS[rank as usize].contended.fetch_add(1, Relaxed);
        None
    }

    /// The lock is given up and taken again by `sleep`.
    pub(super) fn interrupt(&mut self, sleep: impl FnOnce()) {
        self.end();
        sleep();
        self.since = Instant::now();
        COUNTS[self.rank as usize].taken.fetch_add(1, Relaxed);
    }

    fn end(&self) {
        let held = self.since.elapsed().min(LONGEST);
        COUNTS[self.rank as usize].held.fetch_add(nanoseconds(held), Relaxed);
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.end();
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{Condition, Lock};
    use super::*;

    #[test]
    fn every_rank_is_at_its_place() {
        for (index, rank) in RANKS.into_iter().enumerate() {
            assert_eq!(rank as usize, index, "{rank:?}");
        }
    }

    /// The rank that no other test of this process takes.
    const RANK: Rank = Rank::Waiting;

    fn uses() -> LockUse {
        lock_uses()[RANK as usize]
    }

    #[test]
    fn holdings_and_waits_are_counted() {
        let lock = Lock::new(RANK, 0);
        let before = uses();
        let held = lock.lock();
        std::thread::scope(|scope| {
            scope.spawn(|| *lock.lock() += 1);
            while !held.is_awaited() {
                std::thread::yield_now();
            }
            drop(held);
        });
        *lock.try_lock().expect("free") += 1;
        let guard = Condition::new().wait(lock.lock(), Some(Duration::from_millis(1)));
        assert_eq!(*guard, 2);
        drop(guard);
        let after = uses();
        // Here, in the thread, tried, and twice around the wait.
        assert!(after.taken >= before.taken + 5, "{before:?}, {after:?}");
        assert!(after.contended > before.contended && after.waited > before.waited);
        assert!(after.held > before.held);
    }
}
