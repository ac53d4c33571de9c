//! Where an object's pointers are, and what has to happen when it dies.
//!
//! Nothing about an object is stored in it or beside it: a *span* holds objects of one class only, and
//! its class says everything. So the description has three levels:
//!
//! - [`Shape`]: where the pointers of a *type* lie, computed at compile time, field by field.
//! - [`Layout`]: where the pointers of an *object* lie. Equal layouts share spans whatever their types.
//! - [`TypeInfo`]: what an allocation needs to know about a type, as one constant.
//!
//! An object is one value, or a slice of values. The mask of a slice repeats over the whole slot, so the
//! words behind the last element must be zero. A slice whose elements have to be traced or dropped one
//! by one carries its length in the *last* word of its slot (see [`Counting`]), where it cannot be in
//! the way of a pointer to the object's start.

use super::size_class::SizeClass;
use super::tracer::TraceFn;
use crate::addr::{Bytes, WORD_BYTES};
use core::fmt;

/// Drops `count` values that lie one behind the other at `object`.
///
/// # Safety
/// `object` points to `count` initialised values of the type that the function was made for; nobody
/// uses them during the call or after it.
pub type DropFn = unsafe fn(object: *mut u8, count: usize);

/// Where the pointers of a type lie, as far as the compiler can say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Nowhere: values of this type hold no pointer into a heap.
    NoScan,
    /// In the words whose bits are set; bit 0 is the first word. Each of them holds null or the address of
    /// an object at any time, and changes only atomically.
    Words(u64),
    /// Only the type's trace function knows: enums with payload, collections, anything that owns
    /// memory elsewhere, or pointers behind the 64th word.
    Opaque,
}

impl Shape {
    /// The shape of a value that has, besides what `self` says, a field of shape `field` at `offset`
    /// bytes.
    #[must_use]
    pub const fn with(self, offset: usize, field: Shape) -> Shape {
        match (self, field) {
            (_, Shape::NoScan) => self,
            (Shape::Opaque, _) | (_, Shape::Opaque) => Shape::Opaque,
            (Shape::NoScan, Shape::Words(_)) => Shape::Words(0).with(offset, field),
            (Shape::Words(mine), Shape::Words(mask)) => {
                let word = offset / WORD_BYTES;
                let room = mask.leading_zeros() as usize;
                if offset % WORD_BYTES != 0 || word > room || word >= 64 {
                    Shape::Opaque
                } else {
                    Shape::Words(mine | mask << word)
                }
            }
        }
    }

    /// The shape of a value that may hold a field of shape `field`, or something else in its place:
    /// a variant of an enum.
    #[must_use]
    pub const fn maybe(self, field: Shape) -> Shape {
        match (self, field) {
            (_, Shape::NoScan) => self,
            _ => Shape::Opaque,
        }
    }

    /// The shape of `[T; count]`, where `self` is the shape of `T` and `size` its size in bytes.
    #[must_use]
    pub const fn array(self, size: usize, count: usize) -> Shape {
        if let Shape::NoScan = self {
            return self;
        }
        let mut whole = Shape::NoScan;
        let mut index = 0;
        while index < count {
            whole = whole.with(index * size, self);
            if let Shape::Opaque = whole {
                return whole;
            }
            index += 1;
        }
        whole
    }
}

/// Where the pointers of an object lie.
#[derive(Clone, Copy, Debug)]
pub enum Layout {
    /// Nowhere.
    NoScan,
    /// In the words of `mask`, repeated every `period` words up to the end of the slot; a period of 0
    /// means that the mask is not repeated.
    Words {
        /// Bit i stands for word i of a period.
        mask: u64,
        /// Words from one element to the next, or 0 when there is a single one.
        period: u32,
    },
    /// Where the function says.
    Traced(TraceFn),
}

