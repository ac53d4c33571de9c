//! How a mutator gets a span.
//!
//! A mutator comes here for a span when its own is used up. While anything waits to be swept, it first
//! sweeps what it owes ([`super::sweep_pace`]), up to a budget (`bounds`). Then it gets, in this order,
//!
//! 1. a swept span of the class with free slots,
//! 2. an unswept one, which it sweeps itself (sweeping on demand: garbage is used before new memory),
//! 3. new pages, for which dead spans of any class are swept and freed first ([`super::reclaim`]), up to a budget,
//! 4. if pages are refused, whatever can be had when all that waits has been swept and its own pages are back.
//!
//! Its own class comes before the reclaimer: most swept spans have a free slot and nothing else to give,
//! so they serve without the lock of the page heap and without bits to clear and pages to map. And
//! objects of a class stay together, where a freed page would be cut up for another one. Who has looked
//! at 8 spans in vain has a class that is full, and gets pages.
//!
//! A refusal asks for a cycle, too, and does not wait for it: the closure that wanted memory holds on to
//! what it can reach, and a cycle would wait for the closure.
//!
//! Between the first two and the third there is a short way: when the sets of a class are locked, by somebody who has
//! lost his processor, the mutator does not wait for him, but takes new pages.

use super::Central;
use crate::addr::{Bytes, PAGE_BYTES, PageCount};
use crate::heap::class::Class;
use crate::heap::counters::Writer;
use crate::heap::error::OutOfMemory;
use crate::heap::page_heap::{LocalPages, Refused, Request};
use crate::heap::sweep::sweep;
use crate::heap::swept::Swept;
use crate::span::{Backlog, Busy, Generation, OwnedSpan, Room, SpanSet, Taken};
use crate::sync::atomic::Ordering;

/// How many unswept spans an allocation sweeps in search of a free slot before it takes new pages. A span whose tables
/// are in another processor's cache takes one to two microseconds, and so many is what one allocation may pay; the next
/// one looks on where this one has stopped.
pub(super) const SWEEP_BUDGET: usize = 8;

impl Central {
    /// A swept span of `class` with at least one free slot, for the mutator whose pages are `local`.
    pub fn acquire(
        &self,
        class: &'static Class,
        local: &LocalPages,
    ) -> Result<OwnedSpan, OutOfMemory> {
        let size_class = class.key().size_class.expect("large objects have no shared spans");
        let request = Request {
            pages: size_class.pages(),
            align: Bytes::new(PAGE_BYTES),
            slot: size_class.size().get(),
            slots: size_class.objects(),
            element: 0,
            generation: self.generation(),
        };
        self.keep_pace(request.pages.bytes(), PageCount::ZERO);
        let writer = self.writer(local);
        let span = self.in_need(local, || {
            let swept = match self.take_swept(class, local, writer, SpanSet::take_soon) {
                Ok(swept) => swept,
                // Whoever holds the lock has lost his processor, it seems. New pages can be had without it.
                Err(Busy) => {
                    match self.pages.alloc_span(&self.os, &self.memory, local, class, &request) {
                        Ok(span) => return Ok(span),
                        Err(_) => {
                            self.take_swept(class, local, writer, |set, generation, backlog| {
                                Ok::<_, Refused>(set.take(generation, backlog))
                            })?
                        }
                    }
                }
            };
            match swept.or_else(|| self.take_astray(class, local, true)) {
                Some(span) => Ok(span),
                None => self
                    .new_span(class, local, &request)
                    .or_else(|refused| self.take_astray(class, local, false).ok_or(refused)),
            }
        });
        span.map_err(|refused| self.out_of_memory(size_class.size(), refused))
    }

    /// A span for one object of `size` bytes: values of `element` bytes, or a single one if that is 0.
    pub fn acquire_large(
        &self,
        class: &'static Class,
        size: Bytes,
        element: usize,
        align: usize,
        local: &LocalPages,
    ) -> Result<OwnedSpan, OutOfMemory> {
        let refused = |refused| self.out_of_memory(size, refused);
        // An empty value gets here by its alignment, and has an address of its own all the same.
        let pages = size.max(Bytes::new(1)).checked_pages();
        let pages = pages.ok_or(Refused::TooLarge).map_err(refused)?;
        let request = Request {
            pages,
            align: Bytes::new(align.max(PAGE_BYTES)),
            slot: pages.bytes().get(),
            slots: 1,
            element,
            generation: self.generation(),
        };
        // What the reclaimer will sweep for it is not swept twice.
        self.keep_pace(pages.bytes(), pages);
        self.in_need(local, || self.new_span(class, local, &request)).map_err(refused)
    }

