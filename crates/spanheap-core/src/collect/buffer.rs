//! The barrier buffer of a mutator: raw pointers on their way to the collector.
//!
//! The barrier appends and never marks. Marking at once, and buffering only what was not marked yet,
//! would let a termination round look clean while the winner's buffer is still full (see the protocol's
//! model). Marks are looked at and set when the buffer is handed over, in one step with the queue that takes it
//! ([`super::grey`]). Appending is a store and a store: the owner alone writes entries and the length.
//!
//! The collector may **steal**: it reads the entries behind those that it has read before, and leaves
//! them where they are. Only the owner empties the buffer, so owner and thief never write the same
//! word; the lock is there for the moment in which they could disagree about what has been read, and
//! is uncontended otherwise. The thief only *copies* under it, and does whatever he does with the entries afterwards:
//! the owner must not wait until a thief has marked 256 objects, or has got the processor back that he marks on. The
//! owner copies nothing: under the lock he says that the buffer is empty, and then uses what is in it where it is.
//!
//! # Invariants
//! - B1. Entries below `len` are written before `len` says so (release, acquired by the thief).
//! - B2. `taken <= len < CAPACITY`, unless the owner is about to flush; both change only under the lock, but for the owner's appending to `len`.
//! - B3. Nobody but the owner looks at entries from `len` on.

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
        // B2: it is less. Whoever has filled the buffer flushes it.
        self.entries[len % CAPACITY].store(target.get(), Ordering::Relaxed);
        self.len.store(len + 1, Ordering::Release);
        len + 1 == CAPACITY
    }

    /// How many entries there are. Owner only.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Writes behind the end, where nobody looks yet (B3): `at` is not less than the length. Owner only.
    #[inline(always)]
    pub fn write_ahead(&self, at: usize, target: Addr) {
        debug_assert!((self.len()..CAPACITY).contains(&at), "B2");
        self.entries[at % CAPACITY].store(target.get(), Ordering::Relaxed);
    }

    /// Makes the first `len` entries count, which have been written (B1). Owner only.
    #[inline(always)]
    pub fn set_len(&self, len: usize) {
        debug_assert!((self.len()..=CAPACITY).contains(&len), "B2");
        self.len.store(len, Ordering::Release);
    }

    /// Whether nothing is buffered. Owner only.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }

    /// Empties the buffer, and gives what has not been stolen to `take`, all at once. Owner only.
    pub fn flush(&self, take: impl FnOnce(Entries<'_>)) {
        let mut taken = self.taken.lock();
        let len = self.len.load(Ordering::Relaxed);
        let from = core::mem::take(&mut *taken);
        self.len.store(0, Ordering::Relaxed);
        drop(taken);
        // B3: a thief finds nothing any more, and the owner is here.
        take(Entries(&self.entries[from..len]));
    }

    /// Empties the buffer, and nobody gets what was in it. Owner only, where there is no collector any more: the
    /// lock is not taken.
    pub fn discard(&self) {
        self.len.store(0, Ordering::Relaxed);
    }

    /// Copies what is in the buffer, and was not stolen before; how many entries that are. For the collector.
    pub fn steal(&self, into: &mut [Addr; CAPACITY]) -> usize {
        let mut taken = self.taken.lock();
        let len = self.len.load(Ordering::Acquire);
        let from = core::mem::replace(&mut *taken, len);
        for (place, target) in into.iter_mut().zip(Entries(&self.entries[from..len]).iter()) {
            *place = target;
        }
        len - from
    }
}

/// What is in a buffer that its owner is about to hand over.
pub struct Entries<'a>(&'a [AtomicUsize]);

