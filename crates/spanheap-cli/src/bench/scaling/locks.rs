//! What the heap's locks have been used for: counts from [`spanheap_core::sync::profile`].

use spanheap_core::sync::Rank;
use spanheap_core::sync::profile::{clock_cost, lock_uses};

use super::{Copies, Lock};
use crate::failure::Result;

/// Every lock of the process so far.
pub(super) fn locks() -> Result<Vec<Lock>> {
    let clock = clock_cost().as_nanos() as f64;
    let lock = |used: spanheap_core::sync::profile::LockUse| Lock {
        name: format!("{:?}", used.rank),
        copies: copies(used.rank),
        taken: used.taken as f64,
        contended: used.contended as f64,
        // Of the two readings around a holding, half of each falls into it.
        held: (used.held.as_nanos() as f64 - used.taken as f64 * clock / 2.0).max(0.0),
        clock: used.taken as f64 * clock,
    };
    Ok(lock_uses().map(lock).into())
}

/// How many locks of a rank a heap has.
fn copies(rank: Rank) -> Copies {
    match rank {
        // A thread's own, which the collector takes once or twice in a cycle.
        Rank::MutatorCache | Rank::BarrierBuffer => Copies::Own,
        // One for each span, arena or queue of the program's.
        Rank::Specials | Rank::UserArena | Rank::Revived => Copies::Own,
        // For each class of spans there are as many on a machine with 16 processors and more. (There are many
        // classes, too, but a program may have a favourite.)
        Rank::RootShard | Rank::SpanSet => Copies::Shards(16),
        _ => Copies::One,
    }
}
