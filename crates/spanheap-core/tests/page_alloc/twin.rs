//! A page allocator without any idea: one state per page, and every search starts at one end.

use super::twin_index::TwinIndex;
use spanheap_core::addr::{Addr, CHUNK_PAGES, ChunkIndex, PAGE_BYTES, PageCount, PageIndex};
use spanheap_core::pages::PageRun;
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Page {
    Free {
        scavenged: bool,
    },
    Allocated,
    /// Allocated as the allocator sees it; a page cache has it.
    Cached,
    /// Allocated as the allocator sees it; the scavenger has it.
    Taken,
}

impl Page {
    /// Whether the program uses it, as far as the scavenge index is concerned.
    fn in_use(self) -> bool {
        matches!(self, Page::Allocated | Page::Cached)
    }
}

/// A page that can be returned to the system.
pub(crate) const READY: Page = Page::Free { scavenged: false };

/// Every page that was grown, by chunks.
#[derive(Default)]
pub(crate) struct Twin {
    pub(crate) chunks: BTreeMap<usize, [Page; CHUNK_PAGES]>,
    pub(crate) index: TwinIndex,
}

pub(crate) fn page_addr(page: usize) -> Addr {
    PageIndex::new(page).base()
}

/// The chunks of pages: (chunk, behind the last of the pages in it, how many).
fn pieces(start: usize, n: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (start / CHUNK_PAGES..=(start + n - 1) / CHUNK_PAGES).map(move |chunk| {
        let first = start.max(chunk * CHUNK_PAGES);
        let end = (start + n).min((chunk + 1) * CHUNK_PAGES);
        (chunk, end, end - first)
    })
}

impl Twin {
    pub(crate) fn has_chunk(&self, chunk: ChunkIndex) -> bool {
        self.chunks.contains_key(&chunk.get())
    }

    pub(crate) fn page(&self, page: usize) -> Page {
        self.chunks[&(page / CHUNK_PAGES)][page % CHUNK_PAGES]
    }

    /// Changes a page, and returns what it was.
    fn set(&mut self, page: usize, state: Page) -> Page {
        let chunk = self.chunks.get_mut(&(page / CHUNK_PAGES)).expect("the page was grown");
        std::mem::replace(&mut chunk[page % CHUNK_PAGES], state)
    }

    /// Pages of a chunk that the program uses.
    pub(crate) fn in_use(&self, chunk: usize) -> usize {
        self.chunks[&chunk].iter().filter(|page| page.in_use()).count()
    }

    pub(crate) fn grow(&mut self, first: ChunkIndex, n: usize) {
        for chunk in first.get()..first.get() + n {
            self.chunks.insert(chunk, [Page::Free { scavenged: true }; CHUNK_PAGES]);
        }
    }

