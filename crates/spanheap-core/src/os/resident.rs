//! Which pages of a range are in memory, and how much memory the process has: the kernel's answers.
//!
//! **`/proc/self/pagemap` and not `mincore`.** What counts as resident memory of a process are
//! pages of its own. A page that was read and never written is backed by the kernel's one page of
//! zeros, which does not count; side tables and page tables have many of them. `mincore` calls such
//! a page resident, while the page map shows it as present, but neither mapped exclusively nor part
//! of a file. So the map is asked, eight bytes for each page, and `mincore` only where there is no
//! `/proc`.
//!
//! The price: pages that a forked child still shares look like the page of zeros, and do not count
//! here as long as the child has them.
//!
//! **`/proc/self/statm`** has the resident size of the process. The kernel adds it up from counters
//! per processor, so it may be off by some hundred KiB; in return, asking is cheap.
//!
//! # Safety
//! `mincore` writes to a buffer of this file, and of the range it only needs numbers.
#![allow(unsafe_code)]

use crate::addr::{AddrRange, Bytes};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Pages that are asked about at once.
const BATCH: usize = 512;

/// Bytes of an entry of the page map.
const ENTRY: usize = 8;

/// The page is in memory.
const PRESENT: u64 = 1 << 63;
/// The page belongs to a file, or to shared memory.
const FILE: u64 = 1 << 61;
/// The page is mapped once, here.
const EXCLUSIVE: u64 = 1 << 56;

/// Puts neighbouring pages together.
struct Runs<'a, F: FnMut(AddrRange)> {
    run: AddrRange,
    visit: &'a mut F,
}

impl<F: FnMut(AddrRange)> Runs<'_, F> {
    fn push(&mut self, page: AddrRange) {
        if page.base() == self.run.end() {
            self.run = AddrRange::new(self.run.base(), page.end());
        } else {
            self.finish();
            self.run = page;
        }
    }

    fn finish(&mut self) {
        if !self.run.is_empty() {
            (self.visit)(self.run);
        }
    }
}

/// Calls `visit` with each run of pages in `range` that are in memory. The range consists of whole
/// pages.
pub(super) fn for_each_run(range: AddrRange, page: Bytes, visit: &mut impl FnMut(AddrRange)) {
    let nothing = AddrRange::new(range.base(), range.base());
    let mut runs = Runs { run: nothing, visit };
    let map = File::open("/proc/self/pagemap").ok();
    let mut at = range.base();
    while at < range.end() {
        let pages = (range.end().bytes_since(at).get() / page.get()).min(BATCH);
        let batch = AddrRange::at(at, Bytes::new(pages * page.get()));
        let by_map = map.as_ref().and_then(|map| ask_map(map, batch, page));
        let present = by_map.unwrap_or_else(|| ask_mincore(batch, pages));
        for (index, _) in present[..pages].iter().enumerate().filter(|&(_, &present)| present) {
            runs.push(AddrRange::at(at + Bytes::new(index * page.get()), page));
        }
        at = batch.end();
    }
    runs.finish();
}

/// What the page map says of at most [`BATCH`] pages; `None` if it cannot be read.
fn ask_map(map: &File, batch: AddrRange, page: Bytes) -> Option<[bool; BATCH]> {
    let mut entries = [0u8; BATCH * ENTRY];
    let first = batch.base().get() / page.get();
    let entries = &mut entries[..batch.bytes().get() / page.get() * ENTRY];
    map.read_exact_at(entries, (first * ENTRY) as u64).ok()?;
    let mut present = [false; BATCH];
    for (entry, present) in entries.chunks_exact(ENTRY).zip(&mut present) {
        *present = is_resident(u64::from_ne_bytes(entry.try_into().ok()?));
    }
    Some(present)
}

fn is_resident(entry: u64) -> bool {
    entry & PRESENT != 0 && entry & (EXCLUSIVE | FILE) != 0
}

