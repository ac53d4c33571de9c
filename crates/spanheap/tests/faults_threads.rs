//! Threads that come, go, hang and vanish: rows 14 and 22 to 31 of the fault matrix, on whole heaps. (Heaps and
//! threads in ordinary use are in `lifecycle.rs`.)
//!
//! # Safety
//! Ends threads by bare calls of the C library, and takes rights from child processes.

#[path = "../../spanheap-core/tests/kernel/mod.rs"]
mod kernel;

use kernel::child::{self, Outcome};
use spanheap::os::{Os, SimOs};
use spanheap::{
    BuildError, Collected, CollectedFor, Delay, Gc, GcCell, Heap, Root, Rootable, Trace,
};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

#[derive(Trace)]
struct Node<'gc> {
    key: u64,
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
}

type List = Root<Rootable![Node<'_>]>;

fn list(heap: &Heap, keys: std::ops::Range<u64>) -> List {
    heap.enter(|mc| {
        let mut first = None;
        for key in keys.rev() {
            first = Some(mc.alloc(Node { key, next: GcCell::new(first) }));
        }
        mc.root(first.unwrap())
    })
}

#[track_caller]
fn check(heap: &Heap, list: &List, keys: std::ops::Range<u64>) {
    heap.enter(|mc| {
        let mut node = Some(list.get(mc));
        for key in keys {
            let this = node.expect("a node for each key");
            assert_eq!(this.key, key);
            node = this.next.get();
        }
        assert!(node.is_none());
    });
}

/// From here on the process gets no more threads, even if it was root's.
fn allow_no_threads() {
    // SAFETY: gives rights away; this is a child process that does nothing else.
    let status = unsafe { libc::setresuid(65534, 65534, 65534) };
    assert!(status == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM));
    child::set_limit(libc::RLIMIT_NPROC, 0);
}

/// Without a thread for the collector there is no heap, and nothing is left behind. When there are threads again,
/// there are heaps.
#[test]
fn fault_14_without_a_thread_there_is_no_heap() {
    child::run("fault_14_without_a_thread_there_is_no_heap", || {
        // SAFETY: as in `allow_no_threads`.
        unsafe { libc::setresuid(65534, 65534, 65534) };
        let before = child::set_limit(libc::RLIMIT_NPROC, 0);
        let mapped = child::status_bytes("VmSize:");
        for _ in 0..100 {
            match Heap::builder().build() {
                Err(BuildError::System(error)) => {
                    assert!(error.to_string().contains("no thread"), "{error}");
                }
                other => panic!("{other:?}"),
            }
        }
        let now = child::status_bytes("VmSize:");
        assert!(now <= mapped + (8 << 20), "{mapped} bytes of address space became {now}");
        child::set_limit(libc::RLIMIT_NPROC, before);
        if let Ok(heap) = Heap::builder().build() {
            check(&heap, &list(&heap, 0..10), 0..10);
            assert_eq!(heap.collect(), Collected::Complete);
        }
    });
}

/// Without a thread for destructors they run on the collector's, between cycles. There they may use the heap, but
/// cannot wait for a cycle.
#[test]
fn fault_14_without_a_thread_destructors_run_on_the_collectors() {
    #[derive(Trace)]
    struct Dying {
        #[trace(leaf)]
        heap: Heap,
        #[trace(leaf)]
        sender: mpsc::Sender<(Collected, CollectedFor, Option<String>)>,
    }
    impl Drop for Dying {
        fn drop(&mut self) {
            check(&self.heap, &list(&self.heap, 0..10), 0..10);
            let thread = std::thread::current().name().map(str::to_owned);
            // Time without end, which nobody may spend waiting for himself.
            let helped = self.heap.collect_for(Duration::MAX);
            self.sender.send((self.heap.collect(), helped, thread)).unwrap();
        }
    }
    child::run("fault_14_without_a_thread_destructors_run_on_the_collectors", || {
        let heap = Heap::new();
        allow_no_threads();
        let (sender, receiver) = mpsc::channel();
        heap.enter(|mc| {
            for _ in 0..100 {
                mc.alloc(Dying { heap: heap.clone(), sender: sender.clone() });
            }
        });
        assert_eq!(heap.collect(), Collected::Complete);
        let thread = Some("spanheap-gc".to_owned());
        let collector = (Collected::Requested, CollectedFor::Requested, thread);
        for _ in 0..100 {
            assert_eq!(receiver.recv().unwrap(), collector);
        }
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(heap.stats().dropped, 100);
    });
}

