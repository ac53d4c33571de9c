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
use crate::os::{Features, Os, OsError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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
        let collector = Collector::new(os, options).map_err(NewHeapError::Memory)?;
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
    /// Never while the heap lives.
    pub fn attach(&self) -> Mutator {
        match self.collector.registry().attach() {
            Some(record) => Mutator::new(self.collector.clone(), record),
            None => panic!("a heap that is being dropped cannot be attached to"),
        }
    }

    /// The number of the heap in this process.
    pub fn number(&self) -> u64 {
        self.collector.central().number()
    }

    /// Asks for a cycle and does not wait.
    pub fn request_cycle(&self) {
        self.collector.request();
    }

    /// Asks for a cycle and waits until it is complete. The calling thread must not be inside a closure
    /// of this heap: it would wait for itself. It must not be what such a closure waits for, either.
    pub fn collect(&self) {
        let ticket = self.collector.request();
        self.collector.control().wait(ticket);
    }

    /// Works for the heap until `time` has passed, or until there is nothing to do: then the result is true. A
    /// cycle that runs is helped along, one that would be due soon begins, and what it leaves is swept. The
    /// calling thread must not be inside a closure of this heap: it would wait for itself.
    pub fn collect_for(&self, time: Duration) -> bool {
        let now = Instant::now();
        // More time than a clock can say is a century.
        let deadline =
            now.checked_add(time).unwrap_or(now + Duration::from_secs(100 * 365 * 86_400));
        self.collector.offer(deadline)
    }

    /// Returns all free memory to the system: how many bytes. What a cycle would free comes first only if the
    /// caller asks for one; what mutators keep for themselves stays with them.
    pub fn release_free_memory(&self) -> Bytes {
        let central = self.collector.central();
        central.pages().scavenge_all(central.os())
    }

    /// What the system was found to offer to this heap and what it has refused so far, and the barrier that
    /// is in use.
    pub fn features(&self) -> Features {
        let barrier = self.collector.fence().kind();
        self.collector.central().os().features().with_barrier(barrier)
    }

    /// The collector, for statistics.
    pub(crate) fn collector(&self) -> &Collector {
        &self.collector
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
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
