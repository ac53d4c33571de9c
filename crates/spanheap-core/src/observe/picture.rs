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
//!     page of a user arena         -> arena, or quarantined
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

use crate::addr::{
    ARENA_BYTES, ARENA_PAGES, Addr, Bytes, CHUNK_BYTES, CHUNK_PAGES, PAGE_BYTES, PageCount,
};
use crate::heap::page_heap::PageUse;
use crate::mutator::Heap;
use crate::span::{Info, Span, bits};
use core::ptr;
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
    /// A page of a freed user arena: it has no memory, and its address is kept as long as somebody points there.
    Quarantined,
    /// A page of a user arena.
    Arena,
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
    /// [`PageState::Quarantined`].
    pub quarantined: Bytes,
    /// [`PageState::Arena`].
    pub arena: Bytes,
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
        // No more spans than pages begin in a chunk, so neither buffer grows under the lock.
        let mut begun = Vec::with_capacity(CHUNK_PAGES);
        for arena in pages.arenas() {
            let mut states = Vec::with_capacity(ARENA_PAGES);
            for index in 0..ARENA_BYTES / CHUNK_BYTES {
                let chunk = (arena.base() + Bytes::new(index * CHUNK_BYTES)).chunk();
                let mut last = (ptr::null(), PageState::Held);
                pages.for_each_page_of(arena, chunk, |page, usage| {
                    let state = match usage {
                        PageUse::Reserved => PageState::Reserved,
                        PageUse::Returned => PageState::Returned,
                        PageUse::Free => PageState::Free,
                        PageUse::Manual | PageUse::Taken => PageState::Held,
                        PageUse::Arena => PageState::Arena,
                        PageUse::Quarantined => PageState::Quarantined,
                        // The slots of a span are counted once.
                        PageUse::Span(span) if ptr::eq(span, last.0) => last.1,
                        PageUse::Span(span) => {
                            let seen = Seen::of(span);
                            last = (ptr::from_ref(span), seen.state());
                            begun.extend((seen.info.base == page).then_some(seen));
                            last.1
                        }
                    };
                    states.push(state);
                });
                begun.drain(..).for_each(|seen: Seen| seen.add_to(&mut classes));
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
                PageState::Quarantined => &mut totals.quarantined,
                PageState::Arena => &mut totals.arena,
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

/// A span that was looked at, under the lock.
struct Seen {
    info: Info,
    objects: usize,
}

impl Seen {
    fn of(span: &Span) -> Seen {
        let info = *span.info();
        let table = span.generation().table();
        let objects = match info.size_class {
            Some(_) => bits::count(&info, table).min(info.slots),
            // One bit tells; a large object may have millions of others, all clear.
            None => usize::from(bits::is_set(table, info.base)),
        };
        Seen { info, objects }
    }

    /// The state of its pages.
    fn state(&self) -> PageState {
        let Seen { info, objects } = self;
        match info.size_class {
            Some(_) => {
                PageState::Small { class: info.class, live: (objects * 100 / info.slots) as u8 }
            }
            None => PageState::Large { class: info.class },
        }
    }

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

#[cfg(test)]
mod tests;
