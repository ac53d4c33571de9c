//! Memory from the operating system: regions and their states, exact accounting, a simulated
//! system.
//!
//! # States
//! Every region of the address space is, page by page, in one of four states:
//!
//! ```text
//!            reserve              map                used
//!   None ──────────────► Reserved ─────► Prepared ◄────────► Ready
//!    ▲ │                     ▲              │      unused      │
//!    │ │                     └──────────────┴──────────────────┘ fault
//!    │ └───────────────────────── alloc ──────────────────────►┘
//!    └──────────────── release, from any of the three ─────────┘
//!
//!   Prepared, Ready ── guard ──► Reserved, guarded ── unguard ──► Prepared
//!   Ready ── shut ──► Ready, shut ── open ──► Ready             Ready, shut ── guard ──► Reserved, guarded
//!   Ready ── move_memory ──► Reserved, guarded, and elsewhere Prepared ──► Ready
//! ```
//!
//! * **None**: not ours.
//! * **Reserved**: ours, and an access faults. Costs address space only.
//! * **Prepared**: meant to have no memory behind it, cheap to make Ready. An access is a bug with
//!   an undefined outcome: a fault, zeros, or old contents.
//! * **Ready**: may be accessed.
//!
//! *Guarded* is a kind of Reserved, made page by page in the midst of accessible memory; `guarding.rs`
//! says what it promises, and when to use `fault` instead. Only `unguard` and `release` lead out of it.
//!
//! *Shut* is a kind of Ready: the memory stays and counts, and an access faults. What was in it is forfeit.
//!
//! What a range contains once it is Ready: zeros after `alloc`, after `map` + `used` and after `unguard` +
//! `used`; after `unused` + `used` zeros if [`Os::zero_after_unused`] says so, else anything; after `open`, and where
//! memory was moved to, anything.
//!
//! # Files
//! | file | what |
//! |---|---|
//! | `mod` | [`Os`]: the states, what both systems have in common |
//! | `linux`, `sim` | the running kernel; a system in memory |
//! | `account` | [`Accounting`]: bytes by state and category |
//! | `error`, `feature`, [`page_sizes`] | what was refused; what the system offers; the sizes of pages |
//! | [`guarding`], `splits` | pages that fault in the midst of memory, and what that costs in mappings |
//! | `resident` | which pages are in memory, as the kernel says |
//! | `cgroup` | how much memory the machine has, and the control groups of the process allow |
//! | [`barrier`], [`clock`] | a fence in all threads; the CPU time of a thread, and time itself |
//! | [`fork`], [`thread`] | whether this is still the process that it was; names of threads, and their processors |
//! | [`fault`] | a handler for faults of memory, if a program asks for one |
//! | `asan` | what AddressSanitizer is told |
//!
//! # One value, two systems
//! [`Os`] is a value and not a type parameter, which would reach every type of the crate. Behind it
//! is the running kernel (`linux`) or a system in memory (`sim`) that checks every transition.
//! Both offer the same functions with the same signatures, this file chooses between them, and does
//! what they have in common: argument checks, alignment, accounting.
//!
//! That pair is also the seam for other systems. A port is a third directory beside `linux`, with the
//! functions of the `impl NativeOs` blocks there and a `NativeBuilder`. It must provide:
//!
//! * reservations that may be released and changed *in part*, at page granularity (a system that
//!   releases only whole reservations must also bring its own way to get an aligned one, instead of
//!   over-reserving and trimming as [`Os::reserve_aligned`] does);
//! * `map` and `used` that fail without having changed anything, and zeros where the paragraph above
//!   promises them;
//! * `guard` that cannot fail and does not use up what the process needs otherwise: [`splits`] counts that
//!   for who has no markers, and answering [`Guarding::ReadsZero`] every time is correct as well;
//! * `shut`, `open` and `move_memory`, of which `shut` and `move_memory` may refuse always;
//! * the sizes of its pages, within the bounds of [`page_sizes`];
//! * `features`, in which everything that it may do without has an entry.
//!
//! Hints, `collapse` and names may do nothing. In `barrier.rs`, a port brings its means to make all
//! threads of the process run a fence. The counts that the callers pass along are there for systems that
//! commit memory explicitly, and for the simulation, which compares them with the truth.
//!
//! Under AddressSanitizer, what is Prepared after `unused` may not be touched: see `asan`, which the layers
//! above call for objects, too.
//!
//! # Locking
//! None here: ranges belong to their callers, and two threads never change overlapping ranges at
//! once. Inside, Linux has a lock around the list of splits, and the simulation has one around everything.
//!
//! # The contract of ranges
//! A range is a pair of numbers, and the kernel cannot know whose memory is behind them. So the
//! operations that change the state of a range are unsafe, and their callers promise:
//!
//! - O1. The whole range was reserved or allocated by this [`Os`] and has not been released since,
//!   and nobody else changes its state during the call.
//! - O2. Nobody uses what is in the range, during the call or later. (What is in it when it is
//!   Ready again is new memory.)
//!
//! A wrong state or a wrong count is no matter of safety: it breaks the account, and the simulation
//! panics on it. Memory that is not released stays there, whatever becomes of the `Os`; on a
//! simulated system too.
//!
//! # Safety
//! This file hands ranges on under the contract above. The ranges that it releases by itself are
//! those that it has just reserved and tells nobody about.
#![allow(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "spanheap-core runs on Linux only so far: port os/linux (see the text of os/mod.rs)"
);

