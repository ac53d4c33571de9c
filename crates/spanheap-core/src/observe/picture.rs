//! A picture of a heap: what each of its pages is used for, and how full each class of spans is.
//!
//! Where the statistics are sums, a picture shows *where* things lie: free pages between spans that are
//! nearly empty, arenas that were reserved and never used, memory that has been returned. It is taken
//! while mutators and the collector go on, and is plain data afterwards.
//!
//! ```text
//! for each arena, for each of its chunks, under the page heap's lock:
//!     not grown                    -> reserved
//!     page free                    -> free or returned, by its scavenged bit
//!     page allocated, in no span   -> held
//!     page allocated, in a span    -> small or large, with what its span's allocation bits say
//! ```
//! A chunk is seen at one instant, different chunks at different ones. So a span that comes or goes meanwhile may
//! be missing, or counted when it has just gone; nothing is counted twice, because a span counts where it begins.
//!
//! # What counts as an object
//! A set bit of the allocation table. That includes garbage that no sweep has come to yet, and the rest of each
//! run of slots that a thread allocates from. A thread keeps its runs when it leaves a closure; they are given
//! back in the next cycle, or when it detaches.
//!
//! # Locking
//! [`Rank::PageHeap`](crate::sync::Rank), for one chunk at a time: some microseconds for 4 MiB of heap. Nothing
//! is allocated and no code of the user's runs under it; what is found goes to a buffer made before.
//!
//! # Safety
//! Span records are read by somebody who does not own the span. They are read under the page heap's lock, and only
//! those that the page map names then: [`PageHeap::with_chunk`](crate::heap::page_heap::PageHeap) promises that
//! these keep their description (P1) until the lock is released.
#![allow(unsafe_code)]

use crate::addr::{
    ARENA_BYTES, ARENA_PAGES, Addr, Bytes, CHUNK_BYTES, CHUNK_PAGES, PAGE_BYTES, PageCount,
};
use crate::bitmap;
use crate::mutator::Heap;
use crate::pages::ChunkView;
use crate::span::{HeapArena, Info, Span, bits};
use std::collections::BTreeMap;

/// What a page is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageState {
    /// Address space that no page was ever made of.
    Reserved,
    /// A free page whose memory was returned to the system, or never asked for.
    Returned,
    /// A free page that has memory.
    Free,
    /// A page that is in use and holds no objects: it belongs to a span that is being made or freed, to a
    /// reserve of pages, or to memory that is managed by hand.
    Held,
    /// A page of a span of small objects.
    Small {
        /// The number of the span's class: [`ClassPicture::class`].
        class: u32,
        /// How many of the span's slots hold an object, in percent, rounded down.
        live: u8,
    },
    /// A page of a span that one large object has for itself.
    Large {
        /// The number of the span's class: [`ClassPicture::class`].
        class: u32,
    },
}

/// An arena: 64 MiB of address space.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ArenaPicture {
    /// Its first address.
    pub base: Addr,
    /// Its pages of 8 KiB, lowest first.
    pub pages: Vec<PageState>,
}

/// What the spans of a class hold.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ClassPicture {
    /// The number of the class in its heap.
    pub class: u32,
    /// Bytes of a slot; `None` for large objects, which have spans of different sizes.
    pub slot: Option<Bytes>,
    /// The name of a type whose objects have this class. (Types of equal layout share one.)
    pub type_name: &'static str,
    /// Number of spans.
    pub spans: usize,
    /// Pages of these spans.
    pub pages: PageCount,
    /// Slots of these spans.
    pub slots: usize,
    /// Slots that hold an object.
    pub objects: usize,
    /// Bytes of the slots that hold an object.
    pub object_bytes: Bytes,
}

impl ClassPicture {
    /// Slots that hold no object.
    #[must_use]
    pub fn free_slots(&self) -> usize {
        self.slots - self.objects
    }

    /// The part of the class' pages that holds no object, ends of spans included, in percent.
    #[must_use]
    pub fn free_percent(&self) -> f64 {
        let pages = self.pages.bytes().get().max(1) as f64;
        100.0 * (1.0 - self.object_bytes.get() as f64 / pages)
    }
}

/// Bytes of pages in each state.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PageTotals {
    /// [`PageState::Reserved`].
    pub reserved: Bytes,
    /// [`PageState::Returned`].
    pub returned: Bytes,
    /// [`PageState::Free`].
    pub free: Bytes,
    /// [`PageState::Held`].
    pub held: Bytes,
    /// [`PageState::Small`].
    pub small: Bytes,
    /// [`PageState::Large`].
    pub large: Bytes,
}

/// A picture of a heap.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Picture {
    /// The arenas, lowest first.
    pub arenas: Vec<ArenaPicture>,
    /// The classes that have a span, by number.
    pub classes: Vec<ClassPicture>,
}

