//! The simulated address space: blocks of backing memory and the shadow state of each of their
//! pages.
//!
//! A [`Block`] is one allocation of the Rust allocator, or a mapping if it is large, aligned by hand, cut into
//! pages. A
//! reservation gets a block of its own, which goes back to the allocator once all its pages are
//! released; or a part of the one *standing* block, if there is one, which stays. A range that a
//! caller names lies in one block, because two blocks never touch: each allocation is longer than
//! its block, by the alignment.
//!
//! **Invariants.** (1) `owned` is the number of pages of a block that are neither None nor Leaked.
//! (2) A page that is not `soiled` reads as zeros. (3) `Shadow::ready` is the number of Ready
//! pages, in bytes. (4) `Block::base` is page-aligned and all pages of a block lie inside its
//! allocation.
//!
//! # Safety
//! This file is trusted to write only to pages inside its own allocations (4), and only at
//! transitions in which their owner has declared the contents forfeit, or while nobody owns them; and
//! to free no allocation of which a page is owned.
#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use super::FAULT_JUNK;
use super::runs::Runs;
use crate::addr::{ARENA_BYTES, Addr, AddrRange, Bytes};
use crate::os::Category;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PageState {
    None,
    Reserved,
    /// Reserved, by `guard`.
    Guarded,
    Prepared,
    Ready,
    /// Ready, and an access faults.
    Shut,
    Leaked,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Page {
    state: PageState,
    /// What a Prepared, Ready or Guarded page was mapped for.
    category: Category,
    /// Whether the page may hold something else than zeros.
    soiled: bool,
}

/// Blocks of so many bytes are mappings and no allocations.
const MAPPED: usize = 256 << 10;

const FREE_PAGE: Page = Page { state: PageState::None, category: Category::Heap, soiled: false };

struct Block {
    base: Addr,
    pages: Runs<Page>,
    owned: usize,
    standing: bool,
    /// The allocation behind it.
    memory: Addr,
    layout: Layout,
    /// Whether it is a mapping.
    is_mapping: bool,
}

/// The states that an operation accepts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    /// Reserved.
    Reserved,
    /// Prepared or Ready, and mapped for the category if one is given.
    Mapped(Option<Category>),
    /// Anything but None, and what is mapped is mapped for the category if one is given.
    Owned(Option<Category>),
    /// Guarded, and mapped for the category before.
    Guarded(Category),
    /// Ready.
    Ready,
    /// Ready and shut.
    Shut,
    /// Prepared or Ready, shut or not, and mapped for the category.
    Guardable(Category),
}

impl Expect {
    fn admits(self, page: Page) -> bool {
        let mapped = matches!(page.state, PageState::Prepared | PageState::Ready);
        match self {
            Expect::Reserved => page.state == PageState::Reserved,
            Expect::Mapped(category) => mapped && category.is_none_or(|c| c == page.category),
            Expect::Owned(category) if mapped || page.state == PageState::Shut => {
                category.is_none_or(|c| c == page.category)
            }
            Expect::Owned(_) => matches!(page.state, PageState::Reserved | PageState::Guarded),
            Expect::Guarded(category) => {
                page.state == PageState::Guarded && page.category == category
            }
            Expect::Ready => page.state == PageState::Ready,
            Expect::Shut => page.state == PageState::Shut,
            Expect::Guardable(category) => {
                (mapped || page.state == PageState::Shut) && page.category == category
            }
        }
    }
}

/// The bytes of a range by state.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) mapped: Bytes,
    pub(super) ready: Bytes,
}

impl Tally {
    /// Panics when a count that a caller passed is not the truth.
    pub(super) fn expect(self, op: &str, range: AddrRange, what: &str, is: Bytes, said: Bytes) {
        assert!(
            is == said,
            "simulated os: {op} {range:?}: {is} are {what}, the caller said {said}"
        );
    }
}

/// The address space.
pub(super) struct Shadow {
    page_size: usize,
    blocks: BTreeMap<Addr, Block>,
    ready: usize,
}

impl Shadow {
    pub(super) fn new(page_size: Bytes) -> Shadow {
        Shadow { page_size: page_size.get(), blocks: BTreeMap::new(), ready: 0 }
    }

    /// The bytes that are Ready.
    pub(super) fn ready(&self) -> Bytes {
        Bytes::new(self.ready)
    }

    /// Creates the standing block. `false` when there is no memory for it.
    pub(super) fn set_aside(&mut self, bytes: Bytes) -> bool {
        self.add_block(bytes, ARENA_BYTES, true).is_some()
    }