/// A thread that the C library ends runs its thread-locals' destructors and is detached.
#[test]
fn fault_22_a_thread_that_exits_attached_is_detached() {
    static HEAP: Mutex<Option<Heap>> = Mutex::new(None);
    static KEPT: Mutex<Vec<List>> = Mutex::new(Vec::new());
    type Body = extern "C" fn(*mut libc::c_void) -> *mut libc::c_void;
    unsafe extern "C-unwind" {
        // The C library unwinds the thread's frames by this call, so it is declared as what it is.
        fn pthread_exit(value: *mut libc::c_void) -> !;
    }
    extern "C-unwind" fn body(_: *mut libc::c_void) -> *mut libc::c_void {
        {
            let heap = HEAP.lock().unwrap().clone().unwrap();
            let own = list(&heap, 0..100);
            KEPT.lock().unwrap().push(own);
        }
        // SAFETY: no frame of this thread has anything to drop.
        unsafe { pthread_exit(std::ptr::null_mut()) }
    }
    child::run("fault_22_a_thread_that_exits_attached_is_detached", || {
        let heap = Heap::builder().collect_continuously(true).poison(true).build().unwrap();
        *HEAP.lock().unwrap() = Some(heap.clone());
        // SAFETY: both are called in the same way; what differs is that the frame may be unwound.
        let body = unsafe { std::mem::transmute::<*const (), Body>(body as *const ()) };
        for _ in 0..50 {
            // SAFETY: any bytes are a thread's number before it is written.
            let mut thread: libc::pthread_t = unsafe { std::mem::zeroed() };
            // SAFETY: the function takes no argument, and the thread is joined below.
            let status = unsafe {
                libc::pthread_create(&raw mut thread, std::ptr::null(), body, std::ptr::null_mut())
            };
            assert_eq!(status, 0);
            // SAFETY: made above, and joined once.
            assert_eq!(unsafe { libc::pthread_join(thread, std::ptr::null_mut()) }, 0);
        }
        assert_eq!(heap.stats().threads, 0);
        assert_eq!(heap.collect(), Collected::Complete);
        for kept in KEPT.lock().unwrap().iter() {
            check(&heap, kept, 0..100);
        }
        assert_eq!(heap.stats().live_objects, 5000);
    });
}

