//! The fast path of an allocation, which is compiled into the caller's code.
//!
//! It is about one type, and the description of a type is a constant. So everything that follows from it, the kind
//! of cache, its place among the others and the size of a slot, is decided by the compiler, and what is left is
//! ```text
//! cursor := caches[offset]
//! if cursor >= caches[offset + 8]: somewhere else
//! caches[offset] := cursor + size
//! ```
//! A type that has no place of its own has its cache looked up first, by a comparison with its description's address.
//! Whatever else an allocation may have to do is in [`SpanCache::alloc`], in one function that is called with the
//! description and nothing else, so that the caller's registers are not spent on it.
//!
//! Nothing here takes a lock, counts, or looks at a phase.

use super::mapped::Mapped;
use super::{ClassCache, SpanCache, TINY_BYTES};
use crate::addr::{Addr, Bytes};
use crate::span::layout::FLAT_SHAPES;
use crate::span::size_class::SizeClass;
use crate::span::{Shape, TypeInfo};

/// Where the cache of a type is.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// Values share slots.
    Tiny,
    /// In the flat table of small shapes, at this place.
    Flat(usize),
    /// In the table of memory without pointers.
    NoScan(SizeClass),
    /// In the direct-mapped table.
    Mapped,
    /// Values have spans of their own.
    Large,
}

impl Place {
    /// The place of single values of `ty`.
    #[inline(always)]
    pub(super) const fn of(ty: &TypeInfo) -> Place {
        if ty.flat == 1 << 2 && ty.size < TINY_BYTES {
            return Place::Tiny;
        }
        if ty.flat != 0 {
            return Place::Flat(ty.flat as usize % FLAT_SHAPES);
        }
        match ty.size_class {
            Some(class) if is_leaf(ty) => Place::NoScan(class),
            Some(_) => Place::Mapped,
            None => Place::Large,
        }
    }
}

/// Whether values of a type have nothing that anybody looks for: no pointers and no destructor.
#[inline(always)]
const fn is_leaf(ty: &TypeInfo) -> bool {
    matches!(ty.shape, Shape::NoScan) && ty.drop.is_none()
}

/// The slot size of single values of a type, or 0 if they are large.
#[inline(always)]
const fn slot_of(ty: &TypeInfo) -> usize {
    match ty.size_class {
        Some(class) => class.size().get(),
        None => 0,
    }
}

impl SpanCache {
    /// A slot for one value of `ty`, if the cache of its class has one at hand: uninitialised, counted, and of the
    /// right colour.
    #[inline(always)]
    pub fn bump(&self, ty: &'static TypeInfo) -> Option<Addr> {
        match Place::of(ty) {
            Place::Tiny => self.bump_tiny(ty.size, ty.align),
            Place::Mapped => {
                let (index, key) = Mapped::of_one(ty);
                self.mapped[index].get(key)?.bump(slot_of(ty))
            }
            place => self.own_place(place)?.bump(slot_of(ty)),
        }
    }

    /// The same for a slice of `bytes` of values of `ty`, and how many bytes the slot has.
    #[inline(always)]
    pub fn bump_slice(&self, ty: &'static TypeInfo, bytes: Bytes) -> Option<(Addr, Bytes)> {
        let class = SizeClass::for_layout(bytes, ty.align)?;
        let slot = class.size();
        let cache = match is_leaf(ty) {
            true if is_tiny(ty, bytes) => {
                return Some((self.bump_tiny(bytes.get(), ty.align)?, bytes));
            }
            true => &self.noscan[class.index()],
            false => {
                let (index, key) = Mapped::of_slice(ty, class);
                self.mapped[index].get(key)?
            }
        };
        Some((cache.bump(slot.get())?, slot))
    }

    /// The cache at a place that belongs to one class.
    #[inline(always)]
    pub(super) fn own_place(&self, place: Place) -> Option<&ClassCache> {
        match place {
            Place::Flat(index) => Some(&self.flat[index]),
            Place::NoScan(class) => Some(&self.noscan[class.index()]),
            Place::Tiny | Place::Mapped | Place::Large => None,
        }
    }

    /// Room for a small object without pointers, in a slot that it shares with others.
    #[inline(always)]
    fn bump_tiny(&self, size: usize, align: usize) -> Option<Addr> {
        let size = size.max(1);
        let start = Addr::new((self.tiny.get().get() + align - 1) & !(align - 1));
        if start.get() + size <= self.tiny_end.get().get() {
            self.tiny.set(start + Bytes::new(size));
            self.tiny_objects.set(self.tiny_objects.get() + 1);
            return Some(start);
        }
        let slot = self.open_tiny(size);
        if slot.is_null() { None } else { Some(slot) }
    }

    /// The same in a new slot; null if there is none. That is not rare, but the caller's code need not be longer for
    /// it.
    #[inline(never)]
    fn open_tiny(&self, size: usize) -> Addr {
        let Some(slot) = self.flat[1 << 2].bump(TINY_BYTES) else { return Addr::NULL };
        self.go_on_with_tiny(slot, size);
        slot
    }

    /// `size` bytes of a new slot are taken: the slot with more room left is the one to go on with.
    pub(super) fn go_on_with_tiny(&self, slot: Addr, size: usize) {
        let left = TINY_BYTES - size;
        if left > self.tiny_end.get().get() - self.tiny.get().get() {
            self.tiny.set(slot + Bytes::new(size));
            self.tiny_end.set(slot + Bytes::new(TINY_BYTES));
        }
    }
}

/// Whether a slice of so many bytes of values without pointers shares its slot.
#[inline(always)]
pub(super) fn is_tiny(ty: &TypeInfo, bytes: Bytes) -> bool {
    bytes.get() < TINY_BYTES && ty.align <= TINY_BYTES
}
