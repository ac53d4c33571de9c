//! Roots: handles are cloned, moved and dropped on other threads while the collector trims and scans.

use crate::addr::Addr;
use crate::checker::explore;
use crate::mutant;
use loom::sync::Arc;
use loom::thread;

/// One thread has the only handle of a root, clones it, and drops the old one; another one enters a root. Both
/// are alive all the time, so no trim may remove them; and both go in the end.
macro_rules! retains_what_is_held {
    ($roots:ident) => {
        explore(8, || {
            let table = Arc::new(crate::collect::$roots::RootTable::new());
            let first = table.enter(0, 1, Addr::new(16));
            let owner = thread::spawn(move || {
                let moved = first.clone();
                drop(first);
                moved
            });
            let other = {
                let table = table.clone();
                thread::spawn(move || table.enter(1, 1, Addr::new(32)))
            };
            table.trim();
            let mut seen = Vec::new();
            table.scan(|object| seen.push(object.get()));
            assert!(seen.contains(&16), "a root that is held is retained");
            let held = (owner.join().expect("it ends"), other.join().expect("it ends"));
            table.trim();
            assert_eq!(table.len(), 2, "a root that is held is retained");
            drop(held);
            table.trim();
            assert_eq!(table.len(), 0);
        })
    };
}

#[test]
fn a_root_that_is_held_is_retained() {
    retains_what_is_held!(roots);
}

mutant!(
    a_trim_that_forgets_held_roots_is_found,
    "is retained",
    retains_what_is_held!(roots_trimmed_early)
);
