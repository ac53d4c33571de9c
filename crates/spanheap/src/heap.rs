//! [`Heap`]: made, entered, collected, dropped.
//!
//! A thread attaches itself at its first `enter` and stays attached until it ends or the heap is gone. What
//! it needs for that is in a thread-local list, one entry per heap, the one used last in front.

use crate::attach;
use crate::mutator::Mutator;
use crate::rss::Rss;
use crate::stats::Stats;
use core::fmt;
use spanheap_core::addr::Bytes;
use spanheap_core::collect::{Options, Policy};
use spanheap_core::heap::hooks::Hooks;
use spanheap_core::mutator::{Heap as CoreHeap, NewHeapError};
use spanheap_core::observe::Picture;
use spanheap_core::os::{Features, Os};
use std::sync::Arc;

/// A garbage-collected heap: a value that threads share by reference, or by cheap clones of the handle.
///
/// When the last handle is dropped, the heap's threads stop, the destructors that are owed have run, and
/// its memory has been returned.
///
/// ```
/// use spanheap::{Gc, GcCell, Heap, Trace};
///
/// #[derive(Trace)]
/// struct Node<'gc> {
///     key: u64,
///     next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
/// }
///
/// let heap = Heap::new();
/// let sum = heap.enter(|mc| {
///     let b = mc.alloc(Node { key: 2, next: GcCell::new(None) });
///     let a = mc.alloc(Node { key: 1, next: GcCell::new(Some(b)) });
///     b.next.set(mc, Some(a)); // a cycle
///     a.key + a.next.get().map_or(0, |next| next.key)
/// });
/// assert_eq!(sum, 3);
/// heap.collect();
/// assert_eq!(heap.stats().live_objects, 0);
/// ```
#[derive(Clone)]
pub struct Heap {
    pub(crate) core: Arc<CoreHeap>,
}

/// What [`Heap::collect`] has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "inside a closure of the same heap a collection is only requested"]
pub enum Collected {
    /// A cycle that began after the call is complete.
    Complete,
    /// The calling thread is inside a closure of this heap, and a cycle cannot be completed before it
    /// has left; so a cycle was requested and will begin. (Late in the end of a thread, in the destructor of
    /// a thread-local, this is the answer outside of closures, too; and so it is in a destructor that runs on
    /// the collector's own thread, because the system has refused one for destructors.)
    Requested,
}

/// Why a heap could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// The memory limit leaves no room for any object.
    LimitTooSmall {
        /// The limit in bytes.
        limit: usize,
        /// The smallest that is accepted, in bytes.
        smallest: usize,
    },
    /// [`HeapBuilder::from_env`] has found a setting that it does not know.
    Environment {
        /// The setting, as it is in the variable.
        setting: String,
    },
    /// The system gives no memory or no thread.
    System(NewHeapError),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::LimitTooSmall { limit, smallest } => write!(
                f,
                "a memory limit of {} leaves no room for objects: the smallest is {}",
                Bytes::new(*limit),
                Bytes::new(*smallest)
            ),
            BuildError::Environment { setting } => {
                write!(f, "{} is not a setting of SPANHEAP_DEBUG", setting.escape_debug())
            }
            BuildError::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BuildError::LimitTooSmall { .. } | BuildError::Environment { .. } => None,
            BuildError::System(error) => Some(error),
        }
    }
}

impl Heap {
    /// A heap with the usual settings.
    ///
    /// # Panics
    /// When the system gives no memory or no thread; [`HeapBuilder::build`] says so instead.
    #[must_use]
    pub fn new() -> Heap {
        match Heap::builder().build() {
            Ok(heap) => heap,
            Err(error) => panic!("{error}"),
        }
    }

    /// Settings for a heap.
    pub fn builder() -> HeapBuilder {
        HeapBuilder {
            options: Options::default(),
            hooks: Hooks::none(),
            environment: None,
            os: None,
        }
    }

