//! Publication: whoever finds a new object through a cell or a container sees all of it.
//!
//! Threads put freshly made objects, full of ordinary fields, where other threads look, without any lock of
//! their own. The processors that this is tested on forgive most mistakes in the ordering of such stores; a
//! thread sanitizer does not, and this is the program to run under it.

use crate::{Random, canary, modes, on_threads, rounds};
use spanheap::{Collected, Gc, GcCell, GcMutex, Root, Rootable, Trace};

const CELLS: usize = 16;

#[derive(Trace)]
struct Message<'gc> {
    id: u64,
    canary: u64,
    numbers: Gc<'gc, [u64]>,
    owned: Option<Box<u64>>,
    before: Option<Gc<'gc, Message<'gc>>>,
}

#[derive(Trace)]
struct Board<'gc> {
    cells: Gc<'gc, [GcCell<'gc, Option<Gc<'gc, Message<'gc>>>>]>,
    bag: GcMutex<'gc, Vec<Gc<'gc, Message<'gc>>>>,
}

fn check(message: &Message<'_>) {
    assert_eq!(message.canary, canary(message.id));
    assert_eq!(message.owned.as_deref(), Some(&message.id));
    assert!(message.numbers.iter().enumerate().all(|(n, &number)| number == message.id + n as u64));
    if let Some(before) = message.before {
        assert_eq!(before.canary, canary(before.id));
    }
}

#[test]
fn what_is_found_is_complete() {
    for (mode, builder) in modes() {
        println!("publish: {mode}, seeds 1 to 3");
        let heap = builder.build().unwrap();
        let board: Root<Rootable![Board<'_>]> = heap.enter(|mc| {
            let cells = mc.alloc_slice((0..CELLS).map(|_| GcCell::new(None)));
            mc.root(mc.alloc(Board { cells, bag: GcMutex::new(Vec::new()) }))
        });
        on_threads(3, |number| {
            let thread = number + 1;
            let mut random = Random::new(thread);
            for step in 0..5000 * rounds() as u64 {
                heap.enter(|mc| {
                    let board = board.get(mc);
                    let cell = &board.cells[random.below(CELLS)];
                    let before = cell.get();
                    let id = thread << 32 | step;
                    let len = random.below(20) as u32;
                    let message = mc.alloc(Message {
                        id,
                        canary: canary(id),
                        numbers: mc.alloc_slice((0..len).map(|n| id + u64::from(n))),
                        owned: Some(Box::new(id)),
                        // One link is kept, or the messages would form a chain for ever.
                        before: before.filter(|before| before.before.is_none()),
                    });
                    match random.below(4) {
                        0 => cell.set(mc, Some(message)),
                        1 => _ = cell.swap(mc, Some(message)),
                        2 => board.bag.lock(mc).push(message),
                        _ => board.bag.lock(mc).truncate(10),
                    }
                    board.cells.iter().filter_map(GcCell::get).for_each(|m| check(&m));
                    board.bag.lock(mc).iter().for_each(|m| check(m));
                });
            }
        });
        drop(board);
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(heap.stats().live_objects, 0, "{mode}");
    }
}
