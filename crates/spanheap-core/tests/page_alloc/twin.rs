//! A page allocator without any idea: one state per page, and every search starts at the bottom.

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
}

/// Every page that was grown, by its number.
#[derive(Default)]
pub(crate) struct Twin {
    pub(crate) pages: BTreeMap<usize, Page>,
}

pub(crate) fn page_addr(page: usize) -> Addr {
    PageIndex::new(page).base()
}

impl Twin {
    pub(crate) fn has_chunk(&self, chunk: ChunkIndex) -> bool {
        self.pages.contains_key(&chunk.base().page().get())
    }

    pub(crate) fn grow(&mut self, first: ChunkIndex, n: usize) {
        let start = first.base().page().get();
        for page in start..start + n * CHUNK_PAGES {
            self.pages.insert(page, Page::Free { scavenged: true });
        }
    }

    /// Runs of neighbouring pages in a state that is wanted, as (first page, length).
    pub(crate) fn runs(&self, wanted: impl Fn(Page) -> bool) -> Vec<(usize, usize)> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (&page, _) in self.pages.iter().filter(|(_, state)| wanted(**state)) {
            match runs.last_mut() {
                Some((start, len)) if *start + *len == page => *len += 1,
                _ => runs.push((page, 1)),
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

    fn take(&mut self, start: usize, n: usize, as_state: Page) -> PageRun {
        let mut scavenged = 0;
        for page in start..start + n {
            let before = self.pages.insert(page, as_state);
            match before {
                Some(Page::Free { scavenged: was }) => scavenged += usize::from(was),
                other => panic!("page {page} was taken from {other:?}"),
            }
        }
        PageRun { base: page_addr(start), scavenged: PageCount::new(scavenged) }
    }

    pub(crate) fn alloc(&mut self, n: usize) -> Option<PageRun> {
        let start = self.find(n)?;
        Some(self.take(start, n, Page::Allocated))
    }

    /// As the allocator documents it: the first fit if it is aligned, else allocate a longer run
    /// and give its head and tail back as they were.
    pub(crate) fn alloc_aligned(&mut self, n: usize, align_pages: usize) -> Option<PageRun> {
        let start = self.find(n)?;
        if start % align_pages == 0 {
            return Some(self.take(start, n, Page::Allocated));
        }
        let longer = self.find(n + align_pages - 1)?;
        let aligned = longer.next_multiple_of(align_pages);
        let before: BTreeMap<usize, Page> =
            (longer..longer + n + align_pages - 1).map(|page| (page, self.pages[&page])).collect();
        self.take(longer, n + align_pages - 1, Page::Allocated);
        let mut scavenged = 0;
        for (page, state) in before {
            if (aligned..aligned + n).contains(&page) {
                scavenged += usize::from(state == Page::Free { scavenged: true });
            } else {
                self.pages.insert(page, state);
            }
        }
        Some(PageRun { base: page_addr(aligned), scavenged: PageCount::new(scavenged) })
    }

    pub(crate) fn free(&mut self, start: usize, n: usize) {
        for page in start..start + n {
            let before = self.pages.insert(page, Page::Free { scavenged: false });
            assert_eq!(before, Some(Page::Allocated), "page {page}");
        }
    }

    /// (first page of the block, free pages, scavenged pages)
    pub(crate) fn alloc_to_cache(&mut self) -> Option<(usize, u64, u64)> {
        let block = self.find(1)? / 64 * 64;
        let (mut free, mut scavenged) = (0, 0);
        for i in 0..64 {
            if let Page::Free { scavenged: was } = self.pages[&(block + i)] {
                free |= 1 << i;
                scavenged |= u64::from(was) << i;
                self.pages.insert(block + i, Page::Cached);
            }
        }
        Some((block, free, scavenged))
    }

    pub(crate) fn flush(&mut self, block: usize, free: u64, scavenged: u64) {
        for i in (0..64).filter(|i| free >> i & 1 != 0) {
            let state = Page::Free { scavenged: scavenged >> i & 1 != 0 };
            assert_eq!(self.pages.insert(block + i, state), Some(Page::Cached));
        }
    }

    pub(crate) fn set_scavenged(&mut self, start: usize, n: usize, scavenged: bool) {
        for page in start..start + n {
            match self.pages.get_mut(&page) {
                Some(state @ Page::Free { .. }) => *state = Page::Free { scavenged },
                other => assert!(!scavenged && other.is_some(), "page {page} is {other:?}"),
            }
        }
    }

    /// A page was handed out by a cache: now it is like any other allocated page.
    pub(crate) fn uncache(&mut self, run: PageRun, n: usize) {
        let start = run.base.get() / PAGE_BYTES;
        for page in start..start + n {
            assert_eq!(self.pages.insert(page, Page::Allocated), Some(Page::Cached));
        }
    }
}
