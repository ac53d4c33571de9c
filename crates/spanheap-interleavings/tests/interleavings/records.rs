//! What a signal handler reads about freed arenas: records and tables that are written, appended to and recycled
//! while somebody reads who waits for nobody.
//!
//! # Safety
//! A record ends when nobody notes anything in its chunk.

use crate::addr::{Addr, AddrRange, Bytes};
use crate::checker::explore;
use crate::mutant;
use core::panic::Location;
use loom::sync::{Arc, Mutex};
use loom::thread;

/// The files under test, and their mutants.
mod sites {
    crate::code! { link objects objects_renewed_unfenced objects_start_relaxed objects_entry_shared }
    crate::code! { records records_written_unfenced records_read_unfenced records_version_late }
    crate::code! { records_renewed_unfenced records_start_relaxed }
    crate::code! { records_entry_shared }
}

/// Records and tables are there for ever.
fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// The chunk that all records are of.
fn chunk() -> AddrRange {
    AddrRange::at(Addr::new(4096), Bytes::new(4096))
}

/// A value at that address.
macro_rules! object {
    ($objects:ident, $at:expr, $name:expr) => {
        sites::$objects::Object {
            start: Addr::new($at),
            bytes: Bytes::new(16),
            name: $name,
            is_slice: false,
            site: Location::caller(),
        }
    };
}

/// A record of a chunk of arena 1.
macro_rules! record {
    ($records:ident) => {{
        let record = leak(sites::$records::Record::new());
        record.begin(chunk());
        bury!($records, record, 1);
        record
    }};
}

/// Everything that is said of an arena follows from its number.
macro_rules! bury {
    ($records:ident, $record:expr, $number:expr) => {{
        let name = sites::$records::Name::of("");
        let freed = [sites::$records::Freed::Dropped, sites::$records::Freed::Unreachable];
        $record.bury($number, &name, freed[$number % 2], $number, 0)
    }};
}

/// A record is used for another arena while it is read.
macro_rules! reads_one_life {
    ($records:ident) => {
        explore(3, || {
            let record = record!($records);
            let writer = thread::spawn(move || bury!($records, record, 2));
            if let Some(grave) = record.read(chunk().base()) {
                assert_eq!(grave.arena, grave.nanos, "one life");
                let dropped = sites::$records::Freed::Dropped;
                assert_eq!(grave.freed == dropped, grave.arena == 2, "one life");
            }
            writer.join().expect("it ends");
            assert_eq!(record.read(chunk().base()).expect("nobody writes").arena, 2);
        })
    };
}

#[test]
fn a_record_is_read_in_one_life() {
    reads_one_life!(records);
}

mutant!(a_write_without_its_fence_is_found, "one life", reads_one_life!(records_written_unfenced));
mutant!(a_read_without_its_fence_is_found, "one life", reads_one_life!(records_read_unfenced));
mutant!(a_version_that_stays_even_is_found, "one life", reads_one_life!(records_version_late));
/// One thread ends a record, another one uses its block for a value at the same address.
macro_rules! reads_one_table {
    ($records:ident, $objects:ident) => {
        explore(2, || {
            let record = record!($records);
            let block = leak(sites::$objects::Block::new());
            record.note(&object!($objects, 4096, "first"), || Some(block));
            let free = Arc::new(Mutex::new(None));
            let pool = free.clone();
            let first = thread::spawn(move || {
                // SAFETY: nothing is noted any more.
                let blocks = unsafe { record.end() };
                *pool.lock().expect("not poisoned") = blocks;
            });
            let second = thread::spawn(move || {
                let block: Option<&'static sites::$objects::Block> =
                    free.lock().expect("not poisoned").take();
                if let Some(block) = block {
                    block.renew();
                    assert!(block.note(&object!($objects, 4096, "the second")));
                }
            });
            if let Some(grave) = record.read(chunk().base()) {
                let object = grave.object.expect("it was noted before");
                assert_eq!(object.name, "first", "one life");
            }
            first.join().expect("it ends");
            second.join().expect("it ends");
        })
    };
}

#[test]
fn a_table_is_read_in_one_life() {
    reads_one_table!(records, objects);
}

mutant!(
    a_table_that_is_renewed_without_a_fence_is_found,
    "one life",
    reads_one_table!(records_renewed_unfenced, objects_renewed_unfenced)
);

/// Two threads note a value each, while somebody reads.
macro_rules! finds_complete_values {
    ($records:ident, $objects:ident) => {
        explore(2, || {
            let record = record!($records);
            let block = leak(sites::$objects::Block::new());
            record.note(&object!($objects, 6000, "those"), || Some(block));
            // There is one more entry in the block.
            let note = move |at, name| {
                let block = leak(sites::$objects::Block::new());
                record.note(&object!($objects, at, name), || Some(block));
            };
            let other = thread::spawn(move || note(4096, "this"));
            let reader = thread::spawn(move || {
                let grave = record.read(Addr::new(4096)).expect("it was freed before");
                assert!(grave.object.is_none_or(|object| object.name == "this"), "complete");
            });
            note(8000, "that");
            other.join().expect("it ends");
            reader.join().expect("it ends");
            for (at, name) in [(4096, "this"), (6000, "those"), (8000, "that")] {
                let object = record.read(Addr::new(at)).expect("it was freed").object;
                assert_eq!(object.expect("nothing is lost").name, name);
            }
        })
    };
}

#[test]
fn a_value_is_found_complete_or_not_at_all() {
    finds_complete_values!(records, objects);
}

mutant!(
    a_value_that_is_published_early_is_found,
    "",
    finds_complete_values!(records_start_relaxed, objects_start_relaxed)
);
mutant!(
    an_entry_of_two_values_is_found,
    "nothing is lost",
    finds_complete_values!(records_entry_shared, objects_entry_shared)
);
