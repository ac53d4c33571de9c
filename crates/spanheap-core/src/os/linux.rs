//! The operations of the `os` layer as Linux system calls.
//!
//! * `reserve`: `mmap`, inaccessible, not accounted, with the address as a plain hint, which never
//!   replaces a mapping and needs one call whether the place is free or not.
//! * `map`: `mprotect` to read and write. It fails *before* it changes anything. Mapping anew over
//!   the range may fail under strict overcommit when the old mapping is gone already, and would
//!   leave a hole into which somebody else's memory can fall.
//! * `used`: nothing; memory appears when it is touched.
//! * `unused`: `madvise(MADV_DONTNEED)`. The pages are gone at once and read as zeros afterwards,
//!   which the zeroing knowledge of the heap relies on; `MADV_FREE` would keep the process large
//!   until somebody else needs memory.
//! * `fault`: `mmap`, inaccessible, over the range: one call takes access, pages and commit charge
//!   away. An inaccessible private mapping is not charged, so the hazard named at `map` does not
//!   arise.
//! * `release`: `munmap`.
//!
//! **Errors.** `ENOMEM` stands for exhausted memory, for exhausted address space and for the limit
//! on the number of mappings; all are passed up. `EINTR` is repeated. `EAGAIN` from `madvise` means
//! that the kernel was short of something for a moment, and is repeated a few times; from `mmap` it
//! means that the limit on locked memory is reached, and is passed up. `MADV_DONTNEED` is refused
//! for locked memory (a process that called `mlockall`): then the range is zeroed by hand, because
//! callers rely on the zeros more than on the memory that would have been saved.
//!
//! A `munmap` in the middle of a mapping can need one mapping more than the limit allows. The range
//! is then given up but not given back: its pages are dropped, the address range stays ours for
//! ever, and the caller counts it as leaked.
//!
//! # Safety
//! This file is trusted to change only mappings inside ranges that it returned itself from
//! `reserve` and `alloc`. It takes the ranges as numbers and believes the layers above, which own
//! them (the contract of ranges, O1 and O2, in `mod.rs`); the simulated system believes nothing and
//! is run by the tests for that reason.
#![allow(unsafe_code)]

use core::ffi::c_int;
use std::fs::File;
use std::io::Read;

use libc::{
    MAP_ANONYMOUS, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE,
};

use super::error::last_errno;
use super::{Category, Operation, OsError, resident};
use crate::addr::{Addr, AddrRange, Bytes, CHUNK_BYTES};

/// How often a call that the kernel declined "for the moment" is repeated.
const RETRIES: usize = 16;

/// An inaccessible mapping that costs nothing but address space.
const RESERVATION: c_int = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

/// The running Linux kernel.
pub(super) struct NativeOs {
    page_size: Bytes,
    huge_page_size: Bytes,
}

impl NativeOs {
    /// Asks the kernel for its page sizes.
    pub(super) fn new() -> NativeOs {
        // SAFETY: sysconf reads a constant of the running system and has no preconditions.
        let answer = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page_size = usize::try_from(answer).unwrap_or(0);
        assert!(page_size >= 4096 && page_size.is_power_of_two(), "page size {answer}");
        NativeOs { page_size: Bytes::new(page_size), huge_page_size: huge_page_size() }
    }

    pub(super) fn page_size(&self) -> Bytes {
        self.page_size
    }

    pub(super) fn huge_page_size(&self) -> Bytes {
        self.huge_page_size
    }

    pub(super) fn zero_after_unused(&self) -> bool {
        true
    }

    pub(super) fn reserve(&self, hint: Option<Addr>, bytes: Bytes) -> Result<Addr, OsError> {
        let place = hint.unwrap_or(Addr::NULL);
        map_pages(place, bytes, PROT_NONE, RESERVATION)
            .map_err(|errno| OsError::new(Operation::Reserve, bytes, errno))
    }

    pub(super) unsafe fn map(&self, range: AddrRange, _: Category) -> Result<(), OsError> {
        protect(range, PROT_READ | PROT_WRITE).map_err(|errno| {
            // The range may consist of several mappings, of which the first have been changed.
            let _ = protect(range, PROT_NONE);
            OsError::new(Operation::Map, range.bytes(), errno)
        })
    }

    pub(super) unsafe fn used(&self, _: AddrRange, _prepared: Bytes) -> Result<(), OsError> {
        Ok(())
    }

    pub(super) unsafe fn unused(&self, range: AddrRange, _ready: Bytes) {
        if discard(range).is_err() {
            // SAFETY: the range is Ready or Prepared, so it is readable and writable, and its
            // contents are forfeit: nobody else reads or writes it.
            unsafe { range.base().as_ptr::<u8>().write_bytes(0, range.bytes().get()) };
        }
    }

    pub(super) unsafe fn fault(
        &self,
        range: AddrRange,
        _: Category,
        _: Bytes,
    ) -> Result<(), OsError> {
        map_pages(range.base(), range.bytes(), PROT_NONE, RESERVATION | MAP_FIXED)
            .map(|placed| debug_assert_eq!(placed, range.base()))
            .map_err(|errno| OsError::new(Operation::Fault, range.bytes(), errno))
    }

