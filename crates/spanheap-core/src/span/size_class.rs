//! Size classes: which slot size an object gets, and how many pages a span of such slots has.
//!
//! There are 67 slot sizes from 8 bytes to 32 KiB; class 0 stands for everything larger, which gets
//! a span of its own. The table is *computed* by the compiler with the generator below, so that its
//! rules are here to be read and not only its 67 results; a conformance file holds the results it
//! must have.
//!
//! # The generator
//!
//! ```text
//! step := 8
//! for size = 8, 8 + step, ... up to 32768:
//!     at a power of two:  step := 256 from 2048 on, size/8 from 128 on, 16 from 32 on
//!     span := the fewest pages whose tail (span mod size) is at most span/8
//!     when the previous class has the same span and the same number of slots:
//!         it takes this size instead (nobody is worse off, and a class is saved)
//!     else: a new class
//! then every class grows to the largest multiple of 128 that still gives the same number of slots
//! ```
//!
//! A step of an eighth bounds the loss inside a slot, the rule for the span bounds the loss at its
//! end: each wastes at most one part in eight.
//!
//! # What differs from Go
//!
//! The table is Go's. spanheap uses it from 16 bytes on: two objects in one granule could not be
//! told apart in the side bitmaps, so the 8-byte class exists and is never handed out by
//! [`SizeClass::for_size`] or [`SizeClass::for_layout`]. Objects have no header either, so no
//! request is made larger than the type is; what Go would answer is kept in [`go_compat`], for
//! comparison only.
//!
//! Everything is `const fn`: a type's class is a constant of the program.

use crate::addr::{Bytes, PAGE_BYTES, PageCount};

/// Number of classes, with class 0 for large objects.
pub const CLASS_COUNT: usize = 68;

/// The largest object that lives in a slot; larger ones have a span of their own.
pub const MAX_SMALL_SIZE: Bytes = Bytes::new(32768);

/// The most slots that a span can have: 8-byte slots in one page.
pub const MAX_OBJECTS_PER_SPAN: usize = PAGE_BYTES / TABLE_ALIGN;

/// The most pages that a span of slots can have.
pub const MAX_PAGES_PER_SPAN: PageCount = PageCount::new(10);

/// The smallest slot that is handed out: a granule.
pub const MIN_SLOT_SIZE: Bytes = Bytes::new(crate::addr::GRANULE_BYTES);

/// The largest alignment that a slot can have: a span starts at a page, so its slots cannot promise
/// more.
pub const MAX_SLOT_ALIGN: usize = PAGE_BYTES;

/// Every slot size is a multiple of this.
const TABLE_ALIGN: usize = 8;

/// Below this many bytes a class is looked up in steps of [`FINE_STEP`], above in steps of
/// [`COARSE_STEP`].
pub const FINE_MAX: usize = 1024;
/// Bytes between the entries of the lookup table for sizes below [`FINE_MAX`].
pub const FINE_STEP: usize = 8;
/// Bytes between the entries of the lookup table for sizes above [`FINE_MAX`]. Slot sizes that were
/// stretched are multiples of it.
pub const COARSE_STEP: usize = 128;

/// One row of the table.
#[derive(Clone, Copy)]
struct Row {
    /// Bytes of a slot.
    size: u32,
    /// `2^32 / size` rounded up: the multiplier that replaces a division by `size`.
    div_magic: u32,
    /// Slots in a span.
    objects: u16,
    /// Pages of a span.
    pages: u8,
}

/// Row 0 stands for large objects and has no numbers.
static TABLE: [Row; CLASS_COUNT] = TABLE_VALUE;
const TABLE_VALUE: [Row; CLASS_COUNT] = generate();

/// Class of the sizes in `(8 (i - 1), 8 i]`.
const FINE: [u8; FINE_MAX / FINE_STEP + 1] = lookup(0, FINE_STEP);
/// Class of the sizes in `(1024 + 128 (i - 1), 1024 + 128 i]`.
const COARSE: [u8; (MAX_SMALL_SIZE.get() - FINE_MAX) / COARSE_STEP + 1] =
    lookup(FINE_MAX, COARSE_STEP);

static FINE_CLASSES: [u8; FINE.len()] = FINE;
static COARSE_CLASSES: [u8; COARSE.len()] = COARSE;

