//! The heap as a value: made, attached to, collected, dropped.
//!
//! Dropping a heap stops its threads, runs the destructors that are owed, and returns all its memory. What
//! may outlive it are roots (numbers that lead nowhere any more) and mutators, which are of no use but
//! can be dropped safely at any time.
//!
//! Memory is returned by [`Pages`], of which the heap holds one. Whoever has manual spans that must not go
//! away under him holds another: then the heap ends as usual, with threads and destructors, and its memory
//! stays until he lets go.
//!
//! # Safety
//! - W1. The last [`Pages`] of a heap is dropped when its threads have stopped and no closure is open: [`End`]
//!   holds one until then.
#![allow(unsafe_code)]

use super::Mutator;
use super::OutsideMemory;
use super::arena::{ArenaOptions, UserArena};
use crate::addr::Bytes;
use crate::collect::pressure::PressureHook;
use crate::collect::{Collector, Options};
use crate::fatal::{fatal, or_die};
use crate::heap::hooks::Hooks;
use crate::heap::verify::Verified;
use crate::heap::{Live, ManualSpan};
use crate::os::{Features, Os, OsError};
use crate::span::alone;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A garbage-collected heap.
pub struct Heap {
    collector: Arc<Collector>,
    thread: Option<JoinHandle<()>>,
    /// Calls the program when a limit is near.
    pressure_thread: Option<JoinHandle<()>>,
    pages: Pages,
}

/// All pages of a heap: they stay as long as somebody holds a value of this type. Nothing of the heap but its
/// manual spans is of use beyond its own end.
#[derive(Clone)]
pub struct Pages {
    held: Arc<HeldPages>,
}

struct HeldPages {
    collector: Arc<Collector>,
}

impl Pages {
    /// The number of the heap in this process.
    pub fn heap_number(&self) -> u64 {
        self.held.collector.central().number()
    }

    /// Frees a manual span, inside of a closure or outside, on any thread, before the end of the heap or after
    /// it. In a process that was forked from the heap's nothing happens.
    ///
    /// # Panics
    /// When the span belongs to another heap.
    ///
    /// # Safety
    /// Nobody uses its memory any more.
    pub unsafe fn free_manual(&self, span: ManualSpan) {
        let central = self.held.collector.central();
        assert!(span.heap() == central.number(), "{span:?} does not belong to this heap");
        if !central.is_here() {
            // As in `Heap::drop`: the pages stay. A destructor calls this, so it is no reason to panic.
            return;
        }
        // SAFETY: the caller's promise; the span is this heap's, which has not been released, since the pages
        // are held.
        unsafe { central.free_manual(span) };
    }
}

impl Drop for HeldPages {
    fn drop(&mut self) {
        if !self.collector.central().is_here() {
            // As in `Heap::drop`.
            return;
        }
        // SAFETY: W1, and whoever drops a heap holds no pointer into it (U1). Manual spans are used only by
        // those who hold the pages, and nobody does any more.
        unsafe { self.collector.central().release() };
    }
}

/// Why a heap could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum NewHeapError {
    /// The system gives no memory.
    Memory(OsError),
    /// The system gives no thread.
    Thread(io::Error),
}

impl std::fmt::Display for NewHeapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NewHeapError::Memory(error) => write!(f, "no memory for a heap: {error}"),
            NewHeapError::Thread(error) => write!(f, "no thread for the collector: {error}"),
        }
    }
}

impl std::error::Error for NewHeapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            NewHeapError::Memory(error) => Some(error),
            NewHeapError::Thread(error) => Some(error),
        }
    }
}

impl Heap {
    /// A heap on `os`, with its collector thread.
    ///
    /// # Errors
    /// When the system gives no memory or no thread; nothing is left behind.
    pub fn new(os: Os, options: Options) -> Result<Heap, NewHeapError> {
        Heap::with_hooks(os, options, Hooks::none(), None)
    }

