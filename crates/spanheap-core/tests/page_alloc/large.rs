//! Regions as large as the highest level of the tree, which the twin would be too slow for.

use spanheap_core::addr::{AddrRange, Bytes, CHUNK_BYTES, CHUNK_PAGES, ChunkIndex, PageCount};
use spanheap_core::os::{Category, Os, SimOs};
use spanheap_core::pages::{PageAlloc, PageRun};

/// Chunks below an entry of the highest level: 2^21 pages, the one number that needs 22 bits.
const TOP: usize = 4096;

fn chunks(first: usize, n: usize) -> AddrRange {
    AddrRange::new(ChunkIndex::new(first).base(), ChunkIndex::new(first + n).base())
}

#[test]
fn wholly_free_regions_of_the_highest_level_are_joined() {
    let os = Os::simulated(SimOs::builder().build());
    let mut alloc = PageAlloc::new(&os).unwrap();
    // One page less than two regions; then the chunks before and behind, which make three.
    let first = 12 * TOP;
    alloc.grow(&os, chunks(first, 2 * TOP)).unwrap();
    let all = PageCount::new(2 * TOP * CHUNK_PAGES);
    assert_eq!(alloc.alloc(all + PageCount::new(1)), None);
    let base = ChunkIndex::new(first).base();
    assert_eq!(alloc.alloc(all), Some(PageRun { base, scavenged: all }));
    alloc.check_invariants();
    alloc.free(base, all);
    alloc.check_invariants();

    alloc.grow(&os, chunks(first - 1, 1)).unwrap();
    alloc.grow(&os, chunks(first + 2 * TOP, 1)).unwrap();
    let more = all + PageCount::new(2 * CHUNK_PAGES);
    let run = PageRun {
        base: ChunkIndex::new(first - 1).base(),
        scavenged: PageCount::new(2 * CHUNK_PAGES),
    };
    assert_eq!(alloc.alloc(more), Some(run));
    assert_eq!((alloc.free_pages(), alloc.scavenged_pages()), (PageCount::ZERO, PageCount::ZERO));
    assert_eq!(alloc.alloc(PageCount::new(1)), None);
    alloc.check_invariants();
    alloc.release(&os);
}

#[test]
fn an_aligned_run_leaves_the_pages_around_it_as_they_were() {
    let os = Os::simulated(SimOs::builder().build());
    let mut alloc = PageAlloc::new(&os).unwrap();
    let first = 12 * TOP;
    alloc.grow(&os, chunks(first, 48)).unwrap();
    let base = ChunkIndex::new(first).base();
    alloc.clear_scavenged(base, PageCount::new(24 * CHUNK_PAGES));
    alloc.alloc(PageCount::new(1)).unwrap();

    // 64 MiB, aligned to 64 MiB: the lowest such place is 16 chunks up.
    let arena = PageCount::new(16 * CHUNK_PAGES);
    let run = alloc.alloc_aligned(arena, Bytes::new(16 * CHUNK_BYTES)).unwrap();
    assert_eq!(run.base, ChunkIndex::new(first + 16).base());
    assert_eq!(run.scavenged, PageCount::new(8 * CHUNK_PAGES));
    alloc.check_invariants();
    let head = alloc.chunk(ChunkIndex::new(first + 15)).unwrap();
    assert_eq!((head.allocated, head.scavenged), (&[0; 8], &[0; 8]));
    let tail = alloc.chunk(ChunkIndex::new(first + 32)).unwrap();
    assert_eq!((tail.allocated, tail.scavenged), (&[0; 8], &[u64::MAX; 8]));

    // What was aligned once is found again though nothing around it is free.
    alloc.claim(base + PageCount::new(1), PageCount::new(16 * CHUNK_PAGES - 1));
    alloc.claim(tail_base(first), arena);
    alloc.free(run.base, arena);
    let again = alloc.alloc_aligned(arena, Bytes::new(16 * CHUNK_BYTES)).unwrap();
    assert_eq!(again, PageRun { base: run.base, scavenged: PageCount::ZERO });
    alloc.check_invariants();
    alloc.release(&os);
}

fn tail_base(first: usize) -> spanheap_core::addr::Addr {
    ChunkIndex::new(first + 32).base()
}

#[test]
fn a_small_heap_needs_little_memory_for_its_tables() {
    let os = Os::simulated(SimOs::builder().build());
    let mut alloc = PageAlloc::new(&os).unwrap();
    assert!(os.accounting().reserved() < Bytes::new(580 << 20), "address space");
    alloc.grow(&os, chunks(12 * TOP, 16)).unwrap();
    let tables = os.accounting().mapped(Category::PageTables);
    assert!(tables <= Bytes::new(256 << 10), "{tables} for a heap of 64 MiB");
    // The next 64 MiB need nothing more.
    alloc.grow(&os, chunks(12 * TOP + 16, 16)).unwrap();
    assert_eq!(os.accounting().mapped(Category::PageTables), tables);
    alloc.release(&os);
    assert_eq!(os.accounting().mapped(Category::PageTables), Bytes::ZERO);
}
