//! Which types hold the memory: objects by class, and what types a class has been used for.
//!
//! Objects are counted exactly, by the allocation bits of all spans: those that nothing has found dead. Who of
//! the types that share a class has how many of them is an estimate by what they have taken ([`super::class`]);
//! it is exact for a class that only one type has used.

use super::central::Central;
use super::class::{Class, Noted};
use super::page_heap::PageUse;
use crate::addr::{ARENA_BYTES, Bytes, CHUNK_BYTES, CHUNK_PAGES};
use crate::span::{Span, bits};
use core::cmp::Reverse;
use core::fmt;
use std::collections::BTreeMap;

/// How many types are printed.
const SHOWN: usize = 12;

/// The memory of one type.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LiveType {
    /// The type. `[T]` stands for slices; values so small that they share slots have no type of their own.
    pub name: String,
    /// Objects.
    pub objects: u64,
    /// Bytes of their slots.
    pub bytes: Bytes,
    /// Whether that was counted. If not, it was divided among types that share spans, by the memory that each of
    /// them has taken so far.
    pub is_exact: bool,
}

/// What a heap holds, by type: the most first.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Live {
    /// The types.
    pub types: Vec<LiveType>,
    /// Objects, all types.
    pub objects: u64,
    /// Bytes of their slots.
    pub bytes: Bytes,
}

/// Objects of one class.
#[derive(Clone, Copy, Default)]
struct Count {
    objects: u64,
    bytes: Bytes,
}

impl Live {
    /// What the heap of `central` holds now. Nobody is stopped; a chunk of pages is looked at under the lock of
    /// the page heap.
    pub(crate) fn of(central: &Central) -> Live {
        let counts = count(central);
        let mut live = Live::default();
        let mut types: BTreeMap<String, LiveType> = BTreeMap::new();
        for class in central.classes() {
            if let Some(count) = counts.get(&class.index()) {
                live.objects += count.objects;
                live.bytes += count.bytes;
                divide(class, *count, &mut types);
            }
        }
        live.types = types.into_values().filter(|ty| ty.objects > 0).collect();
        live.types.sort_by_key(|ty| Reverse(ty.bytes));
        live
    }
}

/// Counts the objects of each class.
fn count(central: &Central) -> BTreeMap<u32, Count> {
    let pages = central.pages();
    let mut counts: BTreeMap<u32, Count> = BTreeMap::new();
    // No more spans than pages begin in a chunk, so the buffer does not grow under the lock.
    let mut begun: Vec<(u32, Count)> = Vec::with_capacity(CHUNK_PAGES);
    for arena in pages.arenas() {
        for index in 0..ARENA_BYTES / CHUNK_BYTES {
            let chunk = (arena.base() + Bytes::new(index * CHUNK_BYTES)).chunk();
            pages.for_each_page_of(arena, chunk, |page, usage| {
                if let PageUse::Span(span) = usage {
                    if span.info().base == page {
                        begun.push((span.info().class, count_span(span)));
                    }
                }
            });
            for (class, seen) in begun.drain(..) {
                let count = counts.entry(class).or_default();
                count.objects += seen.objects;
                count.bytes += seen.bytes;
            }
        }
    }
    counts
}

fn count_span(span: &Span) -> Count {
    let (info, table) = (span.info(), span.generation().table());
    let objects = match info.size_class {
        Some(_) => bits::count(info, table).min(info.slots),
        // One bit tells; a large object may have millions of others, all clear.
        None => usize::from(bits::is_set(table, info.base)),
    };
    Count { objects: objects as u64, bytes: Bytes::new(objects * info.slot) }
}

/// Divides what a class holds among the types that have used it.
fn divide(class: &Class, count: Count, types: &mut BTreeMap<String, LiveType>) {
    let noted = class.types();
    let all: u64 = noted.iter().map(|noted| noted.bytes).sum();
    let mut left = count;
    for (index, this) in noted.iter().enumerate() {
        let is_last = index + 1 == noted.len();
        let share =
            |of: u64| (u128::from(of) * u128::from(this.bytes) / u128::from(all.max(1))) as u64;
        // What is cut off by rounding is the last one's.
        let part = match is_last {
            true => left,
            false => Count {
                objects: share(count.objects),
                bytes: Bytes::new(share(count.bytes.get() as u64) as usize),
            },
        };
        left.objects -= part.objects;
        left.bytes -= part.bytes;
        let name = name(this);
        let ty = types.entry(name.clone()).or_insert_with(|| LiveType {
            name,
            objects: 0,
            bytes: Bytes::ZERO,
            is_exact: true,
        });
        ty.objects += part.objects;
        ty.bytes += part.bytes;
        ty.is_exact &= noted.len() == 1;
    }
}

fn name(noted: &Noted) -> String {
    match noted.is_slice {
        true => format!("[{}]", noted.name),
        false => noted.name.to_owned(),
    }
}

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>12} {:>12}  type", "bytes", "objects")?;
        for ty in self.types.iter().take(SHOWN) {
            let about = if ty.is_exact { "" } else { "  (about: it shares spans)" };
            let bytes = ty.bytes.to_string();
            writeln!(f, "{bytes:>12} {:>12}  {}{about}", ty.objects, ty.name)?;
        }
        if let Some(more @ 1..) = self.types.len().checked_sub(SHOWN) {
            writeln!(f, "{:>12} {:>12}  {more} types more", "", "")?;
        }
        let bytes = self.bytes.to_string();
        write!(f, "{bytes:>12} {:>12}  in all", self.objects)
    }
}
