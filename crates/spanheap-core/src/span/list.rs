//! A list that owns spans: last in, first out; any span can be taken out of the middle, and two lists are
//! joined in constant time.
//!
//! The links are in the span records, so a list needs no memory. Which list a span is in is not written
//! down: joining two lists would have to visit each span. [`super::set`] knows it from the span's
//! generation.
//!
//! # Safety
//! A list owns its spans, and by P3 their records stay for as long. Blocks that follow a link rely on both.
#![allow(unsafe_code)]

use super::{OwnedSpan, Span};
use crate::addr::Addr;
use core::ptr::NonNull;

/// A list that owns spans.
#[derive(Default)]
pub(super) struct SpanList {
    first: Option<NonNull<Span>>,
    last: Option<NonNull<Span>>,
}

// SAFETY: the list owns its spans, and ownership may move between threads.
unsafe impl Send for SpanList {}

impl SpanList {
    /// Takes a span in, in front.
    pub(super) fn push(&mut self, span: OwnedSpan) {
        span.span().next.set(self.first);
        span.span().previous.set(None);
        let span = span.into_raw();
        self.link_back(self.first, Some(span));
        self.first = Some(span);
        self.last = self.last.or(Some(span));
    }

    /// Whether it owns nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Gives the first span out.
    pub(super) fn pop(&mut self) -> Option<OwnedSpan> {
        let first = self.first?;
        // SAFETY: the list owns its first span.
        Some(unsafe { self.unlink(first) })
    }

    /// Asks the processor to fetch the record of the second span, which giving the first one out writes to. Who has
    /// just done so and comes again finds it near, and holds the list's lock for less long.
    pub(super) fn prefetch_second(&self) {
        // SAFETY: the list owns its first span.
        let second = self.first.and_then(|first| unsafe { first.as_ref() }.next.get());
        #[cfg(target_arch = "x86_64")]
        if let Some(second) = second {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: the list owns its second span, too.
            let previous = unsafe { &second.as_ref().previous };
            // SAFETY: the instruction reads nothing that the program could notice, from any address.
            unsafe { _mm_prefetch(core::ptr::from_ref(previous).cast(), _MM_HINT_T0) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = second;
    }

    /// Gives a span out, wherever in the list it is.
    ///
    /// # Safety
    /// The list owns the span.
    pub(super) unsafe fn unlink(&mut self, at: NonNull<Span>) -> OwnedSpan {
        // SAFETY: the list owns the span, by the caller's promise, and gives it up here.
        let span = unsafe { OwnedSpan::from_raw(at) };
        let (next, previous) = (span.span().next.take(), span.span().previous.take());
        match previous {
            // SAFETY: neighbours are spans of the same list.
            Some(previous) => unsafe { previous.as_ref() }.next.set(next),
            None => self.first = next,
        }
        match next {
            Some(_) => self.link_back(next, previous),
            None => self.last = previous,
        }
        span
    }

    /// Takes in everything that `other` owns, in front.
    pub(super) fn append(&mut self, other: &mut SpanList) {
        let Some(last) = other.last.take() else { return };
        // SAFETY: `other` owns its last span.
        unsafe { last.as_ref() }.next.set(self.first);
        self.link_back(self.first, Some(last));
        self.first = other.first.take();
        self.last = self.last.or(Some(last));
    }

    /// Calls `visit` with each span, first to last.
    ///
    /// # Errors
    /// The first span whose links to its neighbours disagree.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&Span)) -> Result<(), Addr> {
        let (mut next, mut before) = (self.first, None);
        while let Some(at) = next {
            // SAFETY: the list owns the span, and its neighbours.
            let span = unsafe { at.as_ref() };
            if span.previous.get() != before {
                return Err(span.info().base);
            }
            visit(span);
            (before, next) = (next, span.next.get());
        }
        if before == self.last { Ok(()) } else { Err(Addr::NULL) }
    }

    /// Says which span comes before `span`, if there is one.
    fn link_back(&self, span: Option<NonNull<Span>>, previous: Option<NonNull<Span>>) {
        if let Some(span) = span {
            // SAFETY: the list owns the span.
            unsafe { span.as_ref() }.previous.set(previous);
        }
    }
}

#[cfg(test)]
mod tests;
