//! [`Heap`]: entered, collected, asked, dropped. How it is made is in `builder`, its limits are in `limits`.
//!
//! A thread attaches itself at its first `enter` and stays attached until it ends or the heap is gone. What
//! it needs for that is in a thread-local list, one entry per heap, the one used last in front.

use crate::account::Account;
use crate::attach;
use crate::builder::HeapBuilder;
use crate::mutator::Mutator;
use crate::rss::Rss;
use crate::stats::Stats;
use core::fmt;
use spanheap_core::addr::Bytes;
use spanheap_core::mutator::Heap as CoreHeap;
use spanheap_core::observe::Picture;
use spanheap_core::os::Features;
use std::sync::Arc;
use std::time::Duration;

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

/// What [`Heap::collect_for`] has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CollectedFor {
    /// Nothing to do: no cycle runs, none would be due soon, and what the last one found dead has been swept.
    Done,
    /// Something: the time was over.
    Unfinished,
    /// The calling thread is inside a closure of this heap, and a cycle cannot be completed before it has
    /// left; so a cycle was requested, and nothing else done. It is the answer in the other cases, too, in which it
    /// is that of [`Heap::collect`].
    Requested,
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
        HeapBuilder::new()
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

    /// Gives the heap some time of the calling thread: for programs that know when they have nothing better to
    /// do, between two requests or two frames.
    ///
    /// A cycle that runs is helped along. If none runs, one begins if half of what may be allocated until the
    /// next one has been allocated, and then it does not come at a worse time. When a cycle has ended, the thread
    /// sweeps. It returns when `time` is over, to within the scan of a page, which is microseconds unless a
    /// trace function takes long; or when there is nothing to do.
    ///
    /// Inside a closure of this heap a cycle is only requested, as in [`Heap::collect`].
    ///
    /// ```
    /// use spanheap::{CollectedFor, Heap};
    /// use std::time::Duration;
    ///
    /// let heap = Heap::new();
    /// assert_eq!(heap.collect_for(Duration::from_millis(2)), CollectedFor::Done);
    /// let inside = heap.enter(|_| heap.collect_for(Duration::from_millis(2)));
    /// assert_eq!(inside, CollectedFor::Requested);
    /// ```
    pub fn collect_for(&self, time: Duration) -> CollectedFor {
        // The collector's own thread would wait for itself until the time is over.
        if attach::is_inside(&self.core) || self.core.is_collector_thread() {
            self.core.request_cycle();
            return CollectedFor::Requested;
        }
        match self.core.collect_for(time) {
            true => CollectedFor::Done,
            false => CollectedFor::Unfinished,
        }
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

    /// Accounts for `bytes` outside of the heap that belong to its objects, such as the elements of a `Vec` in
    /// one: cycles begin as early as if they were in it. Keep the value next to what it stands for; when it is
    /// dropped, the bytes are taken off.
    ///
    /// The bytes count toward the goal and the trigger of [`Heap::stats`], and do not count as
    /// memory that a limit refuses.
    #[must_use = "what is accounted for is taken off when the value is dropped"]
    pub fn account(&self, bytes: usize) -> Account {
        Account::new(self.core.account(Bytes::new(bytes)))
    }

    /// An allocator on the heap's pages, for collections of other crates that take one. What it gives out is freed
    /// by hand and counts for the heap's limit, statistics and goal.
    #[cfg(any(feature = "allocator-api2-02", feature = "allocator-api2-04"))]
    #[must_use]
    pub fn allocator(&self) -> crate::HeapAlloc {
        crate::HeapAlloc::new(&self.core)
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
pub(crate) struct Leave<'a>(pub(crate) &'a spanheap_core::mutator::Mutator);

impl Drop for Leave<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.leave();
    }
}
