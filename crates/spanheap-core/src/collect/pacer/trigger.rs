//! The trigger: how large the heap is when a cycle has to begin so as to end at the goal.
//!
//! ```text
//!   runway  = what the program allocates while the background alone does all the work of a cycle
//!   trigger = goal - runway, but between two bounds:
//!
//!   marked                    earliest                    latest       goal
//!     |---------------------------|--------------------------|----------|
//!                               45/64                      61/64
//! ```
//!
//! **Earliest**: a program that allocates faster than that would have cycles without end; beyond it those
//! who allocate have to help. As long as nobody makes them, [`super::Tuning`] lets a cycle begin
//! much earlier. **Latest**: some way is always left for surprises, but no more than 4 MiB of a large heap, or one
//! that allocates slowly would be collected too often.
//!
//! A heap that has not been swept does not trigger before there was room to sweep it (`not_before`).

use super::goal::{Goal, SMALLEST_GOAL};
use crate::addr::Bytes;

/// The way from what is marked to the goal is cut into so many parts.
pub const PARTS: usize = 64;

/// The latest trigger, in such parts.
const LATEST: usize = 61;

/// What the program allocates while the background, with the share `background` of the processors,
/// does so much work: `ratio` bytes are allocated for each byte of work in the same processor time.
pub fn runway(ratio: f64, background: f64, work: Bytes) -> Bytes {
    let runway = ratio * (1.0 - background) / background * work.get() as f64;
    // Saturates, and what is not a number is nothing.
    Bytes::new(runway as usize)
}

/// The trigger for `goal`, at least `earliest` of [`PARTS`] of the way to it.
pub fn trigger(goal: Goal, marked: Bytes, runway: Bytes, earliest: usize) -> Bytes {
    debug_assert!(earliest <= LATEST);
    let Goal { size, not_before } = goal;
    if marked >= size {
        return size;
    }
    let part = (size.get() - marked.get()) / PARTS;
    let at = |parts: usize| Bytes::new(marked.get() + part * parts);
    let first = not_before.max(marked).max(at(earliest)).min(size);
    let last = at(LATEST).max(size.saturating_sub(SMALLEST_GOAL)).max(first);
    match runway > size {
        true => first,
        false => (size - runway).clamp(first, last),
    }
}
