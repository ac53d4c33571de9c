//! Stand-ins for what the files under test use: locks and cells that the checker watches, the futex, the
//! process barrier, memory, and the caches of a mutator.
//!
//! # Safety
//! A [`Watched`] cell may be shared because the checker ends the test at the first access that another one
//! does not happen before or after. Blocks of [`Persistent`] live until it is dropped.
#![allow(unsafe_code)]

use crate::addr::{Addr, AddrRange, Bytes, PageCount};
use crate::span::Generation;
use crate::sync::Rank;
pub(crate) use loom::sync::MutexGuard as Guard;
use loom::sync::atomic::{Ordering, Ordering::Relaxed, fence};
use loom::sync::{Condvar, Mutex};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::VecDeque;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// Runs a program in all interleavings in which threads are preempted up to `preemptions` times, and prints how
/// many executions that were.
pub(crate) fn explore(preemptions: usize, program: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    let executions = Arc::new(AtomicUsize::new(0));
    let count = executions.clone();
    builder.check(move || {
        count.fetch_add(1, Relaxed);
        program();
    });
    let executions = executions.load(Relaxed);
    println!("{executions} executions");
    assert!(executions > 2, "threads that share nothing show nothing");
}

/// Says to a child process which mutant it runs.
const MUTANT: &str = "SPANHEAP_MUTANT";

/// Runs the program of the test `name` in a process of its own, and asserts that it fails with a message that
/// contains `expected`. The checker's objects do not all survive a panic, which may end the process.
pub(crate) fn must_fail(name: &str, expected: &str, program: impl Fn()) {
    if std::env::var_os(MUTANT).is_some_and(|running| running == name) {
        return program();
    }
    let (_, test) = name.split_once("::").expect("a path in this crate");
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(MUTANT, name)
        // The checker's threads have small stacks, which the walk for a backtrace would overflow.
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("a child process");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{name} was not found out");
    assert!(text.contains(expected), "{name} fails for another reason:\n{text}");
}

/// A number that one thread at a time may use, as the code under test sees to.
pub(crate) struct Watched(loom::cell::UnsafeCell<u32>);

// SAFETY: the checker reports two accesses that are not ordered, and that ends the test.
unsafe impl Send for Watched {}
// SAFETY: as above.
unsafe impl Sync for Watched {}

impl Watched {
    pub(crate) fn new() -> Watched {
        Watched(loom::cell::UnsafeCell::new(0))
    }

    /// Uses the number as its only user; returns how often that was done before.
    pub(crate) fn touch(&self) -> u32 {
        self.0.with_mut(|number| {
            // SAFETY: the checker has seen that nobody else uses the cell now.
            let number = unsafe { &mut *number };
            *number += 1;
            *number - 1
        })
    }

    /// Relies on the number as one of several who do.
    pub(crate) fn look(&self) {
        self.0.with(|_| ());
    }
}

/// The standard library's cell, with every use watched.
pub(crate) struct UnsafeCell<T> {
    watched: Watched,
    value: core::cell::UnsafeCell<T>,
}

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell { watched: Watched::new(), value: core::cell::UnsafeCell::new(value) }
    }

    pub(crate) fn get(&self) -> *mut T {
        self.watched.touch();
        self.value.get()
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// The checker's lock, as the core's is used. Nobody looks at ranks here.
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(_: Rank, value: T) -> Lock<T> {
        Lock(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.0.lock().expect("no lock is poisoned")
    }

    /// There is no moment here: the lock is free now, or it is not.
    pub(crate) fn lock_soon(&self) -> Option<Guard<'_, T>> {
        self.0.try_lock().ok()
    }
}

/// The checker's condition, as the core's is used.
pub(crate) struct Condition(Condvar);

impl Condition {
    pub(crate) fn new() -> Condition {
        Condition(Condvar::new())
    }

    pub(crate) fn wait<'a, T>(&self, guard: Guard<'a, T>, limit: Option<Duration>) -> Guard<'a, T> {
        assert!(limit.is_none(), "there is no time here");
        self.0.wait(guard).expect("no lock is poisoned")
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A word that threads may sleep on.
pub(crate) struct AtomicU32 {
    word: loom::sync::atomic::AtomicU32,
    /// The kernel's: held while it compares the word and puts a thread to sleep.
    queue: Mutex<()>,
    woken: Condvar,
}

impl AtomicU32 {
    pub(crate) fn new(value: u32) -> AtomicU32 {
        let word = loom::sync::atomic::AtomicU32::new(value);
        AtomicU32 { word, queue: Mutex::new(()), woken: Condvar::new() }
    }
}

impl Default for AtomicU32 {
    fn default() -> AtomicU32 {
        AtomicU32::new(0)
    }
}

impl std::ops::Deref for AtomicU32 {
    type Target = loom::sync::atomic::AtomicU32;

    fn deref(&self) -> &Self::Target {
        &self.word
    }
}