    /// None to Reserved.
    pub(super) fn reserve(&mut self, hint: Option<Addr>, bytes: Bytes) -> Option<Addr> {
        let base = match self.find_standing(hint, bytes) {
            Some(base) => base,
            None => self.add_block(bytes, 1, false)?,
        };
        let owned = bytes.get() / self.page_size;
        self.block_of(base).owned += owned;
        self.set(AddrRange::at(base, bytes), |page| page.state = PageState::Reserved);
        Some(base)
    }

    /// None to Ready, always in a block of its own.
    pub(super) fn alloc(&mut self, bytes: Bytes, category: Category) -> Option<Addr> {
        let base = self.add_block(bytes, 1, false)?;
        self.block_of(base).owned = bytes.get() / self.page_size;
        self.ready += bytes.get();
        let ready = Page { state: PageState::Ready, category, soiled: true };
        self.set(AddrRange::at(base, bytes), |page| *page = ready);
        Some(base)
    }

    /// Panics unless every page of the range is in an expected state; counts them.
    pub(super) fn check(&self, op: &str, range: AddrRange, expect: Expect) -> Tally {
        let found = self.blocks.range(..=range.base()).next_back();
        let block = found.map(|(_, block)| block).filter(|block| range.end() <= block.end(self));
        let block = block.unwrap_or_else(|| {
            panic!("simulated os: {op} {range:?}: state None, expected {expect:?}")
        });
        let mut tally = Tally::default();
        let pages = block.index(self, range.base())..block.index(self, range.end());
        for (run, page) in block.pages.iter(pages) {
            let admitted = expect.admits(page);
            let at = block.base + Bytes::new(run.start * self.page_size);
            let (state, category) = (page.state, page.category);
            assert!(
                admitted,
                "simulated os: {op} {range:?}: page {at} is {state:?} ({category}), \
                 expected {expect:?}"
            );
            let bytes = Bytes::new(run.len() * self.page_size);
            if matches!(state, PageState::Prepared | PageState::Ready | PageState::Shut) {
                tally.mapped += bytes;
            }
            if matches!(state, PageState::Ready | PageState::Shut) {
                tally.ready += bytes;
            }
        }
        tally
    }

    /// Reserved or Guarded to Prepared. The memory will read as zeros, whatever was there before.
    pub(super) fn map(&mut self, range: AddrRange, category: Category) {
        self.fill(range, 0, |page| page.soiled);
        let prepared = Page { state: PageState::Prepared, category, soiled: false };
        self.set(range, |page| *page = prepared);
    }

    /// Prepared and Ready to Ready.
    pub(super) fn used(&mut self, range: AddrRange) {
        self.set_ready_count(range, range.bytes());
        self.set(range, |page| {
            page.state = PageState::Ready;
            page.soiled = true;
        });
    }

    /// Prepared and Ready to Prepared; what was Ready now reads as `contents`.
    pub(super) fn unused(&mut self, range: AddrRange, contents: u8) {
        self.fill(range, contents, |page| page.state == PageState::Ready);
        self.set_ready_count(range, Bytes::ZERO);
        self.set(range, |page| page.state = PageState::Prepared);
    }

    /// Prepared and Ready to Reserved, and junk.
    pub(super) fn fault(&mut self, range: AddrRange) {
        self.fill(range, FAULT_JUNK, |page| page.soiled);
        self.set_ready_count(range, Bytes::ZERO);
        self.set(range, |page| page.state = PageState::Reserved);
    }

    /// Prepared and Ready to Guarded; it reads as `contents`.
    pub(super) fn guard(&mut self, range: AddrRange, contents: u8) {
        self.fill(range, contents, |page| page.soiled);
        self.set_ready_count(range, Bytes::ZERO);
        self.set(range, |page| page.state = PageState::Guarded);
    }

    /// Ready to Shut, and junk.
    pub(super) fn shut(&mut self, range: AddrRange) {
        self.fill(range, FAULT_JUNK, |page| page.soiled);
        self.set(range, |page| page.state = PageState::Shut);
    }

    /// Shut to Ready.
    pub(super) fn open(&mut self, range: AddrRange) {
        self.set(range, |page| page.state = PageState::Ready);
    }

