//! What a swept span is good for: the outcome of both sweeps, that of a class whose values need dropping and
//! that of all others.
//!
//! It is a value that owns the span, so the caller has to put the span somewhere: in the list of its class
//! where it belongs now, or back among the free pages.

use crate::span::OwnedSpan;

/// What a swept span is good for.
pub enum Swept {
    /// Nothing lives in it: its pages can be freed.
    Empty(OwnedSpan),
    /// Some of its slots are free; so many are taken.
    Partial(OwnedSpan, usize),
    /// All of its slots are taken.
    Full(OwnedSpan),
    /// Nothing lives in it, and the drop queue has it now, since destructors are owed.
    Dropping,
}

impl Swept {
    /// The outcome for a span with `allocated` slots taken.
    pub(super) fn with(span: OwnedSpan, allocated: usize) -> Swept {
        match allocated {
            0 => Swept::Empty(span),
            n if n < span.info().slots => Swept::Partial(span, n),
            _ => Swept::Full(span),
        }
    }
}