/// A thread that the kernel takes away, without any destructor, leaves its record behind and holds nobody up, as
/// long as it was outside.
#[test]
fn fault_22_a_thread_that_vanishes_outside_holds_nobody_up() {
    child::run("fault_22_a_thread_that_vanishes_outside_holds_nobody_up", || {
        let heap = Heap::builder().checkmark(true).build().unwrap();
        let kept = Arc::new(Mutex::new(None));
        let (own, result) = (heap.clone(), kept.clone());
        let vanishing = std::thread::spawn(move || {
            *result.lock().unwrap() = Some(list(&own, 0..100));
            // SAFETY: ends this thread at once. What it owns is leaked.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        });
        // The kernel tells the joiner; what the standard library makes of it is its own affair.
        _ = catch_unwind(AssertUnwindSafe(|| vanishing.join()));
        let kept = kept.lock().unwrap().take().unwrap();
        for _ in 0..5 {
            assert_eq!(heap.collect(), Collected::Complete);
            check(&heap, &kept, 0..100);
        }
        assert_eq!(heap.stats().live_objects, 100);
        assert!(heap.verify().is_ok());
    });
}

/// Threads that panic while they are inside, and are joined, leave nothing behind.
#[test]
fn fault_22_a_panic_that_ends_an_attached_thread_detaches_it() {
    let heap = Heap::builder().collect_continuously(true).build().unwrap();
    for _ in 0..50 {
        let own = heap.clone();
        let thread = std::thread::spawn(move || {
            own.enter(|mc| {
                mc.alloc(Node { key: 1, next: GcCell::new(None) });
                own.enter(|_| std::panic::resume_unwind(Box::new("on purpose")))
            })
        });
        assert!(thread.join().is_err());
    }
    assert_eq!(heap.collect(), Collected::Complete);
    let stats = heap.stats();
    assert_eq!((stats.threads, stats.threads_inside, stats.live_objects), (0, 0, 0));
}

/// The watchdog names the thread whose closure does not end, again and again; nothing happens to it, and the
/// cycle is complete when it leaves.
#[test]
fn fault_23_a_closure_that_never_ends_is_named() {
    let (delays, delayed) = mpsc::channel::<Delay>();
    let every = Duration::from_millis(20);
    let heap = Heap::builder().watchdog(every, move |delay| _ = delays.send(delay.clone()));
    let heap = heap.build().unwrap();
    let (finish, may_finish) = mpsc::channel::<()>();
    let (inside, is_inside) = mpsc::channel();
    std::thread::scope(|scope| {
        let heap = &heap;
        let stuck = std::thread::Builder::new().name("stuck-in-a-closure".into());
        stuck
            .spawn_scoped(scope, move || {
                heap.enter(|mc| {
                    let node = mc.alloc(Node { key: 5, next: GcCell::new(None) });
                    // SAFETY: a call without arguments.
                    inside.send(unsafe { libc::syscall(libc::SYS_gettid) }).unwrap();
                    may_finish.recv().unwrap();
                    assert_eq!(node.key, 5);
                })
            })
            .unwrap();
        let thread = is_inside.recv().unwrap();
        let collecting = scope.spawn(move || heap.collect());
        for n in 1..=3 {
            let delay = delayed.recv().unwrap();
            // The kernel keeps 15 bytes of a name.
            assert_eq!(delay.name.as_deref(), Some("stuck-in-a-clos"));
            assert_eq!(i64::from(delay.thread), thread);
            assert!(delay.waited >= every * n, "{delay}");
            assert!(delay.to_string().contains("has kept the collector waiting"), "{delay}");
        }
        // Others go on meanwhile.
        check(heap, &list(heap, 0..1000), 0..1000);
        finish.send(()).unwrap();
        assert_eq!(collecting.join().unwrap(), Collected::Complete);
    });
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(heap.stats().live_objects, 0);
}

/// A hook that panics, and one that tries to use the heap that waits, are contained.
#[test]
fn fault_23_a_watchdog_that_misbehaves_is_contained() {
    static HEAP: Mutex<Option<Heap>> = Mutex::new(None);
    let (calls, called) = mpsc::channel();
    let heap = Heap::builder().checkmark(true).watchdog(Duration::from_millis(5), move |_| {
        calls.send(()).unwrap();
        let heap = HEAP.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone().unwrap();
        heap.enter(|_| ());
    });
    let heap = heap.build().unwrap();
    *HEAP.lock().unwrap() = Some(heap.clone());
    let (finish, may_finish) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let (inside, is_inside) = mpsc::channel();
        let heap = &heap;
        scope.spawn(move || {
            heap.enter(|_| {
                inside.send(()).unwrap();
                may_finish.recv().unwrap();
            })
        });
        is_inside.recv().unwrap();
        heap.enter(|_| _ = heap.collect());
        for _ in 0..3 {
            called.recv().unwrap();
        }
        finish.send(()).unwrap();
    });
    assert_eq!(heap.collect(), Collected::Complete);
    HEAP.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
}

/// Any thread may enter, at any time: it attaches itself.
#[test]
fn fault_24_a_thread_that_was_never_attached_may_allocate() {
    let heap = Heap::builder().collect_every(10).checkmark(true).build().unwrap();
    let kept: Vec<List> = (0..32)
        .map(|n| std::thread::scope(|scope| scope.spawn(|| list(&heap, n..n + 10)).join().unwrap()))
        .collect();
    assert_eq!(heap.collect(), Collected::Complete);
    for (n, kept) in kept.iter().enumerate() {
        check(&heap, kept, n as u64..n as u64 + 10);
    }
    assert_eq!((heap.stats().live_objects, heap.stats().threads), (320, 1));
}

