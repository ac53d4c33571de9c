//! The page allocator: which pages of the heap's address space are free?
//!
//! It answers two questions: where are n free pages in a row, and which of them were returned to
//! the system? Allocation is *address-ordered first fit*: the lowest address at which n free pages
//! lie in a row. That keeps the heap dense at its low end, so that whole chunks at the high end
//! become free and can be returned to the system; and the heap's knowledge of memory that was never
//! used is one mark per arena.
//!
//! | module | what |
//! |---|---|
//! | [`bits`] | the bitmap of one chunk of 512 pages |
//! | [`summary`] | three numbers about the free pages of a region, and how they merge |
//! | `tree` | five levels of summaries over the address space, and the search |
//! | `chunks` | the bitmaps of the grown chunks |
//! | `grown` | which chunks were grown |
//! | [`candidate`] | which free pages of a chunk to return to the system |
//! | [`scavenge_index`] | in which chunk to look for them |
//! | `alloc` | [`PageAlloc`]: allocate, free, grow |
//! | `require` | its callers name pages that are in the state that they think |
//! | `scavenge` | pages are taken out to be returned to the system, and put back |
//! | `units` | halves of chunks that are free as a whole |
//! | `cache` | [`PageCache`]: 64 pages taken out at once, to be handed out without a lock |
//! | `check` | the invariants, checked as a whole |
//!
//! # Pure data
//!
//! The allocator never touches the memory that it manages; an address here is a number. It contains
//! no `unsafe` and no lock: whoever owns it says `&mut`, and in a heap that is the page-heap lock.
//! Its own tables are reserved when it is made (580 MiB of address space) and committed as chunks
//! are grown: 200 KiB for a small heap, of which a dozen pages are ever written, and 144 bytes for
//! every further chunk of 4 MiB. It calls the system to grow and to be released, never to allocate
//! or to free.
//!
//! # Life of a page
//!
//! ```text
//!           grow                 alloc                       free
//! (nothing) ----> free, scavenged ----> allocated, not scavenged ----> free, not scavenged
//!                      ^                                                     |
//!                      +- finish_scavenging - taken <- take_for_scavenging --+
//! ```
//!
//! Grown memory has never been used, so it counts as scavenged: the system gives it zeroed, for a
//! price. Allocating says how many pages of a run were scavenged, because the caller has to make
//! those ready. What is taken for scavenging looks allocated until it is given back; who holds free
//! pages already, and has returned their memory, says `set_scavenged`.

mod alloc;
pub mod bits;
mod cache;
pub mod candidate;
mod check;
mod chunks;
mod grown;
mod require;
mod scavenge;
pub mod scavenge_index;
pub mod summary;
mod tree;
pub mod units;

pub use alloc::{ChunkView, PageAlloc, PageRun};
pub use cache::PageCache;

use crate::addr::PageCount;

/// The most chunks that one heap can have: 4 TiB of memory.
pub const MAX_GROWN_CHUNKS: usize = 1 << 20;

/// Pages in the block of a [`PageCache`]: the bits of a word.
pub const CACHE_PAGES: PageCount = PageCount::new(u64::BITS as usize);
