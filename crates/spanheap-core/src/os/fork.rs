//! Whether this is still the process in which something was made.
//!
//! A forked child has a copy of its parent's memory and one thread, the one that forked. A heap in it has lost
//! its collector, and whatever lock another thread held at that moment stays locked for ever. So the child must
//! not come near the heap's locks, and has to know it without a lock and without a system call.
//!
//! The C library calls a function of ours in the child, before `fork` returns there. All that it does is to add
//! one to a counter, which is safe whatever the other threads were at. What was made in a process keeps the
//! count of that time, its [`Origin`]; a later count means: not here. Asking is one relaxed load.
//!
//! `vfork`, `posix_spawn` and `clone` do not call such functions; a child of theirs shares its parent's memory, or
//! goes on to another program at once, and neither comes here. (Whoever makes a child by a bare system call
//! and stays in this program is not recognised.)
//!
//! # Safety
//! One call of the C library, with a function that does nothing but count.
#![allow(unsafe_code)]

use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// How many forks lie between this process and the first one that watched for them.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Whether the function is installed.
static IS_WATCHING: AtomicBool = AtomicBool::new(false);

/// Called in each child.
extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The process in which something was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    forks: u32,
    process: u32,
}

impl Origin {
    /// This process. From here on, children are told apart from it.
    pub fn here() -> Origin {
        if !IS_WATCHING.swap(true, Ordering::Relaxed) {
            // SAFETY: the function takes and returns nothing and may run at any moment.
            let failed = unsafe { libc::pthread_atfork(None, None, Some(count_fork)) } != 0;
            if failed {
                // No memory. Whoever asks next tries again; until then a child is not recognised.
                IS_WATCHING.store(false, Ordering::Relaxed);
            }
        }
        Origin { forks: FORKS.load(Ordering::Relaxed), process: std::process::id() }
    }

    /// Whether this is that process, and no child of it.
    #[inline]
    pub fn is_here(self) -> bool {
        self.forks == FORKS.load(Ordering::Relaxed)
    }

    /// The number of that process.
    pub fn process(self) -> u32 {
        self.process
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_elsewhere() {
        let origin = Origin::here();
        assert!(origin.is_here());
        // SAFETY: the child does nothing but look and end.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let good = !origin.is_here() && Origin::here().is_here();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if good { 7 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child that was just made.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status}");
        assert!(origin.is_here());
        assert_eq!(origin.process(), std::process::id());
    }
}
