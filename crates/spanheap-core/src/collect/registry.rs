//! The attached mutators, as the collector sees them.
//!
//! A record has a **state counter**: even while the mutator is outside, odd while it is inside a closure;
//! each entry and each exit adds one. So "has left at least once since I looked" is one comparison, and
//! a grace period is: note the odd counters, wait until each has changed.
//!
//! # Who may use a mutator's span caches
//! - K1. The owner, while it is inside a closure, from the moment that it has brought the caches up to the
//!   phase word that it entered with.
//! - K2. Whoever holds the record's cache lock, if the caches were filled under an older phase word than
//!   the one published now, and the owner cannot be inside a closure that began before that. That is
//!   known (a) when the counter was even after the publication: an owner who enters now sees the new
//!   word, and takes the lock before it uses the caches; (b) after a grace period that began after the
//!   publication, whatever the counter says.
//!
//! # Ordering
//! An owner publishes "inside" and then reads the phase; the collector publishes the phase and then reads
//! the counters. Between the two stands, on both sides, the process barrier: light (free where the
//! kernel helps) in the mutator, heavy in the collector. So either the collector sees "inside", or
//! the mutator sees the new phase. Leaving is a release store, and so is entering again, which may be all
//! that the collector gets to see of it; the collector's reads acquire both.
//!
//! # Locking
//! [`Rank::Mutators`] for the list; [`Rank::MutatorCache`] in each record.
//!
//! # Safety
//! The caches of a record are used by one thread at a time, by K1 and K2.
#![allow(unsafe_code)]

use super::buffer::{BarrierBuffer, CAPACITY};
use super::phase::{Phase, PhaseWord};
use crate::addr::Addr;
use crate::heap::Central;
use crate::heap::cache::{SpanCache, Tint};
use crate::os::barrier::ProcessBarrier;
use crate::os::clock::{cpu_time_of, thread_cpu_time};
use crate::os::thread::current_id;
use crate::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Lock, Rank};
use std::sync::Arc;
use std::time::Duration;

/// What a heap knows of an attached mutator.
pub struct MutatorRecord {
    state: AtomicU64,
    /// The odd counter that is waited for to change, or 0. Under the lock of the list.
    awaited: AtomicU64,
    /// The counter as it was when the collector noted it. The collector's own.
    noted: AtomicU64,
    /// The phase word under which the caches have been filled. Written under the cache lock.
    word: AtomicU64,
    caches: Box<SpanCache>,
    cache_lock: Lock<()>,
    /// Pointers on their way to the collector.
    pub(crate) buffer: BarrierBuffer,
    /// Which shard of the root table the mutator uses.
    pub(crate) shard: usize,
    /// The system's number of the mutator's thread.
    thread: AtomicI32,
    /// The last gap in which the collector has waited for that thread, and the CPU time that the thread had used
    /// when it began to, in nanoseconds.
    gap: AtomicU64,
    worked: AtomicU64,
}

// SAFETY: the caches are the only part that is not `Sync`, and K1 and K2 say who uses them when.
unsafe impl Send for MutatorRecord {}
// SAFETY: as above.
unsafe impl Sync for MutatorRecord {}

/// How runs are coloured that are taken in a closure that entered with `word`.
pub fn tint(word: PhaseWord) -> Tint {
    Tint { black: word.phase() == Phase::Marking, generation: word.generation() }
}

impl MutatorRecord {
    fn new(shard: usize) -> MutatorRecord {
        MutatorRecord {
            state: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            noted: AtomicU64::new(0),
            word: AtomicU64::new(PhaseWord::NEVER.bits()),
            caches: SpanCache::new(),
            cache_lock: Lock::new(Rank::MutatorCache, ()),
            buffer: BarrierBuffer::new(),
            shard,
            thread: AtomicI32::new(0),
            gap: AtomicU64::new(0),
            worked: AtomicU64::new(0),
        }
    }

    /// The span caches; for whom K1 or K2 allows them.
    #[inline]
    pub fn caches(&self) -> &SpanCache {
        &self.caches
    }

    /// Publishes "inside". The caller reads the phase next, with the light barrier between.
    ///
    /// A release store, because the collector may see this counter and never the one of the exit before it;
    /// it concludes from either that the closure before is over, and uses what that has done.
    #[inline]
    pub fn publish_inside(&self) {
        let state = self.state.load(Ordering::Relaxed);
        debug_assert!(state % 2 == 0, "a mutator entered twice");
        self.state.store(state + 1, Ordering::Release);
    }

    /// Publishes "outside": everything that the closure did happens before whoever sees this.
    #[inline]
    pub fn publish_outside(&self) {
        let state = self.state.load(Ordering::Relaxed);
        debug_assert!(state % 2 == 1, "a mutator left twice");
        self.state.store(state + 1, Ordering::Release);
    }

    /// Whether the owner is inside.
    pub fn is_inside(&self) -> bool {
        self.state.load(Ordering::Acquire) % 2 == 1
    }

