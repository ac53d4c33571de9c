//! Making a run of pages ready: for those of its pages that were returned to the system, or never had memory.
//!
//! Where a physical page is larger than one of ours, a run may begin or end inside one, and memory comes
//! and goes by whole physical pages. So a run is widened to them. This works because the pages of one
//! physical page are all scavenged or none is: new chunks are made ready whole there, the scavenger
//! takes aligned groups, and this file widens.
//!
//! # Safety
//! Pages change their state under the page heap's lock, or while they belong to one mutator alone.
#![allow(unsafe_code)]

use super::{Inner, PageHeap, Refused, tables};
use crate::addr::{Addr, AddrRange, Bytes, PageCount};
use crate::heap::counters::MemoryState;
use crate::os::Os;
use crate::pages::{PageAlloc, PageRun};

/// A physical page of which a run has a part.
struct Edge {
    page: AddrRange,
    was_scavenged: bool,
}

impl PageHeap {
    /// Makes a run ready that was just taken from the page allocator. If that is refused the run is free
    /// again, and nobody has lost anything but memory that can be made ready once more.
    pub(super) fn commit(
        &self,
        inner: &mut Inner,
        os: &Os,
        run: &PageRun,
        n: PageCount,
    ) -> Result<(), Refused> {
        if run.scavenged == PageCount::ZERO {
            return Ok(());
        }
        let range = AddrRange::at(run.base, n.bytes());
        let (edges, beside) = widen(&mut inner.pages, os, range);
        if let Err(error) = tables::fetch(inner, os, range) {
            self.undo(inner, os, range, run.scavenged, &edges);
            return Err(error.into());
        }
        let prepared = (run.scavenged + beside).bytes();
        let wide = |range: AddrRange| {
            let unit = os.page_size().get();
            let end = range.end().checked_align_up(unit).expect("memory of the heap");
            AddrRange::new(range.base().align_down(unit), end)
        };
        let done = if self.is_over_limit(os, prepared) {
            Err(Refused::Limit)
        } else {
            // SAFETY: O1: grown pages are this heap's, and the page allocator has given this run to nobody
            // else; the pages beside it in its physical pages are free, and change under the lock.
            unsafe { os.used(wide(range), prepared) }.map_err(Refused::from)
        };
        match done {
            Ok(()) => {
                let pages = run.scavenged + beside;
                self.totals.shift(MemoryState::Returned, MemoryState::Free, pages);
            }
            Err(_) => self.undo(inner, os, range, run.scavenged, &edges),
        }
        done
    }

    /// Frees a run that was not made ready. It may mix ready and prepared pages, and who is who is forgotten;
    /// so all of its whole physical pages are given back to the system, and H1 holds again.
    fn undo(
        &self,
        inner: &mut Inner,
        os: &Os,
        range: AddrRange,
        scavenged: PageCount,
        edges: &[Option<Edge>; 2],
    ) {
        let unit = os.page_size().get();
        let inner_end = range.end().align_down(unit);
        let inner_base = range.base().checked_align_up(unit).unwrap_or(inner_end).min(inner_end);
        let whole = AddrRange::new(inner_base, inner_end);
        let in_edges = |edge: &Edge| match edge.was_scavenged {
            true => overlap(edge.page, range).bytes(),
            false => Bytes::ZERO,
        };
        let at_edges: Bytes = edges.iter().flatten().map(in_edges).sum();
        let ready = whole.bytes() - (scavenged.bytes() - at_edges);
        // SAFETY: O1: as in `commit`. O2: no span has been made of the run.
        unsafe { self.unuse(os, whole, ready) };
        inner.pages.free(range.base(), pages_of(range.bytes()));
        if !whole.is_empty() {
            inner.pages.set_scavenged(whole.base(), pages_of(whole.bytes()));
        }
        for edge in edges.iter().flatten().filter(|edge| edge.was_scavenged) {
            inner.pages.set_scavenged(edge.page.base(), pages_of(edge.page.bytes()));
        }
    }
}

/// Finds the physical pages that `range` has a part of, and takes what lies beside the range in them out of
/// the scavenged pages: how many pages that were.
fn widen(pages: &mut PageAlloc, os: &Os, range: AddrRange) -> ([Option<Edge>; 2], PageCount) {
    let unit = os.page_size().get();
    let mut edges = [None, None];
    let before = pages.scavenged_pages();
    let (first, last) = (range.base().align_down(unit), range.end().align_down(unit));
    let begins_inside = first != range.base();
    let ends_inside = last != range.end() && !(begins_inside && first == last);
    for (edge, (at, is_one)) in edges.iter_mut().zip([(first, begins_inside), (last, ends_inside)])
    {
        if !is_one {
            continue;
        }
        let page = AddrRange::at(at, Bytes::new(unit));
        let so_far = pages.scavenged_pages();
        for part in [(page.base(), range.base()), (range.end(), page.end())] {
            if part.0 < part.1 {
                let part = AddrRange::new(part.0.max(page.base()), part.1.min(page.end()));
                pages.clear_scavenged(part.base(), pages_of(part.bytes()));
            }
        }
        let was_scavenged = pages.scavenged_pages() != so_far;
        *edge = Some(Edge { page, was_scavenged });
    }
    (edges, before - pages.scavenged_pages())
}

fn overlap(a: AddrRange, b: AddrRange) -> AddrRange {
    let base = a.base().max(b.base());
    AddrRange::new(base, a.end().min(b.end()).max(base))
}

fn pages_of(bytes: Bytes) -> PageCount {
    PageCount::new(bytes.get() / crate::addr::PAGE_BYTES)
}

/// Whether pages of this system are small enough for runs to be made ready without regard to neighbours.
pub(super) fn pages_are_small(os: &Os) -> bool {
    Addr::new(crate::addr::PAGE_BYTES).is_aligned(os.page_size().get())
}
