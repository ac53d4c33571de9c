//! Addresses and sizes: every quantity of the memory manager has a type of its own.
//!
//! An [`Addr`] is a *number*, never a capability: it can be compared, added to and cut into page, chunk
//! and arena numbers, but it cannot be read through. The one step from number to pointer is
//! [`Addr::as_ptr`], so `grep as_ptr` lists every place that is about to touch managed memory.
//!
//! # The units
//!
//! | unit | size | named by |
//! |---|---|---|
//! | granule | 16 B | the smallest distance between two object starts; one bit in a side table |
//! | page | 8 KiB | what spans are made of; 512 granules, so 64 bytes of side table: one cache line |
//! | chunk | 4 MiB, 512 pages | one bitmap of the page allocator |
//! | heap arena | 64 MiB, 16 chunks | one reservation, one entry of the arena map |
//!
//! These are the sizes of Go 1.27 on 64-bit Linux; the granule is ours.

mod range;
mod text;

pub use range::AddrRange;
pub use text::ParseBytesError;

use core::fmt;
use core::ops::{Add, AddAssign, Sub, SubAssign};

/// Bits of a user-space address on x86-64 with four-level page tables.
pub const ADDRESS_BITS: u32 = 47;

/// log2 of the page size in bytes.
pub const PAGE_SHIFT: u32 = 13;
/// Bytes in a page of the manager (not of the processor): 8 KiB.
pub const PAGE_BYTES: usize = 1 << PAGE_SHIFT;

/// log2 of the number of pages in a chunk.
pub const CHUNK_PAGES_SHIFT: u32 = 9;
/// Pages in a chunk of the page allocator.
pub const CHUNK_PAGES: usize = 1 << CHUNK_PAGES_SHIFT;
/// log2 of the chunk size in bytes.
pub const CHUNK_SHIFT: u32 = PAGE_SHIFT + CHUNK_PAGES_SHIFT;
/// Bytes in a chunk: 4 MiB.
pub const CHUNK_BYTES: usize = 1 << CHUNK_SHIFT;

/// log2 of the heap-arena size in bytes.
pub const ARENA_SHIFT: u32 = 26;
/// Bytes in a heap arena: 64 MiB.
pub const ARENA_BYTES: usize = 1 << ARENA_SHIFT;
/// Pages in a heap arena.
pub const ARENA_PAGES: usize = ARENA_BYTES / PAGE_BYTES;

/// log2 of the granule size in bytes.
pub const GRANULE_SHIFT: u32 = 4;
/// Bytes in a granule: the unit of the side bitmaps.
pub const GRANULE_BYTES: usize = 1 << GRANULE_SHIFT;
/// Granules in a page.
pub const PAGE_GRANULES: usize = PAGE_BYTES / GRANULE_BYTES;
/// 64-bit words of a side bitmap that belong to one page.
pub const PAGE_BITMAP_WORDS: usize = PAGE_GRANULES / 64;

/// Bytes in a machine word, which is also the size of a pointer field.
pub const WORD_BYTES: usize = size_of::<usize>();

const _: () = assert!(WORD_BYTES == 8, "the side tables assume 64-bit words");
const _: () = assert!(PAGE_BITMAP_WORDS * 8 == 64, "a page's bits fill one cache line");
const _: () = assert!(ARENA_BYTES % CHUNK_BYTES == 0);

/// An address: a number, not a pointer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Addr(usize);

impl Addr {
    /// The address 0, which is never part of a heap.
    pub const NULL: Addr = Addr(0);

    /// Wraps a number.
    #[inline]
    pub const fn new(value: usize) -> Addr {
        Addr(value)
    }

