//! The page cache against 64 flags.

use super::config;
use proptest::prelude::*;
use spanheap_core::addr::{ChunkIndex, PageCount};
use spanheap_core::pages::{PageCache, PageRun};

/// Masks with runs of every length: random words, thinned out and thickened.
fn masks() -> impl Strategy<Value = u64> {
    (any::<[u64; 3]>(), 0..5).prop_map(|([a, b, c], shape)| match shape {
        0 => a,
        1 => a & b & c,
        2 => a | b | c,
        3 => (a | b) & u64::MAX << (c % 64),
        _ => u64::MAX,
    })
}

proptest! {
    #![proptest_config(config(2000, 0xcac4_e001))]

    #[test]
    fn a_cache_hands_out_the_lowest_run_that_fits(
        free in masks(),
        scavenged in masks(),
        requests in prop::collection::vec(prop_oneof![1usize..6, 1usize..80], 1..20),
    ) {
        let base = ChunkIndex::new(0xc000).base() + PageCount::new(3 * 64);
        let mut cache = PageCache::new(base, free, scavenged);
        let mut flags: Vec<bool> = (0..64).map(|i| free >> i & 1 != 0).collect();
        for n in requests {
            let start = (0..64usize.saturating_sub(n - 1))
                .find(|start| flags[*start..start + n].iter().all(|free| *free));
            let expected = start.map(|start| {
                flags[start..start + n].fill(false);
                let count = (start..start + n).filter(|i| scavenged >> i & 1 != 0).count();
                let base = base + PageCount::new(start);
                PageRun { base, scavenged: PageCount::new(count) }
            });
            prop_assert_eq!(cache.alloc(PageCount::new(n)), expected);
            prop_assert_eq!(cache.is_empty(), !flags.contains(&true));
        }
        let left = (0..64).filter(|i| flags[*i]).fold(0u64, |mask, i| mask | 1 << i);
        prop_assert_eq!(cache.free_bits(), left);
        // What was handed out takes its scavenged bit along; all other bits stay.
        prop_assert_eq!(cache.scavenged_bits(), scavenged & !(free & !left));
    }
}

#[test]
#[should_panic(expected = "starts no block of 64 pages")]
fn a_cache_is_of_one_block() {
    PageCache::new(ChunkIndex::new(1).base() + PageCount::new(1), 1, 0);
}
