//! The twin of a page heap: one entry for each page, nothing clever, and every answer found by looking at all
//! of them.
//!
//! What the page heap answers is either what the twin would have answered, or, where the heap may choose (which
//! pages go back to the system, where it grows), one of the answers that the twin allows.

use super::super::*;
use crate::addr::CHUNK_PAGES;
use crate::bitmap;
use crate::pages::{CACHE_PAGES, PageCache};
use std::collections::BTreeMap;

/// What a page is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    Free,
    /// One of a mutator's own pages.
    Own(usize),
    /// It belongs to a span with objects, by number.
    Objects(usize),
    /// It belongs to a manual span.
    Manual(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    pub(super) usage: Use,
    pub(super) ready: bool,
    /// Whether somebody may have written to it since it came from the system.
    dirty: bool,
}

impl Page {
    /// Whether it is free and has no memory.
    fn is_empty(&self) -> bool {
        self.usage == Use::Free && !self.ready
    }
}

pub(super) struct Chunk {
    pub(super) pages: Vec<Page>,
    /// Whether the side tables of each block have gone back to the system.
    away: Vec<bool>,
}

/// What a request got, or why not.
pub(super) struct Answer {
    pub(super) base: Addr,
    pub(super) dirt: Dirt,
}

/// What is said about the contents of new pages.
pub(super) enum Dirt {
    /// They are zero from there on.
    Below(Addr),
    /// They are zero, or not all of them.
    Zeroed(bool),
}

/// A request as the twin sees it.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) mutator: usize,
    pub(super) n: PageCount,
    pub(super) align: usize,
    pub(super) usage: Use,
}

pub(super) struct Twin {
    /// Physical page, in ours.
    unit: usize,
    /// Pages that have the same fate as to their side tables.
    block: usize,
    zero_after_unused: bool,
    /// Whether nothing is refused and nothing returned behind the twin's back: then everything is predicted.
    is_calm: bool,
    pub(super) chunks: BTreeMap<Addr, Chunk>,
    /// How many pages are ready.
    ready: usize,
    /// Per arena, the end of what was ever handed out.
    marks: BTreeMap<Addr, Addr>,
}

impl Twin {
    pub(super) fn new(os: &Os, is_calm: bool) -> Twin {
        Twin {
            unit: (os.page_size().get() / PAGE_BYTES).max(1),
            block: (tables::block(os).get() / PAGE_BYTES).min(CHUNK_PAGES),
            zero_after_unused: os.zero_after_unused(),
            is_calm,
            chunks: BTreeMap::new(),
            ready: 0,
            marks: BTreeMap::new(),
        }
    }

    pub(super) fn page(&self, at: Addr) -> &Page {
        let chunk = self.chunks.get(&at.align_down(CHUNK_BYTES)).expect("a grown chunk");
        &chunk.pages[page_in_chunk(at)]
    }

    fn page_mut(&mut self, at: Addr) -> &mut Page {
        let chunk = self.chunks.get_mut(&at.align_down(CHUNK_BYTES)).expect("a grown chunk");
        &mut chunk.pages[page_in_chunk(at)]
    }

    /// Whether the tables of the block around `at` are away.
    fn away_mut(&mut self, at: Addr) -> &mut bool {
        let block = page_in_chunk(at) / self.block;
        &mut self.chunks.get_mut(&at.align_down(CHUNK_BYTES)).expect("grown").away[block]
    }

    /// All pages in order of address.
    pub(super) fn pages(&self) -> impl Iterator<Item = (Addr, &Page)> {
        self.chunks.iter().flat_map(|(&base, chunk)| {
            let numbered = chunk.pages.iter().enumerate();
            numbered.map(move |(i, page)| (base + PageCount::new(i), page))
        })
    }

    pub(super) fn count(&self, which: impl Fn(&Page) -> bool) -> Bytes {
        PageCount::new(self.pages().filter(|(_, page)| which(page)).count()).bytes()
    }

