//! Checkmark mode: mark again while nothing else runs, and compare.
//!
//! The concurrent mark is right if it has marked everything that can be reached. After a clean round this
//! mode closes the gate: nobody may begin a closure, and when the last one has ended, no thread holds a
//! pointer, so the root table is all there is. Then a second mark, as simple as can be and with bits of
//! its own, walks everything from the roots and looks at each object's mark bit. An object without it would
//! have been freed under the program's feet: that is fatal, and the report names the object, its type
//! and who points to it.
//!
//! An ephemeron's value is reached when both the ephemeron and its key are. And it is checked what marking has
//! decided: a weak pointer leads to a marked object, its handle is marked, and no ephemeron has a dead key.
//!
//! It also finds what a wrong `Trace` does to other objects: edges to slots that hold no object.
//!
//! This is the one place where threads wait for the collector, and only if the option was asked for. A
//! closure that waits for another thread's closure to begin would wait for ever.
//!
//! # Safety
//! The check tables are memory of this mode alone. Objects are read while no mutator is inside.
#![allow(unsafe_code)]

use super::mark;
use crate::addr::{Addr, Bytes, GRANULE_BYTES, WORD_BYTES};
use crate::fatal::fatal;
use crate::heap::Central;
use crate::os::{Category, OsError};
use crate::span::arena::TABLE_BYTES;
use crate::span::specials::Kind;
use crate::span::{
    EdgeSink, EphemeronCell, Generation, HeapArena, Layout, Reader, Tracer, bits, map,
};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::collections::HashMap;

/// What a check has seen.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Checked {
    /// Objects that can be reached.
    pub objects: u64,
}

struct Check<'a> {
    central: &'a Central,
    generation: Generation,
    /// Objects that were reached and not walked yet. A verification mode may use the global allocator.
    todo: Vec<Addr>,
    parent: Addr,
    checked: Checked,
    /// Keys that were not reached yet, by their granules, with the values of their ephemerons.
    waiting: HashMap<usize, Vec<(Addr, Addr)>>,
}

/// Compares the marks of `cycle` with what can be reached from `roots`.
///
/// Aborts the process when a reachable object is not marked.
///
/// # Errors
/// When there is no memory for the second set of marks; nothing has been checked then.
pub fn check(
    central: &Central,
    cycle: u32,
    roots: impl FnOnce(&mut dyn FnMut(Addr)),
) -> Result<Checked, OsError> {
    prepare(central)?;
    let mut check = Check {
        central,
        generation: Generation::new(cycle),
        todo: Vec::new(),
        parent: Addr::NULL,
        checked: Checked::default(),
        waiting: HashMap::new(),
    };
    roots(&mut |root| check.edge(root));
    while let Some(object) = check.todo.pop() {
        check.walk(object);
        for (_, value) in check.waiting.remove(&granule(object)).unwrap_or_default() {
            check.edge(value);
        }
    }
    check.look_at_keys();
    check.look_at_weak_pointers();
    Ok(check.checked)
}

/// What an object's bits stand for.
fn granule(object: Addr) -> usize {
    object.get() / GRANULE_BYTES
}

/// Gives every arena a clean check table.
fn prepare(central: &Central) -> Result<(), OsError> {
    for arena in central.pages().arenas() {
        let table = arena.check_table();
        if table.is_null() {
            let table = central.os().alloc(Bytes::new(TABLE_BYTES), Category::SideTables)?;
            arena.set_check_table(table);
        } else {
            // SAFETY: the table is this mode's own memory, and only one check runs at a time.
            unsafe { table.as_ptr::<u8>().write_bytes(0, TABLE_BYTES) };
        }
    }
    Ok(())
}

/// Returns the check tables to the system.
pub fn release(central: &Central) {
    for arena in central.pages().arenas() {
        let table = arena.check_table();
        if !table.is_null() {
            let range = crate::addr::AddrRange::at(table, Bytes::new(TABLE_BYTES));
            arena.set_check_table(Addr::NULL);
            let (os, bytes) = (central.os(), range.bytes());
            // SAFETY: O1: `prepare` got the table from this `os`, and the arena has forgotten it. O2:
            // only a check uses it, and none runs while the heap is taken down.
            unsafe { os.release(range, Category::SideTables, bytes, bytes) };
        }
    }
}

