//! The handler for faults, by itself: which faults it tells of, what it does with the others, and how the process
//! ends. Each test runs in a process of its own, which faults in a page that was made for that.
//!
//! # Safety
//! The faults are the point of this file.
#![allow(unsafe_code)]

mod kernel;

use core::ffi::{c_int, c_void};
use core::fmt;
use kernel::child::{self, Outcome};
use spanheap_core::addr::Addr;
use spanheap_core::os::fault::{self, AfterReport, EXIT_CODE, Fault, Watch};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The page that is ours, and how large it is.
static OURS: AtomicUsize = AtomicUsize::new(0);
const PAGE: usize = 4096;

/// Knows that page. What there is to tell is the offset in it.
struct Page;

impl Watch for Page {
    type Found = usize;

    fn find(addr: Addr) -> Option<usize> {
        let offset = addr.get().checked_sub(OURS.load(SeqCst))?;
        (offset < PAGE).then_some(offset)
    }

    fn tell(found: &usize, fault: &Fault, line: &mut dyn fmt::Write) -> fmt::Result {
        let (access, thread) = (fault.access.name(), fault.thread);
        write!(line, "ours: {access} of byte {found} by {thread}")
    }
}

/// Knows the same page, and faults in it while telling.
struct Clumsy;

impl Watch for Clumsy {
    type Found = usize;

    fn find(addr: Addr) -> Option<usize> {
        Page::find(addr)
    }

    fn tell(found: &usize, _: &Fault, line: &mut dyn fmt::Write) -> fmt::Result {
        line.write_str("never written")?;
        read(OURS.load(SeqCst) + found + 1);
        Ok(())
    }
}

/// A page that can be neither read nor written.
fn page() -> usize {
    let (none, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at a place of the kernel's choice.
    let page = unsafe { libc::mmap(core::ptr::null_mut(), PAGE, none, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    page as usize
}

/// Installs the handler, and makes the page that is ours.
fn watch(after: AfterReport) -> usize {
    OURS.store(page(), SeqCst);
    assert!(!fault::is_installed());
    fault::install::<Page>(after).unwrap();
    assert!(fault::is_installed());
    OURS.load(SeqCst)
}

fn read(at: usize) -> u8 {
    let byte = core::ptr::with_exposed_provenance::<u8>(at);
    // SAFETY: volatile, so it happens; it faults, as it is meant to.
    unsafe { byte.read_volatile() }
}

fn write(at: usize) {
    let byte = core::ptr::with_exposed_provenance_mut::<u8>(at);
    // SAFETY: as in `read`.
    unsafe { byte.write_volatile(1) }
}

/// Sends this thread a signal.
fn send(signal: c_int) {
    // SAFETY: what becomes of it is what is tested.
    unsafe { libc::raise(signal) };
}

/// What a function does that was installed before ours: it says so and ends the process with a code of its own.
fn told(code: c_int, text: &str) -> ! {
    // SAFETY: the bytes are valid for the call.
    unsafe { libc::write(1, text.as_ptr().cast(), text.len()) };
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(code) }
}

extern "C" fn with_description(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: what the kernel has passed is passed on.
    let info = unsafe { &*info };
    // SAFETY: the signal has an address.
    let addr = unsafe { info.si_addr() } as usize;
    let is_it = addr == FOREIGN.load(SeqCst) && !context.is_null();
    told(if is_it { 40 + signal } else { 1 }, "the one before, with a description\n");
}

extern "C" fn without_description(signal: c_int) {
    told(60 + signal, "the one before, without a description\n");
}

extern "C" fn allow(_: c_int) {
    CALLS.fetch_add(1, SeqCst);
    let page = core::ptr::with_exposed_provenance_mut::<c_void>(FOREIGN.load(SeqCst));
    // SAFETY: the page is this test's own.
    unsafe { libc::mprotect(page, PAGE, libc::PROT_READ) };
}

/// A page that is not ours.
static FOREIGN: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Installs something before us.
fn before(signal: c_int, action: usize, flags: c_int) {
    // SAFETY: any bytes are valid; the fields that count are set below.
    let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
    new.sa_sigaction = action;
    new.sa_flags = flags;
    // SAFETY: the function is one for such flags.
    assert_eq!(unsafe { libc::sigaction(signal, &new, core::ptr::null_mut()) }, 0);
}

/// What is installed for a signal.
fn installed(signal: c_int) -> (usize, c_int) {
    // SAFETY: any bytes are valid, and the call writes all that is read.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks, and sets nothing.
    assert_eq!(unsafe { libc::sigaction(signal, core::ptr::null(), &mut action) }, 0);
    (action.sa_sigaction, action.sa_flags)
}

/// A bus error: a page of a file that ends before it.
fn bus_error() {
    // SAFETY: the name is terminated.
    let file = unsafe { libc::memfd_create(c"empty".as_ptr(), 0) };
    let (null, flags) = (core::ptr::null_mut(), libc::MAP_PRIVATE);
    // SAFETY: a new mapping at a place of the kernel's choice.
    let place = unsafe { libc::mmap(null, PAGE, libc::PROT_READ, flags, file, 0) };
    assert_ne!(place, libc::MAP_FAILED);
    FOREIGN.store(place as usize, SeqCst);
    read(place as usize);
}

/// The one line of the report.
fn report(outcome: &Outcome) -> &str {
    let mut lines = outcome.output.lines().filter(|line| line.contains("ours: "));
    let line = lines.next().expect("a report");
    assert!(lines.next().is_none(), "{}", outcome.output);
    line
}

#[track_caller]
fn ends(outcome: &Outcome, signal: Option<c_int>, code: Option<c_int>) {
    assert_eq!((outcome.signal, outcome.code), (signal, code), "{}", outcome.output);
}

#[test]
fn a_fault_that_is_ours_is_told_and_ends_the_process() {
    let name = "a_fault_that_is_ours_is_told_and_ends_the_process";
    for (variant, text) in [("read", "ours: read of byte 17"), ("write", "ours: write of byte 17")]
    {
        let outcome = child::outcome(name, variant, || {
            let ours = watch(AfterReport::Exit);
            // A second call changes nothing but what comes after a report.
            fault::install::<Page>(AfterReport::CoreDump).unwrap();
            fault::install::<Page>(AfterReport::Exit).unwrap();
            println!("thread {}", std::process::id());
            if variant == "read" { _ = read(ours + 17) } else { write(ours + 17) }
        });
        let Some(outcome) = outcome else { continue };
        ends(&outcome, None, Some(EXIT_CODE));
        if cfg!(target_arch = "x86_64") {
            assert!(report(&outcome).starts_with(text), "{}", outcome.output);
        }
    }
}

#[test]
fn a_process_may_be_aborted_for_its_image() {
    let outcome = child::outcome("a_process_may_be_aborted_for_its_image", "only", || {
        child::set_limit(libc::RLIMIT_CORE, 0);
        read(watch(AfterReport::CoreDump));
    });
    let Some(outcome) = outcome else { return };
    ends(&outcome, Some(libc::SIGABRT), None);
    report(&outcome);
}

#[test]
fn one_of_many_threads_that_fault_at_once_tells() {
    let outcome = child::outcome("one_of_many_threads_that_fault_at_once_tells", "only", || {
        let ours = watch(AfterReport::Exit);
        let barrier = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    read(ours + n)
                });
            }
        });
    });
    let Some(outcome) = outcome else { return };
    ends(&outcome, None, Some(EXIT_CODE));
    report(&outcome);
}