mod account;
pub(crate) mod asan;
pub mod barrier;
mod cgroup;
pub(crate) mod clock;
mod error;
pub mod fault;
mod feature;
pub(crate) mod fork;
pub mod guarding;
#[cfg(target_os = "linux")]
mod linux;
mod page_sizes;
#[cfg(target_os = "linux")]
mod resident;
pub mod sim;
mod splits;
pub(crate) mod thread;

use std::sync::Arc;

pub use account::{Accounting, Category};
pub use error::{Operation, OsError};
pub use feature::{Feature, Features};
pub use guarding::{Guarding, MOVE_UNIT};
pub use linux::NativeBuilder;
pub use sim::SimOs;

use crate::addr::{ADDRESS_BITS, Addr, AddrRange, Bytes};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use linux::NativeOs;

/// The first address that the manager's tables cannot describe.
const ADDRESS_LIMIT: usize = 1 << ADDRESS_BITS;

/// An operating system as a source of memory, with the account of what was taken from it.
///
/// Ranges passed in consist of whole pages (see [`Os::page_size`]); any other range is a panic. An
/// empty range is allowed and means that nothing happens.
pub struct Os {
    number: u64,
    backend: Backend,
    page_size: Bytes,
    accounting: Accounting,
    /// How often `guard` could not make an access fault.
    unguardable: AtomicU64,
}

enum Backend {
    Native(NativeOs),
    Simulated(Arc<SimOs>),
}

/// Calls the function of the same name of whichever system this is.
macro_rules! dispatch {
    ($os:expr, $function:ident($($argument:expr),*)) => {
        match &$os.backend {
            Backend::Native(system) => system.$function($($argument),*),
            Backend::Simulated(system) => system.$function($($argument),*),
        }
    };
}
use dispatch;

/// The same for the functions under the contract of ranges.
macro_rules! dispatch_unsafe {
    ($os:expr, $function:ident($($argument:expr),*)) => {
        match &$os.backend {
            // SAFETY: the contract is the same (O1, O2), and this is the system of this `Os`.
            Backend::Native(system) => unsafe { system.$function($($argument),*) },
            // SAFETY: as above.
            Backend::Simulated(system) => unsafe { system.$function($($argument),*) },
        }
    };
}
use dispatch_unsafe;

/// Where the numbers of [`Os`] values come from.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

impl Os {
    /// The kernel that the process runs on.
    ///
    /// # Panics
    /// When its pages have a size outside of [`page_sizes`].
    pub fn native() -> Os {
        Os::native_with(&NativeBuilder::default())
    }

    /// The kernel that the process runs on, used as `options` say.
    ///
    /// # Panics
    /// Like [`Os::native`], when the kernel's pages have a size outside of [`page_sizes`].
    pub fn native_with(options: &NativeBuilder) -> Os {
        Os::over(Backend::Native(NativeOs::new(options)))
    }

    /// A system in memory, for tests.
    pub fn simulated(sim: Arc<SimOs>) -> Os {
        Os::over(Backend::Simulated(sim))
    }

    fn over(backend: Backend) -> Os {
        let number = NUMBERS.fetch_add(1, Relaxed);
        let page_size = match &backend {
            Backend::Native(system) => system.page_size(),
            Backend::Simulated(system) => system.page_size(),
        };
        let (accounting, unguardable) = (Accounting::new(), AtomicU64::new(0));
        Os { number, backend, page_size, accounting, unguardable }
    }

