//! The page sizes that the manager can work with.
//!
//! The bounds are those of the tables above this layer. Below 4 KiB no supported processor goes. Above
//! 512 KiB, the smallest unit of physical memory would be a large part of a chunk of the page allocator
//! (4 MiB), and giving pages back would hardly ever find a whole one. A system outside of these bounds
//! is refused when an [`Os`](super::Os) is made, and not at the first allocation that goes wrong.
//!
//! A huge page is only a hint's unit. One that is larger than a chunk counts as none: the page allocator
//! looks for memory chunk by chunk, and would never have one to offer.
//!
//! Pure functions of what a system says about itself.

use crate::addr::{Bytes, CHUNK_BYTES};

/// The smallest physical page.
pub const MIN_PAGE: Bytes = Bytes::new(4 << 10);
/// The largest physical page.
pub const MAX_PAGE: Bytes = Bytes::new(512 << 10);
/// The largest huge page that is of use.
pub const MAX_HUGE_PAGE: Bytes = Bytes::new(CHUNK_BYTES);

const _: () = assert!(CHUNK_BYTES % MAX_PAGE.get() == 0, "chunks consist of whole pages");

/// Whether the manager can work with physical pages of this size.
pub(super) const fn is_page_size(bytes: Bytes) -> bool {
    let size = bytes.get();
    size.is_power_of_two() && size >= MIN_PAGE.get() && size <= MAX_PAGE.get()
}

/// The page size that a system has named.
///
/// # Panics
/// When the manager cannot work with it.
#[track_caller]
pub(super) fn checked_page_size(bytes: Bytes) -> Bytes {
    assert!(
        is_page_size(bytes),
        "the system's physical pages have {bytes}; a power of two from {MIN_PAGE} to {MAX_PAGE} is needed"
    );
    bytes
}

/// The huge page size that a system has named, or zero when it is of no use with such pages.
pub(super) const fn usable_huge_page_size(huge: Bytes, page: Bytes) -> Bytes {
    let size = huge.get();
    let usable = size.is_power_of_two() && size > page.get() && size <= MAX_HUGE_PAGE.get();
    if usable { huge } else { Bytes::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_four_to_five_hundred_and_twelve_kibibytes() {
        for shift in 0..usize::BITS {
            let expected = (12..=19).contains(&shift);
            assert_eq!(is_page_size(Bytes::new(1 << shift)), expected, "2^{shift}");
        }
        for size in [0, 1, 4095, 4097, 12 << 10, (512 << 10) - 1, usize::MAX] {
            assert!(!is_page_size(Bytes::new(size)), "{size}");
        }
    }

    #[test]
    #[should_panic(expected = "the system's physical pages have 1 MiB")]
    fn a_system_with_too_large_pages_is_refused() {
        checked_page_size(Bytes::new(1 << 20));
    }

    #[test]
    fn a_huge_page_is_larger_than_a_page_and_fits_in_a_chunk() {
        let usable = |huge, page| usable_huge_page_size(Bytes::new(huge), Bytes::new(page)).get();
        assert_eq!(usable(2 << 20, 4 << 10), 2 << 20);
        assert_eq!(usable(4 << 20, 4 << 10), 4 << 20);
        // With pages of 16 KiB and 64 KiB the kernel's huge pages have 32 MiB and 512 MiB.
        assert_eq!(usable(32 << 20, 16 << 10), 0);
        assert_eq!(usable(512 << 20, 64 << 10), 0);
        assert_eq!(usable(4 << 10, 4 << 10), 0);
        assert_eq!(usable(3 << 20, 4 << 10), 0);
        assert_eq!(usable(0, 4 << 10), 0);
    }
}
