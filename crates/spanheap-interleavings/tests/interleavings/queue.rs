//! The grey queue: two closures push, the collector drains; and, without memory, marking on the spot against the
//! collector's last look before a round is clean.

use crate::addr::Addr;
use crate::checker::{Os, Persistent, explore};
use crate::mutant;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

/// Two closures push while the collector drains, and it drains once more when they are done.
macro_rules! loses_nothing {
    ($grey:ident) => {
        explore(8, || {
            let queue = crate::collect::$grey::GreyQueue::new();
            let shared = Arc::new((queue, Persistent::new(false)));
            shared.0.begin(1);
            let closures = [1, 2].map(|target| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let never = |_| unreachable!("there is memory");
                    shared.0.push(&Os, &shared.1, 1, &[Addr::new(target)], never);
                })
            });
            let mut seen = Vec::new();
            shared.0.drain(|target| seen.push(target.get()));
            closures.into_iter().for_each(|closure| closure.join().expect("it ends"));
            shared.0.drain(|target| seen.push(target.get()));
            seen.sort_unstable();
            assert_eq!(seen, [1, 2], "each pointer is given once");
        })
    };
}

/// A closure marks on the spot. Whoever has seen the mark must not find the round clean.
macro_rules! dirties_the_round {
    ($grey:ident) => {
        explore(8, || {
            let queue = crate::collect::$grey::GreyQueue::new();
            let shared = Arc::new((queue, Persistent::new(true), AtomicBool::new(false)));
            shared.0.begin(1);
            let closure = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let mark = |_| {
                        shared.2.store(true, Ordering::Relaxed);
                        true
                    };
                    shared.0.push(&Os, &shared.1, 1, &[Addr::new(1)], mark);
                })
            };
            let is_marked = shared.2.load(Ordering::Relaxed);
            let is_clean = shared.0.settle(true);
            assert!(!(is_marked && is_clean), "a round is clean before its rescan");
            closure.join().expect("it ends");
            assert!(shared.0.take_rescan() && shared.0.settle(true));
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
fn no_round_is_clean_after_a_mark_on_the_spot() {
    dirties_the_round!(grey);
}

mutant!(
    a_last_look_without_the_lock_is_found,
    "clean before its rescan",
    dirties_the_round!(grey_settled_unlocked)
);
