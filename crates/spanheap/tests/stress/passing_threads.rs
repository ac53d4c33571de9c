//! Threads that come and go by the thousand, while one cycle follows the other.
//!
//! Each attaches itself by its first closure, takes over what the last one on the same seat has left under a root,
//! replaces it by something of its own, and ends; some end in a panic inside of the closure. What is handed on
//! is a list of which each thread knows the length and the last number: no root may be lost when the thread that
//! made it has gone. And a heap that has seen ten thousand threads must not be larger for it than one that has
//! seen a thousand: records of threads are used again.

use crate::{Random, canary, on_threads};
use spanheap::{Collected, Gc, Heap, Root, Rootable, Stats, Trace};
use std::sync::Mutex;

#[derive(Trace)]
struct Link<'gc> {
    number: u64,
    canary: u64,
    before: Option<Gc<'gc, Link<'gc>>>,
}

type LinkRoot = Root<Rootable![Link<'_>]>;

const SEATS: usize = 2;
/// Links of a list: the older ones are dropped.
const KEPT: u64 = 8;

/// What one thread leaves to the next.
#[derive(Default)]
struct Seat {
    list: Option<LinkRoot>,
    /// The number of the last link, which is also how many threads have been here.
    last: u64,
}

/// The life of one thread. It may end by a panic in the closure, after its work is done.
fn visit(heap: &Heap, seat: &mut Seat, dies: bool) {
    heap.enter(|mc| {
        let before = seat.list.as_ref().map(|list| list.get(mc));
        assert_eq!(before.map_or(0, |link| link.number), seat.last);
        let number = seat.last + 1;
        // A copy of the newest links, so that the list does not grow for ever.
        let mut kept = Vec::new();
        let mut link = before;
        while let Some(this) = link {
            assert_eq!(this.canary, canary(this.number), "the link {} was freed", this.number);
            assert_eq!(this.number, seat.last - kept.len() as u64);
            kept.push(this.number);
            link = this.before;
        }
        assert_eq!(kept.len() as u64, seat.last.min(KEPT));
        kept.truncate(KEPT as usize - 1);
        let mut list = None;
        for number in kept.into_iter().rev().chain([number]) {
            list = Some(mc.alloc(Link { number, canary: canary(number), before: list }));
        }
        seat.list = list.map(|list| mc.root(list));
        seat.last = number;
        if dies {
            std::panic::resume_unwind(Box::new("as intended"));
        }
    });
}

/// Lets so many threads come and go on each seat, one after the other.
fn visits(heap: &Heap, seats: &[Mutex<Seat>], count: usize, seed: u64) {
    on_threads(SEATS as u64, |number| {
        let mut seat = seats[number as usize].lock().unwrap();
        let mut random = Random::new(seed + number);
        for _ in 0..count {
            let (before, dies) = (seat.last, random.one_in(5));
            let seat = &mut *seat;
            let end = std::thread::scope(|scope| {
                let named = std::thread::Builder::new().name("user passing".into());
                named.spawn_scoped(scope, || visit(heap, seat, dies)).unwrap().join()
            });
            match end {
                Err(cause) if !dies => std::panic::resume_unwind(cause),
                _ => assert_eq!(seat.last, before + 1),
            }
        }
    });
}

#[test]
fn fault_26_ten_thousand_threads_come_and_go() {
    let seed = 26;
    println!("passing threads: seed {seed}");
    let heap = Heap::builder().poison(true).collect_continuously(true).build().unwrap();
    let seats: Vec<_> = (0..SEATS).map(|_| Mutex::new(Seat::default())).collect();
    visits(&heap, &seats, 500, seed);
    assert_eq!(heap.collect(), Collected::Complete);
    let before = heap.stats();
    visits(&heap, &seats, 4500, seed + 100);
    assert_eq!(heap.collect(), Collected::Complete);
    let stats = heap.stats();
    assert_eq!(stats.live_objects, SEATS as u64 * KEPT);
    for seat in &seats {
        let seat = seat.lock().unwrap();
        assert_eq!(seat.last, 5000);
        assert_eq!(heap.enter(|mc| seat.list.as_ref().map(|list| list.get(mc).number)), Some(5000));
    }
    // This thread, at most, and no roots but the two that are held.
    assert!(stats.threads <= 1 && stats.roots <= 2 * SEATS, "{stats:?}");
    let grown = records(&stats).saturating_sub(records(&before));
    assert!(grown <= 1 << 20, "{grown} bytes more for 9000 threads: {stats:?}");
}

/// Bytes that are mapped for the heap and are not pages for objects: its records. (How many pages for objects there
/// are depends on how much is allocated while a cycle runs, and so on who else uses the machine.)
fn records(stats: &Stats) -> usize {
    let pages = [stats.heap_bytes, stats.cached_bytes, stats.free_bytes, stats.returned_bytes];
    stats.mapped_bytes.saturating_sub(pages.iter().sum())
}
