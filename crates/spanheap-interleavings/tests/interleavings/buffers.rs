//! The barrier buffer: its owner pushes and flushes, the collector steals.

use crate::addr::Addr;
use crate::checker::explore;
use crate::mutant;
use loom::sync::Arc;
use loom::thread;

/// The owner pushes four pointers through a buffer of two, while the collector steals.
macro_rules! gives_each_once {
    ($buffer:ident) => {
        explore(8, || {
            let buffer = Arc::new(crate::collect::$buffer::BarrierBuffer::new());
            let owner = {
                let buffer = buffer.clone();
                thread::spawn(move || {
                    let mut flushed = Vec::new();
                    for target in 1..=4 {
                        if buffer.push(Addr::new(target)) {
                            buffer
                                .flush(|all| flushed.extend(all.iter().map(|target| target.get())));
                        }
                    }
                    flushed
                })
            };
            let mut seen = Vec::new();
            let mut loot = [Addr::new(0); crate::collect::$buffer::CAPACITY];
            for _ in 0..3 {
                let count = buffer.steal(&mut loot);
                seen.extend(loot[..count].iter().map(|target| target.get()));
            }
            seen.extend(owner.join().expect("it ends"));
            buffer.flush(|all| seen.extend(all.iter().map(|target| target.get())));
            seen.sort_unstable();
            assert_eq!(seen, [1, 2, 3, 4], "each pointer is given once");
        })
    };
}

#[test]
fn a_buffer_gives_each_pointer_once() {
    gives_each_once!(buffer);
}

mutant!(a_relaxed_push_is_found, "given once", gives_each_once!(buffer_push_relaxed));

mutant!(a_relaxed_theft_is_found, "given once", gives_each_once!(buffer_steal_relaxed));

mutant!(
    a_flush_that_leaves_entries_counted_as_taken_is_found,
    "panicked",
    gives_each_once!(buffer_still_taken)
);
