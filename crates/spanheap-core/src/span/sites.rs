//! Where user arenas were freed, and where their values were allocated: what a handler for faults tells.
//!
//! The pages of an arena that was freed fault, so that a pointer that outlived its arena is found out at its first use.
//! A fault by itself names an address. With [`report_faults`] the process ends with one line instead, such as
//!
//! ```text
//! spanheap: use after arena free: arena #7 "request" freed at src/api.rs:88:5 (thread 4711, 4.2 ms ago);
//! object Node (64 bytes) allocated at src/parse.rs:41:9; address 0xc000412348; read by thread 4715
//! ```
//!
//! (in *one* line), and with the exit code [`EXIT_CODE`]. The middle part is there if the heap notes values
//! ([`record_sites`](crate::collect::Options)): their types and the places in the program that allocated them. That
//! costs 32 bytes and about a hundred nanoseconds for each, and is for finding an error that has been seen.
//!
//! | file | what |
//! |---|---|
//! | `records` | what is known of a chunk; readable at any moment |
//! | `objects` | the values in a chunk |
//! | `memory` | where both lie: for ever, outside of all heaps |
//! | `link` | pointers to what is there for ever |
//! | `report` | from an address to a line of text |
//!
//! # Life of a record
//! ```text
//! first value noted, or arena freed ... the chunk gets a record (if anybody is going to read it)
//! each value .......................... an entry of its table
//! logical free ........................ who, where, when
//! physical free ....................... the pages fault from here on; the record is not touched
//! end of the quarantine, of the heap .. the record is nobody's, its blocks serve others
//! ```
//! So a record says everything before a fault can happen, and is there as long as one can. (The system call that makes
//! the pages fault comes after the record on the thread that makes it, and a processor that takes the fault has seen
//! its effect; through that, the kernel orders the two.)
//!
//! # What is not told
//! Where the system cannot make pages fault ([`Guarding::ReadsZero`](crate::os::Guarding)), there is nothing to handle.
//! An arena that was freed before the handler was installed, in a heap that notes no values, is not known. Nor is one
//! for which there was no more memory (`memory`). Such faults are passed on.
//!
//! # Safety
//! One contract, of [`Sites::end`]: nobody notes values in a chunk that has ended.
#![allow(unsafe_code)]

mod link;
mod memory;
mod objects;
mod records;
mod report;

pub use crate::os::fault::{AfterReport, EXIT_CODE, InstallError};
pub(crate) use records::Freed;

use crate::addr::{Addr, AddrRange, Bytes};
use crate::os::{clock, fault, thread};
use crate::span::TypeInfo;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::panic::Location;
use link::Link;
use memory::Memory;
use objects::Object;
use records::{Name, Noted, Record};
use report::Reporter;

/// Installs a handler for SIGSEGV and SIGBUS, for the life of the process, which tells of uses of freed arenas in all
/// heaps and ends the process. Other faults are passed on to what was installed before. When it is there already, only
/// `after` is noted.
///
/// # Errors
/// When the system refuses; nothing has changed.
pub fn report_faults(after: AfterReport) -> Result<(), InstallError> {
    fault::install::<Reporter>(after)
}

/// What a heap notes about its arenas.
pub(crate) struct Sites {
    memory: Memory,
    /// Whether values are noted.
    notes_values: AtomicBool,
    /// Chunks and values for which there was no room.
    missed: AtomicU64,
}

/// What is noted about a chunk: lies in the chunk's own record.
pub(crate) struct ChunkSites {
    record: Link<Record>,
}

impl ChunkSites {
    /// Nothing is known: as in zeroed memory.
    #[cfg(test)]
    pub(crate) const fn new() -> ChunkSites {
        ChunkSites { record: Link::none() }
    }
}

/// A value that was allocated in a chunk.
#[derive(Clone, Copy)]
pub(crate) struct Allocated {
    pub(crate) start: Addr,
    /// The size of all of it.
    pub(crate) bytes: Bytes,
    /// Its type, or that of its elements, if it has one.
    pub(crate) ty: Option<&'static TypeInfo>,
    pub(crate) is_slice: bool,
    /// Who has asked for it.
    pub(crate) site: &'static Location<'static>,
}

impl Sites {
    /// Nothing is known, and values are not noted.
    pub(crate) const fn new() -> Sites {
        let notes_values = AtomicBool::new(false);
        Sites { memory: Memory::new(), notes_values, missed: AtomicU64::new(0) }
    }

    /// Whether values are noted.
    pub(crate) fn notes_values(&self) -> bool {
        self.notes_values.load(Ordering::Relaxed)
    }

    /// Says whether they are, from now on.
    pub(crate) fn set_notes_values(&self, on: bool) {
        self.notes_values.store(on, Ordering::Relaxed);
    }

    /// Whether anybody is going to ask about arenas that are freed now.
    pub(crate) fn is_asked(&self) -> bool {
        self.notes_values() || fault::is_installed()
    }

    /// How many chunks and values are not known for want of room.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Notes a value in a chunk.
    pub(crate) fn note(&self, sites: &ChunkSites, chunk: AddrRange, value: &Allocated) {
        let object = Object {
            start: value.start,
            bytes: value.bytes,
            // Asked for here and not in a signal handler: it is somebody else's code.
            name: value.ty.map_or("", |ty| (ty.name)()),
            is_slice: value.is_slice,
            site: value.site,
        };
        let noted = match self.record(sites, chunk) {
            Some(record) => record.note(&object, || self.memory.block()),
            None => Noted::NoRoom,
        };
        if noted == Noted::NoRoom {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that the arena of a chunk was freed. To be called before its pages fault.
    pub(crate) fn free(&self, sites: &ChunkSites, chunk: AddrRange, end: &End<'_>) {
        match self.record(sites, chunk) {
            Some(record) => {
                record.bury(end.arena, &Name::of(end.name), end.freed, end.nanos, end.thread);
            }
            None => _ = self.missed.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Forgets what is known: the pages of the chunk do not fault any more, or are gone.
    ///
    /// # Safety
    /// No call of [`note`](Sites::note) for this chunk is under way, or will be made before another chunk is begun with
    /// these `sites`.
    pub(crate) unsafe fn end(&self, sites: &ChunkSites) {
        if let Some(record) = sites.record.take() {
            // SAFETY: the caller promises it, and `take` gives the record to one caller.
            let blocks = unsafe { record.end() };
            self.memory.give_back(record, blocks);
        }
    }

    /// The record of a chunk, which gets one if it has none.
    fn record(&self, sites: &ChunkSites, chunk: AddrRange) -> Option<&'static Record> {
        if let Some(record) = sites.record.get(Ordering::Acquire) {
            return Some(record);
        }
        let new = self.memory.record()?;
        new.begin(chunk);
        match sites.record.replace(None, new) {
            Ok(()) => Some(new),
            Err(other) => {
                // SAFETY: nobody has been told of this record.
                let blocks = unsafe { new.end() };
                self.memory.give_back(new, blocks);
                other
            }
        }
    }
}

/// The end of an arena: the same for all of its chunks.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    arena: u64,
    name: &'a str,
    freed: Freed,
    nanos: u64,
    thread: i32,
}

impl<'a> End<'a> {
    /// The arena of that number and name, which may be empty, is freed at this moment by this thread.
    pub(crate) fn now(arena: u64, name: &'a str, freed: Freed) -> End<'a> {
        let (nanos, thread) = (clock::monotonic_nanos(), thread::current_id());
        End { arena, name, freed, nanos, thread }
    }
}

#[cfg(test)]
mod tests;
