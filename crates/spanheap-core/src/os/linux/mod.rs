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
//! * `guard`, `unguard`: see `guard.rs`.
//! * `shut`, `open`: `mremap` where that pays (`aside.rs`), and `mprotect`.
//! * `move_memory`: `mremap` onto other memory (`moved.rs`), and `mprotect`.
//! * `release`: `munmap`.
//! * `hint_huge`, `collapse`: `madvise`; what is refused is not an error.
//!
//! `reserve`, `map`, `fault` and `alloc` also name the mapping that they have made (`names.rs`). All calls
//! are in `calls.rs`.
//!
//! **Errors.** `ENOMEM` stands for exhausted memory, for exhausted address space and for the limit
//! on the number of mappings; all are passed up. `EAGAIN` from `mmap` means that the limit on locked
//! memory is reached, and is passed up.
//!
//! **Stand-ins.** Each optional call has a latch (`os/feature.rs`). `MADV_DONTNEED` is refused for locked
//! memory (a process that called `mlockall`), and may be refused altogether by a sandbox: then the range
//! is zeroed by hand, because callers rely on the zeros more than on the memory that would have been
//! saved. Only pages that hold something are written to, since writing would give memory to pages that
//! have none. Where reservations without accounting are refused, ordinary ones are made.
//!
//! A `munmap` in the middle of a mapping can need one mapping more than the limit allows. The range
//! is then given up but not given back: its pages are dropped, the address range stays ours for
//! ever, and the caller counts it as leaked.
//!
//! # Safety
//! This directory is trusted to change only mappings inside ranges that it returned itself from
//! `reserve` and `alloc`, and those that it makes for memory set aside. It takes the ranges as numbers and
//! believes the layers above, which own them (the contract of ranges, O1 and O2, in `os/mod.rs`); the
//! simulated system believes nothing and is run by the tests for that reason.
#![allow(unsafe_code)]

mod aside;
mod calls;
mod guard;
mod moved;
mod names;

use core::ffi::c_int;
use std::fs::File;
use std::io::Read;

use libc::{MAP_NORESERVE, PROT_NONE, PROT_READ, PROT_WRITE};

use self::calls::advice;
use self::guard::Guards;
use self::names::Names;
use super::barrier::BarrierKind;
use super::feature::{Feature, Features, Latch, is_forbidden};
use super::page_sizes::{checked_page_size, usable_huge_page_size};
use super::splits::entries_allowed;
use super::{Category, Operation, OsError, resident};
use crate::addr::{Addr, AddrRange, Bytes};
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// An inaccessible mapping that costs nothing but address space.
const RESERVATION: c_int = MAP_NORESERVE;

/// What a kernel allows that does not say: the default of every Linux so far.
const USUAL_MAPPINGS: usize = 65_530;

/// How large a huge page is.
static HUGE_PAGE_SIZE: Known = Known::new("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");

/// How many mappings a process may have.
static MAPPINGS_ALLOWED: Known = Known::new("/proc/sys/vm/max_map_count");

/// How to use the running kernel. Start with [`NativeBuilder::default`], in which everything is used that
/// the kernel has; `Os::native_with` takes it.
#[derive(Clone, Debug)]
pub struct NativeBuilder {
    names: bool,
    guard_markers: bool,
    moves: bool,
    split_limit: Option<usize>,
}

impl Default for NativeBuilder {
    fn default() -> NativeBuilder {
        NativeBuilder { names: true, guard_markers: true, moves: true, split_limit: None }
    }
}

impl NativeBuilder {
    /// Whether mappings get names. Default: yes.
    pub fn names(mut self, on: bool) -> NativeBuilder {
        self.names = on;
        self
    }

    /// Whether `guard` may use markers. Default: yes.
    pub fn guard_markers(mut self, on: bool) -> NativeBuilder {
        self.guard_markers = on;
        self
    }

    /// Whether `shut` may move memory aside, and `move_memory` anything. Default: yes.
    pub fn moves(mut self, on: bool) -> NativeBuilder {
        self.moves = on;
        self
    }

    /// How many mappings `guard` may cost the process where there are no markers; an odd number counts
    /// as the next smaller one. Default: an eighth of what the kernel allows a process.
    pub fn split_limit(mut self, mappings: usize) -> NativeBuilder {
        self.split_limit = Some(mappings);
        self
    }
}

/// The running Linux kernel.
pub(super) struct NativeOs {
    page_size: Bytes,
    huge_page_size: Bytes,
    names: Names,
    guards: Guards,
    discard: Latch,
    uncharged: Latch,
    huge_hints: Latch,
    collapse: Latch,
}

