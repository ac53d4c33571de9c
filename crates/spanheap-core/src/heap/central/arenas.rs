//! User arenas of a heap: where their chunks come from, and what they weigh.
//!
//! A chunk is accounted for like any other span: whoever gets one sweeps what is owed for its pages, and a refusal
//! sweeps everything and asks for a cycle. Its bytes weigh like memory outside of the heap ([`super::weight`]): as
//! live as long as the arena is not freed, and not at all from then on.

use super::Central;
use crate::addr::{Addr, Bytes, PageCount};
use crate::heap::page_heap::{LocalPages, Refused, chunk_unit};
use crate::heap::user_arena::{AlreadyFreed, ArenaCore, Arenas};
use crate::span::{Info, OwnedSpan};

impl Central {
    /// The user arenas of the heap.
    pub fn arenas(&self) -> &Arenas {
        &self.arenas
    }

    /// What chunks are multiples of.
    pub fn chunk_unit(&self) -> Bytes {
        chunk_unit(&self.os)
    }

    /// Pages for a chunk, all zeros; `describe` says what they are to be, by their base.
    pub fn alloc_chunk(
        &self,
        bytes: Bytes,
        align: Bytes,
        local: &LocalPages,
        describe: impl Fn(Addr, PageCount) -> Info,
    ) -> Result<OwnedSpan, Refused> {
        let pages = bytes.checked_pages().ok_or(Refused::TooLarge)?;
        // What the reclaimer will sweep for it is not swept twice.
        self.keep_pace(pages.bytes(), pages);
        let attempt = || {
            self.reclaim(pages, align);
            let describe = |base| describe(base, pages);
            self.pages.alloc_chunk(&self.os, &self.memory, local, pages, align, describe)
        };
        self.in_need(local, attempt)
    }

    /// Frees an arena of this heap, in the process that the heap belongs to.
    pub fn free_arena(&self, core: &ArenaCore) -> Result<(), AlreadyFreed> {
        let freed = self.arenas.free(core)?;
        self.outside.shrink(freed);
        if freed > Bytes::ZERO {
            self.alarm.ring();
        }
        Ok(())
    }
}
