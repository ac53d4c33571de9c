//! What happens to a process as a whole: rows 71 to 77 of the fault matrix. Each test runs in a process of its own.
//!
//! # Safety
//! Forks, sets signal handlers and timers, stops itself: in children that do nothing else.

#[path = "../../spanheap-core/tests/kernel/mod.rs"]
mod kernel;

use kernel::child;
use spanheap::{ArenaGc, Collected, Gc, GcCell, Heap, Root, Rootable, Trace};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[derive(Trace)]
struct Node<'gc> {
    key: u64,
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
}

type List = Root<Rootable![Node<'_>]>;

const LEN: u64 = 1000;

fn list(heap: &Heap) -> List {
    heap.enter(|mc| {
        let mut first = None;
        for key in (0..LEN).rev() {
            first = Some(mc.alloc(Node { key, next: GcCell::new(first) }));
        }
        mc.root(first.unwrap())
    })
}

fn sum(heap: &Heap, list: &List) -> u64 {
    heap.enter(|mc| {
        let (mut node, mut sum) = (Some(list.get(mc)), 0);
        while let Some(this) = node {
            sum += this.key;
            node = this.next.get();
        }
        sum
    })
}

const SUM: u64 = LEN * (LEN - 1) / 2;

/// Threads that allocate, store and leave until told to stop, while the heap collects all the time.
fn with_busy_threads<R>(heap: &Heap, body: impl FnOnce() -> R) -> R {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let own = list(heap);
                while !done.load(SeqCst) {
                    heap.enter(|mc| {
                        let first = own.get(mc);
                        let behind = first.next.get().and_then(|second| second.next.get());
                        let new = mc.alloc(Node { key: 1, next: GcCell::new(behind) });
                        first.next.set(mc, Some(new));
                        mc.alloc([0u64; 100]);
                    });
                    list(heap);
                }
            });
        }
        let result = catch_unwind(AssertUnwindSafe(body));
        done.store(true, SeqCst);
        result
    })
    .unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}

/// Forks; the child runs `body` and ends with its number, or is killed when it hangs. Returns how it ended.
fn forked(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only runs `body` and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends a child that hangs.
        unsafe { libc::alarm(20) };
        let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(101);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    loop {
        // SAFETY: waits for the child that was made above.
        let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if ended == child {
            break;
        }
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR));
    }
    assert!(libc::WIFEXITED(status), "a forked child was killed: {status:#x}");
    libc::WEXITSTATUS(status)
}

/// What `act` panics with.
fn refusal(act: impl FnOnce()) -> String {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(()) => "it was not refused".to_owned(),
        Err(payload) => payload.downcast::<String>().map_or_else(|_| "?".to_owned(), |text| *text),
    }
}

/// What a child does with a heap of the process `owner`; 71 if all is as it should be.
fn in_child(owner: u32, heap: Heap, kept: List) -> i32 {
    let owner = format!("belongs to process {owner}, and this is ");
    for _ in 0..3 {
        assert_eq!(sum(&heap, &kept), SUM);
    }
    // Whatever this thread has in advance can be used; then there is an end, and a clear one.
    let told = refusal(|| {
        heap.enter(|mc| {
            for key in 0..10_000_000 {
                mc.alloc(Node { key, next: GcCell::new(None) });
            }
        })
    });
    assert!(told.contains(&owner), "{told}");
    heap.enter(|mc| kept.get(mc).next.set(mc, None));
    let refused: [fn(&Heap); 6] = [
        |heap| _ = heap.collect(),
        |heap| heap.enter(|_| _ = heap.collect()),
        |heap| _ = heap.stats(),
        |heap| _ = heap.verify(),
        |heap| _ = heap.release_memory(),
        |heap| {
            _ = std::thread::scope(|s| {
                s.spawn(|| heap.enter(|_| ())).join().map_err(std::panic::resume_unwind)
            })
        },
    ];
    for (n, act) in refused.into_iter().enumerate() {
        let told = refusal(|| act(&heap));
        assert!(told.contains(&owner), "{n}: {told}");
    }
    let told = refusal(|| {
        heap.enter(|mc| {
            let _: List = mc.root(kept.get(mc));
        })
    });
    assert!(told.contains(&owner), "{told}");
    drop((kept.clone(), kept, heap));
    // A heap of its own is as good as any.
    let own = Heap::builder().checkmark(true).build().unwrap();
    let kept = list(&own);
    assert_eq!((own.collect(), sum(&own, &kept)), (Collected::Complete, SUM));
    71
}