#[test]
fn a_function_from_before_gets_what_is_not_ours() {
    let name = "a_function_from_before_gets_what_is_not_ours";
    let with = with_description as *const () as usize;
    let without = without_description as *const () as usize;
    for (variant, signal, action, flags, code) in [
        ("with", libc::SIGSEGV, with, libc::SA_SIGINFO | libc::SA_ONSTACK, 40 + libc::SIGSEGV),
        ("without", libc::SIGSEGV, without, 0, 60 + libc::SIGSEGV),
        ("bus with", libc::SIGBUS, with, libc::SA_SIGINFO, 40 + libc::SIGBUS),
        ("bus without", libc::SIGBUS, without, libc::SA_NODEFER, 60 + libc::SIGBUS),
    ] {
        let outcome = child::outcome(name, variant, || {
            before(signal, action, flags);
            watch(AfterReport::Exit);
            let kept = libc::SA_ONSTACK | libc::SA_NODEFER | libc::SA_RESTART;
            assert_eq!(installed(signal).1 & kept, flags & kept);
            if signal == libc::SIGBUS {
                bus_error();
            } else {
                FOREIGN.store(page() + 5, SeqCst);
                read(FOREIGN.load(SeqCst));
            }
        });
        let Some(outcome) = outcome else { continue };
        ends(&outcome, None, Some(code));
        assert!(outcome.output.contains("the one before, with"), "{}", outcome.output);
        assert!(!outcome.output.contains("ours: "), "{}", outcome.output);
    }
}

/// A program that lives on faults goes on, and one that is ours is told all the same. `errno` is what it was.
#[test]
fn a_fault_that_was_handled_before_is_handled() {
    let outcome = child::outcome("a_fault_that_was_handled_before_is_handled", "only", || {
        before(libc::SIGSEGV, allow as *const () as usize, 0);
        let ours = watch(AfterReport::Exit);
        for n in 1..=100 {
            FOREIGN.store(page(), SeqCst);
            assert_eq!(read(FOREIGN.load(SeqCst)), 0);
            assert_eq!(CALLS.load(SeqCst), n);
        }
        read(ours);
    });
    let Some(outcome) = outcome else { return };
    ends(&outcome, None, Some(EXIT_CODE));
    report(&outcome);
}

