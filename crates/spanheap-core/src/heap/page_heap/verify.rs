//! What a look at the whole heap sees of pages: the page map, the side tables of free pages, the page allocator.

use super::{ALL_TABLES, PageHeap, PageUse};
use crate::addr::{ARENA_BYTES, CHUNK_BYTES, ChunkIndex, PageCount};
use crate::fatal::contain_with;
use crate::heap::hooks::message_of;
use crate::heap::verify::Verified;
use crate::span::bits;
use crate::sync::atomic::Ordering;

/// Pages, by what they are used for.
#[derive(Default, Debug)]
pub(crate) struct PagesFound {
    /// In spans of objects.
    pub in_use: PageCount,
    /// In manual spans.
    pub manual: PageCount,
    /// In chunks of user arenas.
    pub arena: PageCount,
    /// In such that have no memory any more.
    pub quarantined: PageCount,
}

impl PageHeap {
    /// Looks at every page. Spans neither come nor go meanwhile; free pages may go back to the system.
    pub(crate) fn verify(&self, found: &mut Verified) -> PagesFound {
        let mut pages = PagesFound::default();
        let one = PageCount::new(1);
        for arena in self.arenas() {
            let first = arena.base().chunk().get();
            for chunk in (first..first + ARENA_BYTES / CHUNK_BYTES).map(ChunkIndex::new) {
                self.for_each_page_of(arena, chunk, |page, usage| {
                    let is_free = match usage {
                        PageUse::Span(_) => {
                            pages.in_use += one;
                            false
                        }
                        PageUse::Manual => {
                            pages.manual += one;
                            false
                        }
                        PageUse::Arena => {
                            pages.arena += one;
                            false
                        }
                        PageUse::Quarantined => {
                            pages.quarantined += one;
                            false
                        }
                        PageUse::Taken | PageUse::Reserved => false,
                        PageUse::Free | PageUse::Returned => true,
                    };
                    if is_free && !arena.span(page.page_in_arena()).is_null() {
                        found.find("page map", page, format_args!("a free page belongs to a span"));
                    }
                    if matches!(usage, PageUse::Free) {
                        found.free_pages += one;
                        let lines =
                            ALL_TABLES.into_iter().flat_map(|table| bits::line(table, page));
                        if lines.into_iter().any(|word| word.load(Ordering::Relaxed) != 0) {
                            let what = format_args!("bits are set for a page without a span");
                            found.find("free pages", page, what);
                        }
                    }
                });
            }
        }
        let check = || self.inner.lock().pages.check_invariants();
        contain_with(check, |payload| {
            let what = message_of(payload).unwrap_or("an invariant does not hold");
            found.find("page allocator", crate::addr::Addr::NULL, format_args!("{what}"));
        });
        pages
    }
}
