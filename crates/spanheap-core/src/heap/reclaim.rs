//! The page reclaimer: finding dead spans by their pages, before the heap grows.
//!
//! Sweeping on demand looks through one class, and finds slots. A request for *pages* is served by any
//! span that is dead as a whole, whatever its class, if somebody sweeps it; above all by large objects,
//! each of which is a class' span for itself. So before n pages are asked for while spans wait to be
//! swept, the reclaimer looks for dead spans until n pages have been freed or everything was looked at.
//!
//! **Which spans are dead is read from the side tables**, without owning anything: a span whose first page
//! has no marks of the finished cycle is a candidate. For spans of one page and for large objects that
//! is exact, since an object of a large span begins on its first page. Others may turn out to be alive
//! further up; they have been swept then, which had to be done anyway.
//!
//! **Work is claimed by blocks** of 16 pages, with one atomic word that has the generation above and
//! the next block below. So a claim says which generation it is for, and a thread that slept over a change
//! cannot take a block of the new one unknowingly. The blocks are those of the arenas that the heap had
//! when the generation began: what came later holds nothing dead. The newest arena comes first, as in
//! their chain.
//!
//! **The surplus is credit.** A block is looked through to its end, and may free more pages than were
//! wanted; the next callers take these before they look any further. A block is small for that reason: where all
//! of its pages are dead, each is swept and freed, and who wanted one page pays for sixteen.
//!
//! **Nobody looks through the whole heap for one request.** Where nearly everything lives, there may be thousands of
//! blocks without a dead span. A caller brings a [`Budget`] of blocks, which follows from what it wants, and
//! does without when it is used up; the next one goes on from there. So the heap may grow by a few
//! pages for each thousand while garbage lies further up, once in each generation, and no stall
//! grows with the heap.
//!
//! All of this decides only where to look. Whether a span may be swept is decided under the lock of its
//! set ([`crate::span::SpanSet::steal`]), and whatever goes amiss before costs no more than a span that
//! is found later, by the others who sweep.
//!
//! # Safety
//! Arenas are reached by pointers that came from the heap's chain, whose records live as long as the heap;
//! span records by P3: reclaiming is done inside closures.
#![allow(unsafe_code)]

use crate::addr::{ARENA_PAGES, PageCount};
use crate::span::{Generation, HeapArena, Span};
use crate::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use core::ptr;

/// How many pages are looked through at once.
const BLOCK_PAGES: usize = 16;

const BLOCKS_PER_ARENA: usize = ARENA_PAGES / BLOCK_PAGES;

/// The number of the next block has this many bits; above it is the generation.
const BLOCK_BITS: u32 = 32;

/// Where the reclaimer of a heap has got to.
pub struct Reclaimer {
    /// Generation and next block.
    next: AtomicU64,
    /// The newest arena when the generation began; null when there is nothing to reclaim.
    newest: AtomicPtr<HeapArena>,
    /// The arena of a recent claim: where the search for the next one begins.
    recent: AtomicPtr<HeapArena>,
    /// Pages freed and not asked for yet.
    credit: AtomicUsize,
}

/// How many more blocks somebody may look through.
pub struct Budget(usize);

impl Budget {
    /// Blocks that anybody may look through.
    const LEAST: usize = 64;

    /// For each page wanted, so many more.
    const PER_PAGE: usize = 2;

    /// What a request of `pages` pages may cost.
    pub const fn of(pages: PageCount) -> Budget {
        Budget(Budget::LEAST + pages.get() * Budget::PER_PAGE)
    }
}

/// A part of the heap, to be looked through by whoever claimed it.
struct Claim<'a> {
    arena: &'a HeapArena,
    first_page: usize,
    generation: Generation,
}

impl Reclaimer {
    /// Nothing to reclaim.
    pub const fn new() -> Reclaimer {
        Reclaimer {
            next: AtomicU64::new(0),
            newest: AtomicPtr::new(ptr::null_mut()),
            recent: AtomicPtr::new(ptr::null_mut()),
            credit: AtomicUsize::new(0),
        }
    }

    /// Begins a generation, in which spans of `newest` and the arenas before it may be dead. One thread at a
    /// time does that: the collector's.
    ///
    /// # Safety
    /// The arenas live as long as the reclaimer is used.
    pub unsafe fn begin(&self, generation: Generation, newest: Option<&HeapArena>) {
        let newest = newest.map_or(ptr::null(), ptr::from_ref).cast_mut();
        self.newest.store(newest, Ordering::Relaxed);
        self.recent.store(newest, Ordering::Relaxed);
        self.credit.store(0, Ordering::Relaxed);
        // Release: who claims a block of this generation knows its arenas.
        self.next.store(u64::from(generation.get()) << BLOCK_BITS, Ordering::Release);
    }