/// The child reads what there was, in the closure in which it was forked and in later ones, and is refused
/// everything that needs the heap's threads or locks, by name. Nothing hangs, whatever the other threads were at.
#[test]
fn fault_71_a_forked_child_reads_and_is_refused_the_rest() {
    child::run("fault_71_a_forked_child_reads_and_is_refused_the_rest", || {
        std::panic::set_hook(Box::new(|_| {}));
        let heap = Heap::builder().collect_continuously(true).build().unwrap();
        let kept = list(&heap);
        let owner = std::process::id();
        with_busy_threads(&heap, || {
            for round in 0..60 {
                let (own, root) = (heap.clone(), kept.clone());
                let code = match round % 3 {
                    0 => forked(|| in_child(owner, own, root)),
                    // Inside of a closure, which the child goes on with.
                    1 => heap.enter(|mc| {
                        let node = root.get(mc);
                        let new = mc.alloc(Node { key: 5, next: GcCell::new(Some(node)) });
                        forked(|| {
                            assert_eq!(new.next.get().unwrap().key, 0);
                            node.next.set(mc, node.next.get());
                            in_child(owner, own, root.clone())
                        })
                    }),
                    // The child forks again.
                    _ => forked(|| forked(|| in_child(owner, own, root))),
                };
                assert_eq!(code, 71, "round {round}");
                assert_eq!(sum(&heap, &kept), SUM);
            }
        });
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(sum(&heap, &kept), SUM);
    });
}

/// A child that was forked inside an arena goes on with it as far as its chunk goes, and ends it.
#[test]
fn fault_71_a_forked_child_goes_on_with_an_arena() {
    child::run("fault_71_a_forked_child_goes_on_with_an_arena", || {
        std::panic::set_hook(Box::new(|_| {}));
        let heap = Heap::builder().collect_continuously(true).build().unwrap();
        let owner = format!("belongs to process {}, and this is ", std::process::id());
        with_busy_threads(&heap, || {
            for round in 0..40 {
                let dropped = AtomicU32::new(0);
                struct Counted<'a>(&'a AtomicU32);
                impl Drop for Counted<'_> {
                    fn drop(&mut self) {
                        self.0.fetch_add(1, SeqCst);
                    }
                }
                let code = heap.enter(|mc| {
                    mc.arena(|arena| {
                        let number = &*arena.alloc(round);
                        arena.alloc_drop(Counted(&dropped));
                        let large = arena.alloc_slice_fill_default::<u8>(3 << 20);
                        forked(|| {
                            assert_eq!((*number, large[1]), (round, 0));
                            let told =
                                refusal(|| (0..20_000).for_each(|n| _ = arena.alloc([n; 100])));
                            assert!(told.contains(&owner), "{told}");
                            let told = refusal(|| {
                                mc.arena(|own| _ = own.alloc_slice_fill_default::<u8>(1 << 20))
                            });
                            assert!(told.contains(&owner), "{told}");
                            mc.arena(|empty| assert_eq!(empty.used(), 0));
                            71
                        })
                    })
                });
                assert_eq!((code, dropped.load(SeqCst)), (71, 1), "round {round}");
                // The arena ends in the child: nothing is given back there.
                let code = heap.enter(|mc| {
                    let mut child = 1;
                    mc.arena(|arena| {
                        arena.alloc_slice_fill_default::<u8>(3 << 20);
                        // SAFETY: the child ends at once when it has left the arena.
                        child = unsafe { libc::fork() };
                    });
                    if child == 0 {
                        // SAFETY: ends the child.
                        unsafe { libc::_exit(72) };
                    }
                    let mut status = 0;
                    // SAFETY: waits for the child that was made above.
                    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 }
                });
                assert_eq!(code, 72);
            }
        });
    });
}

/// A child that ends in the ordinary way, with destructors of thread-locals, does not touch the heap either.
#[test]
fn fault_71_a_forked_child_exits_without_waiting_for_anybody() {
    child::run("fault_71_a_forked_child_exits_without_waiting_for_anybody", || {
        let heap = Heap::builder().collect_continuously(true).build().unwrap();
        let kept = list(&heap);
        with_busy_threads(&heap, || {
            for _ in 0..40 {
                let code = forked(|| {
                    assert_eq!(sum(&heap, &kept), SUM);
                    // SAFETY: runs what is registered for the end of a process.
                    unsafe { libc::exit(9) }
                });
                assert_eq!(code, 9);
            }
        });
    });
}

