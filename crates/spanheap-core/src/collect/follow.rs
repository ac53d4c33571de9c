//! Following few pointers: when there is nothing else to do, objects are scanned without their pages.
//!
//! A page that waits gathers objects, and one visit scans them all. Where nothing else is waiting, nothing is gathered:
//! along a list, every visit would find one object, and pay for the page to be queued, taken, claimed and fetched. So
//! a worker that has no page left, where the shared queue has none either, and that has found no more than [`FEW`]
//! words of marks with as many objects each, goes on with these objects themselves: mark, claim, read, and what is
//! found waits in the line like anything else. Several lists are followed in turn, each while the others' memory is
//! on its way.
//!
//! As soon as more is found than that, or an object is not of the simple kind, its page is queued.
//!
//! # Why nothing is lost
//! Between its mark bit and its scanned bit, an object is in the hands of a worker that is busy, or is the collector
//! thread (T1 in [`super::mark`]). Somebody who scans the page meanwhile may claim the object; whoever sets the scanned
//! bit scans it, and nobody else.
//!
//! # Safety
//! Reads the record of a span that has a marked object, and words of that object, as [`super::scan`] does.
#![allow(unsafe_code)]

use super::ahead;
use super::mark::Marker;
use crate::addr::{Addr, Bytes, GRANULE_BYTES};
use crate::span::{HeapArena, Layout, Table};
use crate::sync::atomic::Ordering;

/// The most words of marks that may wait where objects are followed, and the most objects of each.
const FEW: usize = 8;

/// How many bytes of objects are followed before the worker looks around again: no more than a page has.
const STRIDE: u64 = 4096;

impl Marker<'_> {
    /// Follows what waits in the line, as long as that is little, and for a while. The worker has no pages, and the
    /// shared queue has none.
    pub(super) fn follow(&mut self) {
        let enough = self.tally.work + STRIDE;
        while self.tally.work < enough && self.ahead.len() <= FEW {
            let Some(waiting) = self.ahead.pop() else { return };
            let news = self.set_marks(&waiting);
            if news == 0 {
                continue;
            }
            self.tally.found = true;
            if self.finish_leaves(&waiting, news) {
                continue;
            }
            // SAFETY: W1.
            let arena = unsafe { &*waiting.arena };
            let is_simple =
                news.count_ones() as usize <= FEW && self.scan_few(arena, waiting.block, news);
            if !is_simple {
                self.found_on(arena, ahead::base_of(waiting.block));
            }
        }
    }

    /// Scans objects of a block that have just been marked here, one by one; false if one of them is not simple, and
    /// the page has to be scanned for those that are left.
    fn scan_few(&mut self, arena: &HeapArena, block: usize, news: u64) -> bool {
        let mut rest = news;
        while rest != 0 {
            let granule = Bytes::new(rest.trailing_zeros() as usize * GRANULE_BYTES);
            if !self.scan_alone(arena, ahead::base_of(block) + granule) {
                return false;
            }
            rest &= rest - 1;
        }
        true
    }

    /// Scans the object that begins in `granule` and has just been marked here, if it is simple; false if it is not.
    #[inline]
    fn scan_alone(&mut self, arena: &HeapArena, granule: Addr) -> bool {
        // SAFETY: a page with a marked object belongs to a span, which stays, and so does its record (P3).
        let Some(span) = (unsafe { arena.span(granule.page_in_arena()).as_ref() }) else {
            return false;
        };
        let info = span.info();
        let Layout::Words { mask, period } = info.layout else { return false };
        if info.size_class.is_none() || self.central.waiting().has_any() {
            return false;
        }
        // SAFETY: the page of an object has been grown (A1).
        let (scanned, bit) = unsafe { arena.bit(Table::Scanned, granule) };
        if scanned.fetch_or(bit, Ordering::SeqCst) & bit == 0 {
            self.count_scanned(1, Bytes::new(info.slot));
            self.tally.work += info.slot as u64;
            self.scan_slot(info, info.object_at(granule), mask, period);
        }
        true
    }
}

const _: () = assert!(FEW < ahead::AHEAD);
