//! Classes of spans: one for every pair of size class and layout that a heap has met, with its set of
//! spans.
//!
//! A class is made when its first object is allocated and lives as long as its heap. Finding one is a
//! walk down a hash chain without a lock; making one takes the table's lock. `names` says which types use it.
//!
//! # Locking
//! [`Rank::Classes`] to add a class; the spans of a class are in several [`SpanSet`]s, each with a lock of its own.
//!
//! # Safety
//! Class records are made in persistent memory and never freed before the heap, which is what makes
//! `&'static Class` honest inside it; C1 below.
//! - C1. No reference to a class is used after its heap was dropped: all of them live in mutators, spans
//!   and the collector, which are gone by then.
#![allow(unsafe_code)]

mod names;

pub use names::Noted;

use crate::addr::Bytes;
use crate::offheap::Persistent;
use crate::os::{Category, Os, OsError};
use crate::span::size_class::SizeClass;
use crate::span::{
    Backlog, Counting, DropFn, Generation, Layout, OwnedSpan, SpanSet, SpanShards, TypeInfo,
};
use crate::sync::atomic::{AtomicPtr, Ordering};
use crate::sync::{Lock, Rank};
use core::ptr::{self, NonNull};
use names::TypeNames;

/// What makes two spans interchangeable.
#[derive(Clone, Copy, Debug)]
pub struct ClassKey {
    /// The size of slots; `None` for large objects, each in a span of its own.
    pub size_class: Option<SizeClass>,
    /// Where the pointers of an object lie.
    pub layout: Layout,
    /// Whether objects say how many values they hold.
    pub counting: Counting,
    /// What to do with dead values.
    pub drop: Option<DropFn>,
    /// The type, where types have spans of their own.
    pub ty: Option<&'static TypeInfo>,
}

impl ClassKey {
    /// The key of objects that hold a single value of `ty`.
    pub const fn of(ty: &TypeInfo) -> ClassKey {
        ClassKey {
            size_class: ty.size_class,
            layout: ty.layout(),
            counting: Counting::One,
            drop: ty.drop,
            ty: None,
        }
    }

    /// The key of objects that hold a slice of values of `ty` in slots of `size_class`.
    pub const fn of_slice(ty: &TypeInfo, size_class: Option<SizeClass>) -> ClassKey {
        ClassKey {
            size_class,
            layout: ty.slice_layout(),
            counting: ty.slice_counting(),
            drop: ty.drop,
            ty: None,
        }
    }

    /// The same, for objects of `ty` alone.
    pub const fn only_for(self, ty: &'static TypeInfo) -> ClassKey {
        ClassKey { ty: Some(ty), ..self }
    }

    fn type_address(&self) -> usize {
        self.ty.map_or(0, |ty| ptr::from_ref(ty) as usize)
    }

    fn size_index(&self) -> usize {
        self.size_class.map_or(0, SizeClass::index)
    }

    fn drop_address(&self) -> usize {
        self.drop.map_or(0, |drop| drop as usize)
    }

    fn hash(&self) -> usize {
        let mixed = self.layout.hash() ^ (self.drop_address() as u64).rotate_left(17);
        let mixed = (mixed ^ self.type_address() as u64)
            .wrapping_add(self.size_index() as u64)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize
    }

    fn is(&self, other: &ClassKey) -> bool {
        self.size_index() == other.size_index()
            && self.layout == other.layout
            && self.counting == other.counting
            && self.drop_address() == other.drop_address()
            && self.type_address() == other.type_address()
    }
}

/// A class of spans.
pub struct Class {
    key: ClassKey,
    index: u32,
    type_name: fn() -> &'static str,
    names: TypeNames,
    spans: SpanShards,
    next_in_bucket: *const Class,
    next: *const Class,
}

impl Class {
    /// What the class is.
    pub fn key(&self) -> &ClassKey {
        &self.key
    }

    /// The number of the class in its heap.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The type for which the class was made first.
    pub fn type_name(&self) -> fn() -> &'static str {
        self.type_name
    }

    /// Notes that `bytes` of memory go to values of `ty`, or to slices of them.
    pub fn note_type(&self, ty: &'static TypeInfo, is_slice: bool, bytes: Bytes) {
        self.names.note(ty, is_slice, bytes);
    }

    /// The types that the class is used for, those first that have taken most.
    pub fn types(&self) -> Vec<Noted> {
        self.names.noted()
    }

    /// The spans of the class that nobody is at work on.
    pub(crate) fn spans(&self) -> SpanShards {
        self.spans
    }
}

const BUCKETS: usize = 256;

/// The classes of a heap.
pub struct ClassTable {
    buckets: [AtomicPtr<Class>; BUCKETS],
    /// The newest class; each names the one before it.
    newest: AtomicPtr<Class>,
    /// How many there are; held to add one.
    count: Lock<u32>,
    /// The class in which an unswept span was found last, or null. A hint.
    sweeping: AtomicPtr<Class>,
    /// How many sets the spans of each class are in.
    shards: usize,
}

