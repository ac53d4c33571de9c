//! Telling the program that its heap is near a limit, while there is something that it can do.
//!
//! A program may give its heap a function for that. It is called after a cycle which has found that the heap needs
//! nearly all that a limit allows ([`super::settings::Need`]), or during which, or since the one before, an
//! allocation was refused. By then garbage is gone: what is left is what the program holds on to.
//!
//! **On which thread:** one of its own, which a heap has only if it has such a function. Not in the allocation that
//! meets the limit: that is inside a closure, maybe under locks of the program, and what such a function wants to
//! do, dropping roots and collecting, is of no use before the closure has ended. Not on the collector's
//! thread either: the function may take its time, enter the heap, and wait for a cycle. While it runs, the
//! collector goes on, and what it would tell meanwhile is forgotten.
//!
//! **What it may answer:** that it has let go of something, and then a cycle is begun to collect that, after which
//! it is not asked again until another one has ended near the limit, so that a program which has nothing to
//! give is not kept busy by saying that it has; or a higher limit; or nothing. A panic is that, and is counted.
//!
//! # Locking
//! [`Rank::Control`] for the desk over which notices go; the program's function is called without any lock.

use super::collector::{Collector, OwnThread};
use super::settings::Need;
use crate::addr::Bytes;
use crate::heap::Live;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::{Condition, Lock, Rank};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A program's answer to pressure.
pub type PressureHook = Box<dyn Fn(&Pressure) -> Response + Send + Sync>;

/// One of the limits of a heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitKind {
    /// It may be exceeded.
    Soft,
    /// Beyond it, allocations are refused.
    Hard,
}

/// A heap that is near a limit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pressure {
    /// Bytes of objects that the last cycle retained.
    pub live: Bytes,
    /// Ready bytes that the heap needs for them, with its tables, records and what lies idle between objects.
    pub needed: Bytes,
    /// The limit that is near. (A hard limit keeps some room for records, which is not to be had for objects.)
    pub limit: Bytes,
    /// Which one it is.
    pub kind: LimitKind,
    /// Allocations that were refused since the last call.
    pub refused: u64,
    /// Which types hold the memory.
    pub types: Live,
}

/// What is to be done about pressure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Response {
    /// The program has let go of something: collect again.
    Shed,
    /// From now on the limit that is near has so many bytes. Less than it has already changes nothing.
    Raise(usize),
    /// Nothing: a soft limit is exceeded, and a hard one refuses.
    Refuse,
}

/// What the collector has to tell.
#[derive(Clone, Copy, Debug)]
struct Notice {
    needed: Bytes,
    refused: u64,
}

#[derive(Default)]
struct State {
    notice: Option<Notice>,
    is_busy: bool,
    /// Whether the next notice follows from the program's own answer.
    skips_next: bool,
    closed: bool,
}

/// Where the collector leaves notices, and the program's function.
pub(super) struct Desk {
    hook: PressureHook,
    state: Lock<State>,
    changed: Condition,
    calls: AtomicU64,
    panics: AtomicU64,
}

impl Desk {
    pub(super) fn new(hook: PressureHook) -> Desk {
        Desk {
            hook,
            state: Lock::new(Rank::Control, State::default()),
            changed: Condition::new(),
            calls: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }

    /// Leaves a notice, unless it has to be skipped or somebody is at work on the last one. False if not.
    fn post(&self, notice: Notice) -> bool {
        let mut state = self.state.lock();
        if state.is_busy || core::mem::take(&mut state.skips_next) {
            return false;
        }
        state.notice = Some(notice);
        self.changed.notify_all();
        true
    }

    /// Waits for a notice; `None` at the end of the heap.
    fn wait(&self) -> Option<Notice> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(notice) = state.notice.take() {
                state.is_busy = true;
                return Some(notice);
            }
            state = self.changed.wait(state, None);
        }
    }

    fn finish(&self, skips_next: bool) {
        let mut state = self.state.lock();
        state.is_busy = false;
        state.skips_next = skips_next;
    }

    /// Ends the waiting for notices.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    fn call(&self, pressure: &Pressure) -> Response {
        self.calls.fetch_add(1, Relaxed);
        catch_unwind(AssertUnwindSafe(|| (self.hook)(pressure))).unwrap_or_else(|payload| {
            self.panics.fetch_add(1, Relaxed);
            // The payload is the program's, too, and may panic when it is dropped.
            core::mem::forget(payload);
            Response::Refuse
        })
    }
}