/// What the kernel does to put a thread to sleep.
pub(crate) fn wait(word: &AtomicU32, expected: u32, limit: Option<Duration>) {
    assert!(limit.is_none(), "there is no time here");
    let queue = word.queue.lock().expect("no lock is poisoned");
    if word.load(Relaxed) == expected {
        drop(word.woken.wait(queue).expect("no lock is poisoned"));
    }
}

/// What the kernel does to wake threads.
pub(crate) fn wake(word: &AtomicU32, count: i32) {
    let _queue = word.queue.lock().expect("no lock is poisoned");
    match count {
        1 => word.woken.notify_one(),
        _ => word.woken.notify_all(),
    }
}

/// The process barrier, with its expensive side as cheap as its cheap one.
#[derive(Clone, Copy)]
pub(crate) struct ProcessBarrier {
    /// Whether the light side is there: a test must fail without it.
    pub(crate) has_light: bool,
}

impl ProcessBarrier {
    pub(crate) const WHOLE: ProcessBarrier = ProcessBarrier { has_light: true };
    pub(crate) const HALF: ProcessBarrier = ProcessBarrier { has_light: false };

    pub(crate) fn light(&self) {
        if self.has_light {
            fence(Ordering::SeqCst);
        }
    }

    pub(crate) fn heavy(&self) {
        fence(Ordering::SeqCst);
    }
}

/// The system's number of a thread, which nobody asks for here.
pub(crate) fn current_id() -> i32 {
    1
}

/// The shared part of a heap, of which only the switches are needed.
pub(crate) struct Central;

impl Central {
    pub(crate) fn switches(&self) -> Switches {
        Switches
    }
}

/// A heap's switches, all of them off.
pub(crate) struct Switches;

impl Switches {
    pub(crate) fn types_apart(&self) -> bool {
        false
    }
}

/// How runs are coloured.
pub(crate) struct Tint {
    pub(crate) black: bool,
    pub(crate) generation: Generation,
}

/// A mutator's span caches: one cell, used by whoever allocates or gives spans back.
pub(crate) struct SpanCache(Watched);

impl SpanCache {
    pub(crate) fn new() -> Box<SpanCache> {
        Box::new(SpanCache(Watched::new()))
    }

    pub(crate) fn alloc(&self) {
        self.0.touch();
    }

    /// All that there is in one piece.
    pub(crate) fn give_back_piece(&self, central: &Central, tint: Tint, _: usize) -> Option<usize> {
        self.give_back_all(central, tint);
        None
    }

    pub(crate) fn set_types_apart(&self, apart: bool) {
        assert!(!apart, "no switch is on");
        self.0.touch();
    }

    pub(crate) fn give_back_all(&self, _: &Central, tint: Tint) {
        let Tint { black, generation } = tint;
        assert!(
            !black && generation == Generation::FIRST,
            "the caches are filled before the cycle"
        );
        self.0.touch();
    }
}

/// The operating system.
pub(crate) struct Os;

/// What memory is for.
pub(crate) enum Category {
    MarkQueue,
}

/// Memory until this is dropped, or none at all.
pub(crate) struct Persistent {
    refuses: bool,
    blocks: std::sync::Mutex<Vec<(NonNull<u8>, Layout)>>,
}

// SAFETY: the blocks are its own, and the list of them is behind a lock.
unsafe impl Send for Persistent {}
// SAFETY: as above.
unsafe impl Sync for Persistent {}

impl Persistent {
    pub(crate) fn new(refuses: bool) -> Persistent {
        Persistent { refuses, blocks: std::sync::Mutex::default() }
    }

    pub(crate) fn alloc(&self, _: &Os, layout: Layout, _: Category) -> Result<NonNull<u8>, ()> {
        if self.refuses {
            return Err(());
        }
        assert!(layout.size() > 0);
        // SAFETY: the layout has a size.
        let block = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(())?;
        self.blocks.lock().expect("no lock is poisoned").push((block, layout));
        Ok(block)
    }
}

impl Drop for Persistent {
    fn drop(&mut self) {
        let blocks = self.blocks.get_mut().expect("no lock is poisoned");
        for (block, layout) in blocks.drain(..) {
            // SAFETY: allocated above with this layout, and nobody uses memory of a heap that is gone.
            unsafe { dealloc(block.as_ptr(), layout) };
        }
    }
}

/// The queue that a crew has under its lock; one that has room.
pub(crate) struct PageQueue(VecDeque<Addr>);

impl PageQueue {
    pub(crate) const fn new() -> PageQueue {
        PageQueue(VecDeque::new())
    }

    pub(crate) fn prepare(&mut self, _: &Os, pages: PageCount) {
        self.0.reserve(pages.get());
    }

    pub(crate) fn memory(&self, _: &Os) -> AddrRange {
        AddrRange::at(Addr::NULL, Bytes::ZERO)
    }

    pub(crate) fn push(&mut self, page: Addr) -> bool {
        self.0.push_back(page);
        true
    }

    pub(crate) fn pop(&mut self) -> Option<Addr> {
        self.0.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn release(&mut self, _: &Os) {
        self.0.clear();
    }
}