impl Layout {
    /// A number for hash tables; equal layouts have equal numbers.
    pub(crate) fn hash(self) -> u64 {
        let (tag, value, extra) = match self {
            Layout::NoScan => (1, 0, 0),
            Layout::Words { mask, period } => (2, mask, u64::from(period)),
            Layout::Traced(trace) => (3, trace as usize as u64, 0),
        };
        (value ^ extra.rotate_left(32)).wrapping_add(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl PartialEq for Layout {
    fn eq(&self, other: &Layout) -> bool {
        match (*self, *other) {
            (Layout::NoScan, Layout::NoScan) => true,
            (Layout::Words { mask: a, period: p }, Layout::Words { mask: b, period: q }) => {
                a == b && p == q
            }
            // Two addresses for one function only mean two classes; one address means one function.
            (Layout::Traced(a), Layout::Traced(b)) => a as usize == b as usize,
            _ => false,
        }
    }
}

impl Eq for Layout {}

/// Whether an object is one value or says itself how many it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counting {
    /// One value; or several that never need to be told apart.
    One,
    /// The last word of the slot holds the number of values.
    Trailer,
}

/// What an allocation needs to know about a type. One constant per type; its address is its name in
/// the caches of a mutator.
#[derive(Debug)]
pub struct TypeInfo {
    /// The type's name, for messages.
    pub name: fn() -> &'static str,
    /// Size of a value in bytes.
    pub size: usize,
    /// Alignment of a value in bytes.
    pub align: usize,
    /// Where the pointers of a value lie.
    pub shape: Shape,
    /// Reports the pointers of values; used when the shape is opaque.
    pub trace: TraceFn,
    /// Drops values; `None` when there is nothing to do.
    pub drop: Option<DropFn>,
    /// The class of sizes that a single value falls into; `None` for large ones.
    pub size_class: Option<SizeClass>,
    /// Index into a mutator's flat table of small fixed shapes; 0 when the type is not one of them.
    pub flat: u16,
    /// Whether shape and trace function are right by construction, so that nobody needs to look for pointers
    /// that they miss.
    pub exact: bool,
}

/// What is wrong with a description of a type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum InvalidType {
    /// The alignment is not a power of two.
    Align {
        /// The alignment in bytes.
        align: usize,
    },
    /// The size, rounded up to the alignment, is more than an object can have: `isize::MAX`.
    Size {
        /// The size in bytes.
        size: usize,
        /// The alignment in bytes.
        align: usize,
    },
    /// The mask of the shape has a word that does not lie in a value of this size, or words are not
    /// aligned in it.
    Mask {
        /// The mask; bit i stands for word i.
        mask: u64,
        /// The size in bytes.
        size: usize,
        /// The alignment in bytes.
        align: usize,
    },
}

impl fmt::Display for InvalidType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            InvalidType::Align { align } => {
                write!(f, "an alignment of {align} is not a power of two")
            }
            InvalidType::Size { size, align } => {
                write!(f, "{size} bytes aligned to {align} are more than isize::MAX")
            }
            InvalidType::Mask { mask, size, align } => write!(
                f,
                "the words {mask:#b} do not lie, aligned, in {size} bytes aligned to {align}"
            ),
        }
    }
}

impl std::error::Error for InvalidType {}

/// Entries in a mutator's flat table of small shapes.
pub const FLAT_SHAPES: usize = 512;

impl TypeInfo {
    /// Describes a type.
    ///
    /// `trace` and `drop` must have been made for the very type that has this size, alignment and
    /// shape: [`crate::mutator::Mutator::alloc`] relies on it, and its contract repeats it.
    ///
    /// # Panics
    /// When there can be no such type; [`TypeInfo::try_new`] says so instead.
    pub const fn new(
        name: fn() -> &'static str,
        size: usize,
        align: usize,
        shape: Shape,
        trace: TraceFn,
        drop: Option<DropFn>,
    ) -> TypeInfo {
        match TypeInfo::try_new(name, size, align, shape, trace, drop) {
            Ok(info) => info,
            Err(InvalidType::Align { .. }) => panic!("an alignment is a power of two"),
            Err(InvalidType::Size { .. }) => panic!("the size of a type is at most isize::MAX"),
            Err(InvalidType::Mask { .. }) => {
                panic!("the words of a mask lie in the value, aligned")
            }
        }
    }

    /// Describes a type of which the numbers are known at run time only. As for [`TypeInfo::new`], the
    /// functions must be those of the type.
    ///
    /// # Errors
    /// When there can be no such type. (The size need not be a multiple of the alignment. In a slice, only
    /// the first value is aligned then.)
    pub const fn try_new(
        name: fn() -> &'static str,
        size: usize,
        align: usize,
        shape: Shape,
        trace: TraceFn,
        drop: Option<DropFn>,
    ) -> Result<TypeInfo, InvalidType> {
        if !align.is_power_of_two() {
            return Err(InvalidType::Align { align });
        }
        if size > isize::MAX as usize - (align - 1) {
            return Err(InvalidType::Size { size, align });
        }
        if let Shape::Words(mask) = shape {
            let behind = (u64::BITS - mask.leading_zeros()) as usize * WORD_BYTES;
            if mask != 0 && (behind > size || align < WORD_BYTES) {
                return Err(InvalidType::Mask { mask, size, align });
            }
        }
        let size_class = SizeClass::for_layout(Bytes::new(size), align);
        let flat = match size_class {
            Some(class) => flat_index(class, shape, drop.is_some()),
            None => 0,
        };
        Ok(TypeInfo { name, size, align, shape, trace, drop, size_class, flat, exact: false })
    }