/// What the collector's thread knows of limits that were met.
#[derive(Default)]
pub(super) struct Watch {
    refusals: u64,
}

impl Collector {
    /// After a cycle: leaves a notice if the program wants to know, and there is reason.
    pub(super) fn watch_limits(&self, watch: &mut Watch) {
        let Some(desk) = &self.pressure else { return };
        let Some(need) = self.need() else { return };
        let refusals = self.central.pages().limits().met().refusals;
        let refused = refusals - watch.refusals;
        let notice = Notice { needed: need.needed, refused };
        if (refused > 0 || Need::is_pressing(need)) && desk.post(notice) {
            watch.refusals = refusals;
        }
    }

    /// The life of the thread that calls the program.
    pub fn run_pressure(&self) {
        let Some(desk) = &self.pressure else { return };
        self.note_own_thread(OwnThread::Pressure);
        while let Some(notice) = desk.wait() {
            let response = self.describe(notice).map(|pressure| {
                let response = desk.call(&pressure);
                self.respond(&pressure, response);
                response
            });
            let shed = response == Some(Response::Shed);
            desk.finish(shed);
            if shed {
                self.request();
            }
        }
    }

    /// What there is to tell; `None` if the limits are gone by now.
    fn describe(&self, notice: Notice) -> Option<Pressure> {
        let limits = self.central.pages().limits();
        let (limit, kind) = match (limits.soft(), limits.hard()) {
            // An allocation was refused, or the hard limit is the lower one.
            (soft, Some(hard))
                if notice.refused > 0 || soft.is_none_or(|soft| soft >= limits.allowed()) =>
            {
                (hard, LimitKind::Hard)
            }
            (Some(soft), _) => (soft, LimitKind::Soft),
            (None, _) => return None,
        };
        let Notice { needed, refused } = notice;
        let live = self.central.retained();
        Some(Pressure { live, needed, limit, kind, refused, types: Live::of(&self.central) })
    }

    fn respond(&self, pressure: &Pressure, response: Response) {
        match (response, pressure.kind) {
            (Response::Raise(bytes), _) if bytes <= pressure.limit.get() => {}
            (Response::Raise(bytes), LimitKind::Soft) => {
                self.set_soft_limit(Some(Bytes::new(bytes)));
            }
            (Response::Raise(bytes), LimitKind::Hard) => {
                self.set_hard_limit(Some(Bytes::new(bytes)));
            }
            (Response::Shed | Response::Refuse, _) => {}
        }
    }

    /// How often the program was told, and how often it has panicked then.
    pub fn pressure_calls(&self) -> (u64, u64) {
        let counts = |desk: &Desk| (desk.calls.load(Relaxed), desk.panics.load(Relaxed));
        self.pressure.as_ref().map_or((0, 0), counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTICE: Notice = Notice { needed: Bytes::ZERO, refused: 1 };

    fn desk() -> Desk {
        Desk::new(Box::new(|_| Response::Refuse))
    }

    #[test]
    fn who_has_shed_is_not_asked_after_the_cycle_that_follows_from_it() {
        let desk = desk();
        assert!(desk.post(NOTICE));
        assert_eq!(desk.wait().map(|notice| notice.refused), Some(1));
        assert!(!desk.post(NOTICE), "it is at work on the last one");
        desk.finish(true);
        assert!(!desk.post(NOTICE), "that was its own cycle");
        assert!(desk.post(NOTICE));
        assert!(desk.wait().is_some());
        desk.finish(false);
        assert!(desk.post(NOTICE));
        desk.close();
        assert!(desk.wait().is_none());
    }

    #[test]
    fn a_panic_is_no_answer_and_is_counted() {
        let desk = Desk::new(Box::new(|_| panic!("as the test wants it")));
        let pressure = Pressure {
            live: Bytes::ZERO,
            needed: Bytes::ZERO,
            limit: Bytes::ZERO,
            kind: LimitKind::Soft,
            refused: 0,
            types: Live::default(),
        };
        assert_eq!(desk.call(&pressure), Response::Refuse);
        assert_eq!((desk.calls.load(Relaxed), desk.panics.load(Relaxed)), (1, 1));
    }
}