    /// The address of a pointer. The pointer's provenance is exposed, so that [`Addr::as_ptr`] can
    /// get it back.
    #[inline]
    pub fn of<T: ?Sized>(pointer: *const T) -> Addr {
        Addr(pointer.cast::<u8>().expose_provenance())
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> usize {
        self.0
    }

    /// The one step from number to pointer. Making the pointer is harmless; whoever reads or writes
    /// through it has to argue that the memory is ready and that the access does not race.
    #[inline]
    pub fn as_ptr<T>(self) -> *mut T {
        core::ptr::with_exposed_provenance_mut(self.0)
    }

    /// Whether this is the address 0.
    #[inline]
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// Rounds up to a multiple of `align`, a power of two. `None` on overflow.
    #[inline]
    pub const fn checked_align_up(self, align: usize) -> Option<Addr> {
        debug_assert!(align.is_power_of_two());
        match self.0.checked_add(align - 1) {
            Some(sum) => Some(Addr(sum & !(align - 1))),
            None => None,
        }
    }

    /// Rounds down to a multiple of `align`, a power of two.
    #[inline]
    pub const fn align_down(self, align: usize) -> Addr {
        debug_assert!(align.is_power_of_two());
        Addr(self.0 & !(align - 1))
    }

    /// Whether this is a multiple of `align`, a power of two.
    #[inline]
    pub const fn is_aligned(self, align: usize) -> bool {
        debug_assert!(align.is_power_of_two());
        self.0 & (align - 1) == 0
    }

    /// Distance in bytes from `base`, which must not be above `self`.
    #[inline]
    pub const fn bytes_since(self, base: Addr) -> Bytes {
        debug_assert!(base.0 <= self.0);
        Bytes(self.0 - base.0)
    }

    /// The number of the page that holds this address.
    #[inline]
    pub const fn page(self) -> PageIndex {
        PageIndex(self.0 >> PAGE_SHIFT)
    }

    /// The number of the chunk that holds this address.
    #[inline]
    pub const fn chunk(self) -> ChunkIndex {
        ChunkIndex(self.0 >> CHUNK_SHIFT)
    }

    /// The number of the heap arena that holds this address.
    #[inline]
    pub const fn arena(self) -> ArenaIndex {
        ArenaIndex(self.0 >> ARENA_SHIFT)
    }

    /// Position of this address' page inside its heap arena.
    #[inline]
    pub const fn page_in_arena(self) -> usize {
        (self.0 >> PAGE_SHIFT) % ARENA_PAGES
    }

    /// Position of this address' granule inside its heap arena.
    #[inline]
    pub const fn granule_in_arena(self) -> usize {
        (self.0 % ARENA_BYTES) >> GRANULE_SHIFT
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Defines a newtype over `usize` that adds and subtracts only with itself.
macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
        #[repr(transparent)]
        pub struct $name(usize);

        impl $name {
            /// Nothing.
            pub const ZERO: $name = $name(0);

            /// Wraps a number.
            #[inline]
            pub const fn new(value: usize) -> $name {
                $name(value)
            }

            /// The number.
            #[inline]
            pub const fn get(self) -> usize {
                self.0
            }

            /// The difference, or zero when `other` is larger.
            #[inline]
            pub const fn saturating_sub(self, other: $name) -> $name {
                $name(self.0.saturating_sub(other.0))
            }

            /// The sum, or the largest number when that is larger.
            #[inline]
            pub const fn saturating_add(self, other: $name) -> $name {
                $name(self.0.saturating_add(other.0))
            }
        }

        impl Add for $name {
            type Output = $name;
            #[inline]
            fn add(self, other: $name) -> $name {
                $name(self.0 + other.0)
            }
        }

        impl AddAssign for $name {
            #[inline]
            fn add_assign(&mut self, other: $name) {
                self.0 += other.0;
            }
        }

        impl Sub for $name {
            type Output = $name;
            #[inline]
            fn sub(self, other: $name) -> $name {
                $name(self.0 - other.0)
            }
        }

        impl SubAssign for $name {
            #[inline]
            fn sub_assign(&mut self, other: $name) {
                self.0 -= other.0;
            }
        }

        impl core::iter::Sum for $name {
            fn sum<I: Iterator<Item = $name>>(parts: I) -> $name {
                parts.fold($name::ZERO, |sum, part| sum + part)
            }
        }
    };
}

quantity! {
    /// A number of bytes.
    Bytes
}

quantity! {
    /// A number of 8 KiB pages.
    PageCount
}

impl Bytes {
    /// Rounds up to whole pages. `None` when that overflows.
    #[inline]
    pub const fn checked_pages(self) -> Option<PageCount> {
        match self.0.checked_add(PAGE_BYTES - 1) {
            Some(sum) => Some(PageCount(sum >> PAGE_SHIFT)),
            None => None,
        }
    }

    /// How many whole pages that is: what does not fill a page does not count.
    #[inline]
    pub const fn whole_pages(self) -> PageCount {
        PageCount(self.0 >> PAGE_SHIFT)
    }

