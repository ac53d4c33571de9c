//! Which of several sweepers gets a span out of its set, and what is visible when the backlog is clear.
//!
//! # Safety
//! Records and sets of a program are freed when its threads have been joined.
#![allow(unsafe_code)]

use crate::addr::PageCount;
use crate::checker::{Watched, explore};
use crate::mutant;
use crate::span::Generation;
use loom::sync::Arc;
use loom::thread;
use std::ptr::NonNull;

/// Span records as far as sets and lists use them, with the given version of the set.
macro_rules! world {
    ($world:ident, $set:ident) => {
        #[allow(unused, clippy::all)]
        mod $world {
            use crate::addr::{Addr, PageCount};
            pub(crate) use crate::span::Generation;
            use loom::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
            pub(crate) use set::{Backlog, Room, SpanSet, Taken};
            use std::cell::Cell;
            use std::ptr::NonNull;

            pub(crate) mod list {
                include!(concat!(env!("OUT_DIR"), "/list.rs"));
            }
            pub(crate) mod set {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($set), ".rs"));
            }

            #[derive(Clone, Copy)]
            pub(crate) struct Info {
                pub base: Addr,
                pub pages: PageCount,
            }

            pub(crate) struct Span {
                info: Info,
                generation: AtomicU32,
                home: AtomicPtr<SpanSet>,
                next: Cell<Option<NonNull<Span>>>,
                previous: Cell<Option<NonNull<Span>>>,
                /// What only the owner uses.
                pub content: crate::checker::Watched,
            }

            // SAFETY: the links are used under the lock of the set, and the rest is atomic or watched.
            unsafe impl Sync for Span {}

            impl Span {
                pub(crate) fn new(pages: usize) -> Span {
                    Span {
                        info: Info { base: Addr::NULL, pages: PageCount::new(pages) },
                        generation: AtomicU32::new(Generation::FIRST.get()),
                        home: AtomicPtr::new(std::ptr::null_mut()),
                        next: Cell::new(None),
                        previous: Cell::new(None),
                        content: crate::checker::Watched::new(),
                    }
                }

                pub(crate) fn info(&self) -> &Info {
                    &self.info
                }

                pub(crate) fn generation(&self) -> Generation {
                    Generation::new(self.generation.load(Ordering::Acquire))
                }
            }

            /// The sole right to a span.
            pub(crate) struct OwnedSpan(NonNull<Span>);

            // SAFETY: ownership may move between threads.
            unsafe impl Send for OwnedSpan {}

            impl OwnedSpan {
                pub(crate) fn span(&self) -> &Span {
                    // SAFETY: records outlive the threads of the program.
                    unsafe { self.0.as_ref() }
                }

                pub(crate) fn info(&self) -> &Info {
                    self.span().info()
                }

                pub(crate) fn set_generation(&mut self, generation: Generation) {
                    self.span().generation.store(generation.get(), Ordering::Release);
                }

                pub(crate) fn into_raw(self) -> NonNull<Span> {
                    self.0
                }

                pub(crate) unsafe fn from_raw(span: NonNull<Span>) -> OwnedSpan {
                    OwnedSpan(span)
                }
            }
        }
    };
}

world!(real, set);
world!(home_ignored, set_home_ignored);
world!(generation_ignored, set_generation_ignored);
world!(finish_relaxed, set_finish_relaxed);
world!(clear_relaxed, set_clear_relaxed);

/// Something that lives until the program is over.
struct Owned<T>(NonNull<T>);

// SAFETY: what it refers to is shared, and dropped by the one thread that is left.
unsafe impl<T: Sync> Send for Owned<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Owned<T> {}

impl<T> Owned<T> {
    fn new(value: T) -> Owned<T> {
        Owned(NonNull::from(Box::leak(Box::new(value))))
    }