    pub(super) unsafe fn release(
        &self,
        range: AddrRange,
        _: Category,
        _mapped: Bytes,
        _ready: Bytes,
    ) -> Result<(), OsError> {
        uninterrupted(|| {
            // SAFETY: the range came from `reserve` or `alloc` and its owner gives it up.
            let status = unsafe { libc::munmap(range.base().as_ptr(), range.bytes().get()) };
            check(status)
        })
        .map_err(|errno| {
            // Splitting no mapping, this can succeed where munmap cannot.
            let _ = discard(range);
            OsError::new(Operation::Release, range.bytes(), errno)
        })
    }

    pub(super) fn alloc(&self, bytes: Bytes, _: Category) -> Result<Addr, OsError> {
        map_pages(Addr::NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
            .map_err(|errno| OsError::new(Operation::Alloc, bytes, errno))
    }

    pub(super) fn hint_huge(&self, range: AddrRange, wanted: bool) {
        let advice = if wanted { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        // A kernel without huge pages refuses; a hint that is not taken is not an error.
        let _ = advise(range, advice);
    }

    pub(super) fn resident(&self, range: AddrRange, visit: &mut impl FnMut(AddrRange)) {
        resident::for_each_run(range, self.page_size, visit);
    }

    pub(super) fn process_resident(&self) -> Option<Bytes> {
        resident::of_process(self.page_size)
    }
}

/// The size of a transparent huge page, or zero when the kernel has none or one that would be
/// larger than a chunk of the page allocator, which could not use it.
fn huge_page_size() -> Bytes {
    let mut text = [0u8; 32];
    let length = File::open("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
        .and_then(|mut file| file.read(&mut text))
        .unwrap_or(0);
    Bytes::new(parse_huge_page_size(&text[..length]))
}

fn parse_huge_page_size(text: &[u8]) -> usize {
    let number = core::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
    number.filter(|n: &usize| n.is_power_of_two() && *n <= CHUNK_BYTES).unwrap_or(0)
}

fn check(status: c_int) -> Result<(), i32> {
    if status == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Repeats a call for as long as a signal interrupts it.
fn uninterrupted<T>(mut call: impl FnMut() -> Result<T, i32>) -> Result<T, i32> {
    loop {
        match call() {
            Err(libc::EINTR) => {}
            result => return result,
        }
    }
}

/// One `mmap` of anonymous memory. With `MAP_FIXED` the place must be ours.
fn map_pages(place: Addr, bytes: Bytes, protection: c_int, flags: c_int) -> Result<Addr, i32> {
    uninterrupted(|| {
        // SAFETY: anonymous memory at a place of the kernel's choice touches nothing that exists;
        // with MAP_FIXED, which only `fault` passes, the range is ours and its contents are
        // forfeit.
        let start = unsafe { libc::mmap(place.as_ptr(), bytes.get(), protection, flags, -1, 0) };
        if start == libc::MAP_FAILED { Err(last_errno()) } else { Ok(Addr::of(start.cast_const())) }
    })
}

fn protect(range: AddrRange, protection: c_int) -> Result<(), i32> {
    uninterrupted(|| {
        // SAFETY: the range is ours, and its owner asked for the change of state, so no reference
        // into it is live that the new protection would invalidate.
        let status =
            unsafe { libc::mprotect(range.base().as_ptr(), range.bytes().get(), protection) };
        check(status)
    })
}

fn advise(range: AddrRange, advice: c_int) -> Result<(), i32> {
    uninterrupted(|| {
        // SAFETY: the range is ours; the advices in use either leave the contents alone or, from
        // `discard`, drop contents that the owner has declared forfeit.
        let status = unsafe { libc::madvise(range.base().as_ptr(), range.bytes().get(), advice) };
        check(status)
    })
}

/// Drops the pages behind a range; afterwards it reads as zeros, if it can be read.
fn discard(range: AddrRange) -> Result<(), i32> {
    let mut result = advise(range, libc::MADV_DONTNEED);
    for _ in 0..RETRIES {
        if result != Err(libc::EAGAIN) {
            break;
        }
        std::thread::yield_now();
        result = advise(range, libc::MADV_DONTNEED);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_page_size_is_believed_only_when_it_makes_sense() {
        assert_eq!(parse_huge_page_size(b"2097152\n"), 2 << 20);
        assert_eq!(parse_huge_page_size(b"536870912\n"), 0);
        assert_eq!(parse_huge_page_size(b"2097151"), 0);
        assert_eq!(parse_huge_page_size(b""), 0);
        assert_eq!(parse_huge_page_size(b"\xffhuge"), 0);
    }

    #[test]
    fn locked_memory_reads_as_zeros_after_unused() {
        let os = NativeOs::new();
        let range =
            AddrRange::at(os.alloc(os.page_size(), Category::Heap).unwrap(), os.page_size());
        let word = range.base().as_ptr::<u64>();
        // SAFETY: the page was allocated above; locking has no memory effects.
        let locked = unsafe { libc::mlock(word.cast(), range.bytes().get()) } == 0;
        // SAFETY: the page is ready and ours alone.
        unsafe { word.write(7) };
        if !locked || discard(range) != Err(libc::EINVAL) {
            // Not allowed to lock, or under a sanitizer, which makes locking do nothing.
            println!("memory cannot be locked here: the easy case is tested only");
        }
        // SAFETY: the page was allocated above, and what was written to it is given up.
        unsafe { os.unused(range, range.bytes()) };
        // SAFETY: as above; `used` is no operation here.
        assert_eq!(unsafe { word.read() }, 0);
        // SAFETY: the page was allocated above, and nobody uses it any more.
        let released = unsafe { os.release(range, Category::Heap, range.bytes(), range.bytes()) };
        released.unwrap();
    }
}
