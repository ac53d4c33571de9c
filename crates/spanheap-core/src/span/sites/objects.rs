//! Which values were allocated in a chunk, of which type, and where in the program.
//!
//! A table that only grows: a list of [`Block`]s of 127 entries each. It lies beside the chunk, because the chunk's own
//! memory is given back when its arena is freed.
//!
//! ```text
//! note:  take the next entry of the last block; none left: append a block
//!        write name, size, site                        (relaxed)
//!        write the address                             (release)
//! find:  for each block, for each entry that was taken:
//!            address                                   (acquire; 0: still being written)
//!            the others
//! ```
//!
//! Any number of threads may note at once: each has an entry to itself. So a table is whole whatever its users do, and
//! a reader on another thread, in a signal handler, finds in an entry with an address what its writer has put there.
//!
//! # Recycling
//! A block that is recycled may be read by somebody who found it in its last life. What he reads is atomic,
//! and may be of either life. He learns of it from the version of the record that he started from; the
//! argument is in `records.rs`, and needs the fence in [`Block::renew`]. Only then he believes anything.
//!
//! # Safety
//! - B1. In an entry whose address is not 0, name and length are those of one `&'static str`, unless the block is
//!   renewed meanwhile.
#![allow(unsafe_code)]

use super::link::{Link, Linked};
use crate::addr::{Addr, Bytes};
use crate::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
use core::panic::Location;
use core::ptr;

/// Entries in a block, which is a little less than 4 KiB with its head.
pub(super) const ENTRIES: usize = 127;

/// Bits of the word `extent` that are the size; above them there are one for slices, and the length of the name.
const SIZE_BITS: u32 = 47;
const SLICE: u64 = 1 << SIZE_BITS;
const NAME_SHIFT: u32 = SIZE_BITS + 1;

/// One value, or slice of values.
struct Entry {
    /// Where it begins; 0: not noted yet.
    start: AtomicUsize,
    name: AtomicPtr<u8>,
    /// Its size, whether it is a slice, and how long the name is.
    extent: AtomicU64,
    site: Link<Location<'static>>,
}

impl Entry {
    const fn new() -> Entry {
        Entry {
            start: AtomicUsize::new(0),
            name: AtomicPtr::new(ptr::null_mut()),
            extent: AtomicU64::new(0),
            site: Link::none(),
        }
    }
}

/// What is known about a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Object {
    pub(super) start: Addr,
    pub(super) bytes: Bytes,
    /// Of its type, or that of its elements; empty if it has none.
    pub(super) name: &'static str,
    pub(super) is_slice: bool,
    /// Where it was allocated.
    pub(super) site: &'static Location<'static>,
}

/// What was read of an entry, and may be of two lives.
#[derive(Clone, Copy)]
pub(super) struct Unproven {
    start: usize,
    name: *const u8,
    extent: u64,
    site: Option<&'static Location<'static>>,
}

impl Unproven {
    /// What it says.
    ///
    /// # Safety
    /// The block was not renewed between the time at which it was found and the end of the reading.
    pub(super) unsafe fn prove(self) -> Option<Object> {
        let length = (self.extent >> NAME_SHIFT) as usize;
        // SAFETY: B1; the caller promises that it is one life.
        let bytes = unsafe { core::slice::from_raw_parts(self.name, length) };
        Some(Object {
            start: Addr::new(self.start),
            bytes: size_of_extent(self.extent),
            // A name that was cut (see `note`) may end in the middle of a character.
            name: whole_characters(bytes),
            is_slice: self.extent & SLICE != 0,
            site: self.site?,
        })
    }
}

fn size_of_extent(extent: u64) -> Bytes {
    Bytes::new((extent & (SLICE - 1)) as usize)
}

/// The text without a character that is cut.
fn whole_characters(bytes: &[u8]) -> &str {
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
    }
}

/// A part of a table.
pub(super) struct Block {
    /// The next part; or, if nobody uses the block, the next such one.
    next: Link<Block>,
    /// How many entries were taken, or more.
    taken: AtomicUsize,
    entries: [Entry; ENTRIES],
}

impl Linked for Block {
    fn next(&self) -> &Link<Block> {
        &self.next
    }
}

impl Block {
    /// A block without entries, for [`renew`](Block::renew).
    pub(super) const fn new() -> Block {
        Block {
            next: Link::none(),
            taken: AtomicUsize::new(0),
            entries: [const { Entry::new() }; ENTRIES],
        }
    }

    /// A new life for a block that belongs to the caller.
    pub(super) fn renew(&self) {
        // Whoever sees anything of what is written from here on sees that its last life has ended, once he has passed a
        // fence of his own.
        fence(Ordering::Release);
        for entry in &self.entries {
            entry.start.store(0, Ordering::Relaxed);
        }
        self.next.set(None, Ordering::Relaxed);
        self.taken.store(0, Ordering::Relaxed);
    }

