//! The drop queue: values that are dead and whose destructor has not run yet.
//!
//! A destructor is user code: it may be slow, block, panic, or use another heap. So it runs on a thread of
//! its own, never inside an allocation, a barrier, a sweep or under a lock, and nothing waits for it but
//! the memory of the dead value itself.
//!
//! A dead value keeps its slot and has a bit in the drops table. Its span is in this queue, and at the
//! same time where any other span is: in a list of its class or in a mutator's cache, because its live
//! objects go on living. When nothing in a span is alive any more, the queue becomes its owner, and gives it
//! out to be freed after the last destructor.
//!
//! **Cleanups** come here, too: records of objects that a sweep has found dead ([`super::specials`]), each with a
//! function to call. They have no part in the life of a span, so they are run in the order in which they
//! became due, between two batches of values, and exactly once: by the drop thread, or at the end of the heap.
//!
//! # Invariants
//! - D1. A set drops bit means: dead, initialised, destructor owed, slot not free. Bits are set by a
//!   sweep and cleared by the drop thread, both under the queue's lock; so a destructor runs once.
//! - D2. A span with drops bits is in the queue, or the drop thread is at work on it. Either way its
//!   `in_drop_queue` is set, so it is never in the queue twice, and never given out while it is in it.
//! - D3. A span that the queue owns is in no list, so no sweep meets it again. Its allocation bits are
//!   clear: every other cycle uses the same table for its marks, and a rescan of that cycle would take dead
//!   values for marked ones and follow their pointers.
//!
//! Spans are served in turn: first come, first served, a batch each, and one that has more goes to the end. So
//! no value waits for ever because others keep dying, and how long the first one has waited says how far
//! behind the queue is.
//!
//! # Locking
//! [`Rank::DropQueue`]; not held while a destructor runs.
//!
//! # Safety
//! Destructors get exclusive access to values that D1 says are dead.
#![allow(unsafe_code)]

use super::counters::Writer;
use super::hooks::{self, Hooks};
use super::specials::Specials;
use super::swept::Swept;
use super::task::Task;
use crate::addr::{Addr, Bytes};
use crate::fatal::contain_with;
use crate::os::asan;
use crate::os::clock::monotonic_nanos;
use crate::span::alone::{Alone, Busy};
use crate::span::specials::{Kind, Special};
use crate::span::{Generation, OwnedSpan, Span, Table, bits};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condition, Guard, Lock, Rank};
use core::ptr::NonNull;
use std::time::Duration;

/// How many values are dropped between two looks at the lock.
const BATCH: usize = 64;

/// Spans with dead values.
pub struct DropQueue {
    state: Lock<State>,
    arrived: Condition,
    /// Whether there may be work; read without the lock.
    has_work: AtomicBool,
    dropped: AtomicU64,
    panics: AtomicU64,
    /// Whose destructors run just now, and since when.
    running: Lock<Option<Running>>,
    hooks: Hooks,
    cleanups: AtomicU64,
    /// Records on objects, which a sweep hands out before the values of dead objects come here.
    specials: Specials,
}

struct State {
    first: Option<NonNull<Span>>,
    last: Option<NonNull<Span>>,
    /// Whether a batch has given a span out to be freed, and nobody has come for another batch since.
    finishing: bool,
    closed: bool,
}

impl State {
    const EMPTY: State = State { first: None, last: None, finishing: false, closed: false };
}

/// A batch of destructors that is running.
#[derive(Clone, Copy)]
struct Running {
    type_name: fn() -> &'static str,
    since: u64,
}

/// How the drop queue stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DropState {
    /// Values dropped so far.
    pub dropped: u64,
    /// Destructors that have panicked.
    pub panics: u64,
    /// How long the span that is next has waited.
    pub waiting: Duration,
    /// The type whose destructors run now, and since when they do. There are 64 in a batch at most; so a long
    /// time is one that is slow, or that does not return.
    pub running: Option<(&'static str, Duration)>,
}

/// The time since a moment of the monotonic clock.
fn since(moment: u64) -> Duration {
    Duration::from_nanos(monotonic_nanos().saturating_sub(moment))
}

