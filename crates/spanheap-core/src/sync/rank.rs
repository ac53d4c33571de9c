//! The lock order: one table, checked while debug builds run.

/// Every lock of the crate, lowest first. A thread that holds a lock may take only locks further down
/// this list. A lock that is never held together with another still has its place here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Rank {
    /// Who buries freed user arenas: the collector's thread as long as it is awake.
    Undertaker,
    /// What a heap's plan follows from, while the plan is made.
    Settings,
    /// Who waits for the collector, and what for.
    Control,
    /// The list of attached mutators.
    Mutators,
    /// A mutator's span caches while it is outside, and at a change of phase.
    MutatorCache,
    /// A mutator's barrier buffer.
    BarrierBuffer,
    /// The collector's queue of raw pointers.
    GreyQueue,
    /// One shard of the root table.
    RootShard,
    /// The queues of revived objects of a heap.
    RevivalQueues,
    /// The objects in one of them.
    Revived,
    /// What the workers of a cycle share: the pages that wait to be scanned.
    MarkQueue,
    /// The table of classes of a heap.
    Classes,
    /// The span lists of one class.
    SpanSet,
    /// The queue of spans that hold dead values.
    DropQueue,
    /// The records that hang on the objects of one span.
    Specials,
    /// The pool of such records, and those of dead objects that wait for somebody.
    SpecialRecords,
    /// The ephemerons that wait for their keys while a cycle marks.
    Waiting,
    /// The chunks of one user arena.
    UserArena,
    /// The user arenas of a heap: all chunks, those that were freed, and their records.
    UserArenas,
    /// What a heap has in reserve for noting where arenas were freed and their values allocated.
    Sites,
    /// The page allocator and the list of arenas.
    PageHeap,
    /// The manager's own records.
    OffHeap,
    /// Which ranges the process has mappings for because they were made inaccessible.
    Mappings,
    /// The simulated operating system, which may be called under any lock above.
    Simulation,
    /// What is known of the last cycle, and of the heap's threads.
    Statistics,
    /// What wakes the collector; may be rung under any other lock.
    Alarm,
}

/// A lock held by this thread, for as long as the value lives.
#[cfg(debug_assertions)]
pub(super) struct Held(Rank);

#[cfg(debug_assertions)]
mod checked {
    use super::{Held, Rank};
    use std::cell::Cell;

    thread_local! {
        /// Bit r is set while the thread holds a lock of rank r. Ranks are totally ordered and no rank
        /// is taken twice, so a set is enough.
        static HELD: Cell<u32> = const { Cell::new(0) };
    }

    impl Held {
        #[track_caller]
        pub(in super::super) fn acquire(rank: Rank) -> Held {
            let bit = 1u32 << rank as u8;
            // A thread that is being torn down has no thread-locals left; it is not checked.
            let _ = HELD.try_with(|held| {
                let above = held.get() & !(bit - 1);
                assert!(above == 0, "lock order: {rank:?} taken while {} is held", names(above));
                held.set(held.get() | bit);
            });
            Held(rank)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            let _ = HELD.try_with(|held| held.set(held.get() & !(1 << self.0 as u8)));
        }
    }

    fn names(set: u32) -> String {
        format!("the set of ranks {set:#b}")
    }
}

/// Release builds keep no record.
#[cfg(not(debug_assertions))]
pub(super) struct Held;

#[cfg(not(debug_assertions))]
impl Held {
    #[inline(always)]
    pub(super) fn acquire(_: Rank) -> Held {
        Held
    }
}