/// The fewest pages, in bytes, that lose at most an eighth at their end to slots of `size` bytes.
const fn span_bytes_for(size: usize) -> usize {
    let mut span = PAGE_BYTES;
    while span % size > span / 8 {
        span += PAGE_BYTES;
    }
    span
}

/// The table; the rules are in the essay of this file.
const fn generate() -> [Row; CLASS_COUNT] {
    let mut sizes = [0usize; CLASS_COUNT];
    let mut spans = [0usize; CLASS_COUNT];
    let mut last = 0;
    let mut step = TABLE_ALIGN;
    let mut size = TABLE_ALIGN;
    while size <= MAX_SMALL_SIZE.get() {
        if size.is_power_of_two() {
            if size >= 2048 {
                step = 256;
            } else if size >= 128 {
                step = size / 8;
            } else if size >= 32 {
                step = 16;
            }
        }
        let span = span_bytes_for(size);
        let merges = last > 0 && spans[last] == span && span / sizes[last] == span / size;
        if !merges {
            last += 1;
        }
        sizes[last] = size;
        spans[last] = span;
        size += step;
    }
    assert!(last + 1 == CLASS_COUNT, "the rules yield 67 small classes");

    let mut rows = [Row { size: 0, div_magic: 0, objects: 0, pages: 0 }; CLASS_COUNT];
    let mut class = 1;
    while class < CLASS_COUNT {
        rows[class] = finished_row(sizes[class], spans[class]);
        class += 1;
    }
    rows
}

/// The row for slots of `size` bytes, or larger ones if as many of them fit in the span.
const fn finished_row(size: usize, span: usize) -> Row {
    let objects = span / size;
    let stretched = span / objects / COARSE_STEP * COARSE_STEP;
    let size = if stretched > size { stretched } else { size };
    let pages = span / PAGE_BYTES;
    assert!(pages <= MAX_PAGES_PER_SPAN.get() && objects <= MAX_OBJECTS_PER_SPAN);
    Row {
        size: size as u32,
        div_magic: u32::MAX / size as u32 + 1,
        objects: objects as u16,
        pages: pages as u8,
    }
}

/// The smallest class for `base + step * i` bytes, for every i.
const fn lookup<const N: usize>(base: usize, step: usize) -> [u8; N] {
    let mut classes = [0; N];
    let mut i = 0;
    let mut class = 0;
    while i < N {
        while (TABLE_VALUE[class].size as usize) < base + step * i {
            class += 1;
        }
        classes[i] = class as u8;
        i += 1;
    }
    classes
}

/// The multiplication replaces the division for every offset in a span: checked at each slot's
/// first and last byte, between which the product only rises.
const fn check_div_magic() {
    let mut class = 1;
    while class < CLASS_COUNT {
        let row = TABLE_VALUE[class];
        let mut slot = 0;
        // One more than there are slots: the waste at the end of a span divides right as well.
        while slot <= row.objects as usize {
            let first = slot * row.size as usize;
            let last = first + row.size as usize - 1;
            assert!(divided(first, row.div_magic) == slot && divided(last, row.div_magic) == slot);
            slot += 1;
        }
        class += 1;
    }
}

const fn divided(offset: usize, magic: u32) -> usize {
    ((offset as u64 * magic as u64) >> 32) as usize
}

const _: () = check_div_magic();

/// A class of slots of one size: 1 to 67. "Large", class 0 of the table, is `None` where it can
/// occur.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct SizeClass(u8);

impl SizeClass {
    /// The class of 16-byte slots, the smallest that is handed out; tiny objects share them.
    pub const SMALLEST: SizeClass = SizeClass(2);

    /// The class with this number; `None` for 0 and for numbers past the table.
    #[inline]
    pub const fn from_index(index: usize) -> Option<SizeClass> {
        if index == 0 || index >= CLASS_COUNT { None } else { Some(SizeClass(index as u8)) }
    }

    /// The number of the class in the table, 1 to 67.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The class that the table has for `size` bytes, the 8-byte class included: what Go answers.
    ///
    /// `None` for 0 bytes, and for more than [`MAX_SMALL_SIZE`].
    #[inline]
    pub const fn table_entry_for(size: Bytes) -> Option<SizeClass> {
        let size = size.get();
        if size > MAX_SMALL_SIZE.get() {
            return None;
        }
        let class = if size <= FINE_MAX - FINE_STEP {
            FINE_CLASSES[size.div_ceil(FINE_STEP)]
        } else {
            COARSE_CLASSES[size.saturating_sub(FINE_MAX).div_ceil(COARSE_STEP)]
        };
        SizeClass::from_index(class as usize)
    }