impl ClassTable {
    /// A table without classes, each of which is to have its spans in so many sets: a power of two.
    pub const fn new(shards: usize) -> ClassTable {
        ClassTable {
            shards,
            buckets: [const { AtomicPtr::new(ptr::null_mut()) }; BUCKETS],
            newest: AtomicPtr::new(ptr::null_mut()),
            count: Lock::new(Rank::Classes, 0),
            sweeping: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn find(&self, key: &ClassKey) -> Option<&'static Class> {
        let mut class = self.buckets[key.hash() % BUCKETS].load(Ordering::Acquire).cast_const();
        // SAFETY: C1; a bucket holds null or a finished class, published with release.
        while let Some(candidate) = unsafe { class.as_ref() } {
            if candidate.key.is(key) {
                return Some(candidate);
            }
            class = candidate.next_in_bucket;
        }
        None
    }

    /// The class of `key`, made now if the heap has not met it before.
    pub fn find_or_make(
        &self,
        key: &ClassKey,
        type_name: fn() -> &'static str,
        os: &Os,
        memory: &Persistent,
    ) -> Result<&'static Class, OsError> {
        if let Some(class) = self.find(key) {
            return Ok(class);
        }
        let mut count = self.count.lock();
        if let Some(class) = self.find(key) {
            return Ok(class);
        }
        let (record, spans) = self.allot(os, memory)?;
        let bucket = &self.buckets[key.hash() % BUCKETS];
        let class = Class {
            key: *key,
            index: *count,
            type_name,
            names: TypeNames::new(),
            spans,
            next_in_bucket: bucket.load(Ordering::Relaxed),
            next: self.newest.load(Ordering::Relaxed),
        };
        // SAFETY: fresh persistent memory of the right layout that nobody else knows.
        unsafe { record.write(class) };
        bucket.store(record.as_ptr(), Ordering::Release);
        self.newest.store(record.as_ptr(), Ordering::Release);
        *count += 1;
        // SAFETY: C1.
        Ok(unsafe { record.as_ref() })
    }

    /// Memory for the record of a class, and its spans. Both or nothing, so that a refusal leaves nothing behind.
    fn allot(&self, os: &Os, memory: &Persistent) -> Result<(NonNull<Class>, SpanShards), OsError> {
        let sets = core::alloc::Layout::array::<SpanSet>(self.shards).expect("a few sets");
        let (layout, offset) =
            sets.extend(core::alloc::Layout::new::<Class>()).expect("a few sets and a record");
        let memory = memory.alloc(os, layout, Category::Metadata)?;
        let first = memory.cast::<SpanSet>();
        for index in 0..self.shards {
            // SAFETY: there is room for so many sets.
            let set = unsafe { first.add(index) };
            // SAFETY: fresh persistent memory that nobody else knows.
            unsafe { set.write(SpanSet::new()) };
        }
        // SAFETY: they were written just now, and C1.
        let sets = unsafe { NonNull::slice_from_raw_parts(first, self.shards).as_ref() };
        // SAFETY: the layout has a record at this offset.
        let record = unsafe { memory.add(offset) };
        Ok((record.cast(), SpanShards::new(sets)))
    }

    /// All classes made so far, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &'static Class> {
        chain_from(self.newest.load(Ordering::Acquire))
    }

    /// A span of any class to sweep, with its set and the generation to sweep it for. When it says that
    /// there is none, it has looked at every class. [`Backlog::finish`] is owed.
    pub fn take_unswept(
        &self,
        generation: Generation,
        backlog: &Backlog,
    ) -> Option<(&'static SpanSet, OwnedSpan, Generation)> {
        self.find_unswept(|spans| spans.take_unswept(generation, backlog))
    }

    /// The same for as many spans of one set as there are places in `spans`, or as it has; and how many.
    pub fn take_unswept_some(
        &self,
        spans: &mut [Option<OwnedSpan>],
        generation: Generation,
        backlog: &Backlog,
    ) -> Option<(&'static SpanSet, usize, Generation)> {
        self.find_unswept(|shards| shards.take_unswept_some(spans, generation, backlog))
    }

    /// What `take` returns for the first class for which it returns anything.
    fn find_unswept<T>(&self, mut take: impl FnMut(SpanShards) -> Option<T>) -> Option<T> {
        // Classes are emptied one after the other; whoever comes next goes on where the last one was.
        let last = self.sweeping.load(Ordering::Acquire);
        for class in chain_from(last).chain(self.iter()) {
            if let Some(taken) = take(class.spans) {
                let found = ptr::from_ref(class).cast_mut();
                if found != last {
                    self.sweeping.store(found, Ordering::Release);
                }
                return Some(taken);
            }
        }
        None
    }
}

/// The classes of a chain.
fn chain_from(first: *const Class) -> impl Iterator<Item = &'static Class> {
    let mut class = first;
    core::iter::from_fn(move || {
        // SAFETY: C1; the chain ends in null.
        let current = unsafe { class.as_ref() }?;
        class = current.next;
        Some(current)
    })
}

// SAFETY: classes are reached through atomics, and what changes in them is behind locks.
unsafe impl Send for ClassTable {}
// SAFETY: as above.
unsafe impl Sync for ClassTable {}
// SAFETY: the raw links of a class are written before it is published and never change.
unsafe impl Sync for Class {}

#[cfg(test)]
mod tests;