    /// Looks for dead spans until `pages` pages are free; false when nothing is left to look at before
    /// that, or the budget is used up. `sweep` is called with candidates and returns how many pages it has
    /// freed. A closure is open.
    pub fn reclaim(
        &self,
        pages: PageCount,
        budget: &mut Budget,
        mut sweep: impl FnMut(&Span) -> PageCount,
    ) -> bool {
        let mut wanted = pages.get();
        loop {
            wanted -= self.take_credit(wanted);
            if wanted == 0 {
                return true;
            }
            let Some(left) = budget.0.checked_sub(1) else { return false };
            let Some(claim) = self.claim() else { return false };
            budget.0 = left;
            let mut freed = 0;
            claim.for_each_candidate(|span| freed += sweep(span).get());
            let surplus = freed.saturating_sub(wanted);
            wanted -= freed - surplus;
            self.credit.fetch_add(surplus, Ordering::Relaxed);
        }
    }

    /// How many blocks have been claimed in this generation.
    #[cfg(test)]
    pub fn looked_through(&self) -> usize {
        block_of(self.next.load(Ordering::Relaxed))
    }

    /// Takes up to `wanted` pages of credit.
    fn take_credit(&self, wanted: usize) -> usize {
        if self.credit.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let take = |credit: usize| credit.checked_sub(wanted.min(credit));
        let before = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        before.map_or(0, |credit| wanted.min(credit))
    }

    /// The next block, if any is left.
    fn claim(&self) -> Option<Claim<'_>> {
        // Without this look the number of the next block would grow for ever.
        self.arena_of(self.next.load(Ordering::Acquire))?;
        let claimed = self.next.fetch_add(1, Ordering::AcqRel);
        let arena = self.arena_of(claimed)?;
        self.recent.store(ptr::from_ref(arena).cast_mut(), Ordering::Relaxed);
        Some(Claim {
            arena,
            first_page: block_of(claimed) % BLOCKS_PER_ARENA * BLOCK_PAGES,
            generation: Generation::new((claimed >> BLOCK_BITS) as u32),
        })
    }

    /// The arena of the block that `word` names; `None` when it is beyond the last.
    fn arena_of(&self, word: u64) -> Option<&HeapArena> {
        // SAFETY: `begin` had it, and its caller's promise.
        let newest = unsafe { self.newest.load(Ordering::Relaxed).as_ref() }?;
        let number = newest.number().checked_sub(block_of(word) / BLOCKS_PER_ARENA)?;
        // SAFETY: it is `newest` or comes behind it in the chain.
        let recent = unsafe { self.recent.load(Ordering::Relaxed).as_ref() };
        let mut arena = recent.filter(|arena| arena.number() >= number).unwrap_or(newest);
        while arena.number() > number {
            // SAFETY: the chain of the arenas, which goes on down to number 0.
            arena = unsafe { arena.previous().as_ref() }?;
        }
        Some(arena)
    }
}

/// The number of the block that a word names.
fn block_of(word: u64) -> usize {
    (word & ((1 << BLOCK_BITS) - 1)) as usize
}

impl Claim<'_> {
    /// Calls `visit` with the record of each span that begins in the block, has not been swept, and seems
    /// dead. Anything may happen to the span meanwhile.
    fn for_each_candidate(&self, mut visit: impl FnMut(&Span)) {
        let table = self.generation.table();
        // What began in the block before is looked at there. A span that reaches over from another arena
        // is looked at in both.
        let mut below = match self.first_page {
            0 => ptr::null_mut(),
            first => self.arena.span(first - 1),
        };
        for page in self.first_page..self.first_page + BLOCK_PAGES {
            let record = self.arena.span(page);
            let goes_on = core::mem::replace(&mut below, record) == record;
            if goes_on || record.is_null() {
                continue;
            }
            // SAFETY: the page belongs to a span, or did just now, so it has been grown (A1).
            let marks = unsafe { self.arena.line(table, page) };
            if marks.iter().any(|word| word.load(Ordering::Acquire) != 0) {
                continue;
            }
            // SAFETY: P3: the caller's closure is open.
            let span = unsafe { &*record };
            // Marks of a swept span are its allocation bits, so these may be clear, too.
            if span.generation() != self.generation {
                visit(span);
            }
        }
    }
}

#[cfg(test)]
mod tests;