    /// Rounds up to a multiple of `align`, a power of two. `None` on overflow.
    #[inline]
    pub const fn checked_align_up(self, align: usize) -> Option<Bytes> {
        match Addr(self.0).checked_align_up(align) {
            Some(rounded) => Some(Bytes(rounded.0)),
            None => None,
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut unit = 0;
        while unit + 1 < UNITS.len() && self.0 >> (10 * (unit + 1)) != 0 {
            unit += 1;
        }
        let scale = 1usize << (10 * unit);
        if self.0 % scale == 0 {
            write!(f, "{} {}", self.0 / scale, UNITS[unit])
        } else {
            let (whole, rest) = (self.0 / scale, self.0 % scale);
            write!(f, "{}.{} {}", whole, rest.saturating_mul(10) / scale, UNITS[unit])
        }
    }
}

impl PageCount {
    /// The same length in bytes.
    #[inline]
    pub const fn bytes(self) -> Bytes {
        Bytes(self.0 << PAGE_SHIFT)
    }
}

impl Add<Bytes> for Addr {
    type Output = Addr;
    #[inline]
    fn add(self, bytes: Bytes) -> Addr {
        Addr(self.0 + bytes.0)
    }
}

impl Sub<Bytes> for Addr {
    type Output = Addr;
    #[inline]
    fn sub(self, bytes: Bytes) -> Addr {
        Addr(self.0 - bytes.0)
    }
}

impl Add<PageCount> for Addr {
    type Output = Addr;
    #[inline]
    fn add(self, pages: PageCount) -> Addr {
        self + pages.bytes()
    }
}

/// Defines a newtype that numbers equal blocks of the address space.
macro_rules! block_index {
    ($(#[$doc:meta])* $name:ident, $shift:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(transparent)]
        pub struct $name(usize);

        impl $name {
            /// Wraps a number.
            #[inline]
            pub const fn new(value: usize) -> $name {
                $name(value)
            }

            /// The number.
            #[inline]
            pub const fn get(self) -> usize {
                self.0
            }

            /// The first address of the block.
            #[inline]
            pub const fn base(self) -> Addr {
                Addr(self.0 << $shift)
            }

            /// The block `count` further up.
            #[inline]
            pub const fn offset(self, count: usize) -> $name {
                $name(self.0 + count)
            }
        }
    };
}

block_index! {
    /// The number of a page: address / 8 KiB.
    PageIndex, PAGE_SHIFT
}

impl PageIndex {
    /// The chunk that the page lies in.
    #[inline]
    pub const fn chunk(self) -> ChunkIndex {
        ChunkIndex(self.0 >> CHUNK_PAGES_SHIFT)
    }
}

block_index! {
    /// The number of a page-allocator chunk: address / 4 MiB.
    ChunkIndex, CHUNK_SHIFT
}
block_index! {
    /// The number of a heap arena: address / 64 MiB.
    ArenaIndex, ARENA_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_cut_into_its_parts() {
        let addr = Addr::new(0xc0_0000_0000 + 3 * ARENA_BYTES + 5 * PAGE_BYTES + 0x31);
        assert_eq!(addr.page_in_arena(), 5);
        assert_eq!(addr.granule_in_arena(), 5 * PAGE_GRANULES + 3);
        assert_eq!(addr.arena().base(), Addr::new(0xc0_0000_0000 + 3 * ARENA_BYTES));
        assert_eq!(addr.page().base(), addr.align_down(PAGE_BYTES));
        assert!(addr.chunk().base() <= addr && addr < addr.chunk().offset(1).base());
        assert_eq!(addr.page().chunk(), addr.chunk());
    }

    #[test]
    fn rounding_stops_at_the_end_of_the_address_space() {
        assert_eq!(Bytes::new(usize::MAX).checked_pages(), None);
        assert_eq!(Bytes::new(0).checked_pages(), Some(PageCount::ZERO));
        assert_eq!(Bytes::new(1).checked_pages(), Some(PageCount::new(1)));
        assert_eq!(Bytes::new(PAGE_BYTES - 1).whole_pages(), PageCount::ZERO);
        assert_eq!(Bytes::new(2 * PAGE_BYTES + 1).whole_pages(), PageCount::new(2));
        assert_eq!(Addr::new(usize::MAX).checked_align_up(16), None);
        assert_eq!(Addr::new(17).checked_align_up(16), Some(Addr::new(32)));
    }

    #[test]
    fn bytes_read_like_a_person_writes_them() {
        assert_eq!(Bytes::new(0).to_string(), "0 B");
        assert_eq!(Bytes::new(1023).to_string(), "1023 B");
        assert_eq!(Bytes::new(8192).to_string(), "8 KiB");
        assert_eq!(Bytes::new(1536 << 10).to_string(), "1.5 MiB");
    }
}