    /// The class of an object of `size` bytes that needs no alignment beyond that of its size; at
    /// least the 16-byte class. `None`: large.
    #[inline]
    pub const fn for_size(size: Bytes) -> Option<SizeClass> {
        if size.get() <= MIN_SLOT_SIZE.get() {
            return Some(SizeClass::SMALLEST);
        }
        SizeClass::table_entry_for(size)
    }

    /// The smallest class of at least `size` bytes whose slots are all aligned to `align`, that is,
    /// whose slot size is a multiple of it. `None`: the object needs a span of its own.
    ///
    /// # Panics
    /// When `align` is not a power of two.
    pub const fn for_layout(size: Bytes, align: usize) -> Option<SizeClass> {
        assert!(align.is_power_of_two(), "an alignment is a power of two");
        if align > MAX_SLOT_ALIGN {
            return None;
        }
        let Some(mut class) = SizeClass::for_size(size) else { return None };
        while class.size().get() % align != 0 {
            match SizeClass::from_index(class.index() + 1) {
                Some(next) => class = next,
                None => return None,
            }
        }
        Some(class)
    }

    #[inline]
    const fn row(self) -> &'static Row {
        &TABLE[self.0 as usize]
    }

    /// Bytes of a slot.
    #[inline]
    pub const fn size(self) -> Bytes {
        Bytes::new(self.row().size as usize)
    }

    /// Pages of a span.
    #[inline]
    pub const fn pages(self) -> PageCount {
        PageCount::new(self.row().pages as usize)
    }

    /// Slots in a span.
    #[inline]
    pub const fn objects(self) -> usize {
        self.row().objects as usize
    }

    /// Bytes at the end of a span that belong to no slot.
    #[inline]
    pub const fn tail_waste(self) -> Bytes {
        Bytes::new(self.pages().bytes().get() - self.objects() * self.size().get())
    }

    /// The multiplier of [`SizeClass::object_index`]: `floor((2^32 - 1) / size) + 1`.
    #[inline]
    pub const fn div_magic(self) -> u32 {
        self.row().div_magic
    }

    /// The number of the slot that holds the byte `offset` of a span, by one multiplication. An
    /// offset in the tail behind the last slot gives [`SizeClass::objects`].
    ///
    /// The offset is at most the span's length; further up the product need not be exact.
    #[inline]
    pub const fn object_index(self, offset: Bytes) -> usize {
        debug_assert!(offset.get() <= self.pages().bytes().get(), "the offset is outside the span");
        divided(offset.get(), self.div_magic())
    }

    /// Every class that is handed out, smallest first.
    pub fn all() -> impl Iterator<Item = SizeClass> {
        (SizeClass::SMALLEST.0..CLASS_COUNT as u8).map(SizeClass)
    }
}

/// The bytes that an object of `size` bytes can use: its slot, or whole pages when it is large.
///
/// `None` when whole pages overflow the address space.
#[inline]
pub const fn usable_size(size: Bytes) -> Option<Bytes> {
    match SizeClass::for_size(size) {
        Some(class) => Some(class.size()),
        None => match size.checked_pages() {
            Some(pages) => Some(pages.bytes()),
            None => None,
        },
    }
}

/// What Go 1.27 answers where spanheap decides differently. Nothing in spanheap allocates by these
/// rules; they are here so that the shared table can be checked against Go's own answers.
pub mod go_compat {
    use super::{Bytes, MAX_SMALL_SIZE, SizeClass};

    /// Bytes of the type header in front of a Go object with pointers of more than
    /// [`MIN_SIZE_FOR_HEADER`] bytes.
    pub const HEADER_SIZE: Bytes = Bytes::new(8);

    /// Objects with pointers get a header when they are larger than this.
    pub const MIN_SIZE_FOR_HEADER: Bytes = Bytes::new(512);

    /// Block size of Go's allocator for tiny objects without pointers.
    pub const TINY_SIZE: Bytes = Bytes::new(16);

