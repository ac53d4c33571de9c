//! Scanning a page of a chunk of a user arena: its values are found by their headers.
//!
//! Values in a chunk beside are scanned like large objects, in [`super::scan`], and never get here, but for leaves.
//!
//! A chunk in quarantine has no memory. That a mark has been set there says that somebody still points to it: that
//! is counted, and nothing is read. No chunk gets there while a cycle marks.
//!
//! # Safety
//! Reads headers and words of marked values: they were written before the value was published, and the memory of
//! a chunk that is not quarantined stays until marking has ended.
#![allow(unsafe_code)]

use super::mark::Marker;
use super::scan::{Todo, for_each_object};
use crate::addr::{Addr, Bytes, GRANULE_BYTES, WORD_BYTES};
use crate::span::chunk::Value;
use crate::span::{Chunk, Info, Layout, Span, Table, bits};

impl Marker<'_> {
    /// Follows the pointers of the values of `todo`, of a page of a chunk. They have been counted as objects.
    #[cold]
    pub(super) fn scan_chunk(&mut self, span: &Span, chunk: &Chunk, page: Addr, todo: &Todo) {
        let info = span.info();
        let count: u64 = todo.iter().map(|word| u64::from(word.count_ones())).sum();
        self.uncount(count, Bytes::ZERO);
        if span.is_quarantined() {
            chunk.add_escapes(count);
            return;
        }
        if chunk.is_beside() {
            return;
        }
        let mut locked = false;
        for_each_object(info, page, todo, |granule| {
            // SAFETY: the granule has a mark, and the memory is there.
            let Some(value) = (unsafe { chunk.value_at(granule) }) else { return };
            self.tally.work += value.bytes().get() as u64;
            locked |= self.scan_value(info, &value);
        });
        if locked {
            // What does not fit is found by a rescan when it is time to try again.
            let _ = self.crew.put_aside(page);
        }
    }

    /// Follows the pointers of a value; true if it has met a lock that was taken, and is not scanned then.
    fn scan_value(&mut self, info: &Info, value: &Value) -> bool {
        match value.layout() {
            Layout::NoScan => {}
            Layout::Words { mask, period: 0 } => self.scan_masked(value.start, mask),
            Layout::Words { mask, period } => {
                let step = Bytes::new(period as usize * WORD_BYTES);
                for index in 0..value.count {
                    self.scan_masked(value.start + Bytes::new(step.get() * index), mask);
                }
            }
            Layout::Traced(trace) => {
                let Value { start, ty, count } = *value;
                let named = Info { type_name: ty.name, ..*info };
                // SAFETY: the header says that the function is for values like these, which are marked.
                let run = |marker: &mut Self| unsafe { marker.trace(trace, start, count) };
                match self.contained(&named, run) {
                    Some(false) => {}
                    Some(true) => {
                        let granule = start.align_down(GRANULE_BYTES);
                        bits::clear(Table::Scanned, granule);
                        return true;
                    }
                    None => self.crew.set_broken(),
                }
            }
        }
        false
    }
}
