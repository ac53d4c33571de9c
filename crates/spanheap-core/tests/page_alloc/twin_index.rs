//! The scavenge index without words: what every chunk had in use when the generation began is
//! written down for all chunks, and what it has in use now is counted by who asks.

use spanheap_core::addr::CHUNK_PAGES;
use std::collections::{BTreeMap, BTreeSet};

/// From this many pages of 512 on, that is 31 of 32, a chunk is dense.
const DENSE: usize = 496;

#[derive(Clone, Copy, Default, Debug)]
struct Cursor {
    at: Option<usize>,
    marked: bool,
}

impl Cursor {
    fn raise(&mut self, page: usize) {
        if self.at.is_none_or(|at| at < page) {
            *self = Cursor { at: Some(page), marked: true };
        }
    }
}

#[derive(Default, Debug)]
pub(crate) struct TwinIndex {
    pub(crate) generation: u32,
    /// Chunks that may have something to be returned.
    pub(crate) has_free: BTreeSet<usize>,
    /// Pages in use when this generation began, for the chunks that existed.
    at_start: BTreeMap<usize, usize>,
    /// Chunks in which something was allocated or freed in this generation.
    pub(crate) changed: BTreeSet<usize>,
    background: Cursor,
    force: Cursor,
    /// What was freed in this generation.
    freed: BTreeSet<usize>,
}

impl TwinIndex {
    /// Pages in use when this generation began.
    pub(crate) fn at_start(&self, chunk: usize) -> usize {
        self.at_start.get(&chunk).copied().unwrap_or(0)
    }

    /// Pages were allocated; now `in_use` are.
    pub(crate) fn touched(&mut self, chunk: usize, in_use: usize) {
        self.changed.insert(chunk);
        if in_use == CHUNK_PAGES {
            self.has_free.remove(&chunk);
        }
    }

    /// Pages were freed, the last of them is `page`.
    pub(crate) fn freed(&mut self, chunk: usize, page: usize) {
        self.changed.insert(chunk);
        self.has_free.insert(chunk);
        self.freed.insert(page);
        self.force.raise(page);
    }

    pub(crate) fn emptied(&mut self, chunk: usize) {
        self.has_free.remove(&chunk);
    }

    /// `in_use` has all chunks.
    pub(crate) fn next_generation(&mut self, in_use: BTreeMap<usize, usize>) {
        self.generation += 1;
        self.at_start = in_use;
        self.changed.clear();
        if let Some(page) = std::mem::take(&mut self.freed).pop_last() {
            self.background.raise(page);
        }
    }

    /// `chunks` are all, with the pages in use, in rising order.
    pub(crate) fn find(&mut self, force: bool, chunks: &[(usize, usize)]) -> Option<usize> {
        let mut cursor = if force { self.force } else { self.background };
        let at = cursor.at?;
        let wanted = |&&(chunk, in_use): &&(usize, usize)| {
            let was = if self.changed.contains(&chunk) { self.at_start(chunk) } else { 0 };
            let sparse = in_use < DENSE && was < DENSE;
            chunk <= at / CHUNK_PAGES && self.has_free.contains(&chunk) && (force || sparse)
        };
        let found = chunks.iter().rev().find(wanted).map(|(chunk, _)| *chunk);
        let answer = match found {
            Some(chunk) if chunk == at / CHUNK_PAGES => Some(at),
            Some(chunk) => {
                cursor = Cursor { at: Some((chunk + 1) * CHUNK_PAGES - 1), marked: false };
                cursor.at
            }
            None => {
                cursor.at = cursor.at.filter(|_| cursor.marked);
                None
            }
        };
        *(if force { &mut self.force } else { &mut self.background }) = cursor;
        answer
    }
}
