//! The grey queue: closures push, the collector drains; and marking in a flush, with memory and without, against
//! the collector's last look before a round is clean.

use crate::addr::{Addr, Bytes};
use crate::checker::{Os, Persistent, explore};
use crate::mutant;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

/// More than any of these programs needs.
const BOUND: Bytes = Bytes::new(1 << 20);

/// Before marking begins, two closures push while the queue is drained, and it is drained once more when they are
/// done.
macro_rules! loses_nothing {
    ($grey:ident) => {
        explore(8, || {
            let queue = crate::collect::$grey::GreyQueue::new();
            let shared = Arc::new((queue, Persistent::new(false)));
            shared.0.begin(1, BOUND);
            let closures = [1, 2].map(|target| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let never = |_| unreachable!("marks are not clean");
                    shared.0.push(&Os, &shared.1, 1, [Addr::new(target)].into_iter(), never);
                })
            });
            let mut seen = Vec::new();
            shared.0.drain(|targets| seen.extend(targets.iter().map(|target| target.get())));
            closures.into_iter().for_each(|closure| closure.join().expect("it ends"));
            shared.0.drain(|targets| seen.extend(targets.iter().map(|target| target.get())));
            seen.sort_unstable();
            assert_eq!(seen, [1, 2], "each pointer is given once");
        })
    };
}

/// While marking runs, two closures push the same object, and the collector finds it as well: it is news to one of
/// them.
macro_rules! finds_once {
    ($grey:ident) => {
        explore(4, || {
            let queue = crate::collect::$grey::GreyQueue::new();
            let shared = Arc::new((queue, Persistent::new(false), AtomicBool::new(false)));
            shared.0.begin(1, BOUND);
            shared.0.begin_marking();
            let closures = [(); 2].map(|()| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let mark = |_| !shared.2.swap(true, Ordering::SeqCst);
                    shared.0.push(&Os, &shared.1, 1, [Addr::new(1)].into_iter(), mark);
                })
            });
            let mut found = 0;
            shared.0.drain(|targets| found += targets.len());
            found += usize::from(!shared.2.swap(true, Ordering::SeqCst));
            closures.into_iter().for_each(|closure| closure.join().expect("it ends"));
            shared.0.drain(|targets| found += targets.len());
            assert_eq!(found, 1, "an object is found once");
        })
    };
}

/// A closure flushes. Another one, which has seen the mark and dropped what it had itself, must not find the round
/// clean: nobody has followed the object's pointers yet. Nor may the object be marked when the round was clean.
macro_rules! dirties_the_round {
    ($grey:ident, $refuses:expr) => {
        explore(8, || {
            let queue = crate::collect::$grey::GreyQueue::new();
            let shared = Arc::new((queue, Persistent::new($refuses), AtomicBool::new(false)));
            shared.0.begin(1, BOUND);
            shared.0.begin_marking();
            let closure = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let mark = |_| !shared.2.swap(true, Ordering::Relaxed);
                    shared.0.push(&Os, &shared.1, 1, [Addr::new(1)].into_iter(), mark);
                })
            };
            let is_marked = shared.2.load(Ordering::Relaxed);
            let is_clean = shared.0.settle(true);
            assert!(!(is_marked && is_clean), "a round is clean over news");
            closure.join().expect("it ends");
            assert_ne!(
                shared.2.load(Ordering::Relaxed),
                is_clean,
                "clean over news, marked after the end"
            );
            let mut found = shared.0.take_rescan();
            found |= shared.0.drain(|targets| assert_eq!(targets, [Addr::new(1)]));
            assert!(found != is_clean && shared.0.settle(true));
        })
    };
}

#[test]
fn the_queue_gives_each_pointer_once() {
    loses_nothing!(grey);
}

mutant!(
    a_queue_that_is_called_empty_without_its_lock_is_found,
    "given once",
    loses_nothing!(grey_emptied_unlocked)
);

#[test]
fn while_marking_runs_an_object_is_news_once() {
    finds_once!(grey);
}

mutant!(
    a_flush_that_appends_what_is_marked_is_found,
    "found once",
    finds_once!(grey_appended_twice)
);

#[test]
fn no_round_is_clean_over_what_a_flush_has_marked() {
    dirties_the_round!(grey, false);
}

mutant!(
    a_flush_that_marks_in_one_step_and_appends_in_another_is_found,
    "clean over news",
    dirties_the_round!(grey_appended_late, false)
);

mutant!(
    a_last_look_that_does_not_ask_for_entries_is_found,
    "clean over news",
    dirties_the_round!(grey_entries_ignored, false)
);

mutant!(
    a_flush_that_marks_after_the_end_is_found,
    "marked after the end",
    dirties_the_round!(grey_taken_in_late, false)
);

#[test]
fn no_round_is_clean_after_a_mark_on_the_spot() {
    dirties_the_round!(grey, true);
}

mutant!(
    a_last_look_without_the_lock_is_found,
    "clean over news",
    dirties_the_round!(grey_settled_unlocked, true)
);
