//! The barrier buffer of a mutator: raw pointers on their way to the collector.
//!
//! The barrier appends and never marks. Marking at once, and buffering only what was not marked yet,
//! would let a termination round look clean while the winner's buffer is still full (see the protocol's
//! model). Appending is a store and a store: the owner alone writes entries and the length.
//!
//! The collector may **steal**: it reads the entries behind those that it has read before, and leaves
//! them where they are. Only the owner empties the buffer, so owner and thief never write the same
//! word; the lock is there for the moment in which they could disagree about what has been read, and
//! is uncontended otherwise.
//!
//! # Invariants
//! - B1. Entries below `len` are written before `len` says so (release, acquired by the thief).
//! - B2. `taken <= len`; both change only under the lock, but for the owner's appending to `len`.

use crate::addr::Addr;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Lock, Rank};

/// Entries that a buffer holds.
pub const CAPACITY: usize = 256;

/// A mutator's barrier buffer.
pub struct BarrierBuffer {
    len: AtomicUsize,
    /// How many entries have been stolen.
    taken: Lock<usize>,
    entries: [AtomicUsize; CAPACITY],
}

impl BarrierBuffer {
    /// An empty buffer.
    pub const fn new() -> BarrierBuffer {
        BarrierBuffer {
            len: AtomicUsize::new(0),
            taken: Lock::new(Rank::BarrierBuffer, 0),
            entries: [const { AtomicUsize::new(0) }; CAPACITY],
        }
    }

    /// Appends a pointer. True when the buffer is full now and has to be flushed. Owner only.
    #[inline]
    pub fn push(&self, target: Addr) -> bool {
        let len = self.len.load(Ordering::Relaxed);
        self.entries[len].store(target.get(), Ordering::Relaxed);
        self.len.store(len + 1, Ordering::Release);
        len + 1 == CAPACITY
    }

    /// Whether nothing is buffered. Owner only.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }

    /// Empties the buffer, and gives what has not been stolen to `take`. Owner only.
    pub fn flush(&self, take: impl FnMut(Addr)) {
        let mut taken = self.taken.lock();
        let len = self.len.load(Ordering::Relaxed);
        self.give(*taken, len, take);
        self.len.store(0, Ordering::Relaxed);
        *taken = 0;
    }

    /// Empties the buffer, and nobody gets what was in it. Owner only, where there is no collector any more: the
    /// lock is not taken.
    pub fn discard(&self) {
        self.len.store(0, Ordering::Relaxed);
    }

    /// Gives what is in the buffer, and was not stolen before, to `take`. For the collector.
    pub fn steal(&self, take: impl FnMut(Addr)) {
        let mut taken = self.taken.lock();
        let len = self.len.load(Ordering::Acquire);
        self.give(*taken, len, take);
        *taken = len;
    }

    fn give(&self, from: usize, to: usize, mut take: impl FnMut(Addr)) {
        for entry in &self.entries[from..to] {
            take(Addr::new(entry.load(Ordering::Relaxed)));
        }
    }
}

impl Default for BarrierBuffer {
    fn default() -> BarrierBuffer {
        BarrierBuffer::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn every_entry_is_given_once_whoever_takes_it() {
        let buffer = BarrierBuffer::new();
        let (mut model, mut seen) = (VecDeque::new(), VecDeque::new());
        let mut random = 0x1234_5678_u64;
        for next in 1..100_000usize {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            model.push_back(next);
            let full = buffer.push(Addr::new(next));
            match random >> 59 {
                0..=2 => buffer.steal(|a| seen.push_back(a.get())),
                3 => buffer.flush(|a| seen.push_back(a.get())),
                _ if full => buffer.flush(|a| seen.push_back(a.get())),
                _ => {}
            }
        }
        buffer.flush(|a| seen.push_back(a.get()));
        assert!(buffer.is_empty());
        assert_eq!(seen, model);
    }

    #[test]
    fn a_thief_on_another_thread_loses_and_doubles_nothing() {
        let buffer = BarrierBuffer::new();
        let done = crate::sync::atomic::AtomicBool::new(false);
        const N: usize = 200_000;
        let (mut mine, theirs) = std::thread::scope(|scope| {
            let thief = scope.spawn(|| {
                let mut got = Vec::new();
                while !done.load(Ordering::Acquire) {
                    buffer.steal(|a| got.push(a.get()));
                }
                got
            });
            let mut got = Vec::new();
            for next in 1..=N {
                if buffer.push(Addr::new(next)) {
                    buffer.flush(|a| got.push(a.get()));
                }
            }
            buffer.flush(|a| got.push(a.get()));
            done.store(true, Ordering::Release);
            (got, thief.join().unwrap())
        });
        mine.extend(theirs);
        mine.sort_unstable();
        assert_eq!(mine, (1..=N).collect::<Vec<_>>());
    }
}
