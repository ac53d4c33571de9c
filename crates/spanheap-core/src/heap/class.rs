//! Classes of spans: one for every pair of size class and layout that a heap has met, and the lists of
//! spans of each.
//!
//! A class is made when its first object is allocated and lives as long as its heap. Finding one is a
//! walk down a hash chain without a lock; making one takes the table's lock.
//!
//! # The lists
//! Every span of a class is in one of three lists, unless a mutator has it, somebody sweeps it just now, or
//! the drop queue owns it:
//!
//! | list | holds |
//! |---|---|
//! | partial | swept spans with a free slot |
//! | full | swept spans without one |
//! | unswept | spans of an older generation than the heap's |
//!
//! When the heap's generation moves on, *every* span becomes unswept at once. Nobody walks the lists for
//! that: each class compares its own generation at the next access, and joins two lists in constant
//! time. A span that comes back late, from a mutator that held it over the change, is put where its own
//! generation belongs.
//!
//! # Locking
//! [`Rank::Classes`] to add a class; [`Rank::SpanSet`] for the lists of one class. Nothing else is done
//! under the latter.
//!
//! # Safety
//! Class records are made in persistent memory and never freed before the heap, which is what makes
//! `&'static Class` honest inside it; C1 below.
//! - C1. No reference to a class is used after its heap was dropped: all of them live in mutators, spans
//!   and the collector, which are gone by then.
#![allow(unsafe_code)]

use crate::offheap::Persistent;
use crate::os::{Category, Os, OsError};
use crate::span::size_class::SizeClass;
use crate::span::{Counting, DropFn, Generation, Layout, OwnedSpan, SpanList, TypeInfo};
use crate::sync::atomic::{AtomicPtr, Ordering};
use crate::sync::{Lock, Rank};
use core::ptr;

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
}

impl ClassKey {
    /// The key of objects that hold a single value of `ty`.
    pub const fn of(ty: &TypeInfo) -> ClassKey {
        ClassKey {
            size_class: ty.size_class,
            layout: ty.layout(),
            counting: Counting::One,
            drop: ty.drop,
        }
    }

    /// The key of objects that hold a slice of values of `ty` in slots of `size_class`.
    pub const fn of_slice(ty: &TypeInfo, size_class: Option<SizeClass>) -> ClassKey {
        ClassKey {
            size_class,
            layout: ty.slice_layout(),
            counting: ty.slice_counting(),
            drop: ty.drop,
        }
    }

    fn size_index(&self) -> usize {
        self.size_class.map_or(0, SizeClass::index)
    }

    fn drop_address(&self) -> usize {
        self.drop.map_or(0, |drop| drop as usize)
    }

    fn hash(&self) -> usize {
        let mixed = self.layout.hash() ^ (self.drop_address() as u64).rotate_left(17);
        let mixed =
            mixed.wrapping_add(self.size_index() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize
    }

    fn is(&self, other: &ClassKey) -> bool {
        self.size_index() == other.size_index()
            && self.layout == other.layout
            && self.counting == other.counting
            && self.drop_address() == other.drop_address()
    }
}

/// A class of spans.
pub struct Class {
    key: ClassKey,
    index: u32,
    type_name: fn() -> &'static str,
    lists: Lock<Lists>,
    next_in_bucket: *const Class,
    next: *const Class,
}

#[derive(Default)]
struct Lists {
    generation: Generation,
    partial: SpanList,
    full: SpanList,
    unswept: SpanList,
}

impl Lists {
    /// Notices that the heap's generation has moved on. A caller that is behind others changes nothing.
    fn catch_up(&mut self, generation: Generation) {
        if generation.is_after(self.generation) {
            self.generation = generation;
            self.unswept.append(&mut self.partial);
            self.unswept.append(&mut self.full);
        }
    }
}

/// A span that a class gave out.
pub enum Taken {
    /// Swept, with a free slot at least.
    Ready(OwnedSpan),
    /// Still to be swept, for this generation.
    Unswept(OwnedSpan, Generation),
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

    /// A span to allocate from, or one to sweep; `None` when there is neither.
    pub fn take(&self, generation: Generation) -> Option<Taken> {
        let mut lists = self.lists.lock();
        lists.catch_up(generation);
        if let Some(span) = lists.partial.pop() {
            return Some(Taken::Ready(span));
        }
        let target = lists.generation;
        lists.unswept.pop().map(|span| Taken::Unswept(span, target))
    }

    /// A span to sweep, and the generation to sweep it for.
    pub fn take_unswept(&self, generation: Generation) -> Option<(OwnedSpan, Generation)> {
        let mut lists = self.lists.lock();
        lists.catch_up(generation);
        let target = lists.generation;
        lists.unswept.pop().map(|span| (span, target))
    }

    /// Takes a span in.
    pub fn put(&self, span: OwnedSpan, generation: Generation, has_room: bool) {
        let mut lists = self.lists.lock();
        lists.catch_up(generation);
        lists.catch_up(span.span().generation());
        if span.span().generation() != lists.generation {
            lists.unswept.push(span);
        } else if has_room {
            lists.partial.push(span);
        } else {
            lists.full.push(span);
        }
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
}

impl ClassTable {
    /// A table without classes.
    pub const fn new() -> ClassTable {
        ClassTable {
            buckets: [const { AtomicPtr::new(ptr::null_mut()) }; BUCKETS],
            newest: AtomicPtr::new(ptr::null_mut()),
            count: Lock::new(Rank::Classes, 0),
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
        let record = memory.alloc(os, core::alloc::Layout::new::<Class>(), Category::Metadata)?;
        let record = record.cast::<Class>();
        let bucket = &self.buckets[key.hash() % BUCKETS];
        let class = Class {
            key: *key,
            index: *count,
            type_name,
            lists: Lock::new(Rank::SpanSet, Lists::default()),
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

    /// All classes made so far, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &'static Class> {
        let mut class = self.newest.load(Ordering::Acquire).cast_const();
        core::iter::from_fn(move || {
            // SAFETY: C1; the chain ends in null.
            let current = unsafe { class.as_ref() }?;
            class = current.next;
            Some(current)
        })
    }
}

impl Default for ClassTable {
    fn default() -> ClassTable {
        ClassTable::new()
    }
}

// SAFETY: classes are reached through atomics, and what changes in them is behind locks.
unsafe impl Send for ClassTable {}
// SAFETY: as above.
unsafe impl Sync for ClassTable {}
// SAFETY: the raw links of a class are written before it is published and never change.
unsafe impl Sync for Class {}

#[cfg(test)]
mod tests;