    /// The same, with functions that are told of panics and delays; and one that is called when a limit is near,
    /// on a thread for that: see [`crate::collect::pressure`].
    ///
    /// # Errors
    /// As [`Heap::new`].
    pub fn with_hooks(
        os: Os,
        options: Options,
        hooks: Hooks,
        pressure: Option<PressureHook>,
    ) -> Result<Heap, NewHeapError> {
        let mut collector = Collector::new(os, options, hooks).map_err(NewHeapError::Memory)?;
        let is_told = pressure.is_some();
        if let Some(hook) = pressure {
            collector.set_pressure_hook(hook);
        }
        let collector = Arc::new(collector);
        let pages = Pages { held: Arc::new(HeldPages { collector: collector.clone() }) };
        let mut heap = Heap { collector, thread: None, pressure_thread: None, pages };
        heap.thread = Some(heap.start("spanheap-gc", run_or_die)?);
        if is_told {
            let run = |collector: &Arc<Collector>| collector.run_pressure();
            heap.pressure_thread = Some(heap.start("spanheap-limit", run)?);
        }
        Ok(heap)
    }

    fn start(&self, name: &str, run: fn(&Arc<Collector>)) -> Result<JoinHandle<()>, NewHeapError> {
        let collector = self.collector.clone();
        let thread = std::thread::Builder::new().name(name.into());
        thread.spawn(move || run(&collector)).map_err(NewHeapError::Thread)
    }

    /// A mutator for the calling thread.
    ///
    /// # Panics
    /// In a trace function, in a hook on the collector's thread, and in a process that was forked from the
    /// heap's.
    pub fn attach(&self) -> Mutator {
        self.assert_usable("attach to a heap");
        match self.collector.registry().attach() {
            Some(record) => Mutator::new(self.collector.clone(), record),
            None => panic!("a heap that is being dropped cannot be attached to"),
        }
    }

    /// A new user arena. It takes memory with its first value.
    ///
    /// # Panics
    /// In a trace function, and in a process that was forked from the heap's.
    pub fn new_arena(&self, options: ArenaOptions) -> UserArena {
        self.assert_usable("make an arena");
        UserArena::new(self.collector.clone(), options)
    }

    /// The number of the heap in this process.
    pub fn number(&self) -> u64 {
        self.collector.central().number()
    }

    /// # Panics
    /// Where the heap may not be used: in a trace function or a hook of the collector, which were about to do
    /// `action`, and in a process that was forked from the heap's.
    #[track_caller]
    fn assert_usable(&self, action: &'static str) {
        alone::assert_free(action);
        self.collector.central().assert_here();
    }

    /// Whether the calling thread is the collector's, which can wait for no cycle: in a destructor, when the
    /// system has refused a thread for those.
    pub fn is_collector_thread(&self) -> bool {
        self.collector.is_collector_thread()
    }

    /// Whether this is the process that made the heap, and not one that was forked from it, where its threads
    /// are missing.
    pub fn is_here(&self) -> bool {
        self.collector.central().is_here()
    }

    /// Asks for a cycle and does not wait.
    ///
    /// # Panics
    /// As [`Heap::attach`].
    pub fn request_cycle(&self) {
        self.assert_usable("collect");
        self.collector.request();
    }

    /// Asks for a cycle and waits until it is complete. The calling thread must not be inside a closure
    /// of this heap: it would wait for itself. It must not be what such a closure waits for, either.
    ///
    /// # Panics
    /// As [`Heap::attach`].
    pub fn collect(&self) {
        self.assert_usable("collect");
        let ticket = self.collector.request();
        self.collector.control().wait(ticket);
    }

    /// Works for the heap until `time` has passed, or until there is nothing to do: then the result is true. A
    /// cycle that runs is helped along, one that would be due soon begins, and what it leaves is swept. The
    /// calling thread must not be inside a closure of this heap: it would wait for itself.
    ///
    /// # Panics
    /// As [`Heap::attach`].
    pub fn collect_for(&self, time: Duration) -> bool {
        self.assert_usable("collect");
        let now = Instant::now();
        // More time than a clock can say is a century.
        let deadline =
            now.checked_add(time).unwrap_or(now + Duration::from_secs(100 * 365 * 86_400));
        self.collector.offer(deadline)
    }