    /// The lowest `n` free pages in a row.
    fn lowest(&self, n: PageCount) -> Option<Addr> {
        let (mut run, mut next) = (0, Addr::NULL);
        for (base, chunk) in &self.chunks {
            for (i, page) in chunk.pages.iter().enumerate() {
                let at = *base + PageCount::new(i);
                run = match page.usage == Use::Free {
                    true if at == next => run + 1,
                    true => 1,
                    false => 0,
                };
                next = at + PageCount::new(1);
                if run == n.get() {
                    return Some(next - n.bytes());
                }
            }
        }
        None
    }

    /// Where a run of free pages is taken: the lowest if it happens to be aligned, else in the lowest that is
    /// long enough wherever it lies.
    fn place(&self, n: PageCount, align: usize) -> Option<Addr> {
        let lowest = self.lowest(n)?;
        if lowest.is_aligned(align) {
            return Some(lowest);
        }
        let longer = PageCount::new(n.get() + align / PAGE_BYTES - 1);
        self.lowest(longer)?.checked_align_up(align)
    }

    /// The lowest `n` of a mutator's own pages in a row.
    fn lowest_own(&self, mutator: usize, block: Option<Addr>, n: PageCount) -> Option<Addr> {
        let mut run = 0;
        for i in 0..CACHE_PAGES.get() {
            let at = block? + PageCount::new(i);
            run = if self.page(at).usage == Use::Own(mutator) { run + 1 } else { 0 };
            if run == n.get() {
                return Some(at + PageCount::new(1) - n.bytes());
            }
        }
        None
    }

    /// The block of a mutator's own pages, if it has any.
    fn block(&self, mutator: usize) -> Option<Addr> {
        let mut own = self.pages().filter(|(_, page)| page.usage == Use::Own(mutator));
        own.next().map(|(at, _)| at.align_down(CACHE_PAGES.bytes().get()))
    }

    /// A request was made, and met or not. `before` is the mutator's own pages before it, `after` afterwards.
    pub(super) fn allocated(
        &mut self,
        heap: &PageHeap,
        asked: &Asked,
        before: &PageCache,
        after: &PageCache,
        answer: Option<&Answer>,
    ) {
        let is_local = heap.has_local_pages && asked.n < LOCAL_PAGES && asked.align <= PAGE_BYTES;
        let mut block = (!before.is_empty()).then_some(before.base());
        if is_local && block.is_none() {
            block = self.refilled(asked, after, answer);
        }
        let own = is_local.then(|| self.lowest_own(asked.mutator, block, asked.n)).flatten();
        let fitting = self.place(asked.n, asked.align);
        let has_grown = self.grow(heap, asked, own.or(fitting).is_some());
        let Some(answer) = answer else {
            self.look_for_returned(heap, false);
            return;
        };
        let last = answer.base + asked.n - Bytes::new(1);
        let is_own = block.is_some_and(|b| {
            self.page(answer.base).usage == Use::Own(asked.mutator) && last < b + CACHE_PAGES
        });
        let shared = if has_grown { self.place(asked.n, asked.align) } else { fitting };
        let expected = if is_own || (self.is_calm && own.is_some()) { own } else { shared };
        assert_eq!(
            Some(answer.base),
            expected,
            "{} pages, aligned to {}",
            asked.n.get(),
            asked.align
        );
        self.check_dirty(asked.n, answer);
        self.take(asked, answer.base);
        self.look_for_returned(heap, false);
    }

    /// A mutator without pages may have got all free ones of the block that has the lowest. Returns the block if
    /// so.
    fn refilled(
        &mut self,
        asked: &Asked,
        after: &PageCache,
        answer: Option<&Answer>,
    ) -> Option<Addr> {
        let lowest = self.lowest(PageCount::new(1))?;
        let block = lowest.align_down(CACHE_PAGES.bytes().get());
        // Unless something was refused. Who has taken everything that there was has nothing left.
        let free = (0..CACHE_PAGES.get())
            .filter(|&i| self.page(block + PageCount::new(i)).usage == Use::Free);
        let free: Vec<Addr> = free.map(|i| block + PageCount::new(i)).collect();
        let is_all_taken =
            answer.is_some_and(|answer| answer.base == lowest) && free.len() == asked.n.get();
        if after.is_empty() && !is_all_taken {
            assert!(!self.is_calm, "a mutator has not got the block at {block}");
            return None;
        }
        for at in free {
            self.page_mut(at).usage = Use::Own(asked.mutator);
        }
        *self.away_mut(block) = false;
        Some(block)
    }

