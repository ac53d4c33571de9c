//! Lists of chunks against a sort.
//!
//! # Safety
//! Heaps are released when nobody uses them.
#![allow(unsafe_code)]

use super::super::order::{runs, sorted};
use super::super::registry::record;
use super::*;
use crate::addr::{Addr, AddrRange};
use core::ptr::NonNull;

/// Chunks of one or two pages, with gaps or without, in any order.
#[test]
fn lists_are_sorted_and_cut_where_there_is_a_gap() {
    let central = Central::with_hooks(
        Os::simulated(SimOs::builder().build()),
        Config::default(),
        Hooks::none(),
    );
    let central = central.expect("memory");
    let mut random = Random::new(0x50f7);
    for count in (0..40).chain([500]) {
        let mut base = 1 << 30;
        let mut ranges: Vec<AddrRange> = Vec::new();
        for _ in 0..count {
            base += PAGE_BYTES * random.below(2);
            let bytes = PAGE_BYTES * (1 + random.below(2));
            ranges.push(AddrRange::at(Addr::new(base), Bytes::new(bytes)));
            base += bytes;
        }
        check(&central, &ranges, &mut random);
    }
    // SAFETY: nobody uses the heap.
    unsafe { central.release() };
}

fn check(central: &Central, ranges: &[AddrRange], random: &mut Random) {
    let mut mixed = ranges.to_vec();
    for last in (1..mixed.len()).rev() {
        mixed.swap(last, random.below(last + 1));
    }
    let mut first = None;
    for range in mixed {
        let at = central.arenas().new_record(central.os(), central.memory()).expect("memory");
        record(at).describe(range, 1, core::ptr::null_mut(), false);
        record(at).set_next(first);
        first = Some(at);
    }
    let first = sorted(first);
    let list: Vec<NonNull<Chunk>> =
        core::iter::successors(first, |&at| record(at).next()).collect();
    let found: Vec<AddrRange> = list.iter().map(|&at| record(at).range()).collect();
    assert_eq!(found, ranges);
    let (mut cut, mut chunks): (Vec<AddrRange>, Vec<NonNull<Chunk>>) = (Vec::new(), Vec::new());
    for run in runs(first) {
        assert!(cut.last().is_none_or(|last| last.end() < run.range.base()), "{ranges:?}");
        cut.push(run.range);
        chunks.extend(run.chunks());
    }
    let sum = |ranges: &[AddrRange]| ranges.iter().map(|range| range.bytes()).sum::<Bytes>();
    assert_eq!(sum(&cut), sum(ranges), "what does not touch, and is as long, is cut right");
    assert_eq!(chunks, list);
    list.into_iter().for_each(|at| central.arenas().put_record(at));
}
