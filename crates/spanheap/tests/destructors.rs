//! Destructors that are slow, that panic, that use the heap: what user code on the drop thread can do to a
//! heap that goes on collecting.

use spanheap::{Collected, Gc, GcMutex, Heap, Root, Rootable, Trace};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};

/// A panic's payload whose own destructor panics.
struct Malicious;

impl Drop for Malicious {
    fn drop(&mut self) {
        resume_unwind(Box::new("dropped with the payload"));
    }
}

/// Counts its deaths; every eighth value panics.
#[derive(Trace)]
struct Mortal {
    #[trace(leaf)]
    deaths: Arc<Vec<AtomicU32>>,
    number: usize,
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.deaths[self.number].fetch_add(1, Ordering::Relaxed);
        if self.number % 8 == 7 {
            resume_unwind(Box::new(Malicious));
        }
    }
}

/// The values that were dropped together with the one that panicked must not be dropped again, and the drop
/// thread goes on.
#[test]
fn a_payload_that_panics_when_it_is_dropped_ends_no_thread() {
    const VALUES: usize = 300;
    let deaths: Arc<Vec<_>> = Arc::new((0..VALUES).map(|_| AtomicU32::new(0)).collect());
    let heap = Heap::new();
    heap.enter(|mc| {
        for number in 0..VALUES {
            mc.alloc(Mortal { deaths: deaths.clone(), number });
        }
    });
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(heap.collect(), Collected::Complete);
    drop(heap);
    for (number, count) in deaths.iter().enumerate() {
        assert_eq!(count.load(Ordering::Relaxed), 1, "value {number}");
    }
}

/// Waits in its destructor until the other end says something, or is gone.
struct Slow(Mutex<mpsc::Receiver<()>>);

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.0.get_mut().map(|receiver| receiver.recv());
    }
}

#[derive(Trace)]
struct Holder<'gc> {
    list: GcMutex<'gc, Vec<Gc<'gc, [u64]>>>,
    #[trace(leaf)]
    #[expect(dead_code, reason = "it is there to be dropped")]
    slow: Option<Slow>,
}

/// A container that has a page for itself.
#[derive(Trace)]
struct Large<'gc> {
    list: GcMutex<'gc, Vec<Gc<'gc, [u64]>>>,
    padding: [u64; 1000],
}

/// The containers of one thread.
type Containers = Root<Rootable![[Gc<'_, Large<'_>>]]>;

/// How many there are: more than the collector can remember the pages of.
const CONTAINERS: usize = 300;

fn make_containers(heap: &Heap) -> Containers {
    heap.enter(|mc| {
        let list = || GcMutex::new(vec![mc.alloc_slice([1, 2, 3])]);
        let large = (0..CONTAINERS).map(|_| mc.alloc(Large { list: list(), padding: [0; 1000] }));
        mc.root(mc.alloc_slice(large.collect::<Vec<_>>()))
    })
}

/// Keeps all containers locked most of the time, until told to stop.
fn lock_all(heap: &Heap, containers: &Containers, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        heap.enter(|mc| {
            let containers = containers.get(mc);
            let guards: Vec<_> = containers.iter().map(|c| c.list.lock(mc)).collect();
            std::thread::sleep(std::time::Duration::from_millis(1));
            assert!(guards.iter().all(|list| *list[0] == [1, 2, 3]));
        });
    }
}

/// So many locked containers at a time that the collector cannot remember their pages and has to look through
/// the whole heap. It must not take dead values for live ones that wait to be scanned, although these have
/// been waiting for their destructor since an earlier cycle.
#[test]
fn values_that_wait_for_their_destructor_are_never_scanned() {
    const THREADS: usize = 3;
    let heap = Heap::builder().poison(true).build().unwrap();
    let (go_on, may_go_on) = mpsc::channel();
    heap.enter(|mc| {
        let mut slow = Some(Slow(Mutex::new(may_go_on)));
        for _ in 0..100 {
            let list = GcMutex::new(vec![mc.alloc_slice([1, 2, 3])]);
            mc.alloc(Holder { list, slow: slow.take() });
        }
    });
    let containers: Vec<_> = (0..THREADS).map(|_| make_containers(&heap)).collect();
    let done = AtomicBool::new(false);
    let mut wrong = Vec::new();
    std::thread::scope(|scope| {
        for own in &containers {
            scope.spawn(|| lock_all(&heap, own, &done));
        }
        for cycle in 0..30 {
            assert_eq!(heap.collect(), Collected::Complete);
            let live = heap.stats().live_objects;
            if live != (THREADS * (1 + 2 * CONTAINERS)) as u64 {
                wrong.push((cycle, live));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    drop(go_on);
    assert_eq!(wrong, [], "cycles, and what they took for live");
}