    /// Learns what the heap has grown by. It grows only when it has to, and by no more than it has to.
    fn grow(&mut self, heap: &PageHeap, asked: &Asked, did_fit: bool) -> bool {
        let inner = heap.inner.lock();
        let bytes: Bytes = inner.pages.in_use().map(|range| range.bytes()).sum();
        let known = Bytes::new(self.chunks.len() * CHUNK_BYTES);
        if bytes == known {
            return false;
        }
        assert!(!did_fit, "the heap has grown for {} pages that it had", asked.n.get());
        let ask = asked.n.bytes() + Bytes::new(asked.align - PAGE_BYTES);
        let ask = ask.checked_align_up(CHUNK_BYTES).expect("so much");
        // What is left of an old reservation is added, too, when the new one does not follow it.
        assert!(bytes - known < ask + ask && bytes - known < ask + Bytes::new(MAX_GROWTH));
        for range in inner.pages.in_use() {
            let mut chunk = range.base();
            while chunk < range.end() {
                let page = Page { usage: Use::Free, ready: false, dirty: false };
                let away = vec![false; CHUNK_PAGES / self.block];
                let fresh = || Chunk { pages: vec![page; CHUNK_PAGES], away };
                self.chunks.entry(chunk).or_insert_with(fresh);
                chunk = chunk + Bytes::new(CHUNK_BYTES);
            }
        }
        true
    }

    /// What is said to be clean is, and in a calm life nothing else is said to be dirty.
    fn check_dirty(&self, n: PageCount, answer: &Answer) {
        let range = AddrRange::at(answer.base, n.bytes());
        if !self.is_calm {
            return;
        }
        let pages = (0..n.get()).map(|i| range.base() + PageCount::new(i));
        let mut expected = range.base();
        let is_new = self.zero_after_unused && pages.clone().all(|at| !self.page(at).ready);
        for at in pages {
            let mark = self.marks.get(&at.align_down(ARENA_BYTES)).copied().unwrap_or(Addr::NULL);
            if at < mark && !is_new {
                expected = at + PageCount::new(1);
            }
            assert!(at < expected || !self.page(at).dirty, "{at} is dirty");
        }
        match answer.dirt {
            Dirt::Below(end) => assert_eq!(end, expected),
            Dirt::Zeroed(zeroed) => assert_eq!(zeroed, expected == range.base()),
        }
    }

    /// Pages are taken, and whole physical pages are ready now.
    fn take(&mut self, asked: &Asked, base: Addr) {
        let range = AddrRange::at(base, asked.n.bytes());
        let bytes = self.unit * PAGE_BYTES;
        let (mut at, end) =
            (base.align_down(bytes), range.end().checked_align_up(bytes).expect("heap"));
        while at < end {
            let page = self.page_mut(at);
            if range.contains(at) {
                let was = core::mem::replace(&mut page.usage, asked.usage);
                assert!(
                    matches!(was, Use::Free) || was == Use::Own(asked.mutator),
                    "{at}: {was:?}"
                );
                page.dirty = true;
            }
            let was_ready = core::mem::replace(&mut page.ready, true);
            self.ready += usize::from(!was_ready);
            *self.away_mut(at) = false;
            at = at + PageCount::new(1);
        }
        self.mark(range);
    }

    fn mark(&mut self, range: AddrRange) {
        let mut at = range.base();
        while at < range.end() {
            let arena = at.align_down(ARENA_BYTES);
            let end = range.end().min(arena + Bytes::new(ARENA_BYTES));
            let mark = self.marks.entry(arena).or_insert(end);
            *mark = end.max(*mark);
            at = end;
        }
    }