    /// Ready to Guarded, and Prepared to Ready elsewhere, with what was there.
    pub(super) fn move_memory(&mut self, from: AddrRange, to: AddrRange) {
        self.used(to);
        let (source, place) = (from.base().as_ptr::<u8>(), to.base().as_ptr::<u8>());
        // SAFETY: both ranges were checked: they lie in blocks of ours (4), as far as they are long, and are not the
        // same, so they do not overlap, being aligned; what is in them is forfeit.
        unsafe { core::ptr::copy_nonoverlapping(source.cast_const(), place, from.bytes().get()) };
        self.guard(from, FAULT_JUNK);
    }

    /// Any state to None, or to Leaked when the range is kept.
    pub(super) fn release(&mut self, range: AddrRange, kept: bool) {
        let page_size = self.page_size;
        let block = self.block_of(range.base());
        let is_whole = range.bytes().get() / page_size == block.pages.len() && !block.standing;
        // Who still looks at a mapping that is gone faults; junk would say less than that.
        if kept || !is_whole || !block.is_mapping {
            self.fill(range, FAULT_JUNK, |page| page.soiled);
        }
        self.set_ready_count(range, Bytes::ZERO);
        let state = if kept { PageState::Leaked } else { PageState::None };
        self.set(range, |page| page.state = state);
        let pages = range.bytes().get() / page_size;
        let block = self.block_of(range.base());
        block.owned -= pages;
        let unused =
            block.owned == 0 && !block.standing && block.all(|page| page.state == PageState::None);
        let base = block.base;
        if unused {
            self.blocks.remove(&base);
        }
    }

    /// The runs of Ready pages in a range.
    pub(super) fn ready_runs(&self, range: AddrRange) -> Vec<AddrRange> {
        let mut runs: Vec<AddrRange> = Vec::new();
        for block in self.blocks.range(..range.end()).map(|(_, block)| block) {
            let (from, to) = (range.base().max(block.base), range.end().min(block.end(self)));
            if from >= to {
                continue;
            }
            let pages = block.index(self, from)..block.index(self, to);
            for (run, page) in block.pages.iter(pages) {
                if !matches!(page.state, PageState::Ready | PageState::Shut) {
                    continue;
                }
                let base = block.base + Bytes::new(run.start * self.page_size);
                let found = AddrRange::at(base, Bytes::new(run.len() * self.page_size));
                match runs.last_mut().filter(|run| run.end() == base) {
                    Some(run) => *run = AddrRange::new(run.base(), found.end()),
                    None => runs.push(found),
                }
            }
        }
        runs
    }

    /// One line for each owned run of pages in the same state.
    pub(super) fn describe_owned(&self) -> String {
        let mut text = String::new();
        for block in self.blocks.values() {
            let runs: Vec<_> = block.pages.iter(0..block.pages.len()).collect();
            let mut at = block.base;
            let alike = |a: &Page, b: &Page| (a.state, a.category) == (b.state, b.category);
            for run in runs.chunk_by(|(_, a), (_, b)| alike(a, b)) {
                let pages = run[run.len() - 1].0.end - run[0].0.start;
                let range = AddrRange::at(at, Bytes::new(pages * self.page_size));
                at = range.end();
                let (state, category) = (run[0].1.state, run[0].1.category);
                if !matches!(state, PageState::None | PageState::Leaked) {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\n  {range:?} {}: {state:?}", range.bytes());
                    if state != PageState::Reserved {
                        let _ = write!(text, " ({category})");
                    }
                }
            }
        }
        text
    }

    /// A free place in the standing block: at the hint, else the lowest.
    fn find_standing(&self, hint: Option<Addr>, bytes: Bytes) -> Option<Addr> {
        let block = self.blocks.values().find(|block| block.standing)?;
        let count = bytes.get() / self.page_size;
        let is_free = |page: Page| page.state == PageState::None;
        if let Some(hint) = hint.filter(|&hint| hint >= block.base && hint < block.end(self)) {
            let first = block.index(self, hint);
            let wanted = first..first + count;
            if wanted.end <= block.pages.len()
                && block.pages.iter(wanted).all(|(_, page)| is_free(page))
            {
                return Some(hint);
            }
        }
        // Free runs that follow each other differ in what they were.
        let mut first = 0;
        let (run, _) = block.pages.iter(0..block.pages.len()).find(|(run, page)| {
            if !is_free(*page) {
                first = run.end;
            }
            run.end - first >= count
        })?;
        debug_assert!(first + count <= run.end);
        Some(block.base + Bytes::new(first * self.page_size))
    }

