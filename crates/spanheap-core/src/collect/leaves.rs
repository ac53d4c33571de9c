//! Objects without pointers: marked where they are found, without a visit of their pages.
//!
//! There is nothing to follow in such an object, so nothing is left to be done for it but to set its scanned bit and to
//! count it. A byte for each page says that its objects are of this kind, and how large
//! (`HeapArena::leaf_size`). So whoever finds one does that in place. Its page is not queued, taken, fetched
//! and claimed, and the record of its span is not looked at: half of what marking such objects costs, where few lie on a
//! page.
//!
//! # Which objects
//! From 512 bytes on, sixteen or fewer on a page. Smaller ones take the usual way, because one visit is for many of them: a
//! bit in a second table for each object costs more than its part of the visit. Measured with values of 128 bytes that
//! are found in a random order, as those of a large cache are: marking took a tenth longer with leaves of all sizes.
//!
//! Large objects, which have a span each, take the usual way, too; so do values in user arenas, whose pages have no byte.
//!
//! # Why nothing is lost or counted twice
//! As in [`super::follow`]: between its mark bit and its scanned bit an object is in the hands of a worker that is
//! busy, or is the collector thread. Whoever sets the scanned bit counts the object, and nobody else; others may have
//! queued its page meanwhile, since grey objects take the usual way.
//!
//! An ephemeron that waits for such an object is found by whoever visits its page. So as soon as any ephemeron waits,
//! pages are visited. An ephemeron that begins to wait after this was looked at looks at the mark after that, and
//! finds it set.
//!
//! # Safety
//! Uses the scanned bits of objects that are marked.
#![allow(unsafe_code)]

use super::ahead::{self, Waiting};
use super::fetch::prefetch;
use super::mark::Marker;
use crate::addr::Bytes;
use crate::span::Table;
use crate::sync::atomic::Ordering;

/// The effort that an object without pointers is, in bytes of objects with some.
const EFFORT: u64 = 8;

impl Marker<'_> {
    /// Marks what waits in the line behind so many others, and queues the page if that is news. If these have no
    /// pointers, they are news that is left in the line to be finished when their scanned bits are there: true.
    #[inline]
    pub(super) fn mark_or_defer(&mut self, behind: usize) -> bool {
        let waiting = *self.ahead.peek(behind);
        let news = self.set_marks(&waiting);
        if news == 0 {
            return false;
        }
        // SAFETY: W1.
        let arena = unsafe { &*waiting.arena };
        let base = ahead::base_of(waiting.block);
        if !arena.has_leaves(base.page_in_arena()) {
            self.found_on(arena, base);
            return false;
        }
        // SAFETY: the page of an object has been grown (A1).
        prefetch(unsafe { arena.bit(Table::Scanned, base) }.0);
        self.ahead.replace_bits(behind, news);
        true
    }

    /// Sees to objects of a block that have just been marked here, `news`: finishes them, if they have no pointers, or
    /// queues their page.
    #[inline]
    pub(super) fn finish_or_queue(&mut self, waiting: &Waiting, news: u64) {
        if !self.finish_leaves(waiting, news) {
            // SAFETY: W1.
            let arena = unsafe { &*waiting.arena };
            self.found_on(arena, ahead::base_of(waiting.block));
        }
    }

    /// Finishes objects of a block that have just been marked here, `news`, if they have no pointers; else nothing is
    /// done, and the result is false.
    #[inline]
    pub(super) fn finish_leaves(&mut self, waiting: &Waiting, news: u64) -> bool {
        let base = ahead::base_of(waiting.block);
        // SAFETY: W1.
        let arena = unsafe { &*waiting.arena };
        let Some(size) = arena.leaf_size(base.page_in_arena()) else { return false };
        if self.central.waiting().has_any() {
            return false;
        }
        // SAFETY: the page of an object has been grown (A1).
        let (scanned, _) = unsafe { arena.bit(Table::Scanned, base) };
        let mine = news & !scanned.fetch_or(news, Ordering::SeqCst);
        let count = mine.count_ones();
        self.tally.found = true;
        self.tally.work += u64::from(count) * EFFORT;
        self.count_scanned(u64::from(count), Bytes::new(count as usize * size.get()));
        true
    }
}
