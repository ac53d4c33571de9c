//! When is nothing left to mark? The crew's count of who is busy, against its queue and everybody's rings.
//!
//! The crew and its rings are the core's files. What a worker does between taking a page and leaving is
//! written down here again, in the shape that the core's `Marker` has it.

use crate::addr::{Addr, PageCount};
use crate::checker::{Os, Watched, explore};
use crate::mutant;
use loom::sync::Arc;
use loom::thread;

/// How many pages are found in a cycle; the others through the first one.
const PAGES: usize = 3;

/// The cycle that marks.
const CYCLE: u32 = 1;

/// The collector thread begins with one page, through which two more are found. A helper, which sleeps as long
/// as there is nothing, and a mutator that assists, mark as well, or one of them. When the collector thread
/// finds that all is done, it is: every page is scanned, everybody's tally is in, and nobody is at work, so
/// the marks are the collector thread's alone.
macro_rules! ends_when_nothing_is_left {
    ($crew:ident, $helps:expr, $assists:expr, $preemptions:expr) => {
        explore($preemptions, || {
            use crate::collect::page_ring::PageRing;
            use crate::collect::$crew::{Crew, Tally};

            struct Shared {
                crew: Crew,
                pages: [Watched; PAGES],
                marks: Watched,
            }

            impl Shared {
                /// What a worker does as long as there are pages.
                fn work(&self, ring: &PageRing, seat: Option<usize>) -> Tally {
                    let (mut tally, mut out) = (Tally::default(), Vec::new());
                    self.marks.look();
                    loop {
                        if let Some(page) = ring.pop() {
                            assert_eq!(self.pages[page.get() - 1].touch(), 0, "scanned twice");
                            tally.objects += 1;
                            if page.get() == 1 {
                                out.extend((2..=PAGES).map(Addr::new));
                            }
                            if self.crew.is_hungry() && out.len() > 1 {
                                self.crew.push(&out);
                                out.clear();
                            }
                        } else if self.crew.waiting() > 0 {
                            self.crew.exchange(&out, ring, 2);
                            out.clear();
                        } else if !out.is_empty() {
                            out.drain(..).for_each(|page| assert!(ring.push(page)));
                        } else if !self.crew.steal(seat, ring, 2) {
                            self.marks.look();
                            return tally;
                        }
                    }
                }
            }

            let (crew, marks) = (Crew::new(2), Watched::new());
            let pages = std::array::from_fn(|_| Watched::new());
            let shared = Arc::new(Shared { crew, pages, marks });
            shared.crew.begin(&Os, PageCount::new(PAGES), CYCLE);
            let helper = $helps.then(|| {
                let shared = shared.clone();
                thread::spawn(move || {
                    while shared.crew.wait_for_work(None).is_some() {
                        let tally = shared.work(shared.crew.ring(1), Some(1));
                        shared.crew.leave(tally);
                    }
                })
            });
            shared.crew.push(&[Addr::new(1)]);
            let assist = $assists.then(|| {
                let shared = shared.clone();
                thread::spawn(move || {
                    if shared.crew.join(CYCLE) {
                        let tally = shared.work(&PageRing::new(), None);
                        shared.crew.leave(tally);
                    }
                })
            });
            let mut tally = Tally::default();
            loop {
                tally.add(shared.work(shared.crew.ring(0), Some(0)));
                if shared.crew.is_all_done() {
                    break;
                }
            }
            shared.marks.touch();
            tally.add(shared.crew.end());
            assert_eq!(tally.objects, PAGES as u64, "everybody's tally is in");
            shared.pages.iter().for_each(|page| assert_eq!(page.touch(), 1, "not scanned"));
            shared.crew.stop();
            [helper, assist].into_iter().flatten().for_each(|it| it.join().expect("it ends"));
        })
    };
}

#[test]
fn marking_with_a_helper_ends_when_nothing_is_left() {
    ends_when_nothing_is_left!(crew, true, false, 3);
}

#[test]
fn marking_with_an_assist_ends_when_nothing_is_left() {
    ends_when_nothing_is_left!(crew, false, true, 4);
}

#[test]
fn marking_with_a_helper_and_an_assist_ends_when_nothing_is_left() {
    ends_when_nothing_is_left!(crew, true, true, 2);
}

mutant!(
    an_end_while_somebody_is_busy_is_found,
    "Causality violation",
    ends_when_nothing_is_left!(crew_busy_ignored, false, true, 3)
);

mutant!(
    an_end_while_pages_wait_is_found,
    "pages unscanned",
    ends_when_nothing_is_left!(crew_queue_ignored, true, true, 3)
);

mutant!(
    an_assist_that_is_counted_late_is_found,
    "Causality violation",
    ends_when_nothing_is_left!(crew_joined_late, false, true, 3)
);

mutant!(
    a_helper_that_is_counted_late_is_found,
    "Causality violation",
    ends_when_nothing_is_left!(crew_helped_late, true, false, 3)
);

mutant!(
    a_tally_that_comes_after_its_worker_has_left_is_found,
    "everybody's tally is in",
    ends_when_nothing_is_left!(crew_told_late, false, true, 3)
);

mutant!(
    leaving_without_a_word_is_found,
    "deadlock",
    ends_when_nothing_is_left!(crew_left_silently, false, true, 3)
);

mutant!(
    a_call_to_stop_before_it_is_noted_is_found,
    "deadlock",
    ends_when_nothing_is_left!(crew_stopped_late, true, false, 3)
);
