//! Clearing the bits of chunks, and not where none has been set.
//!
//! A chunk's bits have to be clear when a cycle begins to mark, and when the chunk goes into quarantine. Looking at
//! all of them is a walk over a tenth of the chunk's size; so each chunk knows how often cycles had begun to mark
//! when they were clear, and most chunks of arenas that come and go between two cycles are never walked over.
//!
//! # Why it is right
//! Bits are set by markers, and by closures of the marking phase for what they allocate. A chunk that such a closure
//! has got, or one of arming B, says nothing; nor does one from when on such a closure has leased it, which may be
//! after its cycle, when a closure of the next phase has got it. Any other closure has begun before the next marking,
//! which waits for its end; so the count that it reads when it gets a chunk, of which the bits are clear because its
//! pages were free, is that of a moment before any bit is set. What the undertaker clears before a cycle
//! marks is clear as long as the count stays the same: the closures of the last marking phase are over then. And so
//! are, in a chunk that it buries between two cycles, those that have ever leased it.
//! The model `arenas` of `tests/protocol_model.rs` has all of this, and finds a chunk that is not clean when one of the
//! conditions is left out.
//!
//! # Locking
//! None: the undertaker clears and counts, a closure notes the count of a chunk that nobody else knows, and
//! takes it back of one that it has leased.

use super::registry::{Arenas, record};
use crate::span::Chunk;
use crate::sync::atomic::Ordering;

impl Arenas {
    /// Forgets the marks of the last cycle. For the undertaker, when no closure is open that has seen that
    /// cycle mark, and the next one does not mark yet.
    pub fn clear_bits(&self) {
        self.for_each(|at| self.clear(record(at)));
    }

    /// A cycle begins to mark: from here on bits may be set. For the undertaker, when all closures are over
    /// that the cycle had not told of it.
    pub fn begin_marking(&self) {
        // Who is in a closure that began before a cycle marks reads the number before that, and whoever begins one
        // later has seen a phase that was published since.
        self.markings.fetch_add(1, Ordering::Relaxed);
    }

    /// 1 + how many times a cycle has begun to mark.
    pub(super) fn markings(&self) -> u64 {
        self.markings.load(Ordering::Relaxed)
    }

    /// Clears the bits of a chunk, unless none has been set since it was clear. While no cycle marks, and no closure is
    /// open that has seen one mark.
    pub(super) fn clear(&self, chunk: &Chunk) {
        let markings = self.markings();
        if !chunk.is_clean(markings) {
            chunk.clear_bits();
            chunk.set_clean(markings);
        }
    }
}
