//! What the operating system refused: the operation, the size, and the reason it gave.
//!
//! The error is `Copy` and prints without allocating, because it is made, carried and reported
//! exactly when there is no memory.

use core::fmt;

use crate::addr::Bytes;

/// The operations of [`Os`](super::Os) that the operating system can refuse.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Operation {
    /// None to Reserved.
    Reserve,
    /// Reserved to Prepared.
    Map,
    /// Prepared to Ready.
    Used,
    /// Back to Reserved.
    Fault,
    /// Guarded to Prepared, or shut to Ready.
    Unguard,
    /// Any state to None.
    Release,
    /// None to Ready.
    Alloc,
}

impl Operation {
    /// What was attempted, as the middle of a sentence.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Reserve => "reserve",
            Operation::Map => "map",
            Operation::Used => "make ready",
            Operation::Fault => "make inaccessible",
            Operation::Unguard => "unguard",
            Operation::Release => "release",
            Operation::Alloc => "allocate",
        }
    }
}

/// A refusal of the operating system. When an operation returns one, nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OsError {
    op: Operation,
    bytes: Bytes,
    errno: i32,
}

impl OsError {
    /// A refusal of `op` on `bytes` bytes for the reason `errno`.
    pub const fn new(op: Operation, bytes: Bytes, errno: i32) -> OsError {
        OsError { op, bytes, errno }
    }

    /// What was attempted.
    pub const fn op(self) -> Operation {
        self.op
    }

    /// On how many bytes.
    pub const fn bytes(self) -> Bytes {
        self.bytes
    }

    /// The system's error number (`errno`).
    pub const fn errno(self) -> i32 {
        self.errno
    }

    /// Whether memory, address space or a limit on them ran out; giving some back may help.
    pub const fn is_exhaustion(self) -> bool {
        matches!(self.errno, libc::ENOMEM | libc::EAGAIN)
    }
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.errno {
            libc::ENOMEM => "no memory or address space left, or too many mappings",
            libc::EAGAIN => "the limit of locked memory is reached",
            libc::EACCES | libc::EPERM => "not permitted",
            libc::EINVAL => "the arguments were refused",
            _ => "unexpected error",
        };
        let (op, bytes, errno) = (self.op.name(), self.bytes, self.errno);
        write!(f, "the operating system did not {op} {bytes}: {reason} (errno {errno})")
    }
}

impl core::error::Error for OsError {}

/// The calling thread's `errno`, for use right after a call that failed.
pub(super) fn last_errno() -> i32 {
    // An error that comes from the system always has a number, and carries it without allocating.
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_how_much_and_why() {
        let error = OsError::new(Operation::Map, Bytes::new(64 << 20), libc::ENOMEM);
        let text = error.to_string();
        assert!(text.contains("map 64 MiB") && text.contains("errno 12"), "{text}");
        assert!(error.is_exhaustion());
        assert!(!OsError::new(Operation::Map, Bytes::new(1), libc::EINVAL).is_exhaustion());
    }
}