    /// Notes a value. `false`: the block is full.
    pub(super) fn note(&self, object: &Object) -> bool {
        // The second look keeps the counter from ever coming round.
        if self.taken.load(Ordering::Relaxed) >= ENTRIES {
            return false;
        }
        let Some(entry) = self.entries.get(self.taken.fetch_add(1, Ordering::Relaxed)) else {
            return false;
        };
        // A name of 64 KiB is cut; a size of 128 TiB there is none.
        let length = object.name.len().min(usize::from(u16::MAX)) as u64;
        let size = (object.bytes.get() as u64).min(SLICE - 1);
        let slice = if object.is_slice { SLICE } else { 0 };
        entry.name.store(object.name.as_ptr().cast_mut(), Ordering::Relaxed);
        entry.extent.store(length << NAME_SHIFT | slice | size, Ordering::Relaxed);
        entry.site.set(Some(object.site), Ordering::Relaxed);
        // Partner: `find`. What was written before belongs to this address.
        entry.start.store(object.start.get(), Ordering::Release);
        true
    }

    /// The entry in whose value `addr` lies.
    pub(super) fn find(&self, addr: Addr) -> Option<Unproven> {
        self.entries.iter().find_map(|entry| {
            let start = entry.start.load(Ordering::Acquire);
            let extent = entry.extent.load(Ordering::Relaxed);
            let inside = addr.get().checked_sub(start)?;
            // An empty value has its one address.
            if start == 0 || inside >= size_of_extent(extent).get().max(1) {
                return None;
            }
            let name = entry.name.load(Ordering::Relaxed).cast_const();
            Some(Unproven { start, name, extent, site: entry.site.get(Ordering::Relaxed) })
        })
    }

    /// The block behind it.
    pub(super) fn following(&self) -> Option<&'static Block> {
        self.next.get(Ordering::Acquire)
    }

    /// Appends a block, if there is none yet; else says which.
    pub(super) fn append(&self, block: &'static Block) -> Result<(), Option<&'static Block>> {
        self.next.replace(None, block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(block: &Block, addr: usize) -> Option<Object> {
        let found = block.find(Addr::new(addr))?;
        // SAFETY: nobody renews the block meanwhile.
        unsafe { found.prove() }
    }

    fn object(start: usize, bytes: usize, name: &'static str) -> Object {
        let site = Location::caller();
        Object { start: Addr::new(start), bytes: Bytes::new(bytes), name, is_slice: false, site }
    }

    #[test]
    fn a_block_has_the_size_of_a_page() {
        assert_eq!(size_of::<Block>(), 4096 - 16);
    }

    #[test]
    fn each_byte_of_a_value_leads_to_it_and_none_beside_it() {
        let block = Block::new();
        let (a, b) = (object(0x1000, 24, "A"), object(0x1020, 1, "B"));
        let empty = object(0x1030, 0, "empty");
        for object in [&a, &b, &empty] {
            assert!(block.note(object));
        }
        for (addr, expected) in [
            (0xfff, None),
            (0x1000, Some(a)),
            (0x1017, Some(a)),
            (0x1018, None),
            (0x1020, Some(b)),
            (0x1021, None),
            (0x1030, Some(empty)),
            (0x1031, None),
            (0, None),
        ] {
            assert_eq!(find(&block, addr), expected, "{addr:#x}");
        }
    }

    #[test]
    fn a_slice_is_one_and_extreme_figures_are_cut() {
        let block = Block::new();
        let name: &'static str = Box::leak("é".repeat(40_000).into_boxed_str());
        let huge = Object { is_slice: true, ..object(8, usize::MAX, name) };
        assert!(block.note(&huge));
        let found = find(&block, 1 << 46).unwrap();
        assert!(found.is_slice && found.bytes.get() == (1 << 47) - 1);
        assert!(found.name.len() == 65_534 && name.starts_with(found.name));
    }

    #[test]
    fn a_full_block_says_so_and_a_renewed_one_is_empty() {
        let block = Block::new();
        for n in 0..ENTRIES {
            assert!(block.note(&object(16 * (n + 1), 16, "x")));
        }
        for _ in 0..3 {
            assert!(!block.note(&object(0x10_0000, 16, "x")));
        }
        assert!(find(&block, 16 * ENTRIES + 15).is_some());
        block.renew();
        assert!(find(&block, 16).is_none());
        assert!(block.note(&object(32, 8, "y")));
        assert_eq!(find(&block, 39).unwrap().name, "y");
    }
}