    /// A number that no other value in this process has. Who keeps a range, and is lent the `Os` for
    /// each change of it, compares them: O1 says *this* `Os`.
    #[inline]
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The size of a physical page: a power of two within [`page_sizes`].
    #[inline]
    pub fn page_size(&self) -> Bytes {
        self.page_size
    }

    /// The size of a transparent huge page, a power of two; zero when there are none or unknown.
    pub fn huge_page_size(&self) -> Bytes {
        dispatch!(self, huge_page_size())
    }

    /// Whether memory that was `unused` reads as zeros once it is Ready again.
    pub fn zero_after_unused(&self) -> bool {
        dispatch!(self, zero_after_unused())
    }

    /// What the system was found to offer, and what it has refused so far. Makes a system call; meant for
    /// statistics.
    pub fn features(&self) -> Features {
        let guards_without_fault = self.unguardable.load(Relaxed);
        Features { guards_without_fault, ..dispatch!(self, features()) }
    }

    /// The counters.
    #[inline]
    pub fn accounting(&self) -> &Accounting {
        &self.accounting
    }

    /// None to Reserved, page-aligned. The hint is where the caller would like it to be; if that
    /// place is taken the reservation is somewhere else, and never on top of anything.
    ///
    /// # Errors
    /// When the system refuses, or has no address left that the manager can describe.
    ///
    /// # Panics
    /// When `bytes` is zero, or `bytes` or the hint is not a multiple of the page size.
    pub fn reserve(&self, hint: Option<Addr>, bytes: Bytes) -> Result<Addr, OsError> {
        self.check_new(hint.unwrap_or(Addr::NULL), bytes);
        let base = dispatch!(self, reserve(hint, bytes))?;
        self.accounting.add_reserved(bytes);
        if is_describable(base, bytes) {
            return Ok(base);
        }
        // SAFETY: the range has just been reserved, and nobody else knows it.
        unsafe { self.release_reserved(AddrRange::at(base, bytes)) };
        Err(OsError::new(Operation::Reserve, bytes, libc::ENOMEM))
    }

    /// Like [`Os::reserve`], with a base that is a multiple of `align`, a power of two. Exactly
    /// `bytes` bytes are reserved in the end; in between it may be `align` more.
    ///
    /// # Errors
    /// Like [`Os::reserve`].
    ///
    /// # Panics
    /// Like [`Os::reserve`].
    pub fn reserve_aligned(
        &self,
        hint: Option<Addr>,
        bytes: Bytes,
        align: Bytes,
    ) -> Result<Addr, OsError> {
        assert!(align.get().is_power_of_two(), "alignment {align} is not a power of two");
        // Often the hint is free, or the system happens to align; then there is nothing to trim. And it goes downwards
        // as a rule, so what lies just below is free more often than not.
        let mut place = hint;
        for _ in 0..2 {
            let base = self.reserve(place, bytes)?;
            if base.is_aligned(align.get()) {
                return Ok(base);
            }
            // SAFETY: the range has just been reserved, and nobody else knows it.
            unsafe { self.release_reserved(AddrRange::at(base, bytes)) };
            place = Some(base.align_down(align.get()));
        }
        // A base is a multiple of the page size at least, so one page less than `align` is enough.
        let slack = align.saturating_sub(self.page_size);
        let wide = bytes.get().checked_add(slack.get()).map(Bytes::new);
        let wide = wide.ok_or(OsError::new(Operation::Reserve, bytes, libc::ENOMEM))?;
        let whole = AddrRange::at(self.reserve(None, wide)?, wide);
        // The reservation ends below ADDRESS_LIMIT, and the aligned base lies inside it.
        let base = whole.base().checked_align_up(align.get()).expect("the base is in the range");
        let wanted = AddrRange::at(base, bytes);
        // SAFETY: the whole has just been reserved, and nobody will know this part of it.
        unsafe { self.release_reserved(AddrRange::new(whole.base(), wanted.base())) };
        // SAFETY: as above.
        unsafe { self.release_reserved(AddrRange::new(wanted.end(), whole.end())) };
        Ok(base)
    }