/// Programs that are started from a process with a heap, by `posix_spawn` and by fork and exec.
#[test]
fn fault_72_other_programs_are_started_while_the_heap_is_busy() {
    child::run("fault_72_other_programs_are_started_while_the_heap_is_busy", || {
        let heap = Heap::builder().collect_continuously(true).build().unwrap();
        let kept = list(&heap);
        with_busy_threads(&heap, || {
            for round in 0..40 {
                let mut program = Command::new("true");
                if round % 2 == 0 {
                    // SAFETY: the function does nothing. It makes the standard library fork.
                    unsafe { program.pre_exec(|| Ok(())) };
                }
                assert!(heap.enter(|_| program.status()).unwrap().success());
                assert_eq!(sum(&heap, &kept), SUM);
            }
        });
        assert_eq!(heap.collect(), Collected::Complete);
    });
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_signal(_: libc::c_int) {
    SIGNALS.fetch_add(1, SeqCst);
}

/// A timer interrupts every system call that can be interrupted, on any thread, thousands of times.
#[test]
fn fault_73_a_storm_of_signals_changes_nothing() {
    child::run("fault_73_a_storm_of_signals_changes_nothing", || {
        // SAFETY: any bytes are valid; the fields that count are set below.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // Without SA_RESTART, so that calls fail.
        action.sa_sigaction = count_signal as *const () as usize;
        // SAFETY: the handler only counts.
        assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) }, 0);
        let every = libc::timeval { tv_sec: 0, tv_usec: 200 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        // SAFETY: the structure is valid for the call.
        let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
        assert_eq!(set, 0);
        let heap = Heap::builder().checkmark(true).poison(true).build().unwrap();
        let kept = list(&heap);
        let mut rounds = 0;
        with_busy_threads(&heap, || {
            while SIGNALS.load(SeqCst) < 1000 || rounds < 10 {
                rounds += 1;
                assert_eq!(heap.collect(), Collected::Complete);
                heap.release_memory();
                assert_eq!(sum(&heap, &kept), SUM);
                if rounds % 10 == 0 {
                    assert!(heap.verify().is_ok());
                    let other = Heap::new();
                    assert_eq!(sum(&other, &list(&other)), SUM);
                }
            }
        });
    });
}

/// This crate installs no handler for faults: whoever has one keeps it.
#[test]
fn fault_74_handlers_of_faults_stay_what_they_are() {
    child::run("fault_74_handlers_of_faults_stay_what_they_are", || {
        let handlers = || {
            [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP, libc::SIGUSR1].map(
                |signal| {
                    // SAFETY: any bytes are valid, and the call writes all that is read.
                    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
                    // SAFETY: asks for the handler, and sets none.
                    let status = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
                    assert_eq!(status, 0);
                    (action.sa_sigaction, action.sa_flags)
                },
            )
        };
        let before = handlers();
        let heap = Heap::builder().checkmark(true).poison(true).build().unwrap();
        let kept = list(&heap);
        assert_eq!((heap.collect(), sum(&heap, &kept)), (Collected::Complete, SUM));
        assert_eq!(handlers(), before);
        drop(heap);
        assert_eq!(handlers(), before);
    });
}

static FOREIGN: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    FOREIGN.fetch_add(1, SeqCst);
    // SAFETY: what the kernel has passed.
    let info = unsafe { &*info };
    // SAFETY: it is about a fault.
    let page = unsafe { info.si_addr() };
    // SAFETY: the page is the one that the test has made.
    unsafe { libc::mprotect(page, 1, libc::PROT_READ) };
}

/// A heap that reports faults takes the two signals and no other. Whoever had them gets what is not ours.
#[test]
fn fault_74_a_handler_that_was_asked_for_passes_on() {
    child::run("fault_74_a_handler_that_was_asked_for_passes_on", || {
        // SAFETY: any bytes are valid; the fields that count are set below.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = count_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the handler counts, and makes the page readable.
        assert_eq!(unsafe { libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()) }, 0);
        let heap = Heap::builder().report_faults(spanheap::AfterReport::Exit).record_sites(true);
        let heap = heap.checkmark(true).poison(true).build().unwrap();
        let kept = list(&heap);
        for n in 1..=10 {
            let (none, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a new mapping at a place of the kernel's choice.
            let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, none, flags, -1, 0) };
            assert_ne!(page, libc::MAP_FAILED);
            // SAFETY: it can be read once the handler has run.
            assert_eq!(unsafe { page.cast::<u8>().read_volatile() }, 0);
            assert_eq!(FOREIGN.load(SeqCst), n);
            assert_eq!((heap.collect(), sum(&heap, &kept)), (Collected::Complete, SUM));
        }
    });
}

