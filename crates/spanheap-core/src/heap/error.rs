//! What an allocation may be refused for.

use crate::addr::Bytes;
use core::fmt;

/// There is no room for an object. Nothing has changed; the program may let go of something, collect,
/// and try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct OutOfMemory {
    /// Size of the object that was asked for. A size that does not fit in an address is reported as
    /// `usize::MAX`.
    pub requested: Bytes,
    /// Bytes of objects that the heap holds: live ones and those not collected yet.
    pub live: Bytes,
    /// The limit that would have been exceeded; `None` when the operating system refused.
    pub limit: Option<Bytes>,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requested.get() == usize::MAX {
            return write!(f, "out of memory: the size of the object overflows");
        }
        write!(f, "out of memory: need {}, live {}", self.requested, self.live)?;
        match self.limit {
            Some(limit) => write!(f, " of limit {limit}"),
            None => write!(f, ", and the system gives no more"),
        }
    }
}

impl std::error::Error for OutOfMemory {}