impl Picture {
    /// A picture of `heap` now.
    #[must_use]
    pub fn of(heap: &Heap) -> Picture {
        let pages = heap.collector().central().pages();
        let mut picture = Picture::default();
        let mut classes = BTreeMap::new();
        let mut chunk = Chunk::new();
        for arena in pages.arenas() {
            let mut states = Vec::with_capacity(ARENA_PAGES);
            for index in 0..ARENA_BYTES / CHUNK_BYTES {
                let base = arena.base() + Bytes::new(index * CHUNK_BYTES);
                pages.with_chunk(base.chunk(), |view| chunk.read(arena, base, view));
                states.extend_from_slice(&chunk.states);
                chunk.begun.drain(..).for_each(|seen| seen.add_to(&mut classes));
            }
            picture.arenas.push(ArenaPicture { base: arena.base(), pages: states });
        }
        picture.arenas.sort_by_key(|arena| arena.base);
        picture.classes = classes.into_values().collect();
        picture
    }

    /// How many bytes of pages are in each state.
    #[must_use]
    pub fn totals(&self) -> PageTotals {
        let mut totals = PageTotals::default();
        for state in self.arenas.iter().flat_map(|arena| &arena.pages) {
            let total = match state {
                PageState::Reserved => &mut totals.reserved,
                PageState::Returned => &mut totals.returned,
                PageState::Free => &mut totals.free,
                PageState::Held => &mut totals.held,
                PageState::Small { .. } => &mut totals.small,
                PageState::Large { .. } => &mut totals.large,
            };
            *total += Bytes::new(PAGE_BYTES);
        }
        totals
    }

    /// Bytes of the slots that hold an object, all classes.
    #[must_use]
    pub fn object_bytes(&self) -> Bytes {
        let add = |sum: Bytes, class: &ClassPicture| sum + class.object_bytes;
        self.classes.iter().fold(Bytes::ZERO, add)
    }
}

/// A span that begins in the chunk being read.
struct Seen {
    info: Info,
    objects: usize,
}

impl Seen {
    fn add_to(self, classes: &mut BTreeMap<u32, ClassPicture>) {
        let Seen { info, objects } = self;
        let class = classes.entry(info.class).or_insert_with(|| ClassPicture {
            class: info.class,
            slot: info.size_class.map(|class| class.size()),
            type_name: (info.type_name)(),
            spans: 0,
            pages: PageCount::ZERO,
            slots: 0,
            objects: 0,
            object_bytes: Bytes::ZERO,
        });
        class.spans += 1;
        class.pages += info.pages;
        class.slots += info.slots;
        class.objects += objects;
        class.object_bytes += Bytes::new(objects * info.slot);
    }
}

/// What one chunk looks like. Made once and filled again for each.
struct Chunk {
    states: [PageState; CHUNK_PAGES],
    begun: Vec<Seen>,
}

impl Chunk {
    fn new() -> Chunk {
        // No more spans than pages begin in a chunk, so the buffer never grows under the lock.
        let begun = Vec::with_capacity(CHUNK_PAGES);
        Chunk { states: [PageState::Reserved; CHUNK_PAGES], begun }
    }

    /// Reads the chunk at `base`, which lies in `arena`. The page heap's lock is held.
    fn read(&mut self, arena: &HeapArena, base: Addr, view: Option<ChunkView<'_>>) {
        let Some(view) = view else {
            self.states.fill(PageState::Reserved);
            return;
        };
        let first = base.page_in_arena();
        let mut page = 0;
        while page < CHUNK_PAGES {
            if !bitmap::test(view.allocated, page) {
                let returned = bitmap::test(view.scavenged, page);
                self.states[page] = if returned { PageState::Returned } else { PageState::Free };
                page += 1;
                continue;
            }
            // SAFETY: the lock is held, so a record that the page map names is in use, and keeps its
            // description until the lock is released.
            let span = unsafe { arena.span(first + page).as_ref() };
            let Some(span) = span.filter(|span| span.is_in_use()) else {
                self.states[page] = PageState::Held;
                page += 1;
                continue;
            };
            page = self.read_span(span, base, page);
        }
    }

    /// Reads the part of a span that begins at `page` of the chunk at `base`; returns the page behind it.
    fn read_span(&mut self, span: &Span, base: Addr, page: usize) -> usize {
        let info = *span.info();
        let table = span.generation().table();
        let objects = match info.size_class {
            Some(_) => bits::count(&info, table).min(info.slots),
            // One bit tells; a large object may have millions of others, all clear.
            None => usize::from(bits::is_set(table, info.base)),
        };
        let at = base + PageCount::new(page);
        if info.base == at {
            self.begun.push(Seen { info, objects });
        }
        let state = match info.size_class {
            Some(_) => {
                PageState::Small { class: info.class, live: (objects * 100 / info.slots) as u8 }
            }
            None => PageState::Large { class: info.class },
        };
        let end = info.range().end().bytes_since(base).get() / PAGE_BYTES;
        let end = end.min(CHUNK_PAGES);
        self.states[page..end].fill(state);
        end
    }
}

#[cfg(test)]
mod tests;