    /// Reserved to Prepared. Counts the range as mapped for `category`.
    ///
    /// # Errors
    /// When the system refuses; the range stays Reserved.
    ///
    /// # Safety
    /// O1 and O2. (A refused call takes away what access there was.)
    pub unsafe fn map(&self, range: AddrRange, category: Category) -> Result<(), OsError> {
        if self.is_nothing(range) {
            return Ok(());
        }
        dispatch_unsafe!(self, map(range, category))?;
        self.accounting.add_mapped(category, range.bytes());
        Ok(())
    }

    /// Prepared to Ready, for a range that may be Ready in part. `prepared` is the number of bytes
    /// in it that are Prepared now, exactly; so many are counted.
    ///
    /// # Errors
    /// When the system refuses; what was Prepared stays so.
    ///
    /// # Safety
    /// O1. What is Ready in the range may be in use.
    pub unsafe fn used(&self, range: AddrRange, prepared: Bytes) -> Result<(), OsError> {
        assert!(prepared <= range.bytes(), "{prepared} Prepared in {range:?}");
        if self.is_nothing(range) {
            return Ok(());
        }
        asan::permit_range(range);
        dispatch_unsafe!(self, used(range, prepared))?;
        self.accounting.add_ready(prepared);
        Ok(())
    }

    /// Ready to Prepared, for a range that may be Prepared in part; `ready` is the number of bytes
    /// in it that are Ready now, exactly. The contents are forfeit.
    ///
    /// # Safety
    /// O1 and O2.
    pub unsafe fn unused(&self, range: AddrRange, ready: Bytes) {
        assert!(ready <= range.bytes(), "{ready} Ready in {range:?}");
        if self.is_nothing(range) {
            return;
        }
        asan::permit_range(range);
        dispatch_unsafe!(self, unused(range, ready));
        asan::forbid_range(range);
        self.accounting.sub_ready(ready);
    }

    /// Ready or Prepared to Reserved: from now on an access faults, and the memory behind the range
    /// is gone. `category` is the one that it was mapped for, `ready` the number of bytes in it
    /// that are Ready now, exactly.
    ///
    /// # Errors
    /// When the system refuses; neither state nor contents have changed.
    ///
    /// # Safety
    /// O1 and O2.
    pub unsafe fn fault(
        &self,
        range: AddrRange,
        category: Category,
        ready: Bytes,
    ) -> Result<(), OsError> {
        assert!(ready <= range.bytes(), "{ready} Ready in {range:?}");
        if self.is_nothing(range) {
            return Ok(());
        }
        // The protection of the pages says it from now on.
        asan::permit_range(range);
        dispatch_unsafe!(self, fault(range, category, ready))?;
        self.accounting.sub_ready(ready);
        self.accounting.sub_mapped(category, range.bytes());
        Ok(())
    }

    /// Any state to None. `mapped` and `ready` are the numbers of bytes in the range that are
    /// mapped (all for `category`) and Ready, exactly. If the system does not take the range back,
    /// it is counted as leaked and nobody owns it any more.
    ///
    /// # Safety
    /// O1 and O2.
    pub unsafe fn release(
        &self,
        range: AddrRange,
        category: Category,
        mapped: Bytes,
        ready: Bytes,
    ) {
        assert!(mapped <= range.bytes(), "{mapped} mapped in {range:?}");
        assert!(ready <= mapped, "{ready} Ready of {mapped} mapped in {range:?}");
        if self.is_nothing(range) {
            return;
        }
        // Z2. What was Ready all the time was never forbidden, other than pages of the heap, be they guarded and not
        // mapped any more; and there are records that have reserved a large part of the address space.
        if ready != mapped || category == Category::Heap {
            asan::permit_range(range);
        }
        if dispatch_unsafe!(self, release(range, category, mapped, ready)).is_err() {
            self.accounting.add_leaked(range.bytes());
        }
        self.accounting.sub_ready(ready);
        self.accounting.sub_mapped(category, mapped);
        self.accounting.sub_reserved(range.bytes());
    }

    /// None to Ready in one step: zeroed memory at a page-aligned place of the system's choice.
    ///
    /// # Errors
    /// When the system refuses.
    ///
    /// # Panics
    /// When `bytes` is zero or not a multiple of the page size.
    pub fn alloc(&self, bytes: Bytes, category: Category) -> Result<Addr, OsError> {
        self.check_new(Addr::NULL, bytes);
        let base = dispatch!(self, alloc(bytes, category))?;
        self.accounting.add_reserved(bytes);
        self.accounting.add_mapped(category, bytes);
        self.accounting.add_ready(bytes);
        if is_describable(base, bytes) {
            return Ok(base);
        }
        // SAFETY: the range has just been allocated, and nobody else knows it.
        unsafe { self.release(AddrRange::at(base, bytes), category, bytes, bytes) };
        Err(OsError::new(Operation::Alloc, bytes, libc::ENOMEM))
    }

