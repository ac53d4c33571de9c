//! Chunks that have been freed, and wait for somebody to begin a grace period for them.
//!
//! Whoever frees adds to them, and is told how much waits then: he may bury it himself, or has to wake the collector's
//! thread. It need not be woken if it *watches*: it sleeps for a moment and will look by itself. It says that it does
//! not any more, and then looks; whoever adds asks behind that. Both are sequentially consistent, so one of the two sees
//! the other.
//!
//! # Locking
//! [`Rank::UserArenas`](crate::sync::Rank) for the list.

use super::Taken;
use super::registry::{Arenas, record};
use crate::addr::Bytes;
use crate::span::Chunk;
use crate::span::alone::is_in_destructor;
use crate::sync::atomic::Ordering;
use core::ptr::NonNull;

/// Chunks that have been freed, and that no grace period was begun for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// How many they are.
    pub chunks: usize,
    /// Bytes together.
    pub bytes: Bytes,
    /// Bytes of those that have just come.
    pub new: Bytes,
}

impl Arenas {
    /// Takes in chunks whose spans say that they are freed.
    pub(super) fn take_in(&self, taken: Taken) -> Waiting {
        let Some(first) = taken.chunks else { return self.waiting() };
        let End { last, bytes, count } = end_of(first);
        let mut lists = self.lists.lock();
        record(last).set_next(lists.freed);
        lists.freed = Some(first);
        let before = self.waiting.fetch_add(bytes.get(), Ordering::SeqCst);
        let chunks = self.waiting_chunks.fetch_add(count, Ordering::Relaxed) + count;
        drop(lists);
        let abandoned = if taken.was_abandoned { bytes.get() } else { 0 };
        let abandoned = self.counts.abandoned.fetch_sub(abandoned, Ordering::Relaxed);
        let live = self.counts.live.fetch_sub(bytes.get(), Ordering::Relaxed);
        // A destructor frees what nothing but a cycle would have freed.
        let owned = if is_in_destructor() { 0 } else { live.saturating_sub(abandoned) };
        // What waits has its memory as well.
        self.usual.note(Bytes::new(owned), Bytes::new(live + before));
        Waiting { chunks, bytes: Bytes::new(before) + bytes, new: bytes }
    }

    /// Chunks that have been freed and that no grace period was begun for.
    pub fn waiting(&self) -> Waiting {
        let bytes = Bytes::new(self.waiting.load(Ordering::SeqCst));
        let chunks = self.waiting_chunks.load(Ordering::Relaxed);
        Waiting { chunks, bytes, new: Bytes::ZERO }
    }

    /// Whether the collector's thread looks by itself soon at what waits. Whoever adds to that asks behind it.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::SeqCst)
    }

    /// Says so; or that it does not, before it looks for the last time.
    pub fn set_watched(&self, watched: bool) {
        self.watched.store(watched, Ordering::SeqCst);
    }

    /// From here on what was freed is pending. A grace period begins after this. For the undertaker.
    pub fn take_freed(&self) {
        let mut lists = self.lists.lock();
        let Some(first) = lists.freed.take() else { return };
        let End { last, bytes, count } = end_of(first);
        record(last).set_next(lists.pending.take());
        lists.pending = Some(first);
        self.waiting.fetch_sub(bytes.get(), Ordering::Relaxed);
        self.waiting_chunks.fetch_sub(count, Ordering::Relaxed);
    }
}

/// The last one of a list, and what all are together.
struct End {
    last: NonNull<Chunk>,
    bytes: Bytes,
    count: usize,
}

fn end_of(first: NonNull<Chunk>) -> End {
    let mut end = End { last: first, bytes: record(first).range().bytes(), count: 1 };
    while let Some(next) = record(end.last).next() {
        let bytes = end.bytes + record(next).range().bytes();
        end = End { last: next, bytes, count: end.count + 1 };
    }
    end
}
