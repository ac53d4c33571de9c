//! Weak pointers, and what becomes of objects that a cycle has found dead.
//!
//! A weak pointer is a pointer to a **handle**, a small object of the heap in which the target's address lies.
//! A target has one handle at most; a record on the target leads to it. So weak pointers to one object are equal,
//! and clearing them all is one store.
//!
//! ```text
//!   upgrade, by the phase in which the closure began:
//!     idle        load the handle
//!     arming      load it, and buffer the target like any pointer that is loaded and may be overwritten
//!     marking     load it; the target is marked?   -> load the handle again: the same, or None
//!                 else, under the grey lock:  not decided -> mark the target, and queue it
//!                                             decided     -> None
//!
//!   the collector, after a clean round:
//!     decide, under the grey lock                               the moment of death
//!     clear handles of unmarked targets, keep the other handles
//!     clear ephemerons that still wait for their key
//!     mark objects with a finalizer, drain, clear what waits    nobody can reach these but the collector
//!     put them into their queues                                now the program can
//!     begin the generation, publish IDLE, sweep
//! ```
//!
//! # Why upgrading is right
//! - *A target is never freed under a closure that has upgraded to it.* Before the decision the target is
//!   marked, and what it reaches is, too, because the decision waits for the queue. A target that is marked stays
//!   for this cycle.
//!   A closure of an arming phase is treated as if it had loaded an edge that is then deleted: it buffers. In
//!   the idle phase the target was live at the last decision, and the next one waits for the closure.
//! - *None is for ever.* After the decision no unmarked object becomes marked, but by revival; and by then
//!   its handle is cleared. Closures of the marking phase that go on after the decision find it unmarked, or
//!   the handle cleared. Later ones find the handle cleared, because that happens before IDLE is published.
//! - *The second look at the handle.* A closure of the marking phase may go on while the next sweep frees the
//!   target and somebody allocates in its slot, which sets the same bit. Whoever sees that bit sees
//!   what happened before: the sweep, and before it the clearing. A handle never gets another target. So if
//!   the handle is still the same after the mark was seen, the mark was the target's.
//! - *Handles live as long as their target or anybody who points to them.* Handles of live targets are kept after
//!   the decision; so a closure that gets one from the target's record, which it can only while it holds the
//!   target, needs no barrier.
//!
//! # Finalizers
//! Weak pointers to a revived object, and ephemerons with it as their key, are cleared before it is
//! revived (they are *short*). So revival is the collector's alone until it has marked all that the revived objects
//! reach, and only then are these put into their queues. Otherwise a closure that still runs in the marking phase
//! could take something out of them, into a buffer that nobody empties any more.
//!
//! # A cycle that retains everything
//! decides nothing: no handle is cleared and nothing is revived. If a trace function panics during revival, what
//! was cleared stays cleared.
//!
//! # Safety
//! Handles are objects of the heap; the words of their records say where.
#![allow(unsafe_code)]

use super::Collector;
use super::grey::Retained;
use super::mark::{self, Marker};
use crate::addr::{Addr, Bytes};
use crate::heap::revival::Revivals;
use crate::span::{Generation, Shape, Tracer, TypeInfo};
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a handle: a slot that no tiny value shares.
const HANDLE_BYTES: usize = 16;

/// The description of handles. The first word is the target's address, or 0.
pub static HANDLE: TypeInfo =
    TypeInfo::new(|| "weak handle", HANDLE_BYTES, 8, Shape::NoScan, trace_nothing, None)
        .exact(true);

/// Reports nothing.
///
/// # Safety
/// None is needed; the type demands the word.
unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

impl Collector {
    /// What the handle's word leads to, for a closure that began in the marking phase of `cycle`: null if
    /// the target is dead.
    pub fn upgrade_while_marking(&self, handle: &AtomicUsize, cycle: u32) -> Addr {
        // Acquire: the target's contents were published before the handle was made.
        let target = Addr::new(handle.load(Ordering::Acquire));
        if target.is_null() {
            return Addr::NULL;
        }
        let (heap, table) = (self.central.number(), Generation::new(cycle).table());
        let is_marked = || mark::is_marked(heap, table, target);
        if !is_marked() {
            let (os, memory) = (self.central.os(), self.central.memory());
            let mark = |target| mark::mark_directly(heap, cycle, target);
            match self.grey.retain(os, memory, cycle, target, mark) {
                Retained::Yes => return target,
                // It may have been marked between the first look and the decision.
                Retained::Decided if !is_marked() => return Addr::NULL,
                Retained::Decided | Retained::Over => {}
            }
        }
        // The second look: see above. The mark was read with acquire.
        let again = Addr::new(handle.load(Ordering::Acquire));
        if again == target { target } else { Addr::NULL }
    }

    /// Does what the decision asks for, if there was one.
    pub(super) fn decide_weak(&self, cycle: u32, marker: &mut Marker<'_>) {
        let central = &self.central;
        if self.grey.is_decided() {
            let table = Generation::new(cycle).table();
            let specials = central.drops().specials();
            let keep = |handle| marker.keep(handle, Bytes::new(HANDLE_BYTES));
            // SAFETY: everything was swept before marking began, and the next sweep comes after this thread has
            // begun the generation; the round was clean, so the marks are complete. Payloads are written by
            // the mutator as it is asked there.
            let revived = unsafe { specials.decide(central.pages(), table, keep) };
            central.waiting().clear_all();
            if !revived.is_empty() {
                revived.iter().for_each(|record| marker.mark(record.object));
                self.drain(marker);
                // If that could not be finished, keys may live that were not marked, and all is retained.
                if !marker.is_broken() {
                    central.waiting().clear_all();
                }
                Revivals::publish(revived);
            }
        }
        if central.waiting().has_any() {
            central.pages().arenas().for_each(|arena| arena.clear_awaited());
        }
        central.waiting().finish(central.os());
    }
}

#[cfg(test)]
mod tests;