// SAFETY: the queue's spans are reached under its lock.
unsafe impl Send for State {}

impl DropQueue {
    /// An empty queue that tells nobody of panics.
    pub const fn new() -> DropQueue {
        DropQueue::with_hooks(Hooks::none())
    }

    /// An empty queue.
    pub const fn with_hooks(hooks: Hooks) -> DropQueue {
        DropQueue {
            state: Lock::new(Rank::DropQueue, State::EMPTY),
            running: Lock::new(Rank::Statistics, None),
            hooks,
            arrived: Condition::new(),
            has_work: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            cleanups: AtomicU64::new(0),
            specials: Specials::new(),
        }
    }

    /// Records on objects.
    pub fn specials(&self) -> &Specials {
        &self.specials
    }

    /// How the queue stands.
    pub fn state(&self) -> DropState {
        let waiting = {
            let state = self.state.lock();
            // SAFETY: the record of a span in the queue is in use (P3), and its time is the queue's.
            state
                .first
                .map_or(Duration::ZERO, |first| since(unsafe { first.as_ref() }.queued_at.get()))
        };
        let running = *self.running.lock();
        DropState {
            dropped: self.dropped.load(Ordering::Relaxed),
            panics: self.panics.load(Ordering::Relaxed),
            waiting,
            running: running.map(|running| ((running.type_name)(), since(running.since))),
        }
    }

    /// Cleanups run so far.
    pub fn cleanups(&self) -> u64 {
        self.cleanups.load(Ordering::Relaxed)
    }

    /// Sorts out the records of a span that is swept, and wakes the drop thread if any is due.
    pub(super) fn sweep_specials(&self, span: &Span, marked: Table) {
        self.specials.sweep(span, marked);
        if self.specials.has_due() {
            // Under the lock, or whoever has just found nothing to do would sleep through it.
            let _state = self.state.lock();
            self.arrived.notify_all();
        }
    }

    /// Runs cleanups that are due, a batch of them at most; false when none was.
    pub fn run_cleanups(&self) -> bool {
        let mut any = false;
        for _ in 0..BATCH {
            let Some(special) = self.specials.next_due() else { break };
            self.run_cleanup(&special);
            any = true;
        }
        any
    }

