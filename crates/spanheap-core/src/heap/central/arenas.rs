//! User arenas of a heap: where their chunks come from, and what they weigh.
//!
//! A chunk is accounted for like any other span: whoever gets one sweeps what is owed for its pages, and a refusal
//! sweeps everything and asks for a cycle. Its bytes weigh like memory outside of the heap ([`super::weight`]): as
//! live as long as the arena is not freed, and not at all from then on. As much as the program usually frees itself does
//! not weigh either.

use super::Central;
use crate::addr::{Addr, Bytes, PageCount};
use crate::heap::page_heap::{LocalPages, Refused, chunk_unit};
use crate::heap::user_arena::{AlreadyFreed, ArenaCore, Arenas, PLENTY, Waiting};
use crate::span::sites::Freed;
use crate::span::{Chunk, Info, OwnedSpan};

impl Central {
    /// The user arenas of the heap.
    pub fn arenas(&self) -> &Arenas {
        &self.arenas
    }

    /// What is accounted for and will probably be freed without a cycle: user arenas that the program frees itself.
    /// In a heap with a limit everything counts.
    pub fn expected(&self) -> Bytes {
        match self.pages.limits().target() {
            None => self.arenas.expected(),
            Some(_) => Bytes::ZERO,
        }
    }

    /// Of so many bytes of chunks that have just been got: what the program will probably not free itself, so that it
    /// brings the heap nearer to its goal.
    pub fn unexpected(&self, got: Bytes) -> Bytes {
        got.min(self.arenas.owned().saturating_sub(self.expected()))
    }

    /// What chunks are multiples of.
    pub fn chunk_unit(&self) -> Bytes {
        chunk_unit(&self.os)
    }

    /// Pages for the chunk with that record, all zeros if `clean` says so; `describe` says what they are to be, by
    /// their base.
    pub fn alloc_chunk(
        &self,
        bytes: Bytes,
        (align, clean): (Bytes, bool),
        local: &LocalPages,
        chunk: &'static Chunk,
        describe: impl Fn(Addr, PageCount) -> Info,
    ) -> Result<OwnedSpan, Refused> {
        let pages = bytes.checked_pages().ok_or(Refused::TooLarge)?;
        // What the reclaimer will sweep for it is not swept twice.
        self.keep_pace(pages.bytes(), pages);
        let attempt = || {
            self.reclaim(pages, align);
            let describe = |base| describe(base, pages);
            let pages = (pages, align, clean);
            self.pages.alloc_chunk(&self.os, &self.memory, local, pages, chunk, describe)
        };
        self.in_need(local, attempt)
    }

    /// Frees an arena of this heap, in the process that the heap belongs to. Somebody is to look at what waits.
    pub fn free_arena(&self, core: &ArenaCore, freed: Freed) -> Result<Waiting, AlreadyFreed> {
        let waiting = self.arenas.free(core, freed)?;
        self.outside.shrink(waiting.new);
        Ok(waiting)
    }

    /// The collector's thread is told of chunks that have been freed if nothing else waited and it does not look by
    /// itself soon, or if that has become so much at once that it need not gather more.
    pub fn tell_of(&self, waiting: Waiting) {
        let are_first = waiting.new > Bytes::ZERO && waiting.new == waiting.all.bytes;
        if (are_first && !self.arenas.is_watched()) || waiting.new >= PLENTY {
            self.alarm.ring();
        }
    }
}
