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
//! It also finds what a wrong `Trace` does to other objects: edges to slots that hold no object; and to places in user
//! arenas where no value begins, which marking itself cannot tell.
//!
//! # Pointers that a trace function misses
//! The second mark uses the same trace functions as the first, so it is blind to what they leave out. On request
//! (`verify_trace`) it looks for itself: it reads each object word by word, and a word that is the exact address
//! of an object of this heap, that the object's trace has not reported, and that *nobody* has marked, is
//! a pointer that was missed. The object that it leads to would be freed in this very cycle.
//!
//! A word may also be a number that looks like an address, or what is left of an earlier variant of an enum. So:
//! - only the option looks, and it alone makes this an error;
//! - it reads only what belongs to the value (types are kept apart in this mode, so sizes are known), and no type
//!   that is right by construction ([`TypeInfo::exact`]): derived, from fields whose types are;
//! - what is marked is never reported, since nothing bad can come of it in this cycle. A pointer that is missed
//!   is found in the cycle that would free its target.
//!
//! What a value owns in other memory, such as the elements of a `Vec`, is not looked at.
//!
//! This is the one place where threads wait for the collector, and only if the option was asked for. A
//! closure that waits for another thread's closure to begin would wait for ever.
//!
//! # Safety
//! The check tables are memory of this mode alone. Objects are read while no mutator is inside; where words are
//! read whatever they are, the reads are volatile, and of memory that belongs to an initialised object.
#![allow(unsafe_code)]

use super::mark;
use crate::addr::{Addr, Bytes, GRANULE_BYTES, WORD_BYTES};
use crate::fatal::{contain_with, fatal};
use crate::heap::Central;
use crate::os::{Category, OsError};
use crate::span::arena::TABLE_BYTES;
use crate::span::specials::Kind;
use crate::span::{
    Chunk, EdgeSink, EphemeronCell, Generation, HeapArena, Info, Layout, Reader, Span, TraceFn,
    Tracer, bits, lookup, map,
};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::collections::{HashMap, HashSet};

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
    /// Whether to look for pointers that trace functions miss.
    doubts: bool,
    /// What the object that is being walked has reported, if there are doubts.
    reported: Vec<Addr>,
    checked: Checked,
    /// Keys that were not reached yet, by their granules, with the values of their ephemerons.
    waiting: HashMap<usize, Vec<(Addr, Addr)>>,
    /// Where values with headers begin, in the chunks of user arenas that were met, by the addresses of these.
    starts: HashMap<Addr, HashSet<Addr>>,
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
        doubts: central.switches().verify_trace(),
        reported: Vec::new(),
        checked: Checked::default(),
        waiting: HashMap::new(),
        starts: HashMap::new(),
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

/// The span of the object at `object`, which has been found in this heap.
fn description_of(object: Addr) -> Option<Info> {
    // SAFETY: M2: the caller has found the object.
    let arena = unsafe { &*map::find(object) };
    // SAFETY: P3: this is the collector's thread, or a test's that is alone.
    unsafe { arena.span(object.page_in_arena()).as_ref() }.map(|span| *span.info())
}

/// The chunk of a user arena in which a value was found.
fn chunk_of(value: Addr) -> Option<&'static Chunk> {
    // SAFETY: as in `description_of`.
    let arena = unsafe { &*map::find(value) };
    // SAFETY: as above.
    unsafe { arena.span(value.page_in_arena()).as_ref() }?.chunk()
}

