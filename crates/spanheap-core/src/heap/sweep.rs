//! Sweeping a span: what the finished cycle has not marked is free.
//!
//! Nothing is moved and no object is looked at. The marks become the allocation bitmap because the span's
//! generation moves on; the old allocation bits and the scanned bits are cleared, so that they can serve
//! the next cycle. Only a class whose values need dropping takes a second look: objects that died now
//! get a bit in the drops table and stay allocated until the drop thread has been there.
//!
//! ```text
//!   dead    := allocated & !marked & !drops        (drops: dead since an earlier cycle)
//!   drops   |= dead                                 if the class drops
//!   marked  |= drops                                they stay allocated for now
//!   allocated := 0; scanned := 0; generation := g   from here on `marked` is what is allocated
//! ```
//!
//! A cycle that could not finish marking *retains everything*: then `marked |= allocated` comes first. It
//! is done here, span by span, because only the owner of a span knows which of its slots hold objects.
//!
//! If records hang on objects of the span, those of dead ones are handed out first ([`super::specials`]), and
//! objects that have a finalizer are marked.
//!
//! The caller owns the span; what to do with it afterwards is the caller's, too: the outcome says what
//! it is good for ([`Swept`]).
//!
//! # Safety
//! Poisoning writes to slots whose objects are dead, in a span that the sweeper owns. Instructions that not every
//! processor has are used where they have been found.
#![allow(unsafe_code)]

use super::counters::Writer;
use super::drops::DropQueue;
use super::swept::Swept;
use crate::addr::Bytes;
use crate::os::asan;
use crate::span::{Generation, Info, Line, OwnedSpan, Table, bits};
use crate::sync::atomic::Ordering;

/// How to sweep.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// The generation to sweep for.
    pub generation: Generation,
    /// Whether everything that is allocated stays.
    pub retain: bool,
    /// Whether freed slots are filled with a pattern.
    pub poison: bool,
}

/// Sweeps a span, and counts what was freed.
pub fn sweep(mut span: OwnedSpan, drops: &DropQueue, how: How, writer: Writer<'_>) -> Swept {
    let How { generation, retain, poison } = how;
    let info = *span.info();
    let old = span.span().generation();
    debug_assert!(old.next() == generation, "a span missed a sweep: {old:?} -> {generation:?}");
    let (allocated, marked) = (old.table(), generation.table());
    // First of all: a finalizer keeps its object. Where everything is retained, nothing is dead.
    if span.span().has_specials() && !retain {
        drops.sweep_specials(span.span(), marked);
    }
    if info.drop.is_some() {
        return drops.sweep(span, generation, retain, writer);
    }
    if retain {
        retain_allocated(&span, allocated, marked);
    }
    if poison || asan::ON {
        bury_dead(&span, allocated, marked, poison);
    }
    let (live, before) = sweep_lines(&info, allocated, marked);
    span.set_generation(generation);
    // From here on the slots of the dead are free, with whatever the dead have left in them.
    span.set_dirty();
    debug_assert!(live <= before, "{live} marks on {before} objects");
    if live < before {
        writer.update().freed(&info, before - live);
    }
    Swept::with(span, live)
}

/// Clears what the span has in the tables, but for the marks: how many of these there are, and how many objects there
/// were.
///
/// That is 24 words for a page, and most of the work is to count their bits. A processor of this century has an
/// instruction for that, which is not part of the oldest ones that the program may run on.
fn sweep_lines(info: &Info, allocated: Table, marked: Table) -> (usize, usize) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor has it.
        return unsafe { sweep_lines_popcnt(info, allocated, marked) };
    }
    sweep_lines_anywhere(info, allocated, marked)
}

/// # Safety
/// The processor has the instruction.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt")]
unsafe fn sweep_lines_popcnt(info: &Info, allocated: Table, marked: Table) -> (usize, usize) {
    sweep_lines_anywhere(info, allocated, marked)
}

#[inline(always)]
fn sweep_lines_anywhere(info: &Info, allocated: Table, marked: Table) -> (usize, usize) {
    let (mut live, mut before) = (0, 0);
    for (page, marks) in bits::object_lines(info, marked) {
        for word in marks {
            live += word.load(Ordering::Acquire).count_ones() as usize;
        }
        before += clear(bits::line(allocated, page));
        clear(bits::line(Table::Scanned, page));
    }
    (live, before)
}

/// Clears the words of a line, and says how many bits were set.
#[inline(always)]
fn clear(line: &Line) -> usize {
    let mut set = 0;
    for word in line {
        let bits = word.load(Ordering::Relaxed);
        // Most words are clear already, and a line that is not written stays shared.
        if bits != 0 {
            set += bits.count_ones() as usize;
            // Release: a lookup that misses the bit sees the mark, and that there is a new generation.
            word.store(0, Ordering::Release);
        }
    }
    set
}

/// Marks what is allocated.
fn retain_allocated(span: &OwnedSpan, allocated: Table, marked: Table) {
    for (page, marks) in bits::object_lines(span.info(), marked) {
        for (mark, allocated) in marks.iter().zip(bits::line(allocated, page)) {
            mark.fetch_or(allocated.load(Ordering::Acquire), Ordering::AcqRel);
        }
    }
}

/// What freed memory is filled with when poisoning is on: no pointer and few numbers look like it.
pub const POISON: u8 = 0xdb;

/// Fills the slots of objects that died, if poisoning is on, and tells the address sanitizer.
fn bury_dead(span: &OwnedSpan, allocated: Table, marked: Table, poison: bool) {
    let info = *span.info();
    bits::for_each_set(&info, allocated, |object| {
        if bits::is_set(marked, object) {
            return;
        }
        if poison {
            // SAFETY: the caller of `sweep` owns the span, and an unmarked object is gone.
            unsafe { bits::fill_slot(&info, object, POISON) };
        }
        asan::forbid(object, Bytes::new(info.slot));
    });
}

#[cfg(test)]
mod tests;