    /// Tells the system that huge pages would suit this range, or would not. Changes no state and
    /// no contents, whoever owns the range, and may be ignored. A hint takes the place of the opposite
    /// one. Only whole huge pages are asked for, so that the hint does not split a mapping where no
    /// huge page could begin.
    pub fn hint_huge(&self, range: AddrRange, wanted: bool) {
        if self.is_nothing(range) {
            return;
        }
        let unit = if wanted { self.huge_page_size().get().max(1) } else { 1 };
        let range = range.whole_units(unit);
        if !range.is_empty() {
            dispatch!(self, hint_huge(range, wanted));
        }
    }

    /// Puts the whole huge pages of a range into huge pages now, before it returns, as far as the system
    /// has any to give. That copies the range and can take milliseconds; and it gives memory to
    /// pages that were never touched, so the whole range must be Ready. Changes no state and no
    /// contents, whoever owns the range, and fails silently.
    pub fn collapse(&self, range: AddrRange) {
        let unit = self.huge_page_size().get();
        if self.is_nothing(range) || unit == 0 {
            return;
        }
        let range = range.whole_units(unit);
        if !range.is_empty() {
            dispatch!(self, collapse(range));
        }
    }

    /// Calls `visit` with each run of pages in `range` that are in memory now. Any range of whole
    /// pages may be asked about. This reads a word for each page; what it says may be over by the
    /// time it is said.
    ///
    /// # Panics
    /// When the range does not consist of whole pages.
    pub fn resident(&self, range: AddrRange, visit: &mut impl FnMut(AddrRange)) {
        if !self.is_nothing(range) {
            dispatch!(self, resident(range, visit));
        }
    }

    /// How much memory the whole process has; `None` if the system does not say. On a simulated
    /// system the process is what lives on it.
    pub fn process_resident(&self) -> Option<Bytes> {
        dispatch!(self, process_resident())
    }

    /// How much memory the machine has; `None` if the system does not say.
    pub fn machine_memory(&self) -> Option<Bytes> {
        cgroup::machine_memory(&|path| dispatch!(self, read_text(path)))
    }

    /// The lowest limit on memory of the control groups that the process is in, both versions; `None` if there
    /// is none. Reads some files at each call: a limit may change.
    pub fn cgroup_limit(&self) -> Option<Bytes> {
        cgroup::limit(&|path| dispatch!(self, read_text(path)))
    }

    /// Gives back a range that is Reserved and nothing more; the category does not matter then.
    ///
    /// # Safety
    /// O1 and O2.
    unsafe fn release_reserved(&self, range: AddrRange) {
        // SAFETY: the same contract.
        unsafe { self.release(range, Category::Heap, Bytes::ZERO, Bytes::ZERO) };
    }

    #[track_caller]
    fn check_new(&self, hint: Addr, bytes: Bytes) {
        let page = self.page_size.get();
        let whole = bytes != Bytes::ZERO && bytes.get() % page == 0 && hint.is_aligned(page);
        assert!(whole, "{bytes} at {hint} are not whole pages of {}", self.page_size);
    }

    /// Whether the range is empty; panics when it does not consist of whole pages.
    #[track_caller]
    fn is_nothing(&self, range: AddrRange) -> bool {
        let page = self.page_size.get();
        let whole = range.base().is_aligned(page) && range.end().is_aligned(page);
        assert!(whole, "{range:?} does not consist of whole pages of {}", self.page_size);
        range.is_empty()
    }
}

/// Whether memory lies below every address that the manager's tables cannot describe. Linux hands
/// out higher addresses only to those who ask for them; other systems may not.
fn is_describable(base: Addr, bytes: Bytes) -> bool {
    base.get().checked_add(bytes.get()).is_some_and(|end| end <= ADDRESS_LIMIT)
}

/// The value is shared by all threads of a heap.
const _: () = {
    const fn shareable<T: Send + Sync>() {}
    shareable::<Os>();
};
