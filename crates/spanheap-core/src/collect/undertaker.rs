//! Who buries freed user arenas between two cycles: their memory goes, or is made inaccessible.
//!
//! ```text
//!   freed --(a grace period)--> quarantined --(a cycle that found no pointer)--> free pages
//! ```
//!
//! The grace period is one that is made for what was freed since the last one. There are two who may do that:
//!
//! - **The thread that frees**, as soon as [`PLENTY`] waits, if nobody is inside a closure: then the grace period is over
//!   when it begins. If the thread itself is inside, and nobody else, it does so when it leaves; and so does whoever
//!   leaves when the collector's thread waits for that, or it would come too late for the next closure again and again.
//!   The memory that is given up, and filled next, is in the thread's own caches, and no other processor is interrupted
//!   or woken up: the same on another thread takes half as long again. No more than [`MOST_AT_ONCE`] is buried so, for
//!   a call that frees an arena should not take long, and nothing that would have to go back to the system, which is slow.
//! - **The collector's thread** in all other cases. It begins the grace period when so much waits, or the first chunk has
//!   waited for [`GATHER`], so many arenas that are freed one after the other share one; and nobody sleeps for its
//!   end: a cycle that becomes due in between begins at once, and its own first grace period serves for both.
//!
//! # The right to bury
//! Burying is for one at a time, and for nobody while a cycle runs. So it is a right, the [`Undertaker`] in its lock. The
//! collector's thread has it from its first step to its last, in cycles and between them, and gives it away for no
//! other time than its sleep between two cycles ([`Collector::rest`]). Others only try to take it. At the end of the heap it
//! says that there is nothing to bury any more, and gives it back.
//!
//! # Locking
//! [`Rank::Undertaker`](crate::sync::Rank), the lowest of all.
//!
//! # Safety
//! What is buried was freed before a grace period that is over.
#![allow(unsafe_code)]

use super::collector::Collector;
use crate::addr::Bytes;
use crate::heap::AlreadyFreed;
use crate::heap::stall::Cause;
use crate::heap::user_arena::{ArenaCore, Load, PLENTY, Waiting};
use crate::span::alone;
use crate::span::sites::Freed;
use crate::sync::Guard;
use std::time::{Duration, Instant};

/// How long freed chunks are gathered before a grace period begins for them.
const GATHER: Duration = Duration::from_millis(1);

/// More than so many are left to the collector's thread.
pub(super) const MOST_AT_ONCE: Bytes = Bytes::new(16 << 20);

/// More chunks than so many as well: each may take a call to the system.
pub(super) const MOST_CHUNKS: usize = 128;

/// How long the thread sleeps at most before it looks again whether a grace period is over; whoever leaves a
/// closure wakes it.
pub(super) const PATIENCE: Duration = Duration::from_millis(5);

/// Who has this may begin grace periods between two cycles, and bury what was freed before one that is over.
#[derive(Default)]
pub(super) struct Undertaker {
    /// Since when something has been freed that no grace period has begun for.
    since: Option<Instant>,
    /// Whether the collector's thread will look by itself after what is kept and what was usual.
    looks_again: bool,
    /// Whether the heap has ended.
    is_over: bool,
}

impl Undertaker {
    /// Begins a grace period for what was freed, or buries it when that is over. The result is how long
    /// the collector's thread, which calls this, may sleep before it has to look again; `None`: there is nothing to
    /// look for.
    pub(super) fn work(&mut self, collector: &Collector) -> Option<Duration> {
        let pause = self.look(collector);
        self.looks_again = pause.is_some();
        pause
    }

    /// The heap has ended: nobody buries anything from here on.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    fn look(&mut self, collector: &Collector) -> Option<Duration> {
        let arenas = collector.central().arenas();
        arenas.set_watched(false);
        if arenas.pending() != Load::NONE && collector.registry.is_grace_over() {
            // SAFETY: the latest grace period is over, and it began after what is pending was taken. No cycle
            // marks, because this is the thread that would run it.
            unsafe { collector.guard_arenas(self) };
        }
        if arenas.pending() != Load::NONE {
            return Some(PATIENCE);
        }
        // SAFETY: as above: no cycle marks.
        let keeps = unsafe { collector.look_after_kept(self) };
        let waiting = arenas.waiting().bytes;
        if waiting == Bytes::ZERO {
            self.since = None;
            return keeps;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let waited = since.elapsed();
        if waiting < PLENTY && waited < GATHER {
            arenas.set_watched(true);
            return Some(GATHER - waited);
        }
        self.since = None;
        arenas.take_freed();
        collector.registry.begin_grace(&collector.fence);
        // It may be over already: usually nobody is inside.
        Some(Duration::ZERO)
    }