    /// Whether the owner has come or gone since his counter was noted. Decides who does something, and not whether it
    /// may be done.
    fn has_moved(&self) -> bool {
        self.state.load(Ordering::Relaxed) != self.noted.load(Ordering::Relaxed)
    }

    /// How much CPU time the owner, who calls this, has used since the collector began to wait for him in `gap`; zero
    /// if it has not.
    pub fn worked_in(&self, gap: u64) -> Duration {
        if self.gap.load(Ordering::Acquire) != gap {
            return Duration::ZERO;
        }
        let before = Duration::from_nanos(self.worked.load(Ordering::Relaxed));
        thread_cpu_time().saturating_sub(before)
    }

    /// The phase word under which the caches were filled.
    #[inline]
    pub fn word(&self) -> PhaseWord {
        PhaseWord::from_bits(self.word.load(Ordering::Relaxed))
    }

    /// Brings the caches up to `word`: everything that was taken under another word is given back.
    /// The owner calls this when it enters.
    #[cold]
    pub fn change_phase(&self, central: &Central, word: PhaseWord) {
        let _locked = self.cache_lock.lock();
        self.release_locked(central);
        self.caches.set_types_apart(central.switches().types_apart());
        self.word.store(word.bits(), Ordering::Relaxed);
    }

    /// Gives back what the caches hold; they stay those of the phase word under which they were filled. Whoever
    /// verifies the heap calls this when K2 allows it.
    fn release(&self, central: &Central) {
        let _locked = self.cache_lock.lock();
        self.release_locked(central);
    }

    /// Gives back what the caches hold, if they were filled before the generation of `word`. The
    /// collector calls this when K2 allows it.
    ///
    /// It takes the lock anew for each piece of them, and asks again whether it `may`: an owner who enters
    /// meanwhile waits for one piece, and does what is left himself.
    fn release_if_stale(&self, central: &Central, word: PhaseWord, may: impl Fn(&Self) -> bool) {
        let mut next = Some(0);
        while let Some(piece) = next {
            let _locked = self.cache_lock.lock();
            let filled = self.word();
            let is_stale = filled != PhaseWord::NEVER && filled.generation() != word.generation();
            if !is_stale || !may(self) {
                return;
            }
            next = self.caches.give_back_piece(central, tint(filled), piece);
            if next.is_none() {
                self.word.store(PhaseWord::NEVER.bits(), Ordering::Relaxed);
            }
        }
    }

    fn release_locked(&self, central: &Central) {
        let filled = self.word();
        if filled != PhaseWord::NEVER {
            self.caches.give_back_all(central, tint(filled));
        }
    }
}

struct List {
    attached: Vec<Arc<MutatorRecord>>,
    /// Records of mutators that have gone, for the next ones: threads come and go, memory does not.
    spare: Vec<Arc<MutatorRecord>>,
    closed: bool,
}

/// The mutators of a heap.
pub struct Registry {
    list: Lock<List>,
    attached_ever: AtomicUsize,
}

impl Registry {
    /// No mutators.
    pub const fn new() -> Registry {
        let list = List { attached: Vec::new(), spare: Vec::new(), closed: false };
        Registry { list: Lock::new(Rank::Mutators, list), attached_ever: AtomicUsize::new(0) }
    }

    /// A record for a new mutator; `None` when the heap is being dropped.
    pub fn attach(&self) -> Option<Arc<MutatorRecord>> {
        let mut list = self.list.lock();
        if list.closed {
            return None;
        }
        let shard = self.attached_ever.fetch_add(1, Ordering::Relaxed);
        let record = list.spare.pop().unwrap_or_else(|| Arc::new(MutatorRecord::new(shard)));
        record.thread.store(current_id(), Ordering::Relaxed);
        // Nobody has waited for this thread yet.
        record.gap.store(0, Ordering::Relaxed);
        list.attached.push(record.clone());
        Some(record)
    }

    /// Takes a mutator, which is outside, off the list, and gives its caches back.
    pub fn detach(&self, record: &Arc<MutatorRecord>, central: &Central) {
        let mut list = self.list.lock();
        if list.closed {
            return;
        }
        debug_assert!(!record.is_inside() && record.buffer.is_empty());
        record.change_phase(central, PhaseWord::NEVER);
        if let Some(at) = list.attached.iter().position(|other| Arc::ptr_eq(other, record)) {
            let record = list.attached.swap_remove(at);
            record.awaited.store(0, Ordering::Relaxed);
            list.spare.push(record);
        }
    }

    /// How many mutators are attached, and how many of them are inside a closure.
    pub fn counts(&self) -> (usize, usize) {
        let list = self.list.lock();
        (list.attached.len(), list.attached.iter().filter(|record| record.is_inside()).count())
    }

    /// How many mutators are inside a closure, and whether one of them is the calling thread's.
    pub fn inside(&self) -> (usize, bool) {
        let list = self.list.lock();
        let mut inside = list.attached.iter().filter(|record| record.is_inside()).peekable();
        // The system is asked for the thread's number only if somebody is inside.
        let own = inside.peek().map(|_| current_id());
        inside.fold((0, false), |(count, is_own), record| {
            (count + 1, is_own || Some(record.thread.load(Ordering::Relaxed)) == own)
        })
    }

