//! The goal: how large the heap may be when the next cycle ends.
//!
//! ```text
//!   by percent = marked + (marked + roots) * percent / 100,  at least 4 MiB * percent / 100
//!   by limit   = limit - everything else - a margin,         at least marked
//!   goal       = the smaller of the two
//! ```
//!
//! The percent counts what has to be scanned besides the heap (roots, and stacks and globals where an
//! embedder has any) because a cycle costs that, too.
//!
//! **Everything else** is memory that is ready and is neither free pages nor objects: tables and
//! records, and what spans waste. What is ready beyond the limit already is taken off once more, so that the heap
//! gives it back. The margin is 3 % of what is left, a mebibyte at least: the heap grows by spans, and what is not an object
//! grows with it. A limit that leaves nothing gives the heap that is there: the goal is reached at once,
//! and what keeps the collector from taking all the time is [`crate::collect::limiter`].
//!
//! **Never behind.** A goal by percent is moved up to where the heap stands, for two reasons: before
//! the next cycle all of the heap has to be swept, and an allocation must have room to sweep in
//! ([`sweep_line`]); and the goal of a running cycle is beyond the point where it was triggered, whatever
//! has become of the percent meanwhile. A goal by limit is not moved.
//!
//! All sums saturate: any numbers may come in.

use crate::addr::Bytes;

/// The smallest goal at 100 percent.
pub const SMALLEST_GOAL: Bytes = Bytes::new(4 << 20);

/// How far the heap may grow while a sweep goes on, before the next cycle.
const SWEEP_ROOM: Bytes = Bytes::new(1 << 20);

/// The goal of a running cycle is at least that far behind its trigger.
const LEAST_RUNWAY: Bytes = Bytes::new(64 << 10);

/// The margin below a limit is no smaller than this.
const LEAST_MARGIN: Bytes = Bytes::new(1 << 20);

/// No goal.
pub const NEVER: Bytes = Bytes::new(usize::MAX);

/// What the memory of a heap is used for, as far as a limit is concerned. The figures may have been read one
/// after the other.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct MemoryUse {
    /// Bytes that are ready, of all kinds.
    pub ready: Bytes,
    /// Bytes of these that are free pages.
    pub free: Bytes,
    /// Bytes of objects, dead ones that have not been swept included. Who asks once in a cycle, rather than at each
    /// allocation as Go does, counts the free slots beside them, too: they will be used until the goal is reached.
    pub objects: Bytes,
}

/// The share of `bytes` that `percent` is.
fn share(bytes: Bytes, percent: u32) -> Bytes {
    let share = bytes.get() as u128 * u128::from(percent) / 100;
    Bytes::new(usize::try_from(share).unwrap_or(usize::MAX))
}

/// The smallest goal by percent.
pub fn smallest(percent: u32) -> Bytes {
    share(SMALLEST_GOAL, percent)
}

/// The goal by percent, where a cycle has marked `marked` bytes and scanned `roots` besides; [`NEVER`]
/// without a percent.
pub fn by_percent(percent: Option<u32>, marked: Bytes, roots: Bytes) -> Bytes {
    let Some(percent) = percent else { return NEVER };
    let growth = share(marked.saturating_add(roots), percent);
    marked.saturating_add(growth).max(smallest(percent))
}

/// The goal by limit, where a cycle has marked `marked` bytes.
pub fn by_limit(limit: Bytes, memory: MemoryUse, marked: Bytes) -> Bytes {
    let other = memory.ready.saturating_sub(memory.free).saturating_sub(memory.objects);
    let overage = memory.ready.saturating_sub(limit);
    let left = limit.saturating_sub(other).saturating_sub(overage);
    if left == Bytes::ZERO {
        return marked;
    }
    let margin = Bytes::new(left.get() / 100 * 3).max(LEAST_MARGIN);
    left.saturating_sub(margin).max(margin).max(marked)
}

/// Below this the heap must not set off a cycle, if it stands at `live` and the sweep has only begun.
pub fn sweep_line(live: Bytes) -> Bytes {
    live.saturating_add(SWEEP_ROOM)
}

/// What a goal follows from.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The goal by percent.
    pub by_percent: Bytes,
    /// The goal by limit; [`NEVER`] without one.
    pub by_limit: Bytes,
    /// See [`sweep_line`]; nothing when all is swept.
    pub sweep_line: Bytes,
    /// Where the running cycle was triggered.
    pub triggered: Option<Bytes>,
}

/// The goal of a cycle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Goal {
    /// The size at which the cycle should end.
    pub size: Bytes,
    /// It should not begin below this size.
    pub not_before: Bytes,
}

impl Bounds {
    /// The goal within these bounds.
    pub fn goal(&self) -> Goal {
        if self.by_limit < self.by_percent {
            return Goal { size: self.by_limit, not_before: Bytes::ZERO };
        }
        let running = self.triggered.map_or(Bytes::ZERO, |at| at.saturating_add(LEAST_RUNWAY));
        let size = self.by_percent.max(self.sweep_line).max(running);
        Goal { size, not_before: self.sweep_line }
    }
}