    /// A span was freed.
    pub(super) fn freed(&mut self, range: AddrRange, usage: Use) {
        for i in 0..range.bytes().get() / PAGE_BYTES {
            let page = self.page_mut(range.base() + PageCount::new(i));
            assert!(page.usage == usage && page.ready);
            page.usage = Use::Free;
        }
    }

    /// A mutator's own pages were taken back.
    pub(super) fn taken_back(&mut self, mutator: usize) {
        let pages = self.chunks.values_mut().flat_map(|chunk| &mut chunk.pages);
        for page in pages.filter(|page| page.usage == Use::Own(mutator)) {
            page.usage = Use::Free;
        }
    }

    /// Learns which pages have gone back to the system: free ones, by whole physical pages. Returns how
    /// much that is. `by_scavenger`: the tables of chunks that became empty by it have gone, too.
    pub(super) fn look_for_returned(&mut self, heap: &PageHeap, by_scavenger: bool) -> Bytes {
        if PageCount::new(self.ready).bytes() == heap.retained() {
            return Bytes::ZERO;
        }
        assert!(by_scavenger || !self.is_calm, "memory has gone that nobody has returned");
        let mut returned = Vec::new();
        let inner = heap.inner.lock();
        for (&base, chunk) in &self.chunks {
            let view = inner.pages.chunk(base.chunk()).expect("grown");
            for (i, page) in chunk.pages.iter().enumerate() {
                if bitmap::test(view.scavenged, i) && page.ready {
                    assert!(page.usage == Use::Free, "page {i} of {base} is {:?}", page.usage);
                    returned.push(base + PageCount::new(i));
                }
            }
        }
        for &at in &returned {
            let is_zero = self.zero_after_unused;
            let page = self.page_mut(at);
            (page.ready, page.dirty) = (false, !is_zero);
            if !is_zero {
                self.mark(AddrRange::at(at, Bytes::new(PAGE_BYTES)));
            }
            let chunk = &self.chunks[&at.align_down(CHUNK_BYTES)];
            let block = chunk.pages.chunks(self.block).nth(page_in_chunk(at) / self.block);
            let is_empty = block.expect("a block").iter().all(Page::is_empty);
            *self.away_mut(at) |= by_scavenger && is_empty && is_zero && self.unit <= 4;
        }
        self.ready -= returned.len();
        PageCount::new(returned.len()).bytes()
    }

    /// Whether some whole physical page is free and has memory.
    pub(super) fn could_return(&self) -> bool {
        let could = |group: &[Page]| group.iter().all(|page| page.usage == Use::Free && page.ready);
        self.chunks.values().any(|chunk| chunk.pages.chunks(self.unit).any(could))
    }

    /// Compares everything that can be compared without knowing spans.
    pub(super) fn compare(&mut self, os: &Os, heap: &PageHeap, local: &[LocalPages]) {
        heap.check();
        self.compare_pages(heap);
        self.compare_away(heap);
        for (mutator, local) in local.iter().enumerate() {
            self.compare_own(mutator, &local.pages_now());
        }
        let counted = heap.counters().snapshot();
        counted.check().expect("counts that add up");
        let in_use = self.count(|page| matches!(page.usage, Use::Objects(_)));
        let returned = self.count(|page| !page.ready);
        for (state, bytes) in [
            (MemoryState::InUse, in_use),
            (MemoryState::Manual, self.count(|page| matches!(page.usage, Use::Manual(_)))),
            (MemoryState::Free, self.count(|page| page.usage == Use::Free && page.ready)),
            (
                MemoryState::Cached,
                self.count(|page| matches!(page.usage, Use::Own(_)) && page.ready),
            ),
            (MemoryState::Returned, returned),
        ] {
            assert_eq!(counted.pages(state), bytes, "{state:?}");
        }
        let all = Bytes::new(self.chunks.len() * CHUNK_BYTES);
        assert_eq!((heap.in_use(), heap.retained()), (in_use, all - returned));
        self.compare_with_the_system(os);
    }