/// The result of an expression, and its line as a report names it.
macro_rules! with_line {
    ($expression:expr) => {
        ($expression, concat!(file!(), ":", line!(), ":"))
    };
}

/// A pointer that unsafe code has kept beyond its closure. The places that are named are those of the program and not
/// of the library, whichever way a value got into the arena.
#[test]
fn fault_48_a_use_by_unsafe_code_is_told_with_both_places() {
    let name = "fault_48_a_use_by_unsafe_code_is_told_with_both_places";
    for way in ["arena", "writer", "with", "text"] {
        let outcome = child::outcome(name, way, || {
            let heap = Heap::builder().report_faults(spanheap::AfterReport::Exit);
            let heap = heap.record_sites(true).build().unwrap();
            let arena = heap.shared_arena_builder().name("request").build();
            let (at, _kept) = heap.enter(|mc| {
                let (value, what) = if way == "text" {
                    let (text, line) = with_line!(arena.alloc_str(mc, "twelve bytes"));
                    let root = Kept::Text(mc.root(mc.alloc(text)));
                    ((text.as_ptr().cast::<u8>(), root), format!("slice of u8 (12 bytes) {line}"))
                } else {
                    let (values, line) = match way {
                        "arena" => with_line!(arena.alloc(mc, [1u64; 4])),
                        "writer" => with_line!(arena.writer(mc).alloc([1u64; 4])),
                        _ => with_line!(arena.alloc_with(mc, || [1u64; 4])),
                    };
                    let root = Kept::Values(mc.root(mc.alloc(values)));
                    ((values.as_ptr().cast::<u8>(), root), format!("[u64; 4] (32 bytes) {line}"))
                };
                println!("expected: {}", what.replace(") ", ") allocated at "));
                value
            });
            let ((), line) = with_line!(arena.free());
            println!("expected: arena #1 \"request\" freed at {line}");
            assert_eq!(heap.collect(), Collected::Complete);
            // SAFETY: none: the arena is freed.
            println!("read {}", unsafe { at.read_volatile() });
        });
        let Some(outcome) = outcome else { continue };
        let text = outcome.output;
        assert_eq!(outcome.code, Some(spanheap::FAULT_EXIT_CODE), "{text}");
        let report = text.lines().find(|line| line.starts_with("spanheap: use after arena free"));
        let report = report.expect("a report");
        let expected: Vec<_> =
            text.lines().filter_map(|line| line.split_once("expected: ")).collect();
        assert_eq!(expected.len(), 2, "{text}");
        expected.iter().for_each(|(_, part)| assert!(report.contains(part), "{part}: {report}"));
    }
}

/// What keeps the address of a value from being used again.
#[expect(dead_code, reason = "is held and never looked at")]
enum Kept {
    Text(Text),
    Values(Values),
}