    /// Begins a grace period: notes who is inside. Comes after the publication that it is about.
    pub fn begin_grace(&self, fence: &ProcessBarrier) {
        let list = self.list.lock();
        fence.heavy();
        for record in &list.attached {
            let state = record.state.load(Ordering::Acquire);
            let awaited = if state % 2 == 1 { state } else { 0 };
            record.awaited.store(awaited, Ordering::Relaxed);
        }
    }

    /// Notes how much CPU time those have used so far who are waited for, and have not been in this `gap` before. A
    /// thread that is passed over, because others come and go meanwhile, is not known to have worked.
    pub fn note_work(&self, gap: u64) {
        for index in 0.. {
            let Some(record) = self.list.lock().attached.get(index).cloned() else { return };
            let is_awaited = record.awaited.load(Ordering::Relaxed) != 0;
            if is_awaited && record.gap.load(Ordering::Relaxed) != gap {
                // Without the lock: it is a system call for each of them.
                let Some(worked) = cpu_time_of(record.thread.load(Ordering::Relaxed)) else {
                    continue;
                };
                record.worked.store(worked.as_nanos() as u64, Ordering::Relaxed);
                record.gap.store(gap, Ordering::Release);
            }
        }
    }

    /// Whether everybody who was inside when the grace period began has left since.
    pub fn is_grace_over(&self) -> bool {
        let list = self.list.lock();
        list.attached.iter().all(|record| {
            let awaited = record.awaited.load(Ordering::Relaxed);
            if awaited != 0 && record.state.load(Ordering::Acquire) != awaited {
                record.awaited.store(0, Ordering::Relaxed);
            }
            record.awaited.load(Ordering::Relaxed) == 0
        })
    }

    /// The threads that [`Registry::is_grace_over`] waits for, by the system's numbers.
    pub fn delaying(&self) -> Vec<i32> {
        let list = self.list.lock();
        let waits = |record: &&Arc<MutatorRecord>| {
            let awaited = record.awaited.load(Ordering::Relaxed);
            awaited != 0 && record.state.load(Ordering::Acquire) == awaited
        };
        let thread = |record: &Arc<MutatorRecord>| record.thread.load(Ordering::Relaxed);
        list.attached.iter().filter(waits).map(thread).collect()
    }

    /// Gives back all caches, and calls `look` while nobody can attach or detach. Nobody is inside, and nobody
    /// can get in: the gate is closed, and a grace period has passed since (K2b).
    pub fn while_nobody_comes_or_goes<R>(&self, central: &Central, look: impl FnOnce() -> R) -> R {
        let list = self.list.lock();
        list.attached.iter().for_each(|record| record.release(central));
        look()
    }

    /// Notes where everybody is.
    pub fn note_states(&self) {
        let list = self.list.lock();
        for record in &list.attached {
            record.noted.store(record.state.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Gives back the stale caches of mutators that are outside (K2a), and have been since
    /// [`Registry::note_states`]. Comes after the publication of `word`.
    ///
    /// Who has come or gone since then is about to enter again, and would do it himself; so he is not made to wait for
    /// the collector, which may lose its processor in the midst of his caches.
    pub fn release_outside(&self, central: &Central, word: PhaseWord, fence: &ProcessBarrier) {
        let list = self.list.lock();
        fence.heavy();
        for record in &list.attached {
            if !record.has_moved() {
                record.release_if_stale(central, word, |record| !record.is_inside());
            }
        }
    }

    /// Gives back all stale caches (K2b). Comes after a grace period that began when the generation of
    /// `word` had been published.
    pub fn release_stale(&self, central: &Central, word: PhaseWord) {
        for record in &self.list.lock().attached {
            record.release_if_stale(central, word, |_| true);
        }
    }

    /// Gives what the barrier buffers hold to `take`, which is called without any lock.
    ///
    /// A buffer is passed over if its mutator takes the place of one that detaches just then. That does no harm:
    /// whoever is inside hands his buffer over before he leaves.
    pub fn steal_buffers(&self, mut take: impl FnMut(Addr)) {
        let mut entries = [Addr::NULL; CAPACITY];
        for index in 0.. {
            let count = match self.list.lock().attached.get(index) {
                Some(record) => record.buffer.steal(&mut entries),
                None => return,
            };
            entries[..count].iter().copied().for_each(&mut take);
        }
    }

    /// Takes everybody off the list for good and gives all caches back. For the end of a heap, when
    /// nobody is inside.
    pub fn close(&self, central: &Central) {
        let mut list = self.list.lock();
        list.closed = true;
        for record in list.attached.drain(..) {
            record.change_phase(central, PhaseWord::NEVER);
        }
        list.spare.clear();
    }
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}

#[cfg(test)]
mod tests;
