//! Names for mappings, so that `/proc/self/maps` says `[anon:spanheap: heap]` and not nothing.
//!
//! Where the kernel has them, every mapping of the manager carries the name of its category, or
//! "reservation". That is what tells the reader of a memory map, or of a report about a process that was
//! killed for its size, whose memory it is.
//!
//! # Names and the number of mappings
//! The kernel merges neighbouring mappings only if their names are the same. So names may not be finer
//! than what separates mappings anyway:
//!
//! * A *reservation* is inaccessible and what is mapped in it is not: they are different mappings with or
//!   without names. `map` names exactly the range that it has just made accessible, and the kernel merges it
//!   with the part below, which has the same name. A range that `fault` has replaced gets the
//!   reservation's name back and merges with the reservation around it.
//! * Blocks from *alloc* lie beside each other and would be one mapping without names; blocks of different
//!   categories are not, with names. So only a bounded number of them is named: the first
//!   [`NAMED_BLOCKS`] of an `Os`.
//! * What changes often is not named at all: `used`, `unused` and `guard` make no such call.
//!
//! # When it does not work
//! The first answer that says "never" (a kernel without names: `EINVAL`; a sandbox: `EPERM`) is the last
//! question. Want of memory or of mappings leaves the one range without a name. A name is never the reason
//! why an operation fails.

use core::ffi::CStr;

use super::calls;
use crate::addr::AddrRange;
use crate::os::Category;
use crate::os::feature::{Feature, Latch, is_forbidden};
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many blocks of `alloc` get a name, and may cost a mapping each because of it.
const NAMED_BLOCKS: usize = 1024;

/// What reserved address space is called.
const RESERVATION: &CStr = c"spanheap: reservation";

/// What memory of a category is called.
const fn name_of(category: Category) -> &'static CStr {
    match category {
        Category::Heap => c"spanheap: heap",
        Category::SideTables => c"spanheap: side tables",
        Category::PageTables => c"spanheap: page tables",
        Category::Metadata => c"spanheap: metadata",
        Category::MarkQueue => c"spanheap: mark queue",
        Category::Roots => c"spanheap: roots",
        Category::Diagnostics => c"spanheap: diagnostics",
    }
}

/// Who gives the names.
pub(super) struct Names {
    latch: Latch,
    /// How many blocks have been named.
    blocks: AtomicUsize,
}

impl Names {
    /// Gives names if they are wanted and for as long as the kernel takes them.
    pub(super) const fn new(wanted: bool) -> Names {
        let feature = if wanted { Feature::Untried } else { Feature::Off };
        Names { latch: Latch::new(feature), blocks: AtomicUsize::new(0) }
    }

    pub(super) fn feature(&self) -> Feature {
        self.latch.get()
    }

    /// For a range that is a reservation, or has become one again.
    pub(super) fn reserved(&self, range: AddrRange) {
        self.give(range, RESERVATION, calls::set_name);
    }

    /// For a range that has been mapped in a reservation.
    pub(super) fn mapped(&self, range: AddrRange, category: Category) {
        self.give(range, name_of(category), calls::set_name);
    }

    /// For a block that lies among other blocks.
    pub(super) fn allocated(&self, range: AddrRange, category: Category) {
        if self.latch.is_open() && self.may_name_block() {
            self.give(range, name_of(category), calls::set_name);
        }
    }

    fn may_name_block(&self) -> bool {
        self.blocks.load(Relaxed) < NAMED_BLOCKS && self.blocks.fetch_add(1, Relaxed) < NAMED_BLOCKS
    }

    fn give(
        &self,
        range: AddrRange,
        name: &CStr,
        call: impl FnOnce(AddrRange, &CStr) -> Result<(), i32>,
    ) {
        if self.latch.is_open() {
            let result = call(range, name);
            // The names are made of letters that the kernel accepts, and ranges are whole pages, so an
            // "invalid argument" is the call itself.
            self.latch.note(&result, |errno| is_forbidden(errno) || errno == libc::EINVAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Addr, Bytes};
    use std::cell::Cell;

    fn range() -> AddrRange {
        AddrRange::at(Addr::new(1 << 30), Bytes::new(4096))
    }

    #[test]
    fn every_category_has_a_name_that_the_kernel_accepts() {
        let all = Category::ALL.map(|category| {
            let name = name_of(category).to_str().unwrap();
            assert_eq!(name, format!("spanheap: {category}"));
            name
        });
        for name in all.into_iter().chain([RESERVATION.to_str().unwrap()]) {
            // 80 bytes with the terminator, printable, and none of these.
            assert!(name.len() < 80, "{name}");
            assert!(name.chars().all(|c| (' '..='~').contains(&c) && !"[]\\$`".contains(c)));
        }
    }

    #[test]
    fn the_first_lasting_refusal_is_the_last_question() {
        for errno in [libc::EINVAL, libc::ENOSYS, libc::EPERM] {
            let names = Names::new(true);
            let calls = Cell::new(0);
            let ask = |answer| {
                names.give(range(), RESERVATION, |_, _| {
                    calls.set(calls.get() + 1);
                    answer
                });
            };
            ask(Err(libc::ENOMEM));
            assert_eq!(names.feature(), Feature::Untried);
            ask(Ok(()));
            assert_eq!(names.feature(), Feature::Works);
            ask(Err(errno));
            assert_eq!(names.feature(), Feature::Refused(errno));
            ask(Ok(()));
            assert_eq!(calls.get(), 3, "after the refusal nobody asks");
        }
        let names = Names::new(false);
        names.give(range(), RESERVATION, |_, _| panic!("names are off"));
    }

    #[test]
    fn a_bounded_number_of_blocks_is_named() {
        let names = Names::new(true);
        let named = (0..2 * NAMED_BLOCKS).filter(|_| names.may_name_block()).count();
        assert_eq!(named, NAMED_BLOCKS);
    }
}