    /// The pages of the heap, to hold on to manual spans.
    pub fn pages(&self) -> Pages {
        self.pages.clone()
    }

    /// Accounts for `bytes` outside of the heap: cycles begin as early as if they were in it.
    pub fn account(&self, bytes: Bytes) -> OutsideMemory {
        OutsideMemory::new(self.collector.clone(), bytes)
    }

    /// Returns all free memory to the system: how many bytes. What a cycle would free comes first only if the
    /// caller asks for one; what mutators keep for themselves stays with them.
    ///
    /// # Panics
    /// As [`Heap::attach`].
    pub fn release_free_memory(&self) -> Bytes {
        self.assert_usable("release memory");
        let central = self.collector.central();
        central.pages().scavenge_all(central.os())
    }

    /// What the system was found to offer to this heap and what it has refused so far, and the barrier that
    /// is in use.
    pub fn features(&self) -> Features {
        self.collector.central().assert_here();
        let barrier = self.collector.fence().kind();
        self.collector.central().os().features().with_barrier(barrier)
    }

    /// Growth until a cycle is complete, in percent of what the last one retained; `None`: cycles run on demand
    /// only, and for a limit.
    ///
    /// # Panics
    /// In a process that was forked from the heap's.
    pub fn percent(&self) -> Option<u32> {
        self.collector.percent()
    }

    /// Changes it; the next cycle is planned anew at once.
    ///
    /// # Panics
    /// In a process that was forked from the heap's.
    pub fn set_percent(&self, percent: Option<u32>) {
        self.collector.set_percent(percent);
    }

    /// Ready bytes that the heap should not exceed.
    pub fn soft_limit(&self) -> Option<Bytes> {
        self.collector.central().pages().limits().soft()
    }

    /// Changes them; the next cycle is planned anew at once.
    ///
    /// # Panics
    /// In a process that was forked from the heap's.
    pub fn set_soft_limit(&self, limit: Option<Bytes>) {
        self.collector.set_soft_limit(limit);
    }

    /// Ready bytes beyond which pages for objects are refused.
    pub fn hard_limit(&self) -> Option<Bytes> {
        self.collector.central().pages().limits().hard()
    }

    /// Changes them. A heap that is above loses nothing: no more pages become ready until it is below, and free ones
    /// are returned. The next cycle is planned anew at once.
    ///
    /// # Panics
    /// In a process that was forked from the heap's.
    pub fn set_hard_limit(&self, limit: Option<Bytes>) {
        self.collector.set_hard_limit(limit);
    }

    /// The system that the heap lives on, to ask it something.
    pub fn os(&self) -> &Os {
        self.collector.central().os()
    }

    /// Which types hold the memory.
    pub fn explain_live(&self) -> Live {
        Live::of(self.collector.central())
    }

    /// Looks at the whole heap while nobody is inside: whether its structures agree. What is broken is named in
    /// the result. The calling thread must not be inside a closure of this heap, and the same goes for whoever such
    /// a closure waits for.
    ///
    /// # Panics
    /// As [`Heap::attach`]; on a thread of the collector; and when the heap is being dropped.
    pub fn verify(&self) -> Arc<Verified> {
        self.assert_usable("verify a heap");
        assert!(!self.is_collector_thread(), "the collector's thread cannot wait for itself");
        match self.collector.verify_heap() {
            Some(outcome) => outcome,
            None => panic!("a heap that is being dropped cannot be verified"),
        }
    }

    /// Switches checkmark mode on or off, from the next cycle on.
    pub fn set_checkmark(&self, on: bool) {
        self.collector.central().switches().set_checkmark(on);
    }