impl Entries<'_> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order in which they were appended.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Addr> {
        self.0.iter().map(|entry| Addr::new(entry.load(Ordering::Relaxed)))
    }

    /// Forgets those that are not to be kept.
    #[inline]
    pub fn retain(&mut self, mut keep: impl FnMut(Addr) -> bool) {
        let mut kept = 0;
        for entry in self.0 {
            let target = entry.load(Ordering::Relaxed);
            // Stored in any case: which of them are kept is what no processor guesses.
            self.0[kept].store(target, Ordering::Relaxed);
            kept += usize::from(keep(Addr::new(target)));
        }
        self.0 = &self.0[..kept];
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
        let mut loot = [Addr::NULL; CAPACITY];
        for next in 1..100_000usize {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            model.push_back(next);
            let full = buffer.push(Addr::new(next));
            match random >> 59 {
                0..=2 => {
                    let count = buffer.steal(&mut loot);
                    seen.extend(loot[..count].iter().map(|a| a.get()));
                }
                3 => buffer.flush(|all| seen.extend(all.iter().map(|a| a.get()))),
                _ if full => buffer.flush(|all| seen.extend(all.iter().map(|a| a.get()))),
                _ => {}
            }
        }
        buffer.flush(|all| seen.extend(all.iter().map(|a| a.get())));
        assert!(buffer.is_empty());
        assert_eq!(seen, model);
    }

    #[test]
    fn entries_that_are_written_ahead_are_given_when_they_count() {
        let buffer = BarrierBuffer::new();
        let (mut seen, mut next) = (Vec::new(), 1usize);
        let mut random = 0x0dd_ba11_u64;
        let mut loot = [Addr::NULL; CAPACITY];
        for _ in 0..5_000 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (before, wanted) = (buffer.len(), (random >> 55) as usize);
            let len = (before + wanted).min(CAPACITY);
            for at in before..len {
                // Nobody sees these, nor what is written over.
                buffer.write_ahead(at, Addr::new(usize::MAX));
                buffer.write_ahead(at, Addr::new(next));
                next += 1;
            }
            if random >> 53 & 1 != 0 {
                let count = buffer.steal(&mut loot);
                seen.extend(loot[..count].iter().map(|a| a.get()));
                assert!(
                    seen.len() == next - 1 - (len - before),
                    "what does not count is not taken"
                );
            }
            buffer.set_len(len);
            if len == CAPACITY {
                buffer.flush(|all| seen.extend(all.iter().map(|a| a.get())));
            }
        }
        buffer.flush(|all| seen.extend(all.iter().map(|a| a.get())));
        assert!(seen.into_iter().eq(1..next));
    }

    #[test]
    fn a_thief_on_another_thread_loses_and_doubles_nothing() {
        let buffer = BarrierBuffer::new();
        let done = crate::sync::atomic::AtomicBool::new(false);
        const N: usize = 200_000;
        let (mut mine, theirs) = std::thread::scope(|scope| {
            let thief = scope.spawn(|| {
                let (mut got, mut loot) = (Vec::new(), [Addr::NULL; CAPACITY]);
                while !done.load(Ordering::Acquire) {
                    let count = buffer.steal(&mut loot);
                    got.extend(loot[..count].iter().map(|a| a.get()));
                }
                got
            });
            let mut got = Vec::new();
            for next in 1..=N {
                if buffer.push(Addr::new(next)) {
                    buffer.flush(|all| got.extend(all.iter().map(|a| a.get())));
                }
            }
            buffer.flush(|all| got.extend(all.iter().map(|a| a.get())));
            done.store(true, Ordering::Release);
            (got, thief.join().unwrap())
        });
        mine.extend(theirs);
        mine.sort_unstable();
        assert_eq!(mine, (1..=N).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_kept_stays_in_its_order() {
        let buffer = BarrierBuffer::new();
        (1..=CAPACITY).for_each(|n| assert_eq!(buffer.push(Addr::new(n)), n == CAPACITY));
        buffer.flush(|mut all| {
            all.retain(|target| target.get() % 3 == 0);
            assert!(all.iter().eq((3..=CAPACITY).step_by(3).map(Addr::new)));
            all.retain(|_| true);
            assert_eq!(all.iter().count(), CAPACITY / 3);
            all.retain(|_| false);
            assert!(all.is_empty());
        });
        assert!(buffer.is_empty());
    }

    #[test]
    fn nobody_who_looks_at_entries_holds_the_owner_up() {
        let buffer = BarrierBuffer::new();
        (1..=5).for_each(|n| assert!(!buffer.push(Addr::new(n))));
        let mut loot = [Addr::NULL; CAPACITY];
        assert_eq!(buffer.steal(&mut loot), 5);
        assert!(buffer.taken.try_lock().is_some());
        buffer.push(Addr::new(6));
        buffer.flush(|rest| {
            assert!(rest.iter().eq([Addr::new(6)]));
            assert!(buffer.is_empty() && buffer.taken.try_lock().is_some());
        });
    }
}
