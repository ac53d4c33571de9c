//! A marking worker's ring: its owner appends pages and takes them, thieves take half of what is there.

use crate::addr::Addr;
use crate::checker::{Watched, explore};
use crate::mutant;
use loom::sync::Arc;
use loom::thread;

/// How many pages go through a ring of two.
const PAGES: usize = 3;

/// The owner passes three pages through, and takes what nobody has stolen, while thieves help themselves. What
/// a page holds is used by one at a time, and what the owner did to it first is visible to whoever has it.
macro_rules! gives_each_page_once {
    ($ring:ident, $thieves:expr, $preemptions:expr) => {
        explore($preemptions, || {
            type Shared = (crate::collect::$ring::PageRing, [Watched; PAGES]);
            let pages = std::array::from_fn(|_| Watched::new());
            let shared: Arc<Shared> = Arc::new((crate::collect::$ring::PageRing::new(), pages));
            let scan = |shared: &Shared, page: Addr| {
                assert!(!page.is_null(), "what was stolen had been pushed");
                assert_eq!(shared.1[page.get() - 1].touch(), 1, "a page is scanned once");
            };
            let thieves = [(); $thieves].map(|()| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let mut loot = Vec::new();
                    shared.0.steal(usize::MAX, |page| loot.push(page));
                    loot.iter().for_each(|&page| scan(&shared, page));
                    loot.len()
                })
            });
            let mut scanned = 0;
            let mut take = |shared: &Shared| {
                let page = shared.0.pop();
                page.into_iter().for_each(|page| scan(shared, page));
                scanned += usize::from(page.is_some());
                page.is_some()
            };
            for page in 1..=PAGES {
                shared.1[page - 1].touch();
                while !shared.0.push(Addr::new(page)) {
                    take(&shared);
                }
            }
            while take(&shared) {}
            scanned += thieves.map(|thief| thief.join().expect("it ends")).iter().sum::<usize>();
            assert_eq!(scanned, PAGES, "no page is lost");
        })
    };
}

#[test]
fn a_ring_gives_each_page_once() {
    gives_each_page_once!(page_ring, 1, 8);
}

#[test]
fn a_ring_gives_each_page_once_to_two_thieves() {
    gives_each_page_once!(page_ring, 2, 2);
}

mutant!(
    a_relaxed_tail_is_found,
    "what was stolen had been pushed",
    gives_each_page_once!(ring_push_relaxed, 1, 5)
);

mutant!(
    a_thief_with_a_relaxed_look_at_the_tail_is_found,
    "what was stolen had been pushed",
    gives_each_page_once!(ring_steal_relaxed, 1, 5)
);

mutant!(
    a_tail_before_its_entry_is_found,
    "what was stolen had been pushed",
    gives_each_page_once!(ring_tail_first, 1, 5)
);

mutant!(
    a_head_that_is_moved_without_looking_is_found,
    "Causality violation",
    gives_each_page_once!(ring_advance_unchecked, 1, 5)
);

mutant!(
    a_ring_that_takes_one_page_too_many_is_found,
    "a page is scanned once",
    gives_each_page_once!(ring_overfull, 1, 5)
);

mutant!(
    a_thief_that_reads_what_it_has_left_to_the_owner_is_found,
    "Causality violation",
    gives_each_page_once!(ring_read_late, 1, 5)
);