    /// Switches the search for pointers that trace functions miss on or off, from the next cycle on. Only
    /// objects that are allocated while it is on (by threads that have noticed a change of phase since) are searched.
    pub fn set_verify_trace(&self, on: bool) {
        self.collector.central().switches().set_verify_trace(on);
    }

    /// Switches poison on or off, from the next span that is swept on.
    pub fn set_poison(&self, on: bool) {
        self.collector.central().switches().set_poison(on);
    }

    /// Asks for a cycle at each `slots`-th slot that is taken from here on; 0: no more. Slots that threads have
    /// taken in advance are not counted.
    pub fn set_collect_every(&self, slots: u64) {
        self.collector.central().switches().set_collect_every(slots);
    }

    /// Switches the line that is written to standard error for each cycle on or off, from the next cycle on.
    pub fn set_trace_cycles(&self, on: bool) {
        self.collector.central().switches().set_trace_cycles(on);
    }

    /// The collector, for statistics.
    ///
    /// # Panics
    /// In a process that was forked from the heap's.
    pub(crate) fn collector(&self) -> &Collector {
        self.collector.central().assert_here();
        &self.collector
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        if !self.collector.central().is_here() {
            // The threads are those of another process, and so are all duties. The memory stays: this process
            // has a copy of the pages that it has touched, and nobody else does anything with them.
            core::mem::forget((self.thread.take(), self.pressure_thread.take()));
            return;
        }
        self.collector.begin_shutdown();
        let end = End {
            collector: self.collector.clone(),
            thread: self.thread.take(),
            pressure_thread: self.pressure_thread.take(),
            pages: self.pages.clone(),
        };
        if self.collector.is_own_thread() {
            // The last handle was owned by a value in the heap itself, and its destructor runs on the
            // heap's own thread, which cannot wait for its own end.
            let spawned =
                std::thread::Builder::new().name("spanheap-end".into()).spawn(|| end.run());
            if let Err(error) = spawned {
                fatal(format_args!("no thread to end a heap from its own destructor: {error}"));
            }
        } else {
            end.run();
        }
    }
}

/// Who has panicked if the collector thread does.
const COLLECTOR: &str = "the collector thread";

/// The collector thread.
fn run_or_die(collector: &Arc<Collector>) {
    or_die(COLLECTOR, || collector.run());
}

/// What is left to do when a heap is dropped.
struct End {
    collector: Arc<Collector>,
    thread: Option<JoinHandle<()>>,
    pressure_thread: Option<JoinHandle<()>>,
    pages: Pages,
}

impl End {
    fn run(self) {
        if let Some(thread) = self.pressure_thread {
            // Panics of the program's function are contained, and nothing else there is the program's.
            let _ = thread.join();
        }
        match self.thread {
            Some(thread) => {
                // It does not end by a panic: see `run_or_die`.
                let _ = thread.join();
            }
            // The thread never ran; there is nothing to wind up but memory.
            None => self.collector.registry().close(self.collector.central()),
        }
        // W1 holds: now the heap itself needs its pages no more.
        drop(self.pages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// A heap whose collector is gone is not used any further: the process ends, and says why.
    #[test]
    fn fault_29_a_panic_of_the_collector_ends_the_process() {
        const IS_CHILD: &str = "SPANHEAP_TEST_CHILD";
        const NAME: &str =
            "mutator::heap::tests::fault_29_a_panic_of_the_collector_ends_the_process";
        if std::env::var_os(IS_CHILD).is_some() {
            or_die(COLLECTOR, || panic!("a defect of the collector"));
        }
        or_die(COLLECTOR, || ());
        let mut child = Command::new(std::env::current_exe().expect("this program has a path"));
        child.args([NAME, "--exact", "--nocapture", "--test-threads=1"]).env(IS_CHILD, "1");
        let output = child.output().expect("the program can be started again");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
        assert!(said.contains("a defect of the collector"), "{said}");
        assert!(said.contains("spanheap: fatal: the collector thread has panicked"), "{said}");
    }
}
