//! Pages with many objects to scan, and long slices: all pointers are gathered at once, and then marked.
//!
//! # Which pages
//! Spans of one page, of slots of at most 512 bytes, with pointers at fixed words: nearly all objects of most heaps.
//! Where at least [`DENSE`] objects are to be scanned, a kernel reads the page; below that, the
//! objects are visited one by one. The kernel costs about the same for any page, from the line of bits to the
//! last word; a visit costs as much as the object has pointer words. Where the two meet is no sharp point: in a
//! random graph of four million objects, 4, 12 and 32 made no difference that could be told from chance.
//!
//! # Safety
//! Kernels read words of marked objects, which change only atomically (T2 in [`super::mark`]).
#![allow(unsafe_code)]

use super::kernel::{Found, PAGE_WORDS, Pattern, WordMask};
use super::mark::Marker;
use super::scan::{Todo, for_each_object};
use crate::addr::{Addr, Bytes, WORD_BYTES};
use crate::span::Info;

/// A page of at least so many objects to scan is dense.
const DENSE: u64 = 12;

/// Slices of fewer words are read word by word.
const LONG: usize = 64;

/// How many patterns a worker keeps.
const PATTERNS: usize = 4;

/// Whether `objects` of a page of the span are worth a kernel.
#[inline]
fn is_dense(info: &Info, objects: u64) -> bool {
    objects >= DENSE && info.size_class.is_some() && info.pages.get() == 1
}

/// The patterns of the classes that were met last.
pub(super) struct Patterns {
    entries: [Option<(u32, Option<Pattern>)>; PATTERNS],
}

impl Patterns {
    /// None is known.
    pub const fn new() -> Patterns {
        Patterns { entries: [const { None }; PATTERNS] }
    }

    /// The pattern of the pages of a span of one page; `None`: it has none. A class has one layout.
    #[inline]
    fn of(&mut self, info: &Info, mask: u64, period: u32) -> Option<&Pattern> {
        let entry = &mut self.entries[info.class as usize % PATTERNS];
        if entry.as_ref().is_none_or(|(class, _)| *class != info.class) {
            *entry = Some((info.class, Pattern::new(info.slot, mask, period)));
        }
        entry.as_ref()?.1.as_ref()
    }
}

impl Marker<'_> {
    /// Objects of a page with pointers at fixed words, and how many they are.
    #[inline]
    pub(super) fn scan_level(
        &mut self,
        info: &Info,
        page: Addr,
        (todo, objects): (&Todo, u64),
        mask: u64,
        period: u32,
    ) {
        if is_dense(info, objects) {
            self.scan_dense(info, page, todo, mask, period);
        } else {
            self.scan_sparse(info, page, todo, mask, period);
        }
    }

    /// The same, many on their page.
    fn scan_dense(&mut self, info: &Info, page: Addr, todo: &Todo, mask: u64, period: u32) {
        let Some(pattern) = self.patterns.of(info, mask, period) else {
            return self.scan_sparse(info, page, todo, mask, period);
        };
        let words = pattern.expand(todo);
        let mut found = Found::new();
        // SAFETY: T2: these are pointer words of marked objects.
        unsafe { self.kernel.gather(page, &words, &mut found) };
        self.mark_all(found.values());
    }

    /// The same, few on their page.
    fn scan_sparse(&mut self, info: &Info, page: Addr, todo: &Todo, mask: u64, period: u32) {
        for_each_object(info, page, todo, |object| self.scan_slot(info, object, mask, period));
    }

    /// One object with pointers at fixed words.
    #[inline]
    pub(super) fn scan_slot(&mut self, info: &Info, object: Addr, mask: u64, period: u32) {
        if period == 0 {
            return self.scan_masked(object, mask);
        }
        // A slice: the mask repeats up to the end of the slot.
        let step = Bytes::new(period as usize * WORD_BYTES);
        let end = object + Bytes::new(info.slot);
        self.scan_elements(object, end, end, step, mask);
    }

    /// Gathers the pointers of `count` elements from `start` on, if they are many, and the words of a mask are whole
    /// elements; else nothing is done, and the result is false.
    #[inline]
    pub(super) fn scan_run(&mut self, start: Addr, count: usize, step: Bytes, mask: u64) -> bool {
        let period = step.get() / WORD_BYTES;
        let mut words = count * period;
        if words < LONG || !period.is_power_of_two() || period > LONG {
            return false;
        }
        let pointers = (0..LONG / period).fold(0, |all, n| all | mask << (n * period));
        let (mut at, mut found) = (start, Found::new());
        while words > 0 {
            let here = words.min(PAGE_WORDS);
            let mut page: WordMask = [pointers; 16];
            if here < PAGE_WORDS {
                page[here / 64..].fill(0);
                page[here / 64] = pointers & ((1 << (here % 64)) - 1);
            }
            // SAFETY: T2: these are pointer words of a marked object.
            unsafe { self.kernel.gather(at, &page, &mut found) };
            self.mark_all(found.values());
            at = at + Bytes::new(here * WORD_BYTES);
            words -= here;
        }
        true
    }
}
