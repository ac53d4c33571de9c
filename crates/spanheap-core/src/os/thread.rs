//! Threads as the system knows them: a number that outlives thread-locals, and a name that others can read; and how
//! many processors there are for them.
//!
//! The standard library answers the last question anew each time, from half a dozen files of the control groups, and
//! that is a good part of what making a heap costs. So an answer is good for a second ([`processors`]): a program
//! that makes one heap after the other asks once, and one that has been given other processors is not wrong for long.
//!
//! # Safety
//! One system call without arguments.
#![allow(unsafe_code)]

use super::clock::monotonic_nanos;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The system's number for the calling thread.
pub fn current_id() -> i32 {
    // SAFETY: the call takes nothing, writes nothing and does not fail.
    let id = unsafe { libc::syscall(libc::SYS_gettid) };
    i32::try_from(id).unwrap_or(0)
}

/// The name of a thread of this process, as far as the system keeps it: the first 15 bytes. `None` when there
/// is no such thread any more, or the system does not say.
pub fn name_of(id: i32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/self/task/{id}/comm")).ok()?;
    Some(name.trim_end_matches('\n').to_owned())
}

/// The last answer of the system, in the low [`COUNT_BITS`] bits, and the second in which it was given above them.
/// Zero: it was never asked.
static PROCESSORS: AtomicU64 = AtomicU64::new(0);

/// Enough for as many processors as any system has.
const COUNT_BITS: u32 = 24;

/// How many processors there are for the threads of this process, at least one; as it was no more than a second ago.
pub fn processors() -> usize {
    let ask = || std::thread::available_parallelism().map_or(1, usize::from);
    remembered(&PROCESSORS, monotonic_nanos() / 1_000_000_000, ask)
}

/// What `ask` says, or has said within this `second`, as far as `memory` knows.
fn remembered(memory: &AtomicU64, second: u64, ask: impl FnOnce() -> usize) -> usize {
    let known = memory.load(Ordering::Relaxed);
    let count = known & ((1 << COUNT_BITS) - 1);
    if count != 0 && known >> COUNT_BITS == second {
        return count as usize;
    }
    let count = ask().clamp(1, (1 << COUNT_BITS) - 1);
    // One word, so whoever reads it has a count and its own second. Of several who ask at once any may win.
    memory.store(second << COUNT_BITS | count as u64, Ordering::Relaxed);
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_processors_is_asked_for_once_in_a_second() {
        let memory = AtomicU64::new(0);
        assert_eq!(remembered(&memory, 0, || 3), 3);
        assert_eq!(remembered(&memory, 0, || panic!("it is known")), 3);
        assert_eq!(remembered(&memory, 1, || 5), 5);
        assert_eq!(remembered(&memory, 1, || panic!("it is known")), 5);
        // A clock that does not go on, or goes back, is no reason to believe an old answer.
        assert_eq!(remembered(&memory, 0, || 2), 2);
        assert_eq!(remembered(&memory, 9, || 0), 1, "somebody is running this");
        assert_eq!(remembered(&memory, 10, || usize::MAX), (1 << COUNT_BITS) - 1);
        assert_eq!(
            Ok(processors()),
            std::thread::available_parallelism().map(usize::from).map_err(drop)
        );
    }

    #[test]
    fn a_thread_is_known_by_number_and_name() {
        let named = std::thread::Builder::new().name("somebody".into());
        let seen = named.spawn(|| (current_id(), name_of(current_id()))).unwrap().join().unwrap();
        assert_ne!(seen.0, current_id());
        assert_eq!(seen.1.as_deref(), Some("somebody"));
        assert_eq!(name_of(i32::MAX), None);
    }
}