    /// Runs of neighbouring pages in a state that is wanted, as (first page, length).
    pub(crate) fn runs(&self, wanted: impl Fn(Page) -> bool) -> Vec<(usize, usize)> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (chunk, states) in &self.chunks {
            for i in (0..CHUNK_PAGES).filter(|i| wanted(states[*i])) {
                let page = chunk * CHUNK_PAGES + i;
                match runs.last_mut() {
                    Some((start, len)) if *start + *len == page => *len += 1,
                    _ => runs.push((page, 1)),
                }
            }
        }
        runs
    }

    pub(crate) fn free_runs(&self) -> Vec<(usize, usize)> {
        self.runs(|state| matches!(state, Page::Free { .. }))
    }

    /// The first fit.
    fn find(&self, n: usize) -> Option<usize> {
        self.free_runs().into_iter().find(|(_, len)| *len >= n).map(|(start, _)| start)
    }

    /// The program takes pages.
    fn take(&mut self, start: usize, n: usize) -> PageRun {
        let mut scavenged = 0;
        for page in start..start + n {
            match self.set(page, Page::Allocated) {
                Page::Free { scavenged: was } => scavenged += usize::from(was),
                other => panic!("page {page} was taken from {other:?}"),
            }
        }
        self.allocated(start, n);
        PageRun { base: page_addr(start), scavenged: PageCount::new(scavenged) }
    }

    /// Tells the index that pages were allocated.
    fn allocated(&mut self, start: usize, n: usize) {
        for (chunk, _, _) in pieces(start, n) {
            self.index.touched(chunk, self.in_use(chunk));
        }
    }

    pub(crate) fn alloc(&mut self, n: usize) -> Option<PageRun> {
        let start = self.find(n)?;
        Some(self.take(start, n))
    }

    /// As the allocator documents it: the first fit if it is aligned, else the first place inside
    /// a run that is long enough wherever it lies.
    pub(crate) fn alloc_aligned(&mut self, n: usize, align_pages: usize) -> Option<PageRun> {
        let start = self.find(n)?;
        if start % align_pages == 0 {
            return Some(self.take(start, n));
        }
        let longer = self.find(n + align_pages - 1)?;
        Some(self.take(longer.next_multiple_of(align_pages), n))
    }

    pub(crate) fn free(&mut self, start: usize, n: usize) {
        for page in start..start + n {
            assert_eq!(self.set(page, READY), Page::Allocated, "page {page}");
        }
        for (chunk, end, _) in pieces(start, n) {
            self.index.freed(chunk, end - 1);
        }
    }

    /// (first page of the block, free pages, scavenged pages)
    pub(crate) fn alloc_to_cache(&mut self) -> Option<(usize, u64, u64)> {
        let block = self.find(1)? / 64 * 64;
        let (mut free, mut scavenged) = (0, 0);
        for i in 0..64 {
            if let Page::Free { scavenged: was } = self.page(block + i) {
                free |= 1 << i;
                scavenged |= u64::from(was) << i;
                self.set(block + i, Page::Cached);
            }
        }
        self.allocated(block, 64);
        Some((block, free, scavenged))
    }

    /// Page by page, each freed for itself.
    pub(crate) fn flush(&mut self, block: usize, free: u64, scavenged: u64) {
        for i in (0..64).filter(|i| free >> i & 1 != 0) {
            let state = Page::Free { scavenged: scavenged >> i & 1 != 0 };
            assert_eq!(self.set(block + i, state), Page::Cached);
            self.index.freed(block / CHUNK_PAGES, block + i);
        }
    }

    pub(crate) fn set_scavenged(&mut self, start: usize, n: usize) {
        for page in start..start + n {
            let was = self.set(page, Page::Free { scavenged: true });
            assert!(matches!(was, Page::Free { .. }), "page {page} is {was:?}");
        }
    }

    /// Pages that were scavenged have memory from now on, as if they had been freed.
    pub(crate) fn clear_scavenged(&mut self, start: usize, n: usize) {
        for (chunk, end, len) in pieces(start, n) {
            let mut any = false;
            for page in end - len..end {
                if self.page(page) == (Page::Free { scavenged: true }) {
                    self.set(page, READY);
                    any = true;
                }
            }
            if any {
                self.index.freed(chunk, end - 1);
            }
        }
    }

    /// A page was handed out by a cache: now it is like any other allocated page.
    pub(crate) fn uncache(&mut self, run: PageRun, n: usize) {
        let start = run.base.get() / PAGE_BYTES;
        for page in start..start + n {
            assert_eq!(self.set(page, Page::Allocated), Page::Cached);
        }
    }

    /// (first page, number of pages)
    pub(crate) fn take_for_scavenging(
        &mut self,
        force: bool,
        [min, max, huge]: [usize; 3],
    ) -> Option<(usize, usize)> {
        loop {
            let chunks: Vec<(usize, usize)> =
                self.chunks.keys().map(|chunk| (*chunk, self.in_use(*chunk))).collect();
            let from = self.index.find(force, &chunks)?;
            let chunk = from / CHUNK_PAGES;
            match candidate(&self.chunks[&chunk], from % CHUNK_PAGES, [min, max, huge]) {
                None => self.index.emptied(chunk),
                Some((start, n)) => {
                    let first = chunk * CHUNK_PAGES + start;
                    for page in first..first + n {
                        assert_eq!(self.set(page, Page::Taken), READY);
                    }
                    return Some((first, n));
                }
            }
        }
    }

    pub(crate) fn finish_scavenging(&mut self, start: usize, n: usize) {
        for page in start..start + n {
            assert_eq!(self.set(page, Page::Free { scavenged: true }), Page::Taken);
        }
    }

    pub(crate) fn next_generation(&mut self) {
        let in_use = self.chunks.keys().map(|chunk| (*chunk, self.in_use(*chunk))).collect();
        self.index.next_generation(in_use);
    }

    pub(crate) fn reset_scavenge_search(&mut self) {
        let highest = |pages: &[Page; CHUNK_PAGES]| pages.iter().rposition(|page| *page == READY);
        let found: Vec<(usize, usize)> = self
            .chunks
            .iter()
            .filter_map(|(chunk, pages)| Some((*chunk, highest(pages)?)))
            .collect();
        for (chunk, page) in found {
            self.index.freed(chunk, chunk * CHUNK_PAGES + page);
        }
    }
}

/// The highest run of whole groups of `min` pages that can be returned, cut to `max`; at or below
/// the 64 pages of which `search` is one. Of huge pages of `huge` pages none is cut that is in it.
fn candidate(
    pages: &[Page; CHUNK_PAGES],
    search: usize,
    [min, max, huge]: [usize; 3],
) -> Option<(usize, usize)> {
    let usable =
        |page: usize| (page / min * min..page / min * min + min).all(|i| pages[i] == READY);
    let top = (0..=search / 64 * 64 + 63).rev().find(|page| usable(*page))?;
    let bottom = (0..=top).rev().take_while(|page| usable(*page)).last()?;
    let mut wanted = min;
    while wanted < max {
        wanted += min;
    }
    let end = top + 1;
    let mut start = bottom.max(end.saturating_sub(wanted));
    let is_border = |page: &usize| huge != 0 && page % huge == 0;
    if (start..=end).any(|page| is_border(&page)) {
        start = (bottom..=start).rev().find(is_border).unwrap_or(start);
    }
    Some((start, end - start))
}