/// In the destructors of thread-locals, in either order, while cycles run without pause: what is allocated there is
/// there, and the thread leaves no record behind.
#[test]
fn fault_25_allocation_in_a_late_destructor_attaches_again() {
    type Later = RefCell<Option<(Heap, mpsc::Sender<List>)>>;
    struct AtExit(Later);
    impl Drop for AtExit {
        fn drop(&mut self) {
            let (heap, sender) = self.0.take().unwrap();
            sender.send(list(&heap, 0..50)).unwrap();
            let nested = heap.enter(|_| list(&heap, 0..50));
            sender.send(nested).unwrap();
        }
    }
    thread_local!(static AT_EXIT: AtExit = const { AtExit(RefCell::new(None)) });
    let heap = Heap::builder().collect_continuously(true).checkmark(true).poison(true);
    let heap = heap.build().unwrap();
    let (sender, receiver) = mpsc::channel();
    for round in 0..40 {
        let (heap, sender) = (heap.clone(), sender.clone());
        let thread = std::thread::spawn(move || {
            if round % 2 == 0 {
                heap.enter(|_| ());
            }
            AT_EXIT.with(|at_exit| *at_exit.0.borrow_mut() = Some((heap.clone(), sender)));
            heap.enter(|_| ());
        });
        thread.join().unwrap();
    }
    let lists: Vec<List> = receiver.try_iter().collect();
    assert_eq!(lists.len(), 80);
    assert_eq!(heap.collect(), Collected::Complete);
    lists.iter().for_each(|list| check(&heap, list, 0..50));
    assert_eq!((heap.stats().live_objects, heap.stats().threads), (4000, 1));
}

/// Bytes that are mapped for anything else than pages of objects.
fn own_records(heap: &Heap) -> usize {
    let stats = heap.stats();
    let pages = stats.heap_bytes + stats.cached_bytes + stats.free_bytes + stats.returned_bytes;
    stats.mapped_bytes.saturating_sub(pages)
}

/// Ten thousand threads attach, leave a root behind and go, while the heap marks all the time. No root is lost, and
/// what the heap keeps for threads is kept for as many as there were at once.
#[test]
fn fault_26_ten_thousand_threads_come_and_go_while_marking() {
    const AT_ONCE: usize = 8;
    let heap = Heap::builder().collect_continuously(true).build().unwrap();
    let mut kept = Vec::new();
    let mut records = 0;
    for wave in 0..10_000 / AT_ONCE as u64 {
        let keep = |thread: u64| {
            let heap = &heap;
            move || list(heap, wave + thread..wave + thread + 3)
        };
        let lists: Vec<List> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE as u64).map(|t| scope.spawn(keep(t))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        if wave % 10 == 0 {
            kept.push((wave, lists));
        }
        if wave == 100 {
            records = own_records(&heap);
        }
    }
    assert_eq!(heap.collect(), Collected::Complete);
    for (wave, lists) in &kept {
        for (thread, list) in lists.iter().enumerate() {
            let first = wave + thread as u64;
            check(&heap, list, first..first + 3);
        }
    }
    let stats = heap.stats();
    assert_eq!(stats.live_objects, kept.len() as u64 * AT_ONCE as u64 * 3);
    assert!(stats.threads <= 1);
    // Eleven times as many threads later. What the records describe may have grown: on a busy machine a cycle is
    // long, and spans of threads that allocate in its course are not used again before its end.
    let now = own_records(&heap);
    assert!(now <= records + (4 << 20), "{records} became {now}");
}

/// All attach at once while the gate is closed again and again: they wait, and nobody waits for ever.
#[test]
fn fault_27_a_storm_of_attaching_threads_at_a_closed_gate() {
    const THREADS: usize = 64;
    let heap = Heap::builder().collect_continuously(true).checkmark(true).build().unwrap();
    let start = Barrier::new(THREADS);
    let sum = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS as u64 {
            let (heap, start, sum) = (&heap, &start, &sum);
            scope.spawn(move || {
                start.wait();
                for round in 0..20 {
                    check(heap, &list(heap, thread..thread + 5), thread..thread + 5);
                    if round % 5 == 0 {
                        assert!(heap.verify().is_ok());
                    }
                    sum.fetch_add(1, SeqCst);
                }
            });
        }
    });
    assert_eq!(sum.load(SeqCst), 20 * THREADS as u32);
}