    /// A span of `class` with room from its sets, swept here if need be. `take` takes one out of a set, and may
    /// find it busy.
    fn take_swept<E>(
        &self,
        class: &'static Class,
        local: &LocalPages,
        writer: Writer<'_>,
        take: impl Fn(&SpanSet, Generation, &Backlog) -> Result<Option<Taken>, E>,
    ) -> Result<Option<OwnedSpan>, E> {
        let (spans, generation) = (class.spans(), self.generation());
        for _ in 0..SWEEP_BUDGET {
            let taken = spans.take(local.place(), |set| take(set, generation, &self.backlog))?;
            let Some((set, taken)) = taken else { break };
            match taken {
                Taken::Ready(span) => return Ok(Some(span)),
                Taken::Unswept(span, target) => {
                    let pages = span.info().pages;
                    let swept = sweep(span, &self.drops, self.how(target), writer);
                    let room = match swept {
                        Swept::Empty(span) | Swept::Partial(span, _) => Some(span),
                        full_or_dropping => {
                            self.settle(set, full_or_dropping, target);
                            None
                        }
                    };
                    self.backlog.finish(pages);
                    if room.is_some() {
                        return Ok(room);
                    }
                }
            }
        }
        Ok(None)
    }

    /// A span of `class` that lies where the heap should not need any; unless it has better pages, if
    /// `is_choosy`.
    fn take_astray(
        &self,
        class: &'static Class,
        local: &LocalPages,
        is_choosy: bool,
    ) -> Option<OwnedSpan> {
        let (spans, generation) = (class.spans(), self.generation());
        let span = spans.take_astray(local.place(), generation, &self.backlog)?;
        if is_choosy && self.pages.has_room_below_line(span.info().pages) {
            spans.put(span, generation, Room::Astray, &self.backlog);
            return None;
        }
        Some(span)
    }

    /// A span of new pages, for which dead spans have been swept as long as there are any.
    fn new_span(
        &self,
        class: &Class,
        local: &LocalPages,
        request: &Request,
    ) -> Result<OwnedSpan, Refused> {
        self.reclaim(request.pages, request.align);
        self.pages.alloc_span(&self.os, &self.memory, local, class, request)
    }

    /// What `attempt` returns, or what it returns when everything that waited has been swept and the caller's
    /// own pages are everybody's. A refusal that remains asks for a cycle.
    pub(super) fn in_need<T>(
        &self,
        local: &LocalPages,
        attempt: impl Fn() -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let swept = self.backlog.swept();
        // Others may have had the last spans that waited in their hands, and be through with them: then there is
        // nothing left to sweep, and room all the same.
        let has_more = || self.give_up_reserves(local) || self.backlog.swept() != swept;
        let again = match attempt() {
            Err(Refused::Limit | Refused::System) if has_more() => attempt(),
            other => other,
        };
        if let Err(Refused::Limit | Refused::System) = again {
            self.pages.limits().note_refusal();
            if !self.starved.swap(true, Ordering::Relaxed) {
                self.alarm.ring();
            }
        }
        again
    }

    /// Sweeps everything and gives the mutator's own pages back; false when there was nothing of either.
    fn give_up_reserves(&self, local: &LocalPages) -> bool {
        let swept = self.sweep_everything();
        self.pages.take_back(&self.os, &self.memory, local) || swept
    }

    /// The error for a request that was refused.
    pub fn out_of_memory(&self, requested: Bytes, refused: Refused) -> OutOfMemory {
        let limit = match refused {
            Refused::Limit => self.pages.limits().hard(),
            Refused::TooLarge => {
                return OutOfMemory { requested, live: self.live(), limit: None };
            }
            Refused::System => None,
        };
        OutOfMemory { requested, live: self.live(), limit }
    }
}