impl NativeOs {
    /// Asks the kernel what it is and has.
    pub(super) fn new(options: &NativeBuilder) -> NativeOs {
        // SAFETY: sysconf reads a constant of the running system and has no preconditions.
        let answer = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page_size = checked_page_size(Bytes::new(usize::try_from(answer).unwrap_or(0)));
        let huge = Bytes::new(HUGE_PAGE_SIZE.get().unwrap_or(0));
        let limit = match options.split_limit {
            Some(mappings) => mappings / super::splits::MAPPINGS_PER_ENTRY,
            None => entries_allowed(MAPPINGS_ALLOWED.get().unwrap_or(USUAL_MAPPINGS)),
        };
        let huge_page_size = usable_huge_page_size(huge, page_size);
        let collapse = match calls::knows_advice(advice::COLLAPSE) {
            _ if huge_page_size == Bytes::ZERO => Feature::Off,
            Ok(()) => Feature::Untried,
            Err(errno) => Feature::Refused(errno),
        };
        NativeOs {
            page_size,
            huge_page_size,
            names: Names::new(options.names),
            guards: Guards::new(options.guard_markers, options.moves, limit),
            discard: Latch::new(Feature::Untried),
            uncharged: Latch::new(Feature::Untried),
            huge_hints: Latch::new(match huge_page_size {
                Bytes::ZERO => Feature::Off,
                _ => Feature::Untried,
            }),
            collapse: Latch::new(collapse),
        }
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

    pub(super) fn features(&self) -> Features {
        let (split_limit, splits) = self.guards.mappings();
        Features {
            system: "linux",
            page_size: self.page_size,
            huge_page_size: self.huge_page_size,
            zero_after_unused: self.zero_after_unused(),
            discard: self.discard.get(),
            uncharged: self.uncharged.get(),
            huge_hints: self.huge_hints.get(),
            collapse: self.collapse.get(),
            names: self.names.feature(),
            guard_markers: self.guards.markers(),
            moves: self.guards.asides.moves(),
            split_limit,
            splits,
            guards_without_fault: 0,
            barrier: BarrierKind::offered(),
        }
    }

    pub(super) fn reserve(&self, hint: Option<Addr>, bytes: Bytes) -> Result<Addr, OsError> {
        let place = hint.unwrap_or(Addr::NULL);
        let mut result = Err(libc::EINVAL);
        if self.uncharged.is_open() {
            result = calls::map_new(place, bytes, PROT_NONE, RESERVATION);
            self.uncharged.note(&result, is_forbidden);
        }
        if !self.uncharged.is_open() {
            result = calls::map_new(place, bytes, PROT_NONE, 0);
        }
        let base = result.map_err(|errno| OsError::new(Operation::Reserve, bytes, errno))?;
        self.names.reserved(AddrRange::at(base, bytes));
        Ok(base)
    }

    pub(super) unsafe fn map(&self, range: AddrRange, category: Category) -> Result<(), OsError> {
        calls::protect(range, PROT_READ | PROT_WRITE).map_err(|errno| {
            // The range may consist of several mappings, of which the first have been changed.
            let _ = calls::protect(range, PROT_NONE);
            OsError::new(Operation::Map, range.bytes(), errno)
        })?;
        self.guards.leave(range);
        self.names.mapped(range, category);
        Ok(())
    }

    pub(super) unsafe fn used(&self, _: AddrRange, _prepared: Bytes) -> Result<(), OsError> {
        Ok(())
    }

    pub(super) unsafe fn unused(&self, range: AddrRange, _ready: Bytes) {
        // SAFETY: the range is Ready or Prepared, so it is readable and writable, and its
        // contents are forfeit: nobody else reads or writes it.
        unsafe { self.drop_contents(range) };
    }

    pub(super) unsafe fn fault(
        &self,
        range: AddrRange,
        _: Category,
        _: Bytes,
    ) -> Result<(), OsError> {
        let flags = if self.uncharged.is_open() { RESERVATION } else { 0 };
        self.guards
            .enter(range, None, || calls::map_over(range, PROT_NONE, flags))
            .map_err(|errno| OsError::new(Operation::Fault, range.bytes(), errno))?;
        self.guards.moved.forget(range);
        self.names.reserved(range);
        Ok(())
    }

    pub(super) unsafe fn release(
        &self,
        range: AddrRange,
        _: Category,
        _mapped: Bytes,
        _ready: Bytes,
    ) -> Result<(), OsError> {
        self.guards.asides.drop_within(range);
        self.guards.moved.forget(range);
        calls::unmap(range).map_err(|errno| {
            // Splitting no mapping, this can succeed where munmap cannot.
            let _ = self.discard(range);
            OsError::new(Operation::Release, range.bytes(), errno)
        })?;
        self.guards.leave(range);
        Ok(())
    }

    pub(super) fn resident(&self, range: AddrRange, visit: &mut impl FnMut(AddrRange)) {
        self.guards.asides.for_each_part(range, |part, lies| {
            let place = AddrRange::at(lies, part.bytes());
            resident::for_each_run(place, self.page_size, &mut |run: AddrRange| {
                visit(AddrRange::at(part.base() + run.base().bytes_since(lies), run.bytes()));
            });
        });
    }

    pub(super) fn process_resident(&self) -> Option<Bytes> {
        resident::of_process(self.page_size)
    }

    /// What a file of the system says.
    pub(super) fn read_text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    pub(super) fn alloc(&self, bytes: Bytes, category: Category) -> Result<Addr, OsError> {
        let base = calls::map_new(Addr::NULL, bytes, PROT_READ | PROT_WRITE, 0)
            .map_err(|errno| OsError::new(Operation::Alloc, bytes, errno))?;
        self.names.allocated(AddrRange::at(base, bytes), category);
        Ok(base)
    }

    pub(super) fn hint_huge(&self, range: AddrRange, wanted: bool) {
        if self.huge_hints.is_open() {
            let advice = if wanted { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
            let result = calls::advise(range, advice);
            // A kernel without huge pages says that the argument is invalid.
            self.huge_hints.note(&result, |errno| is_forbidden(errno) || errno == libc::EINVAL);
        }
    }

    pub(super) fn collapse(&self, range: AddrRange) {
        if self.collapse.is_open() {
            // An invalid argument may also be a range that has no memory to put together, and "again"
            // pages that somebody else is using.
            let result = calls::advise(range, advice::COLLAPSE);
            self.collapse.note(&result, is_forbidden);
        }
    }

    /// Drops the pages behind a range; afterwards it reads as zeros, if it can be read.
    fn discard(&self, range: AddrRange) -> Result<(), i32> {
        if let Feature::Refused(errno) = self.discard.get() {
            return Err(errno);
        }
        let result = calls::advise(range, libc::MADV_DONTNEED);
        self.discard.note(&result, is_forbidden);
        result
    }

    /// Makes a range read as zeros, without its memory if possible.
    ///
    /// # Safety
    /// The range can be read and written, and nobody else uses it.
    unsafe fn drop_contents(&self, range: AddrRange) {
        if self.discard(range).is_err() {
            // SAFETY: the caller's promise.
            unsafe { clear(range, self.page_size) };
        }
    }
}

/// Writes zeros to those pages that hold anything else.
///
/// # Safety
/// The range consists of whole pages, can be read and written, and nobody else uses it.
unsafe fn clear(range: AddrRange, page: Bytes) {
    let mut at = range.base();
    while at < range.end() {
        let words = at.as_ptr::<u64>();
        // SAFETY: a page in the range; any bytes are words.
        let contents = unsafe { core::slice::from_raw_parts(words, page.get() / size_of::<u64>()) };
        if contents.iter().any(|&word| word != 0) {
            // SAFETY: as above, and the slice is not used any more.
            unsafe { words.cast::<u8>().write_bytes(0, page.get()) };
        }
        at = at + page;
    }
}

/// A number in a file of the kernel's that is read once in a process: most of making a small heap would be to open
/// such files, and these numbers change hardly ever.
///
/// No lock, which a process could be forked under: who comes too early reads the file as well.
struct Known {
    path: &'static str,
    /// The number; [`UNREAD`] or [`ABSENT`].
    number: AtomicUsize,
}

/// Nobody has read the file.
const UNREAD: usize = usize::MAX;
/// The file has no number.
const ABSENT: usize = usize::MAX - 1;

impl Known {
    const fn new(path: &'static str) -> Known {
        Known { path, number: AtomicUsize::new(UNREAD) }
    }

    fn get(&self) -> Option<usize> {
        let mut number = self.number.load(Relaxed);
        if number == UNREAD {
            number = read_number(self.path).unwrap_or(ABSENT).min(ABSENT);
            self.number.store(number, Relaxed);
        }
        (number != ABSENT).then_some(number)
    }
}

/// The number in a file of the kernel's, if there is such a file.
fn read_number(path: &str) -> Option<usize> {
    let mut text = [0u8; 32];
    let length = File::open(path).and_then(|mut file| file.read(&mut text)).ok()?;
    parse_number(&text[..length])
}

fn parse_number(text: &[u8]) -> Option<usize> {
    core::str::from_utf8(text).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_the_kernel_is_believed_only_when_it_is_one() {
        assert_eq!(parse_number(b"2097152\n"), Some(2 << 20));
        assert_eq!(parse_number(b"65530"), Some(65_530));
        for text in [&b""[..], b"\n", b"-1", b"0x10", b"\xffhuge", b"99999999999999999999999"] {
            assert_eq!(parse_number(text), None, "{text:?}");
        }
        assert_eq!(read_number("/no/such/file"), None);
        let absent = Known::new("/no/such/file");
        assert_eq!((absent.get(), absent.get()), (None, None));
        let known = Known::new("/proc/sys/vm/max_map_count");
        assert_eq!(known.get(), read_number(known.path));
        known.number.store(7, Relaxed);
        assert_eq!(known.get(), Some(7), "the file was read again");
    }

    #[test]
    fn locked_memory_reads_as_zeros_after_unused() {
        let os = NativeOs::new(&NativeBuilder::default());
        let range =
            AddrRange::at(os.alloc(os.page_size(), Category::Heap).unwrap(), os.page_size());
        let word = range.base().as_ptr::<u64>();
        // SAFETY: the page was allocated above; locking has no memory effects.
        let locked = unsafe { libc::mlock(word.cast(), range.bytes().get()) } == 0;
        // SAFETY: the page is ready and ours alone.
        unsafe { word.write(7) };
        if !locked || os.discard(range) != Err(libc::EINVAL) {
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