#[test]
fn a_function_that_wanted_to_be_called_once_is() {
    let outcome = child::outcome("a_function_that_wanted_to_be_called_once_is", "only", || {
        let function = allow as *const () as usize;
        before(libc::SIGSEGV, function, libc::SA_RESETHAND | libc::SA_NODEFER);
        watch(AfterReport::Exit);
        FOREIGN.store(page(), SeqCst);
        read(FOREIGN.load(SeqCst));
        assert_eq!(CALLS.load(SeqCst), 1);
        println!("once");
        read(page());
        println!("twice");
    });
    let Some(outcome) = outcome else { return };
    ends(&outcome, Some(libc::SIGSEGV), None);
    assert!(outcome.output.contains("once") && !outcome.output.contains("twice"));
}

#[test]
fn without_a_function_the_default_action_is_taken() {
    let name = "without_a_function_the_default_action_is_taken";
    for (variant, action) in [("default", libc::SIG_DFL), ("ignored", libc::SIG_IGN)] {
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            let outcome = child::outcome(name, &format!("{variant} {signal}"), || {
                child::set_limit(libc::RLIMIT_CORE, 0);
                before(signal, action, 0);
                watch(AfterReport::Exit);
                assert_ne!(installed(signal).1 & libc::SA_ONSTACK, 0);
                if signal == libc::SIGBUS {
                    bus_error();
                } else {
                    read(page());
                }
            });
            let Some(outcome) = outcome else { continue };
            ends(&outcome, Some(signal), None);
            assert!(!outcome.output.contains("ours: "), "{}", outcome.output);
        }
    }
}

#[test]
fn a_signal_that_was_sent_does_what_it_did_before() {
    let name = "a_signal_that_was_sent_does_what_it_did_before";
    let outcome = child::outcome(name, "default", || {
        child::set_limit(libc::RLIMIT_CORE, 0);
        before(libc::SIGSEGV, libc::SIG_DFL, 0);
        watch(AfterReport::Exit);
        send(libc::SIGSEGV);
        println!("still there");
    });
    if let Some(outcome) = outcome {
        ends(&outcome, Some(libc::SIGSEGV), None);
        assert!(!outcome.output.contains("still there"));
    }
    let outcome = child::outcome(name, "ignored", || {
        before(libc::SIGSEGV, libc::SIG_IGN, 0);
        let ours = watch(AfterReport::Exit);
        send(libc::SIGSEGV);
        send(libc::SIGSEGV);
        println!("still there");
        read(ours);
    });
    if let Some(outcome) = outcome {
        ends(&outcome, None, Some(EXIT_CODE));
        assert!(outcome.output.contains("still there"));
    }
    let outcome = child::outcome(name, "function", || {
        before(libc::SIGBUS, without_description as *const () as usize, 0);
        watch(AfterReport::Exit);
        send(libc::SIGBUS);
    });
    if let Some(outcome) = outcome {
        ends(&outcome, None, Some(60 + libc::SIGBUS));
    }
}

/// The standard library's own handler, which was there first, gets the guard pages of stacks.
#[test]
fn an_overflow_of_a_stack_is_told_by_the_standard_library() {
    fn descend(depth: u64) -> u64 {
        let padding = std::hint::black_box([depth; 64]);
        if depth == u64::MAX { 0 } else { descend(depth + 1) + padding[7] }
    }
    let name = "an_overflow_of_a_stack_is_told_by_the_standard_library";
    let outcome = child::outcome(name, "only", || {
        child::set_limit(libc::RLIMIT_CORE, 0);
        watch(AfterReport::Exit);
        let deep = std::thread::Builder::new().name("deep".into()).stack_size(1 << 20);
        _ = deep.spawn(|| descend(1)).unwrap().join();
    });
    let Some(outcome) = outcome else { return };
    ends(&outcome, Some(libc::SIGABRT), None);
    assert!(outcome.output.contains("has overflowed its stack"), "{}", outcome.output);
    assert!(!outcome.output.contains("ours: "), "{}", outcome.output);
}

#[test]
fn a_fault_while_telling_ends_the_process_plainly() {
    let name = "a_fault_while_telling_ends_the_process_plainly";
    let function = without_description as *const () as usize;
    // With SA_NODEFER the handler is entered again, else the kernel ends the process.
    for (variant, action, flags) in
        [("blocked", libc::SIG_DFL, 0), ("entered", function, libc::SA_NODEFER)]
    {
        let outcome = child::outcome(name, variant, || {
            child::set_limit(libc::RLIMIT_CORE, 0);
            before(libc::SIGSEGV, action, flags);
            OURS.store(page(), SeqCst);
            fault::install::<Clumsy>(AfterReport::Exit).unwrap();
            read(OURS.load(SeqCst));
        });
        let Some(outcome) = outcome else { continue };
        ends(&outcome, Some(libc::SIGSEGV), None);
        assert!(!outcome.output.contains("never written"), "{}", outcome.output);
    }
}