impl Check<'_> {
    /// Whether reachable values of the span may be unmarked, because they may be of the second arming phase: nothing
    /// depends on the marks of those. What they lead to has to be marked.
    fn is_pale(&self, span: &Span) -> bool {
        span.chunk().is_some_and(|chunk| chunk.is_paled(self.generation.get()))
    }

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
        let Some(info) = description_of(object) else { return };
        self.parent = object;
        self.reported.clear();
        let (info, count) = match self.value_in(&info, object) {
            Some(found) => found,
            // SAFETY: the object is reachable, so it is initialised.
            None => (info, unsafe { info.count(object) }),
        };
        match info.layout {
            Layout::NoScan => {}
            Layout::Words { mask, period } => self.walk_words(&info, object, mask, period),
            Layout::Traced(trace) => {
                if !self.walk_traced(&info, object, trace, count) {
                    return;
                }
            }
        }
        if self.doubts {
            self.look_for_missed(&info, object, count);
        }
    }

    /// What a value in a shared chunk of a user arena would be if it was an object with a span for itself, and how many values
    /// of its type it is; `None` for an object. (A value in a chunk beside is described by its span.)
    fn value_in(&self, info: &Info, at: Addr) -> Option<(Info, usize)> {
        let chunk = chunk_of(at)?;
        if chunk.is_beside() {
            return None;
        }
        // SAFETY: the value is reachable, so it is complete.
        let Some(value) = (unsafe { chunk.value_at(at.align_down(GRANULE_BYTES)) }) else {
            return Some((*info, 1));
        };
        let (ty, count) = (value.ty, value.count);
        let (slot, layout) = (value.bytes().get(), value.layout());
        Some((Info { slot, layout, ty: Some(ty), type_name: ty.name, ..*info }, count))
    }

    /// Whether a value begins at `target`, which lies in the chunk of a user arena.
    fn is_value(&mut self, chunk: &Chunk, target: Addr) -> bool {
        // SAFETY: the chunk is not quarantined, and nobody is inside.
        let may_be = unsafe { chunk.may_begin_at(target) };
        if !may_be || chunk.is_beside() || target >= chunk.high() {
            return may_be;
        }
        let starts = self.starts.entry(chunk.range().base()).or_insert_with(|| {
            let mut starts = HashSet::new();
            // SAFETY: as above.
            unsafe { chunk.for_each_value(|value| starts.insert(value.start)) };
            starts
        });
        starts.contains(&target)
    }

    fn walk_words(&mut self, info: &Info, object: Addr, mask: u64, period: u32) {
        let step = if period == 0 { info.slot.max(1) } else { period as usize * WORD_BYTES };
        for element in (0..info.slot / step).map(|n| object + Bytes::new(n * step)) {
            bits::for_each_bit(mask, |word| {
                let field = element + Bytes::new(word as usize * WORD_BYTES);
                // SAFETY: a pointer field of an initialised object.
                let field = unsafe { &*field.as_ptr::<AtomicUsize>() };
                self.edge(Addr::new(field.load(Ordering::Acquire)));
            });
        }
    }

    /// False when the trace function has panicked.
    fn walk_traced(&mut self, info: &Info, object: Addr, trace: TraceFn, count: usize) -> bool {
        let central = self.central;
        let run = || {
            // SAFETY: nobody is inside, so everything is ours.
            let mut tracer = unsafe { Tracer::new(self, Reader::Everything) };
            // SAFETY: the layout says that the function is for objects like this one.
            unsafe { trace(object.as_ptr(), count, &mut tracer) };
        };
        let tell = |payload: &_| central.trace_panicked((info.type_name)(), payload);
        contain_with(run, tell).is_some()
    }

    /// Looks for pointers in `object` that it has not reported, and that nobody has followed.
    fn look_for_missed(&mut self, info: &Info, object: Addr, count: usize) {
        let Some(ty) = info.ty.filter(|ty| !ty.exact) else { return };
        let bytes = match info.layout {
            Layout::Traced(_) => ty.size * count,
            // The words behind the last element of a slice are zero.
            Layout::Words { period, .. } if period != 0 => info.slot,
            // How many there are is not known; the first one is enough to find the type out.
            _ => ty.size,
        };
        // Small values may share a slot.
        let in_slot = object.bytes_since(info.base).get() % info.slot;
        let bytes = bytes.min(info.slot - in_slot);
        for offset in (0..bytes / WORD_BYTES).map(|word| word * WORD_BYTES) {
            let word = (object + Bytes::new(offset)).as_ptr::<usize>();
            // SAFETY: a word of an initialised object, aligned as every slot is. It may be padding, whose value is
            // whatever the memory holds: hence volatile. Nobody is inside, so nobody writes.
            let target = Addr::new(unsafe { word.read_volatile() });
            let Some(span) = lookup::object_start(self.central.number(), target) else { continue };
            if self.reported.contains(&target) || bits::is_set(self.generation.table(), target) {
                continue;
            }
            fatal(format_args!(
                "the `Trace` of {} is wrong: the word at offset {offset} of the object at {object} points to \
                 {target}, a {}, and is not reported; nothing else keeps that object (cycle {})",
                (ty.name)(),
                span.info().describe_type(),
                self.generation.get(),
            ));
        }
    }

    /// What is known of the type of the object that is being walked.
    fn parent_type(&self) -> String {
        match self.parent.is_null() {
            true => "root".to_owned(),
            false => description_of(self.parent).map_or_else(String::new, |i| i.describe_type()),
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
        if self.doubts {
            self.reported.push(target);
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
        // SAFETY: as in `description_of`.
        let span = unsafe { arena.span(target.page_in_arena()).as_ref() };
        let Some(span) = span.filter(|span| span.is_in_use() || span.is_arena()) else {
            fatal(format_args!(
                "checkmark: the object at {} (a {}) points to {target}, where there is no span",
                self.parent,
                self.parent_type(),
            ));
        };
        if !bits::is_set(self.generation.table(), target) && !self.is_pale(span) {
            fatal(format_args!(
                "checkmark found an unmarked object at {target} (a {}), reachable through the object at {} \
                 (a {}) in cycle {}",
                span.info().describe_type(),
                self.parent,
                self.parent_type(),
                self.generation.get(),
            ));
        }
        self.checked.objects += 1;
        if span.is_quarantined() {
            // There is nothing to walk; but its address has to be kept, which the mark says.
            return;
        }
        if span.chunk().is_some_and(|chunk| !self.is_value(chunk, target)) {
            fatal(format_args!(
                "checkmark: the object at {} (a {}) points to {target} in a user arena, where no value begins",
                self.parent,
                self.parent_type(),
            ));
        }
        self.todo.push(target);
    }
}