    /// The same description, of which is known whether it is right by construction: generated, say, and from
    /// nothing but such parts. If so, verification does not look for pointers that it misses.
    #[must_use]
    pub const fn exact(self, exact: bool) -> TypeInfo {
        TypeInfo { exact, ..self }
    }

    /// The bytes that an object of a single value takes in its heap: a slot, or whole pages. (Values of less
    /// than 16 bytes without pointers share theirs with others.) `None` when whole pages overflow.
    pub const fn object_bytes(&self) -> Option<Bytes> {
        slot_bytes(Bytes::new(self.size), self.align)
    }

    /// The bytes that a slice of `len` values takes in its heap, its counter included. `None` when the size
    /// overflows; such a slice is refused.
    pub const fn slice_bytes(&self, len: usize) -> Option<Bytes> {
        match self.slice_extent(len) {
            Some((_, wanted)) => slot_bytes(wanted, self.align),
            None => None,
        }
    }

    /// The bytes of `len` values, and what an object needs that holds them.
    pub(crate) const fn slice_extent(&self, len: usize) -> Option<(Bytes, Bytes)> {
        let used = match self.size.checked_mul(len) {
            Some(used) if used <= isize::MAX as usize => used,
            _ => return None,
        };
        // The values may end in the middle of a word, and the counter is a whole one.
        let counter = match self.slice_counting() {
            Counting::Trailer => 2 * WORD_BYTES - 1,
            Counting::One => 0,
        };
        match used.checked_add(counter) {
            Some(wanted) => Some((Bytes::new(used), Bytes::new(wanted))),
            None => None,
        }
    }

    /// The layout of an object that holds a single value.
    pub const fn layout(&self) -> Layout {
        match self.shape {
            Shape::NoScan => Layout::NoScan,
            Shape::Words(mask) => Layout::Words { mask, period: 0 },
            Shape::Opaque => Layout::Traced(self.trace),
        }
    }

    /// The layout of an object that holds a slice of values.
    pub const fn slice_layout(&self) -> Layout {
        match self.shape {
            Shape::NoScan => Layout::NoScan,
            Shape::Words(mask)
                if self.size % WORD_BYTES == 0 && self.size / WORD_BYTES <= u32::MAX as usize =>
            {
                Layout::Words { mask, period: (self.size / WORD_BYTES) as u32 }
            }
            _ => Layout::Traced(self.trace),
        }
    }

    /// Whether a slice of values carries its length in the last word of its slot.
    pub const fn slice_counting(&self) -> Counting {
        match self.slice_layout() {
            Layout::Traced(_) => Counting::Trailer,
            _ if self.drop.is_some() => Counting::Trailer,
            _ => Counting::One,
        }
    }
}

/// The bytes of the slot, or of the pages, that an object of `wanted` bytes gets.
const fn slot_bytes(wanted: Bytes, align: usize) -> Option<Bytes> {
    if let Some(class) = SizeClass::for_layout(wanted, align) {
        return Some(class.size());
    }
    // An empty value gets here by its alignment, and has an address of its own all the same.
    let wanted = if wanted.get() == 0 { Bytes::new(1) } else { wanted };
    match wanted.checked_pages() {
        Some(pages) => Some(pages.bytes()),
        None => None,
    }
}

/// The place of a small shape in the flat table: a leading one for the number of words in the slot,
/// then the mask. A slot has 2, 3, 4, 6 or 8 words, so the largest index is 2^9 - 1; 0 means none.
const fn flat_index(class: SizeClass, shape: Shape, drops: bool) -> u16 {
    let words = class.size().get() / WORD_BYTES;
    let mask = match shape {
        Shape::NoScan => 0,
        Shape::Words(mask) => mask,
        Shape::Opaque => return 0,
    };
    if drops || words > 8 {
        return 0;
    }
    (1 << words | mask as usize) as u16
}

#[cfg(test)]
mod tests;
