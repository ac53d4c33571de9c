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
use core::ops::Add;
use core::ptr::NonNull;

/// So many freed bytes are seen to at once; fewer are gathered.
pub const PLENTY: Bytes = Bytes::new(1 << 20);

/// So many chunks.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Load {
    /// How many they are.
    pub chunks: usize,
    /// Bytes together.
    pub bytes: Bytes,
}

impl Load {
    /// None.
    pub const NONE: Load = Load { chunks: 0, bytes: Bytes::ZERO };
}

impl Add for Load {
    type Output = Load;

    fn add(self, more: Load) -> Load {
        Load { chunks: self.chunks + more.chunks, bytes: self.bytes + more.bytes }
    }
}

/// Chunks that have been freed, and that no grace period was begun for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// All of them.
    pub all: Load,
    /// Bytes of those that have just come.
    pub new: Bytes,
}

impl Arenas {
    /// Takes in chunks whose spans say that they are freed.
    pub(super) fn take_in(&self, taken: Taken) -> Waiting {
        let Some(first) = taken.chunks else {
            return Waiting { all: self.waiting(), new: Bytes::ZERO };
        };
        let (last, load) = end_of(first);
        let bytes = load.bytes;
        let mut lists = self.lists.lock();
        record(last).set_next(lists.freed);
        lists.freed = Some(first);
        let before = Load {
            bytes: Bytes::new(self.waiting.fetch_add(bytes.get(), Ordering::SeqCst)),
            chunks: self.waiting_chunks.fetch_add(load.chunks, Ordering::Relaxed),
        };
        drop(lists);
        let abandoned = if taken.was_abandoned { bytes.get() } else { 0 };
        let abandoned = self.counts.abandoned.fetch_sub(abandoned, Ordering::Relaxed);
        let live = self.counts.live.fetch_sub(bytes.get(), Ordering::Relaxed);
        // A destructor frees what nothing but a cycle would have freed.
        let owned = if is_in_destructor() { 0 } else { live.saturating_sub(abandoned) };
        // What waits has its memory as well.
        self.usual.note(Bytes::new(owned), Bytes::new(live) + before.bytes);
        Waiting { all: before + load, new: bytes }
    }

    /// Chunks that have been freed and that no grace period was begun for.
    pub fn waiting(&self) -> Load {
        let bytes = Bytes::new(self.waiting.load(Ordering::SeqCst));
        Load { chunks: self.waiting_chunks.load(Ordering::Relaxed), bytes }
    }

    /// Chunks that wait for the end of a grace period.
    pub fn pending(&self) -> Load {
        self.lists.lock().pending_load
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
        let (last, load) = end_of(first);
        record(last).set_next(lists.pending.take());
        lists.pending = Some(first);
        lists.pending_load = lists.pending_load + load;
        self.waiting.fetch_sub(load.bytes.get(), Ordering::Relaxed);
        self.waiting_chunks.fetch_sub(load.chunks, Ordering::Relaxed);
    }

    /// Takes what is pending off the list. For the undertaker.
    pub(super) fn take_pending(&self) -> Option<NonNull<Chunk>> {
        let mut lists = self.lists.lock();
        lists.pending_load = Load::NONE;
        lists.pending.take()
    }
}

/// The last one of a list, and what all are together.
fn end_of(first: NonNull<Chunk>) -> (NonNull<Chunk>, Load) {
    let load = |at: NonNull<Chunk>| Load { chunks: 1, bytes: record(at).range().bytes() };
    let (mut last, mut all) = (first, load(first));
    while let Some(next) = record(last).next() {
        (last, all) = (next, all + load(next));
    }
    (last, all)
}
