//! The mappings of this process: reading the list, and using up what a process may have of them.
//!
//! # Safety
//! Maps and protects memory of its own; the kernel writes to a vector that is large enough.

use spanheap_core::addr::{Addr, AddrRange, Bytes};
use spanheap_core::os::Os;

/// One line of the list.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub range: AddrRange,
    /// As in `rw-p`.
    pub access: String,
    pub name: String,
}

/// The list, in order of address.
pub fn list() -> Vec<Mapping> {
    let text = std::fs::read_to_string("/proc/self/maps").unwrap();
    text.lines().map(parse).collect()
}

fn parse(line: &str) -> Mapping {
    let mut fields = line.splitn(6, ' ');
    let (base, end) = fields.next().unwrap().split_once('-').unwrap();
    let addr = |hex| Addr::new(usize::from_str_radix(hex, 16).unwrap_or(usize::MAX));
    let access = fields.next().unwrap().to_string();
    let name = fields.nth(3).unwrap_or("").trim().to_string();
    Mapping { range: AddrRange::new(addr(base), addr(end)), access, name }
}

/// The number of mappings that lie in a range, in part or whole.
pub fn count_in(range: AddrRange) -> usize {
    let overlaps = |m: &Mapping| m.range.base() < range.end() && range.base() < m.range.end();
    list().iter().filter(|m| overlaps(m)).count()
}

/// How many bytes of a mapped range are in memory.
pub fn resident_bytes(os: &Os, range: AddrRange) -> usize {
    let page = os.page_size().get();
    let mut pages = vec![0u8; range.bytes().get() / page];
    let (base, bytes) = (range.base().as_ptr(), range.bytes().get());
    // SAFETY: the vector has one byte for each page of the range, which is mapped.
    let status = unsafe { libc::mincore(base, bytes, pages.as_mut_ptr()) };
    assert_eq!(status, 0);
    pages.iter().filter(|&&flags| flags & 1 != 0).count() * page
}

/// How many bytes of `owned`, which is in order of address, are readable and writable, and how many
/// cannot be accessed at all. Anything else is a panic.
pub fn accessible_and_not(owned: &[AddrRange]) -> (Bytes, Bytes) {
    let (mut open, mut closed) = (0, 0);
    let list = list();
    for range in owned {
        let first = list.partition_point(|m| m.range.end() <= range.base());
        let mut at = range.base();
        for mapping in list[first..].iter().take_while(|m| m.range.base() < range.end()) {
            assert!(mapping.range.base() <= at, "{at} is not mapped");
            let end = mapping.range.end().min(range.end());
            match &mapping.access[..2] {
                "rw" => open += end.bytes_since(at).get(),
                "--" => closed += end.bytes_since(at).get(),
                other => panic!("{mapping:?}: {other}"),
            }
            at = end;
        }
        assert_eq!(at, range.end(), "the end of {range:?} is not mapped");
    }
    (Bytes::new(open), Bytes::new(closed))
}

/// More than this many mappings are not used up by a test.
const PATIENCE: usize = 1 << 21;

/// All mappings that this process may have, but a few.
pub struct Burnt {
    base: Addr,
    page: usize,
    /// Pages up to here have been made mappings.
    used: usize,
}

impl Burnt {
    /// Uses up all mappings but `spare`. `None`, and a line of text, when the kernel allows more than a test
    /// should take.
    pub fn all_but(spare: usize) -> Option<Burnt> {
        let allowed = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
        let allowed: usize = allowed.and_then(|text| text.trim().parse().ok()).unwrap_or(65_530);
        if allowed > PATIENCE {
            println!("this kernel allows {allowed} mappings: too many to use up");
            return None;
        }
        // SAFETY: sysconf has no preconditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let pages = allowed + 16;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let none = core::ptr::null_mut();
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base = unsafe { libc::mmap(none, pages * page, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        let mut burnt = Burnt { base: Addr::of(base.cast_const()), page, used: 0 };
        while burnt.set_access(burnt.used + 1, libc::PROT_READ) {
            burnt.used += 2;
            assert!(burnt.used < pages, "the kernel does not keep to its limit");
        }
        burnt.give(spare);
        Some(burnt)
    }

    /// Gives so many mappings back, or one more.
    pub fn give(&mut self, count: usize) {
        for _ in 0..count.div_ceil(2) {
            self.used -= 2;
            assert!(self.set_access(self.used + 1, libc::PROT_NONE));
        }
    }

    fn set_access(&self, page: usize, protection: libc::c_int) -> bool {
        let addr = self.base + Bytes::new(page * self.page);
        // SAFETY: a page of this value's own mapping, which nobody reads.
        unsafe { libc::mprotect(addr.as_ptr(), self.page, protection) == 0 }
    }
}