impl Check<'_> {
    fn is_marked(&self, object: Addr) -> bool {
        mark::is_marked(self.central.number(), self.generation.table(), object)
    }

    /// Keys that cannot be reached now may have been when marking began; else their ephemerons are cleared.
    fn look_at_keys(&self) {
        for &(key, value) in self.waiting.values().flatten() {
            if !self.is_marked(key) {
                let cycle = self.generation.get();
                fatal(format_args!(
                    "checkmark found an ephemeron with the dead key {key} and the value {value} in cycle {cycle}"
                ));
            }
        }
    }

    /// Handles lead to marked objects, and are marked.
    fn look_at_weak_pointers(&self) {
        for arena in self.central.pages().arenas() {
            for page in arena.special_pages() {
                // SAFETY: P3: spans with records are in use; none is freed before the sweep.
                let Some(span) = (unsafe { arena.span(page).as_ref() }) else { continue };
                let records = span.specials();
                for record in records.iter().filter(|record| record.kind == Kind::Weak) {
                    let handle = Addr::new(record.payload[0]);
                    // SAFETY: the payload of such a record is the address of a handle.
                    let word = unsafe { &*handle.as_ptr::<AtomicUsize>() };
                    let target = Addr::new(word.load(Ordering::Acquire));
                    let object = record.object;
                    if target != object || !self.is_marked(object) || !self.is_marked(handle) {
                        fatal(format_args!(
                            "checkmark found the weak handle at {handle} with the target {target}, for {object}, in \
                             cycle {}: both should be marked",
                            self.generation.get(),
                        ));
                    }
                }
            }
        }
    }

    /// Reports the pointers of `object`.
    fn walk(&mut self, object: Addr) {
        // SAFETY: `edge` has found the object in this heap.
        let arena = unsafe { &*map::find(object) };
        // SAFETY: P3: this is the collector's thread, or a test's that is alone.
        let Some(span) = (unsafe { arena.span(object.page_in_arena()).as_ref() }) else { return };
        let info = *span.info();
        self.parent = object;
        match info.layout {
            Layout::NoScan => {}
            Layout::Words { mask, period } => {
                let step = if period == 0 { info.slot } else { period as usize * WORD_BYTES };
                for element in (0..info.slot / step).map(|n| object + Bytes::new(n * step)) {
                    bits::for_each_bit(mask, |word| {
                        let field = element + Bytes::new(word as usize * WORD_BYTES);
                        // SAFETY: a pointer field of an initialised object.
                        let field = unsafe { &*field.as_ptr::<AtomicUsize>() };
                        self.edge(Addr::new(field.load(Ordering::Acquire)));
                    });
                }
            }
            Layout::Traced(trace) => {
                // SAFETY: the object is reachable, so it is initialised.
                let count = unsafe { info.count(object) };
                // SAFETY: nobody is inside, so everything is ours.
                let mut tracer = unsafe { Tracer::new(self, Reader::Everything) };
                // SAFETY: the layout says that the function is for objects like this one.
                unsafe { trace(object.as_ptr(), count, &mut tracer) };
            }
        }
    }
}

impl Check<'_> {
    /// The word of the arena's check table that has the bit of `target`, and the bit.
    fn check_bit(arena: &HeapArena, target: Addr) -> (&AtomicU64, u64) {
        let granule = target.granule_in_arena();
        let word = arena.check_table() + Bytes::new(granule / 64 * WORD_BYTES);
        // SAFETY: the check table has a bit for every granule of the arena, and is the collector thread's.
        (unsafe { &*word.as_ptr::<AtomicU64>() }, 1 << (granule % 64))
    }
}

impl EdgeSink for Check<'_> {
    fn ephemeron(&mut self, cell: &EphemeronCell) {
        let (key, value) = (cell.key(), cell.value());
        // SAFETY: M2.
        let Some(arena) = (unsafe { map::find(key).as_ref() }) else { return };
        let (word, bit) = Self::check_bit(arena, key);
        if word.load(Ordering::Relaxed) & bit != 0 {
            self.edge(value);
        } else {
            self.waiting.entry(granule(key)).or_default().push((key, value));
        }
    }

    fn edge(&mut self, target: Addr) {
        if target.is_null() {
            return;
        }
        // SAFETY: M2.
        let arena = unsafe { map::find(target).as_ref() };
        let Some(arena) = arena.filter(|arena| arena.heap() == self.central.number()) else {
            return;
        };
        let (word, bit) = Self::check_bit(arena, target);
        if word.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return;
        }
        // SAFETY: as in `walk`.
        let span = unsafe { arena.span(target.page_in_arena()).as_ref() };
        let Some(span) = span.filter(|span| span.is_in_use()) else {
            fatal(format_args!(
                "checkmark: {} points to {target}, where there is no span",
                self.parent
            ));
        };
        if !bits::is_set(self.generation.table(), target) {
            fatal(format_args!(
                "checkmark found an unmarked object at {target} (a {} or a type of the same layout), \
                 reachable through the object at {} in cycle {}",
                (span.info().type_name)(),
                self.parent,
                self.generation.get(),
            ));
        }
        self.checked.objects += 1;
        self.todo.push(target);
    }
}