    /// Opens a closure: inside it, and only there, objects can be reached.
    ///
    /// Closures should be short, a request or a step of an interpreter. Nobody waits for one but the
    /// collector, which cannot begin or finish a cycle meanwhile. Closures nest, on the same heap and on
    /// others; the collector sees the outermost.
    ///
    /// A panic in the closure is passed on, and the closure counts as left.
    #[inline]
    pub fn enter<R>(&self, f: impl for<'gc> FnOnce(&Mutator<'gc>) -> R) -> R {
        attach::with_mutator(&self.core, |mutator| {
            mutator.enter();
            let _leave = Leave(mutator);
            f(Mutator::brand(mutator))
        })
    }

    /// Runs a complete collection cycle and waits for it, unless the calling thread is inside a closure
    /// of this heap: then the cycle is only requested, and the result says so.
    ///
    /// An object that nobody could reach when `collect` was called is no longer retained when it returns
    /// [`Collected::Complete`]. Its memory can be used again at once, or, if the object lies where a thread
    /// allocates that is inside a closure, after the next cycle. Destructors run later, on the drop thread.
    ///
    /// The call waits for every closure of the heap that is open, so nothing inside of one may wait for the
    /// call. Two threads that are each in a closure of one heap and collect the other heap wait for ever,
    /// and so does a closure that waits for a scoped thread which collects its heap.
    ///
    /// # Panics
    /// In a `Trace` implementation, in a hook on the collector's thread, and in a process that was forked from
    /// the heap's.
    pub fn collect(&self) -> Collected {
        if attach::is_inside(&self.core) || self.core.is_collector_thread() {
            self.core.request_cycle();
            return Collected::Requested;
        }
        self.core.collect();
        Collected::Complete
    }

    /// Runs a complete collection cycle and then returns all free memory to the system: how many bytes it
    /// has returned. Inside a closure of this heap the cycle is only requested, as in [`Heap::collect`], and
    /// what is free now is returned.
    ///
    /// The heap returns memory by itself, some seconds after it has become free, as far as it does not
    /// expect to use it again. This is for programs that know better: after a start-up that needed much, or
    /// before a long rest. Memory that was returned costs a page fault when it is used again.
    pub fn release_memory(&self) -> usize {
        let _ = self.collect();
        self.core.release_free_memory().get()
    }

    /// What each page of the heap is used for, and how full its classes of spans are. It is taken while the
    /// program goes on, and costs a pass over a table of eight bytes per page and a cache line for each page in
    /// use: milliseconds for a gigabyte.
    ///
    /// ```
    /// let heap = spanheap::Heap::new();
    /// let text = "name ".repeat(20_000);
    /// heap.enter(|mc| mc.alloc_str(&text).len());
    /// let totals = heap.picture().totals();
    /// assert_eq!(totals.large.get(), 13 * 8192);
    /// ```
    #[must_use]
    pub fn picture(&self) -> Picture {
        Picture::of(&self.core)
    }

    /// What the heap holds and what its collector has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.core)
    }

    /// What the operating system was found to offer to this heap, and what it has refused so far; prints as a
    /// line for each. The first thing to look at when a program behaves differently in its container.
    #[must_use]
    pub fn features(&self) -> Features {
        self.core.features()
    }

    /// Where the resident memory of the process is, as far as this heap has to do with it: a table
    /// to print.
    ///
    /// Looks through all pages of the heap: some 20 ms for 64 MiB of the smallest objects, 2 ms for
    /// objects of 256 bytes. Nobody is stopped, but an allocation that needs new pages may wait for
    /// a sixteenth of that.
    #[must_use]
    pub fn explain_rss(&self) -> Rss {
        Rss::of(&self.core)
    }
}

impl Default for Heap {
    fn default() -> Heap {
        Heap::new()
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Heap({})", self.core.number())
    }
}

/// Leaves the closure, also when it panics.
struct Leave<'a>(&'a spanheap_core::mutator::Mutator);

impl Drop for Leave<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The smallest memory limit, in bytes: what an empty heap needs for itself, and a chunk of pages.
const SMALLEST_LIMIT: usize = 8 << 20;