    /// The usable size of the block that Go returns for a request of `size` bytes; `noscan` says
    /// that the type has no pointers. A size that cannot be rounded to pages is returned as it is.
    pub const fn round_up_size(size: Bytes, noscan: bool) -> Bytes {
        if size.get() <= MAX_SMALL_SIZE.get() - HEADER_SIZE.get() {
            let has_header = !noscan && size.get() > MIN_SIZE_FOR_HEADER.get();
            let header = if has_header { HEADER_SIZE.get() } else { 0 };
            return match SizeClass::table_entry_for(Bytes::new(size.get() + header)) {
                Some(class) => Bytes::new(class.size().get() - header),
                None => size,
            };
        }
        match size.checked_align_up(crate::addr::PAGE_BYTES) {
            Some(rounded) => rounded,
            None => size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        for size in 0..=MAX_SMALL_SIZE.get() {
            let class = SizeClass::for_size(Bytes::new(size)).expect("a small size has a class");
            let slow = SizeClass::all().find(|class| class.size().get() >= size);
            assert_eq!(Some(class), slow, "{size} bytes");
        }
        assert_eq!(SizeClass::for_size(Bytes::new(MAX_SMALL_SIZE.get() + 1)), None);
        assert_eq!(SizeClass::for_size(Bytes::new(usize::MAX)), None);
    }

    #[test]
    fn the_eight_byte_class_is_in_the_table_and_is_not_handed_out() {
        let eight = SizeClass::table_entry_for(Bytes::new(8)).expect("it is in the table");
        assert_eq!((eight.index(), eight.size().get(), eight.objects()), (1, 8, 1024));
        assert_eq!(SizeClass::for_size(Bytes::new(8)), Some(SizeClass::SMALLEST));
        assert_eq!(SizeClass::for_layout(Bytes::new(1), 1), Some(SizeClass::SMALLEST));
        assert!(SizeClass::all().all(|class| class.size() >= MIN_SLOT_SIZE));
    }

    #[test]
    fn a_layout_gets_the_smallest_class_whose_slots_are_aligned() {
        for align_log in 0..=14 {
            let align = 1usize << align_log;
            for size in (0..=MAX_SMALL_SIZE.get() + 100).step_by(13) {
                let slow = SizeClass::all().find(|class| {
                    let size_of_slot = class.size().get();
                    align <= PAGE_BYTES && size_of_slot >= size && size_of_slot % align == 0
                });
                let class = SizeClass::for_layout(Bytes::new(size), align);
                assert_eq!(class, slow, "{size} bytes aligned to {align}");
            }
        }
        // Three words: the class that is no multiple of the granule is right for words only.
        assert_eq!(SizeClass::for_layout(Bytes::new(24), 8).unwrap().size(), Bytes::new(24));
        assert_eq!(SizeClass::for_layout(Bytes::new(24), 16).unwrap().size(), Bytes::new(32));
    }

    #[test]
    fn the_index_of_an_object_is_its_offset_divided_by_its_size() {
        for class in SizeClass::all() {
            for offset in 0..=class.pages().bytes().get() {
                let index = class.object_index(Bytes::new(offset));
                assert_eq!(index, offset / class.size().get(), "{class:?} {offset}");
            }
        }
    }

    #[test]
    fn usable_size_is_the_slot_or_whole_pages() {
        let usable = |size| usable_size(Bytes::new(size)).map(Bytes::get);
        assert_eq!(usable(0), Some(16));
        assert_eq!(usable(17), Some(24));
        assert_eq!(usable(513), Some(576));
        assert_eq!(usable(32768), Some(32768));
        assert_eq!(usable(32769), Some(40960));
        assert_eq!(usable(usize::MAX), None);
        // Go's rule for the same request with pointers, for contrast: eight bytes are a header.
        assert_eq!(go_compat::round_up_size(Bytes::new(513), false), Bytes::new(568));
    }

    #[test]
    fn a_class_is_a_constant_of_the_program() {
        const CLASS: Option<SizeClass> = SizeClass::for_layout(Bytes::new(100), 32);
        const SIZE: Bytes = CLASS.unwrap().size();
        assert_eq!(SIZE, Bytes::new(128));
    }

    #[test]
    fn losses_are_bounded_by_an_eighth() {
        for class in SizeClass::all() {
            let span = class.pages().bytes().get();
            assert!(class.tail_waste().get() <= span / 8, "{class:?}");
        }
    }
}