    /// Buries what there is, on another thread than the collector's. False if the collector's thread has to.
    fn help(&mut self, collector: &Collector) -> bool {
        let (central, registry) = (collector.central(), &collector.registry);
        let arenas = central.arenas();
        let (pending, waiting) = (arenas.pending(), arenas.waiting());
        let all = pending + waiting;
        // What is pending may be any amount.
        if self.is_over || !is_little(all) || !arenas.has_room(central.pages(), all.bytes) {
            return false;
        }
        if pending != Load::NONE {
            if !registry.is_grace_over() {
                return false;
            }
            // SAFETY: the latest grace period is over, and it began after what is pending was taken. No cycle marks:
            // the thread that would run it sleeps between two of them, or waits for the right to bury.
            unsafe { collector.guard_arenas(self) };
        }
        if waiting.bytes >= PLENTY {
            self.since = None;
            arenas.take_freed();
            registry.begin_grace(&collector.fence);
            if !registry.is_grace_over() {
                // The collector's thread finds it pending.
                return false;
            }
            // SAFETY: as above.
            unsafe { collector.guard_arenas(self) };
        }
        // There is nothing to be told of any more.
        collector.control.set_awaiting_leave(false);
        if !self.looks_again {
            central.alarm().ring();
        }
        true
    }
}

impl Collector {
    /// Frees an arena of this heap, in the process that the heap belongs to, and buries what waits if it may; otherwise
    /// somebody is told of it.
    pub fn free_arena(&self, core: &ArenaCore, freed: Freed) -> Result<(), AlreadyFreed> {
        let waiting = self.central.free_arena(core, freed)?;
        if !self.bury_or_ask(waiting) {
            self.central.tell_of(waiting);
        }
        Ok(())
    }

    fn bury_or_ask(&self, waiting: Waiting) -> bool {
        let Waiting { all, new } = waiting;
        if new == Bytes::ZERO || all.bytes < PLENTY || !is_little(all) || !alone::is_free() {
            return false;
        }
        match self.registry.inside() {
            (0, _) => self.bury(),
            (1, true) => {
                self.control.ask_to_bury();
                true
            }
            _ => false,
        }
    }

    /// The calling thread has left a closure, and somebody waits for that: buries what waits for nothing else. False if
    /// that is not possible, or if it is a cycle that waits.
    pub fn bury_on_leaving(&self) -> bool {
        alone::is_free() && self.bury()
    }

    /// Buries what there is. False if the collector's thread has to, or has the right to bury.
    fn bury(&self) -> bool {
        let Some(mut undertaker) = self.undertaker.try_lock() else { return false };
        let begun = Instant::now();
        let is_done = undertaker.help(self);
        drop(undertaker);
        self.central.stalls().record(Cause::Burial, begun);
        is_done
    }

    /// Sleeps between two cycles, until somebody rings or the `pause` is over; or, if a grace period is waited for,
    /// until somebody leaves. Meanwhile others may bury.
    pub(super) fn rest<'c>(
        &'c self,
        mut undertaker: Guard<'c, Undertaker>,
        pause: Option<Duration>,
    ) -> Guard<'c, Undertaker> {
        let pause = pause.into_iter().chain(undertaker.work(self)).min();
        if pause == Some(Duration::ZERO) {
            return undertaker;
        }
        let is_awaiting = self.central.arenas().pending() != Load::NONE;
        drop(undertaker);
        if is_awaiting {
            self.control.set_awaiting_leave(true);
            // As in `grace_period`: who has not seen the flag has left before this point.
            self.fence.heavy();
        }
        if !is_awaiting || !self.registry.is_grace_over() {
            self.central.alarm().sleep(pause);
        }
        self.control.set_awaiting_leave(false);
        self.undertaker.lock()
    }
}

/// Whether others than the collector's thread may bury so much.
fn is_little(all: Load) -> bool {
    all.bytes <= MOST_AT_ONCE && all.chunks <= MOST_CHUNKS
}
