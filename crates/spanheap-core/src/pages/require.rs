//! Making sure that callers name pages that exist and are in the state that they think.
//!
//! A page that is freed twice, or freed by a wrong length, would be handed out twice later, and the
//! heap would break far from the cause. Checking costs a count of bits in words that are about to
//! be changed anyway. So each operation on named pages checks first, changes nothing when it fails,
//! and says what the pages of the chunk look like.

use super::alloc::{PageAlloc, pieces};
use super::bits;
use crate::addr::{ADDRESS_BITS, Addr, ChunkIndex, PAGE_BYTES, PAGE_SHIFT, PageCount};
use crate::bitmap;

/// What has to hold for every page that a caller names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Grown,
    Free,
    Allocated,
}

impl PageAlloc {
    /// Makes sure of it.
    pub(super) fn require(&self, base: Addr, n: PageCount, want: Want, verb: &str) {
        assert!(n.get() > 0, "cannot {verb} no pages at all, at {base}");
        assert!(base.is_aligned(PAGE_BYTES), "cannot {verb} pages at {base}, which starts no page");
        // Compared before anything is added, so that no sum overflows.
        let limit = 1 << (ADDRESS_BITS - PAGE_SHIFT);
        let fits = n.get() <= limit && base.page().get() <= limit - n.get();
        let grown = fits && self.grown.contain(base.chunk(), last_page(base, n).chunk());
        assert!(
            grown,
            "cannot {verb} {} pages at {base}: the heap never had all of them; it has {:?}",
            n.get(),
            self.bounds(),
        );
        if want == Want::Grown {
            return;
        }
        for piece in pieces(base, n) {
            let allocated = bits::count(self.chunks.allocated(piece.chunk), piece.start, piece.len);
            let as_wanted = if want == Want::Free { PageCount::ZERO } else { piece.len };
            if allocated != as_wanted {
                self.bad_state(base, n, piece.chunk, want, verb);
            }
        }
    }

    #[cold]
    fn bad_state(&self, base: Addr, n: PageCount, chunk: ChunkIndex, want: Want, verb: &str) -> ! {
        let is = if want == Want::Free { "allocated" } else { "free" };
        panic!(
            "cannot {verb} {} pages at {base}: some of them are {is} already; the allocated pages \
             of the chunk at {} are {:?}; likely cause: a span freed twice, or with a wrong length",
            n.get(),
            chunk.base(),
            bitmap::runs(self.chunks.allocated(chunk)).collect::<Vec<_>>(),
        )
    }
}

/// The last page of a run.
fn last_page(base: Addr, n: PageCount) -> Addr {
    base + (n - PageCount::new(1))
}
