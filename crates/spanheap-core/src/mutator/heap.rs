//! The heap as a value: made, attached to, collected, dropped.
//!
//! Dropping a heap stops its threads, runs the destructors that are owed, and returns all its memory. What
//! may outlive it are roots (numbers that lead nowhere any more) and mutators, which are of no use but
//! can be dropped safely at any time.
//!
//! # Safety
//! Memory is released when the threads have stopped and no closure is open.
#![allow(unsafe_code)]

use super::Mutator;
use crate::addr::Bytes;
use crate::collect::{Collector, Options};
use crate::fatal::fatal;
use crate::heap::hooks::Hooks;
use crate::heap::verify::Verified;
use crate::os::{Features, Os, OsError};
use crate::span::alone;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

/// A garbage-collected heap.
pub struct Heap {
    collector: Arc<Collector>,
    thread: Option<JoinHandle<()>>,
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
        Heap::with_hooks(os, options, Hooks::none())
    }

    /// The same, with functions that are told of panics and delays.
    ///
    /// # Errors
    /// As [`Heap::new`].
    pub fn with_hooks(os: Os, options: Options, hooks: Hooks) -> Result<Heap, NewHeapError> {
        let collector = Collector::new(os, options, hooks).map_err(NewHeapError::Memory)?;
        let mut heap = Heap { collector: Arc::new(collector), thread: None };
        let collector = heap.collector.clone();
        let thread = std::thread::Builder::new()
            .name("spanheap-gc".into())
            .spawn(move || run_or_die(&collector))
            .map_err(NewHeapError::Thread)?;
        heap.thread = Some(thread);
        Ok(heap)
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
            core::mem::forget(self.thread.take());
            return;
        }
        self.collector.begin_shutdown();
        let end = End { collector: self.collector.clone(), thread: self.thread.take() };
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

/// The collector thread. User code that panics is contained further down; a panic that gets here is a bug, and
/// a heap without its collector could neither be trusted nor dropped.
fn run_or_die(collector: &Arc<Collector>) {
    if catch_unwind(AssertUnwindSafe(|| collector.run())).is_err() {
        fatal(format_args!("the collector thread has panicked"));
    }
}

/// What is left to do when a heap is dropped.
struct End {
    collector: Arc<Collector>,
    thread: Option<JoinHandle<()>>,
}

impl End {
    fn run(self) {
        match self.thread {
            Some(thread) => {
                // It does not end by a panic: see `run_or_die`.
                let _ = thread.join();
            }
            // The thread never ran; there is nothing to wind up but memory.
            None => self.collector.registry().close(self.collector.central()),
        }
        // SAFETY: the threads have stopped, the registry is closed, and whoever drops a heap holds no
        // pointer into it (U1).
        unsafe { self.collector.central().release() };
    }
}