    fn run_cleanup(&self, special: &Special) {
        if special.kind == Kind::Cleanup {
            // SAFETY: payloads of cleanups are tasks, and the record, which is gone, had the right to it.
            let task = unsafe { Task::from_payload(special.payload) };
            let _busy = Alone::begin(Busy::Destructor);
            contain_with(
                || task.run(),
                |payload| {
                    self.panics.fetch_add(1, Ordering::Relaxed);
                    hooks::tell(self.hooks.drop_panic.as_ref(), "cleanup", payload);
                },
            );
            self.cleanups.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Runs the cleanups of everything that is left in a span; for the end of a heap, when no mutator is
    /// attached. Finalizers are forgotten: there is nobody to show their objects to.
    pub fn clean_all(&self, span: &Span) {
        if !span.has_specials() {
            return;
        }
        let mut list = span.specials();
        let mut all = list.take_all();
        span.set_has_specials(false);
        drop(list);
        while let Some(special) = all.pop() {
            self.run_cleanup(&special);
            self.specials.free(special);
        }
    }

    /// Whether a span may be waiting.
    pub fn has_work(&self) -> bool {
        self.has_work.load(Ordering::Acquire) || self.specials.has_due()
    }

    /// Sweeps a span whose class drops values, by the same rules as every other (the essay of `sweep`).
    pub(super) fn sweep(
        &self,
        mut span: OwnedSpan,
        generation: Generation,
        retain: bool,
        writer: Writer<'_>,
    ) -> Swept {
        let info = *span.info();
        let (allocated, marked) = (span.span().generation().table(), generation.table());
        let mut state = self.state.lock();
        let (mut live, mut owed, mut died) = (0, 0, 0);
        for (page, marks) in bits::object_lines(&info, marked) {
            let old = bits::line(allocated, page);
            let (scanned, drops) =
                (bits::line(Table::Scanned, page), bits::line(Table::Drops, page));
            for index in 0..marks.len() {
                let allocated = old[index].load(Ordering::Acquire);
                let retained = if retain { allocated } else { 0 };
                let mark = marks[index].load(Ordering::Acquire) | retained;
                let dead = allocated & !mark;
                let old_drops = drops[index].load(Ordering::Relaxed);
                let pending = old_drops | dead;
                died += (pending & !old_drops).count_ones() as usize;
                live += (mark & !pending).count_ones() as usize;
                owed += pending.count_ones() as usize;
                // Release: the drop thread may be at work on the span, and look without the lock. Whose bit it
                // finds, it is to find the values of as well.
                drops[index].store(pending, Ordering::Release);
                marks[index].store(mark | pending, Ordering::Release);
                // Release: as in the other sweep, for lookups.
                old[index].store(0, Ordering::Release);
                scanned[index].store(0, Ordering::Relaxed);
            }
        }
        span.set_generation(generation);
        span.set_dirty();
        if owed == 0 {
            return Swept::with(span, live);
        }
        // Under the lock, so that nobody counts them as dropped before.
        writer.update().owes(&info, died);
        self.enqueue(&mut state, span.span(), None);
        if live == 0 {
            bits::clear_all(&info, marked);
            span.span().owned_by_drop_queue.store(true, Ordering::Relaxed);
            let _owned_by_the_queue = span.into_raw();
            return Swept::Dropping;
        }
        Swept::with(span, live + owed)
    }

    /// Puts a span at the end of the queue, unless it is in it. `at` is the time since which it has waited, if
    /// that is not now.
    fn enqueue(&self, state: &mut State, span: &Span, at: Option<u64>) {
        if !span.in_drop_queue.swap(true, Ordering::Relaxed) {
            span.next_drop.set(None);
            span.queued_at.set(at.unwrap_or_else(monotonic_nanos));
            let link = Some(NonNull::from(span));
            match state.last {
                // SAFETY: the record of a span in the queue is in use (P3), and its link is the queue's.
                Some(last) => unsafe { last.as_ref() }.next_drop.set(link),
                None => state.first = link,
            }
            state.last = link;
            self.has_work.store(true, Ordering::Release);
            self.arrived.notify_all();
        }
    }

    /// Runs the destructors of one batch of values. What is returned says whether anything was done and
    /// gives out a span that is empty now, for the caller to free.
    pub fn run_batch(&self, writer: Writer<'_>) -> Batch {
        let mut state = self.state.lock();
        self.note_finished(&mut state);
        self.run_batch_of(state, writer)
    }

    /// Waits for work, destructors or cleanups, and does a batch of it; `None` when the queue is closed and empty.
    pub fn wait_and_run_batch(&self, writer: Writer<'_>) -> Option<Batch> {
        let mut state = self.state.lock();
        self.note_finished(&mut state);
        while state.first.is_none() && !self.specials.has_due() {
            if state.closed {
                return None;
            }
            state = self.arrived.wait(state, None);
        }
        if self.specials.has_due() {
            // Neither waits for all of the other. Before the batch, which may give a span out: until that is
            // freed whoever wants the queue to stand still is kept waiting, and a cleanup may wait for him.
            drop(state);
            self.run_cleanups();
            state = self.state.lock();
        }
        Some(match self.run_batch_of(state, writer) {
            Batch::Idle => Batch::Done,
            batch => batch,
        })
    }

    /// Lets [`DropQueue::wait_and_run_batch`] end when the queue is empty.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Whoever comes for the next batch has done with the one before.
    fn note_finished(&self, state: &mut State) {
        if core::mem::take(&mut state.finishing) {
            self.arrived.notify_all();
        }
    }

    /// Calls `look` when no batch is being finished: until it returns, no drops bit changes, no value is
    /// counted as dropped, and nobody frees a span for the queue. Destructors may run. `look` is given the
    /// queued spans.
    pub fn while_still<R>(&self, look: impl FnOnce(&[&Span]) -> R) -> R {
        let mut state = self.state.lock();
        while state.finishing {
            state = self.arrived.wait(state, None);
        }
        let mut queued = Vec::new();
        let mut next = state.first;
        while let Some(span) = next {
            // SAFETY: the record of a span in the queue is in use (P3), and its link is the queue's.
            let span = unsafe { span.as_ref() };
            queued.push(span);
            next = span.next_drop.get();
        }
        look(&queued)
    }

    fn run_batch_of(&self, mut state: Guard<'_, State>, writer: Writer<'_>) -> Batch {
        match self.take_first(&mut state) {
            None => Batch::Idle,
            Some(span) => {
                drop(state);
                self.run_batch_in(span, writer)
            }
        }
    }

    /// Takes the first span out of the queue.
    fn take_first(&self, state: &mut State) -> Option<NonNull<Span>> {
        let first = state.first?;
        // SAFETY: the record of a span in the queue is in use (P3).
        let span = unsafe { first.as_ref() };
        state.first = span.next_drop.take();
        if state.first.is_none() {
            state.last = None;
            self.has_work.store(false, Ordering::Release);
        }
        Some(first)
    }

    /// Runs destructors of values in a span that was taken out of the queue. A sweep may add some meanwhile.
    fn run_batch_in(&self, first: NonNull<Span>, writer: Writer<'_>) -> Batch {
        // SAFETY: P3: the record is in use until the batch says that the span is empty.
        let span = unsafe { first.as_ref() };
        let info = *span.info();
        let mut batch = [Addr::NULL; BATCH];
        let mut len = 0;
        bits::for_each_set(&info, Table::Drops, |object| {
            if len < BATCH {
                batch[len] = object;
                len += 1;
            }
        });
        *self.running.lock() =
            Some(Running { type_name: info.type_name, since: monotonic_nanos() });
        for &object in &batch[..len] {
            self.drop_object(span, object);
        }
        *self.running.lock() = None;

        let mut state = self.state.lock();
        for &object in &batch[..len] {
            bits::clear(Table::Drops, object);
            bits::clear(span.generation().table(), object);
        }
        // Under the lock, so that nobody counts what is allocated in these slots before.
        writer.update().dropped(&info, len);
        // Only now: a sweep that has met the span meanwhile must not have put it back in.
        span.in_drop_queue.store(false, Ordering::Relaxed);
        if bits::count(&info, Table::Drops) > 0 {
            self.enqueue(&mut state, span, Some(span.queued_at.get()));
        } else if span.owned_by_drop_queue.load(Ordering::Relaxed) {
            state.finishing = true;
            // SAFETY: the queue owns the span and gives it up here (D3).
            return Batch::Emptied(unsafe { OwnedSpan::from_raw(first) });
        }
        Batch::Done
    }

    /// Drops the values of the object at `object`.
    fn drop_object(&self, span: &Span, object: Addr) {
        let info = span.info();
        let Some(drop) = info.drop else { return };
        // SAFETY: by D1 the object is initialised.
        let count = unsafe { info.count(object) };
        // SAFETY: by D1 the values are dead and their destructor has not run; no `Gc` to them is left.
        let run = || unsafe { drop(object.as_ptr(), count) };
        let _busy = Alone::begin(Busy::Destructor);
        contain_with(run, |payload| {
            self.panics.fetch_add(1, Ordering::Relaxed);
            hooks::tell(self.hooks.drop_panic.as_ref(), (info.type_name)(), payload);
        });
        asan::forbid(object, Bytes::new(info.slot));
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Drops every object that is left in a span; for the end of a heap, when no mutator is attached.
    ///
    /// # Safety
    /// The span's allocation bits stand at initialised objects, which nobody will use again.
    pub unsafe fn drop_all(&self, span: &Span) {
        if span.info().drop.is_some() {
            let table = span.generation().table();
            bits::for_each_set(span.info(), table, |object| {
                self.drop_object(span, object);
                bits::clear(table, object);
            });
        }
    }
}

impl Default for DropQueue {
    fn default() -> DropQueue {
        DropQueue::new()
    }
}

/// What a look at the drop queue came to.
pub enum Batch {
    /// There was nothing to do.
    Idle,
    /// Values have been dropped.
    Done,
    /// Values have been dropped, and the span that held them is empty.
    Emptied(OwnedSpan),
}

#[cfg(test)]
mod tests;
