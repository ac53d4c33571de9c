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
use crate::addr::Bytes;
use crate::collect::{Collector, Options};
use crate::fatal::fatal;
use crate::heap::ManualSpan;
use crate::os::{Features, Os, OsError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

/// A garbage-collected heap.
pub struct Heap {
    collector: Arc<Collector>,
    thread: Option<JoinHandle<()>>,
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
    /// it.
    ///
    /// # Panics
    /// When the span belongs to another heap.
    ///
    /// # Safety
    /// Nobody uses its memory any more.
    pub unsafe fn free_manual(&self, span: ManualSpan) {
        let central = self.held.collector.central();
        assert!(span.heap() == central.number(), "{span:?} does not belong to this heap");
        // SAFETY: the caller's promise; the span is this heap's, which has not been released, since the pages
        // are held.
        unsafe { central.free_manual(span) };
    }
}

impl Drop for HeldPages {
    fn drop(&mut self) {
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
        let collector = Collector::new(os, options).map_err(NewHeapError::Memory)?;
        let collector = Arc::new(collector);
        let pages = Pages { held: Arc::new(HeldPages { collector: collector.clone() }) };
        let mut heap = Heap { collector, thread: None, pages };
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
        let (collector, pages) = (self.collector.clone(), self.pages.clone());
        let end = End { collector, thread: self.thread.take(), pages };
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
    pages: Pages,
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
        // W1 holds: now the heap itself needs its pages no more.
        drop(self.pages);
    }
}