    /// The value, for as long as the program runs.
    fn get(&self) -> &'static T {
        // SAFETY: it is dropped when the threads of the program are joined.
        unsafe { &*self.0.as_ptr() }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it came out of a box, and nobody uses it any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// One span of the old generation; one thread looks for spans to sweep, another one, which knows the record,
/// steals it, and the third waits for a clear backlog and then uses what sweeping has freed.
macro_rules! sweeps_once {
    ($world:ident) => {
        explore(8, || {
            use $world::{Backlog, OwnedSpan, Room, Span, SpanSet, Taken};
            let next = Generation::FIRST.next();
            let record = Owned::new(Span::new(3));
            let shared = Arc::new((Owned::new(SpanSet::new()), Backlog::new(), record));
            // SAFETY: nobody knows the record yet.
            let span = unsafe { OwnedSpan::from_raw(shared.2.0) };
            shared.0.get().put(span, Generation::FIRST, Room::Some, &shared.1);
            shared.0.get().catch_up(next, &shared.1);
            assert_eq!(shared.1.waiting(), PageCount::new(3));

            type Shared = (Owned<SpanSet>, Backlog, Owned<Span>);
            let sweep = |shared: &Shared, mut span: OwnedSpan, target: Generation| {
                span.span().content.touch();
                span.set_generation(target);
                shared.0.get().put(span, target, Room::Some, &shared.1);
                shared.1.finish(PageCount::new(3));
            };
            let taker = {
                let shared = shared.clone();
                thread::spawn(move || match shared.0.get().take(next, &shared.1) {
                    Some(Taken::Unswept(span, target)) => sweep(&shared, span, target),
                    Some(Taken::Ready(span)) => {
                        span.span().content.touch();
                        shared.0.get().put(span, next, Room::None, &shared.1);
                    }
                    None => {}
                })
            };
            let thief = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let record = shared.2.get();
                    let home = record.home();
                    if let Some((span, target)) =
                        home.and_then(|set| set.steal(record, next, &shared.1))
                    {
                        sweep(&shared, span, target);
                    }
                })
            };
            taker.join().expect("it ends");
            thief.join().expect("it ends");
            assert!(shared.1.is_clear());
            assert_eq!(shared.1.swept(), 3, "a span is swept once");
            assert_eq!(shared.2.get().generation(), next);
        })
    };
}

/// Who finds the backlog clear finds the pages free as well.
macro_rules! publishes_what_it_frees {
    ($world:ident) => {
        explore(8, || {
            use $world::{Backlog, OwnedSpan, Room, Span, SpanSet};
            let next = Generation::FIRST.next();
            let shared = Arc::new((Owned::new(SpanSet::new()), Backlog::new(), Watched::new()));
            let record = Owned::new(Span::new(1));
            // SAFETY: nobody knows the record yet.
            let span = unsafe { OwnedSpan::from_raw(record.0) };
            shared.0.get().put(span, Generation::FIRST, Room::Some, &shared.1);
            shared.0.get().catch_up(next, &shared.1);
            let sweeper = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let taken = shared.0.get().take_unswept(next, &shared.1);
                    let (span, _) = taken.expect("nobody else takes it");
                    // The span is swept, and empty: its pages are free.
                    shared.2.touch();
                    let _ = span.into_raw();
                    shared.1.finish(PageCount::new(1));
                })
            };
            if shared.1.is_clear() {
                assert_eq!(shared.2.touch(), 1);
            }
            sweeper.join().expect("it ends");
        })
    };
}

#[test]
fn a_span_is_swept_by_one() {
    sweeps_once!(real);
}

mutant!(
    a_theft_that_does_not_ask_whose_the_span_is_is_found,
    "Causality violation",
    sweeps_once!(home_ignored)
);

mutant!(
    a_theft_of_what_was_swept_meanwhile_is_found,
    "shared.1.is_clear()",
    sweeps_once!(generation_ignored)
);

#[test]
fn a_clear_backlog_shows_what_was_freed() {
    publishes_what_it_frees!(real);
}

mutant!(
    a_relaxed_end_of_a_sweep_is_found,
    "Causality violation",
    publishes_what_it_frees!(finish_relaxed)
);

mutant!(
    a_relaxed_look_at_the_backlog_is_found,
    "Causality violation",
    publishes_what_it_frees!(clear_relaxed)
);