/// A thread that sleeps outside of closures is waited for by nobody, however long.
#[test]
fn fault_28_a_thread_that_sleeps_outside_is_not_waited_for() {
    let heap = Heap::builder().watchdog(Duration::from_secs(3600), |delay| panic!("{delay}"));
    let heap = heap.checkmark(true).build().unwrap();
    let (wake, is_woken) = mpsc::channel::<()>();
    let (asleep, is_asleep) = mpsc::channel();
    std::thread::scope(|scope| {
        let heap = &heap;
        scope.spawn(move || {
            let own = list(heap, 0..10);
            asleep.send(()).unwrap();
            is_woken.recv().unwrap();
            check(heap, &own, 0..10);
        });
        is_asleep.recv().unwrap();
        for _ in 0..20 {
            assert_eq!(heap.collect(), Collected::Complete);
        }
        assert!(heap.verify().is_ok());
        wake.send(()).unwrap();
    });
}

/// A bug of the collector's own, played by a system whose calls panic on its thread: the process says so and
/// ends, whoever waits for the cycle, and nobody goes on with a heap that was marked by half.
#[test]
fn fault_29_a_process_whose_collector_panics_ends_with_a_report() {
    let test = "fault_29_a_process_whose_collector_panics_ends_with_a_report";
    for variant in ["somebody waits", "nobody waits"] {
        let outcome = child::outcome(test, variant, || {
            let sim = SimOs::builder().build();
            let builder = Heap::builder().os(Os::simulated(sim.clone()));
            let heap = builder.collect_continuously(variant == "nobody waits").build().unwrap();
            let kept = list(&heap, 0..1000);
            assert_eq!(heap.collect(), Collected::Complete);
            sim.set_panics_on(Some("spanheap-gc"));
            // To verify a cycle, it needs a table from the system.
            heap.set_checkmark(true);
            if variant == "somebody waits" {
                let end = heap.collect();
                println!("a cycle has ended: {end:?}");
            }
            // Nobody waits for ever here: if the process lives on, that is what the parent finds out.
            for _ in 0..20_000 {
                check(&heap, &kept, 0..1000);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let Some(Outcome { signal, output, .. }) = outcome else { continue };
        assert_eq!(signal, Some(libc::SIGABRT));
        for line in
            ["a call of the thread spanheap-gc was to panic", "the collector thread has panicked"]
        {
            assert!(output.contains(line), "not said: {line}");
        }
    }
}

/// Pointers of one heap do not get into another: the types refuse (`ui/api/gc_of_other_closure.rs`), and roots at
/// run time. What a heap makes of another one's pointers is in the core's `tests/faults_callers.rs`.
#[test]
fn fault_30_a_root_is_refused_by_another_heap() {
    let (one, other) = (Heap::new(), Heap::new());
    let root = list(&one, 0..3);
    for _ in 0..3 {
        let opened = catch_unwind(AssertUnwindSafe(|| other.enter(|mc| root.get(mc).key)));
        assert!(
            opened.unwrap_err().downcast_ref::<String>().unwrap().contains("opened in a closure")
        );
        assert_eq!((one.collect(), other.collect()), (Collected::Complete, Collected::Complete));
    }
    check(&one, &root, 0..3);
}

/// The handles and roots that threads hold keep a heap alive or are harmless: whoever drops last drops it.
#[test]
fn fault_31_a_heap_is_dropped_by_whoever_is_last() {
    for round in 0..50 {
        let dropped = Arc::new(AtomicBool::new(false));
        struct Flag(Arc<AtomicBool>);
        impl Drop for Flag {
            fn drop(&mut self) {
                assert!(!self.0.swap(true, SeqCst), "dropped twice");
            }
        }
        #[derive(Trace)]
        struct Flagged(#[trace(leaf)] Flag);
        let heap = Heap::new();
        let root: Root<Rootable![Flagged]> =
            heap.enter(|mc| mc.root(mc.alloc(Flagged(Flag(dropped.clone())))));
        let start = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (heap, root, start) = (heap.clone(), root.clone(), &start);
                scope.spawn(move || {
                    start.wait();
                    heap.enter(|mc| assert!(!root.get(mc).0.0.load(SeqCst)));
                    drop(heap);
                    // A root that may have outlived its heap.
                    drop(root.clone());
                });
            }
            drop(heap);
        });
        assert!(dropped.load(SeqCst), "round {round}");
        assert!(
            catch_unwind(AssertUnwindSafe(|| Heap::new().enter(|mc| _ = root.get(mc)))).is_err()
        );
    }
}