/// What `mincore` says of at most [`BATCH`] pages. Of a batch that is not mapped as a whole,
/// nothing.
fn ask_mincore(batch: AddrRange, pages: usize) -> [bool; BATCH] {
    let mut answer = [0u8; BATCH];
    debug_assert!(pages <= BATCH);
    let (base, bytes) = (batch.base().as_ptr(), batch.bytes().get());
    // SAFETY: the kernel writes a byte for each page of the batch, of which there are at most as
    // many as the buffer has; the memory itself is not touched.
    let status = unsafe { libc::mincore(base, bytes, answer.as_mut_ptr()) };
    answer.map(|byte| status == 0 && byte & 1 != 0)
}

/// The resident size of the process; `None` without `/proc`.
pub(super) fn of_process(page: Bytes) -> Option<Bytes> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    parse_statm(&text).and_then(|pages| pages.checked_mul(page.get())).map(Bytes::new)
}

fn parse_statm(text: &str) -> Option<usize> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;
    use crate::os::{Category, Os};

    #[test]
    fn statm_has_the_resident_size_second() {
        assert_eq!(parse_statm("765 434 406 5 0 123 0\n"), Some(434));
        assert_eq!(parse_statm("765"), None);
        assert_eq!(parse_statm("a b"), None);
    }

    #[test]
    fn a_page_of_zeros_is_not_resident_and_one_of_our_own_is() {
        assert!(is_resident(PRESENT | EXCLUSIVE));
        assert!(is_resident(PRESENT | FILE));
        assert!(!is_resident(PRESENT));
        assert!(!is_resident(EXCLUSIVE));
    }

    #[test]
    fn what_was_written_is_resident_and_its_neighbours_are_not() {
        let os = Os::native();
        let page = os.page_size();
        let bytes = Bytes::new(1500 * page.get());
        let range = AddrRange::at(os.alloc(bytes, Category::Heap).expect("memory"), bytes);
        os.hint_huge(range, false);
        let at = |index: usize| range.base() + Bytes::new(index * page.get());
        let written = [0, 1, 7, 511, 512, 513, 1499];
        for index in written {
            // SAFETY: the range was allocated above and is ours.
            unsafe { at(index).as_ptr::<u8>().write_volatile(1) };
        }
        // Read only: backed by the page of zeros.
        // SAFETY: as above.
        assert_eq!(unsafe { at(100).as_ptr::<u8>().read_volatile() }, 0);
        let mut found = Vec::new();
        os.resident(range, &mut |run: AddrRange| {
            found.push((run.base().bytes_since(range.base()).get() / page.get(), run.bytes()));
        });
        let bytes = |pages: usize| Bytes::new(pages * page.get());
        let expected = vec![(0, bytes(2)), (7, bytes(1)), (511, bytes(3)), (1499, bytes(1))];
        match File::open("/proc/self/pagemap") {
            Ok(_) => assert_eq!(found, expected),
            Err(error) => println!("no page map, so mincore answered: {error}"),
        }
        let present = ask_mincore(AddrRange::at(range.base(), bytes(BATCH)), BATCH);
        assert!(written[..4].iter().all(|&index| present[index]) && !present[2]);
        // SAFETY: O1, O2: the range was allocated above, and nobody uses it any more.
        unsafe { os.release(range, Category::Heap, range.bytes(), range.bytes()) };
    }

    #[test]
    fn the_process_is_resident_and_its_stack_too() {
        let os = Os::native();
        let here = 0u8;
        let mut seen = 0;
        let stack = Addr::of(&raw const here).align_down(os.page_size().get());
        let stack = AddrRange::at(stack, os.page_size());
        os.resident(stack, &mut |run: AddrRange| seen += run.bytes().get());
        assert_eq!(seen, os.page_size().get());
        assert!(os.process_resident().is_some_and(|bytes| bytes > os.page_size()));
    }
}