    fn compare_pages(&self, heap: &PageHeap) {
        let inner = heap.inner.lock();
        let bytes: Bytes = inner.pages.in_use().map(|range| range.bytes()).sum();
        assert_eq!(bytes, Bytes::new(self.chunks.len() * CHUNK_BYTES));
        for (&base, chunk) in &self.chunks {
            let view = inner.pages.chunk(base.chunk()).expect("grown");
            for (i, page) in chunk.pages.iter().enumerate() {
                let found = (bitmap::test(view.allocated, i), bitmap::test(view.scavenged, i));
                let is_free = page.usage == Use::Free;
                assert_eq!(
                    found,
                    (!is_free, is_free && !page.ready),
                    "page {i} of {base}: {page:?}"
                );
            }
            // H3.
            for group in chunk.pages.chunks(self.unit) {
                assert!(group.iter().all(|page| page.ready == group[0].ready), "{base}");
            }
        }
    }

    /// H2, and which side tables are away.
    fn compare_away(&mut self, heap: &PageHeap) {
        let block = self.block * PAGE_BYTES;
        for arena in heap.arenas() {
            for number in 0..ARENA_BYTES / block {
                let base = arena.base() + Bytes::new(number * block);
                // Where a block is more than a chunk, nothing is ever away.
                let is_away = self.unit <= 4 && arena.first_table_away(number).is_some();
                if !self.chunks.contains_key(&base.align_down(CHUNK_BYTES)) {
                    assert!(!is_away);
                    continue;
                }
                let (is_calm, known) = (self.is_calm, self.away_mut(base));
                assert!(!is_calm || *known == is_away, "{base}: away is {is_away}");
                // A refusal may bring tables back or not.
                *known = is_away;
                self.check_lines(base, is_away);
            }
        }
    }

    /// H2 for the block at `base`.
    fn check_lines(&self, base: Addr, is_away: bool) {
        for at in (0..self.block).map(|i| base + PageCount::new(i)) {
            let page = self.page(at);
            assert!(!is_away || page.is_empty(), "{at} is in use, without tables");
            let is_clear =
                |table| bits::line(table, at).iter().all(|word| word.load(Ordering::Relaxed) == 0);
            let is_free = matches!(page.usage, Use::Free | Use::Own(_));
            assert!(is_away || !is_free || ALL_TABLES.into_iter().all(is_clear), "H2 at {at}");
        }
    }

    fn compare_own(&self, mutator: usize, own: &PageCache) {
        let block = self.block(mutator);
        assert_eq!(block, (!own.is_empty()).then_some(own.base()));
        let Some(block) = block else { return };
        for i in 0..CACHE_PAGES.get() {
            let page = self.page(block + PageCount::new(i));
            let (is_own, is_scavenged) = (own.free_bits() >> i & 1, own.scavenged_bits() >> i & 1);
            assert_eq!(page.usage == Use::Own(mutator), is_own == 1, "page {i} of {block}");
            assert!(is_own == 0 || page.ready == (is_scavenged == 0), "page {i} of {block}");
        }
        let pages = self.pages().filter(|(_, page)| page.usage == Use::Own(mutator)).count();
        assert_eq!(pages, own.free_bits().count_ones() as usize);
    }

    /// H1, page by page: what the system calls ready is what the twin does.
    fn compare_with_the_system(&self, os: &Os) {
        for (&base, chunk) in &self.chunks {
            let mut ready = Vec::new();
            os.resident(AddrRange::at(base, Bytes::new(CHUNK_BYTES)), &mut |run| ready.push(run));
            let found: Bytes = ready.iter().map(|run| run.bytes()).sum();
            let expected = chunk.pages.iter().filter(|page| page.ready).count();
            assert_eq!(found, PageCount::new(expected).bytes(), "chunk {base}");
            for run in ready {
                let mut at = run.base().align_down(PAGE_BYTES);
                while at < run.end() {
                    assert!(self.page(at).ready, "{at}");
                    at = at + PageCount::new(1);
                }
            }
        }
    }
}

/// More than one arena is never added beyond what was asked for.
const MAX_GROWTH: usize = ARENA_BYTES;

fn page_in_chunk(at: Addr) -> usize {
    at.bytes_since(at.align_down(CHUNK_BYTES)).get() / PAGE_BYTES
}