    /// Allocates a block of free pages and returns its base.
    fn add_block(&mut self, bytes: Bytes, align: usize, standing: bool) -> Option<Addr> {
        let align = align.max(self.page_size);
        let size = bytes.get().checked_add(align)?;
        let layout = Layout::from_size_align(size, 16).ok()?;
        let is_mapping = size >= MAPPED && !cfg!(miri);
        let memory = match is_mapping {
            true => map_zeroed(size)?,
            // SAFETY: the layout's size is at least `align`, so it is not zero.
            false => Addr::of(unsafe { alloc::alloc_zeroed(layout) }.cast_const()),
        };
        if memory.is_null() {
            return None;
        }
        let base =
            memory.checked_align_up(align).expect("an allocation ends below the last address");
        let pages = Runs::new(FREE_PAGE, bytes.get() / self.page_size);
        let block = Block { base, pages, owned: 0, standing, memory, layout, is_mapping };
        self.blocks.insert(base, block);
        Some(base)
    }

    fn block_of(&mut self, addr: Addr) -> &mut Block {
        let (_, block) = self.blocks.range_mut(..=addr).next_back().expect("checked before");
        block
    }

    /// Changes the pages of a range.
    fn set(&mut self, range: AddrRange, mut change: impl FnMut(&mut Page)) {
        self.set_runs(range, |_, page| change(page));
    }

    /// The same, knowing where they are.
    fn set_runs(&mut self, range: AddrRange, mut change: impl FnMut(AddrRange, &mut Page)) {
        let page_size = self.page_size;
        let block = self.block_of(range.base());
        let first = range.base().bytes_since(block.base).get() / page_size;
        let end = range.end().bytes_since(block.base).get() / page_size;
        let base = block.base;
        block.pages.change(first..end, |run, page| {
            let at = base + Bytes::new(run.start * page_size);
            change(AddrRange::at(at, Bytes::new(run.len() * page_size)), page);
        });
    }

    /// Fills those pages of a range that `which` selects, and remembers what they hold.
    fn fill(&mut self, range: AddrRange, contents: u8, which: impl Fn(&Page) -> bool) {
        self.set_runs(range, |run, page| {
            if which(page) {
                let bytes = run.bytes().get();
                // SAFETY: the pages are in one of our blocks (4), and their contents are forfeit in
                // every transition that fills.
                unsafe { run.base().as_ptr::<u8>().write_bytes(contents, bytes) };
                page.soiled = contents != 0;
            }
        });
    }

    /// Corrects the count of Ready bytes before the pages of a range change state, so that `after`
    /// of them are Ready.
    fn set_ready_count(&mut self, range: AddrRange, after: Bytes) {
        let mut before = 0;
        self.set_runs(range, |run, page| {
            if matches!(page.state, PageState::Ready | PageState::Shut) {
                before += run.bytes().get();
            }
        });
        self.ready = self.ready - before + after.get();
    }
}

/// A mapping of zeros of so many bytes.
fn map_zeroed(size: usize) -> Option<Addr> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at a place of the kernel's choice.
    let memory = unsafe { libc::mmap(core::ptr::null_mut(), size, access, flags, -1, 0) };
    (memory != libc::MAP_FAILED).then(|| Addr::of(memory.cast_const().cast::<u8>()))
}

impl Block {
    fn end(&self, shadow: &Shadow) -> Addr {
        self.base + Bytes::new(self.pages.len() * shadow.page_size)
    }

    fn all(&self, which: impl Fn(&Page) -> bool) -> bool {
        self.pages.iter(0..self.pages.len()).all(|(_, page)| which(&page))
    }

    fn index(&self, shadow: &Shadow, addr: Addr) -> usize {
        addr.bytes_since(self.base).get() / shadow.page_size
    }
}

/// The allocations of systems that went away while pages of them were owned. Nobody asks for them; they
/// are written down so that a leak checker can tell them from memory that was forgotten.
static KEPT: Mutex<Vec<Addr>> = Mutex::new(Vec::new());

impl Drop for Block {
    fn drop(&mut self) {
        if self.owned != 0 {
            KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(self.memory);
            return;
        }
        if self.is_mapping {
            // SAFETY: `memory` is a mapping of this size, and no page of it is owned (1): whoever
            // released them has promised not to use them (O2).
            let status = unsafe { libc::munmap(self.memory.as_ptr(), self.layout.size()) };
            debug_assert!(status == 0, "the whole of a mapping is unmapped");
            return;
        }
        // SAFETY: `memory` came from the same allocator with the same layout, and no page of it is
        // owned (1): whoever released them has promised not to use them (O2).
        unsafe { alloc::dealloc(self.memory.as_ptr(), self.layout) };
    }
}