type Text = Root<Rootable![ArenaGc<'_, str>]>;
type Values = Root<Rootable![ArenaGc<'_, [u64; 4]>]>;

static HEAP: OnceLock<(Heap, List)> = OnceLock::new();

thread_local! {
    static LOCAL: (Heap, Heap) = (Heap::new(), HEAP.get().unwrap().0.clone());
}

struct Slow;

impl Drop for Slow {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[derive(Trace)]
struct SlowBox(#[trace(leaf)] Slow);

/// The process ends at any moment of a cycle, with heaps in statics and in thread-locals, threads in closures, and
/// destructors on their way. In fifty ways to end well and badly, none is a crash.
#[test]
fn fault_75_a_process_ends_while_its_heaps_are_busy() {
    for round in 0..50u64 {
        let variant = format!("round {round}");
        let outcome =
            child::outcome("fault_75_a_process_ends_while_its_heaps_are_busy", &variant, || {
                let heap = Heap::builder().collect_continuously(true).build().unwrap();
                let kept = list(&heap);
                let (heap, kept) = HEAP.get_or_init(|| (heap, kept));
                for _ in 0..2 {
                    std::thread::spawn(move || {
                        LOCAL.with(|(own, _)| _ = sum(own, &list(own)));
                        loop {
                            heap.enter(|mc| _ = mc.alloc(SlowBox(Slow)));
                            assert_eq!(sum(heap, kept), SUM);
                        }
                    });
                }
                LOCAL.with(|(own, shared)| {
                    _ = sum(own, &list(own));
                    for _ in 0..round {
                        assert_eq!(sum(shared, kept), SUM);
                    }
                });
                match round % 5 {
                    0 => std::process::exit(17),
                    1 => heap.enter(|_| std::process::exit(17)),
                    2 => std::process::abort(),
                    // SAFETY: ends the process without any more ado.
                    3 => unsafe { libc::_exit(17) },
                    // On another thread than the first, while that one waits.
                    _ => _ = std::thread::spawn(|| std::process::exit(17)).join(),
                }
            });
        let Some(outcome) = outcome else { continue };
        let expected = if round % 5 == 2 { (Some(libc::SIGABRT), None) } else { (None, Some(17)) };
        assert_eq!((outcome.signal, outcome.code), expected, "{variant}: {}", outcome.output);
        assert!(!outcome.output.contains("fatal"), "{}", outcome.output);
    }
}

/// The guard page of a stack is hit inside a closure, while stores are buffered and cycles run: the runtime's own
/// handler reports it, and not some crash of the collector.
#[test]
fn fault_76_a_stack_overflow_in_a_closure_is_reported() {
    fn descend<'gc>(mc: &spanheap::Mutator<'gc>, node: Gc<'gc, Node<'gc>>, depth: u64) -> u64 {
        let padding = std::hint::black_box([depth; 32]);
        let new = mc.alloc(Node { key: depth, next: GcCell::new(Some(node)) });
        node.next.set(mc, Some(new));
        // It never is: the stack ends long before.
        if depth == u64::MAX {
            return 0;
        }
        descend(mc, new, depth + 1) + padding[7]
    }
    let name = "fault_76_a_stack_overflow_in_a_closure_is_reported";
    let outcome = child::outcome(name, "only", || {
        let heap = Heap::builder().collect_continuously(true).build().unwrap();
        let deep = std::thread::Builder::new().name("deep".into()).stack_size(1 << 20);
        let body = move || {
            heap.enter(|mc| {
                let first = mc.alloc(Node { key: 0, next: GcCell::new(None) });
                descend(mc, first, 1)
            })
        };
        _ = deep.spawn(body).unwrap().join();
    });
    let Some(outcome) = outcome else { return };
    assert_eq!(outcome.signal, Some(libc::SIGABRT), "{}", outcome.output);
    assert!(outcome.output.contains("has overflowed its stack"), "{}", outcome.output);
    assert!(!outcome.output.contains("spanheap: fatal"), "{}", outcome.output);
}

/// The process is stopped for a while in the midst of its cycles, as by a debugger. The watchdog tells, if anything,
/// and does nothing; everything goes on.
#[test]
fn fault_77_a_process_that_was_stopped_goes_on() {
    child::run("fault_77_a_process_that_was_stopped_goes_on", || {
        let told = Arc::new(AtomicU32::new(0));
        let count = told.clone();
        let heap = Heap::builder().collect_continuously(true).poison(true);
        let heap =
            heap.watchdog(Duration::from_millis(50), move |_| _ = count.fetch_add(1, SeqCst));
        let heap = heap.build().unwrap();
        let kept = list(&heap);
        with_busy_threads(&heap, || {
            for _ in 0..3 {
                // Somebody outside lets us go on; more than once, should the first time come too early.
                let process = std::process::id();
                let script =
                    format!("for n in 1 2 3 4 5; do sleep 0.15; kill -CONT {process}; done");
                let mut other = Command::new("sh").args(["-c", &script]).spawn().unwrap();
                // SAFETY: stops the process, until the other one lets it go on.
                assert_eq!(unsafe { libc::kill(process as libc::pid_t, libc::SIGSTOP) }, 0);
                let cycles = heap.stats().cycles;
                while heap.stats().cycles < cycles + 3 {
                    assert_eq!(sum(&heap, &kept), SUM);
                }
                assert!(other.wait().unwrap().success());
            }
        });
        assert_eq!(heap.collect(), Collected::Complete);
        assert!(heap.verify().is_ok());
    });
}
