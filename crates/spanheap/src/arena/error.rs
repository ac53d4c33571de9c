//! [`ArenaError`]: why an arena has refused something.

use core::fmt;
use spanheap_core::heap::OutOfMemory;

/// An arena has no room for a value. Nothing has changed; the arena can be used on, for something smaller, or after
/// a [reset](crate::Arena::reset).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ArenaError {
    /// The size of the value, or of the slice, overflows.
    TooLarge,
    /// The pages that are needed would exceed the limit of the arena.
    Limit {
        /// Bytes of pages that would have been needed.
        requested: usize,
        /// Bytes of pages that the arena has.
        reserved: usize,
        /// Bytes of pages that it may have.
        limit: usize,
        /// What the arena is called.
        arena: &'static str,
    },
    /// The heap gives no more pages: its hard limit does not allow them, or the system has none.
    Heap(OutOfMemory),
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArenaError::TooLarge => {
                write!(f, "no room in an arena: the size of the value overflows")
            }
            ArenaError::Limit { requested, reserved, limit, arena } => write!(
                f,
                "no room in {arena}: need {requested} bytes more than {reserved}, and the limit is {limit}"
            ),
            ArenaError::Heap(error) => write!(f, "no room for an arena: {error}"),
        }
    }
}

impl std::error::Error for ArenaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ArenaError::Heap(error) => Some(error),
            _ => None,
        }
    }
}

impl From<OutOfMemory> for ArenaError {
    fn from(error: OutOfMemory) -> ArenaError {
        ArenaError::Heap(error)
    }
}