/// Settings for a [`Heap`].
#[must_use = "settings make no heap until `build` is called"]
pub struct HeapBuilder {
    pub(crate) options: Options,
    pub(crate) hooks: Hooks,
    /// What was wrong in the environment, if it was asked.
    pub(crate) environment: Option<String>,
    os: Option<Os>,
}

impl HeapBuilder {
    /// How much the heap may grow, in percent of what the last cycle retained, before the next one is
    /// complete. 100 if nothing is said: twice the live heap, and 4 MiB at least. With 0 the goal is always
    /// reached: one cycle follows the other without pause.
    pub fn gc_percent(mut self, percent: u32) -> HeapBuilder {
        self.options.policy.percent = Some(percent);
        self
    }

    /// No cycle begins because the heap has grown; only [`Heap::collect`], a memory limit and an allocation
    /// that was refused begin one.
    pub fn gc_percent_off(mut self) -> HeapBuilder {
        self.options.policy.percent = None;
        self
    }

    /// Bytes of ready memory that the heap keeps below, its own records included: when pages for objects would
    /// exceed them, `try_alloc` returns an error and `alloc` panics. Records are refused nothing; a
    /// thirty-second part of the limit and half a mebibyte are kept for them.
    pub fn memory_limit(mut self, bytes: usize) -> HeapBuilder {
        self.options.policy.limit = Some(Bytes::new(bytes));
        self
    }

    /// Collect all the time, one cycle after the other. For tests.
    pub fn collect_continuously(mut self, on: bool) -> HeapBuilder {
        self.options.continuously = on;
        self
    }

    /// Verify every cycle: when it has marked, all closures are waited for, no new one may begin, and a
    /// second mark compares. A live object that was missed aborts the process with a report, which names its
    /// type and that of the object that points to it: types have spans of their own in this mode.
    ///
    /// For tests. A closure that waits for another thread's closure to begin waits for ever in this mode.
    pub fn checkmark(mut self, on: bool) -> HeapBuilder {
        self.options.checkmark = on;
        self
    }

    /// Fill freed objects with a pattern. For tests.
    pub fn poison(mut self, on: bool) -> HeapBuilder {
        self.options.poison = on;
        self
    }

    /// Whether free memory goes back to the system by itself; it does if nothing is said. A program that is
    /// alone on its machine and comes back to its largest size again and again may save the page faults.
    /// [`Heap::release_memory`] and a memory limit return it in either case.
    pub fn return_memory(mut self, on: bool) -> HeapBuilder {
        self.options.return_memory = on;
        self
    }

    /// Use full memory fences where the kernel could do without. For tests; the heap does so by itself where
    /// the kernel cannot.
    pub fn symmetric_fences(mut self, on: bool) -> HeapBuilder {
        self.options.symmetric_fences = on;
        self
    }

    /// The operating system to live on: for tests, a simulated one that refuses memory on request.
    pub fn os(mut self, os: Os) -> HeapBuilder {
        self.os = Some(os);
        self
    }

    /// Makes the heap.
    ///
    /// # Errors
    /// When the memory limit is too small for any heap, when the environment was asked and says what nobody
    /// understands, and when the system gives no memory or no thread.
    pub fn build(self) -> Result<Heap, BuildError> {
        if let Some(setting) = self.environment {
            return Err(BuildError::Environment { setting });
        }
        let Policy { limit, .. } = self.options.policy;
        if let Some(limit) = limit.filter(|limit| limit.get() < SMALLEST_LIMIT) {
            let (limit, smallest) = (limit.get(), SMALLEST_LIMIT);
            return Err(BuildError::LimitTooSmall { limit, smallest });
        }
        let os = self.os.unwrap_or_else(Os::native);
        let core =
            CoreHeap::with_hooks(os, self.options, self.hooks).map_err(BuildError::System)?;
        Ok(Heap { core: Arc::new(core) })
    }
}
