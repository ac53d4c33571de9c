//! The records of chunks over their lives.
//!
//! # Safety
//! A chunk ends when nobody notes anything in it.
#![allow(unsafe_code)]

use super::*;
use crate::span::{Shape, Tracer};

/// # Safety
/// None is needed; the type demands the word.
unsafe fn nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

static NODE: TypeInfo = TypeInfo::new(|| "Node", 64, 8, Shape::NoScan, nothing, None);

fn chunk(n: usize) -> AddrRange {
    AddrRange::at(Addr::new((1 << 30) + (n << 13)), Bytes::new(1 << 13))
}

fn value(chunk: AddrRange, offset: usize) -> Allocated {
    let start = chunk.base() + Bytes::new(offset);
    let (bytes, site) = (Bytes::new(64), Location::caller());
    Allocated { start, bytes, ty: Some(&NODE), is_slice: false, site }
}

/// What a signal handler would find, were the address one of a heap's.
fn read(sites: &ChunkSites, addr: Addr) -> Option<records::Grave> {
    sites.record.get(Ordering::Acquire)?.read(addr)
}

#[test]
fn a_heap_that_nobody_asks_notes_nothing() {
    let (sites, of) = (Sites::new(), ChunkSites::new());
    assert!(!sites.notes_values() && !sites.is_asked());
    sites.set_notes_values(true);
    assert!(sites.notes_values() && sites.is_asked());
    // SAFETY: nobody notes anything.
    unsafe { sites.end(&of) };
    assert!(of.record.get(Ordering::Relaxed).is_none());
    assert_eq!(sites.missed(), 0);
}

#[test]
fn a_chunk_is_known_from_its_free_to_the_end_of_its_quarantine() {
    let sites = Sites::new();
    let chunks: Vec<ChunkSites> = (0..100).map(|_| ChunkSites::new()).collect();
    for life in 0..3 {
        for (n, of) in chunks.iter().enumerate() {
            sites.note(of, chunk(n), &value(chunk(n), 128));
            assert!(read(of, chunk(n).base()).is_none());
        }
        let end = End::now(life, "batch", Freed::Dropped);
        for (n, of) in chunks.iter().enumerate() {
            sites.free(of, chunk(n), &end);
        }
        for (n, of) in chunks.iter().enumerate() {
            let grave = read(of, chunk(n).base() + Bytes::new(191)).unwrap();
            assert_eq!((grave.arena, grave.name.text()), (life, "batch"));
            assert_eq!((grave.thread, grave.nanos), (end.thread, end.nanos));
            let object = grave.object.unwrap();
            assert_eq!((object.name, object.bytes), ("Node", Bytes::new(64)));
            assert_eq!(object.start, chunk(n).base() + Bytes::new(128));
            assert_eq!(object.site.file(), file!());
            assert!(read(of, chunk(n).base() + Bytes::new(192)).unwrap().object.is_none());
            assert!(read(of, chunk(n + 1).base()).is_none());
            assert!(memory::is_known(of.record.get(Ordering::Relaxed).unwrap()));
            // SAFETY: nobody notes anything at the moment.
            unsafe { sites.end(of) };
            assert!(read(of, chunk(n).base()).is_none());
        }
    }
    assert_eq!(sites.missed(), 0);
}
