//! A simulated operating system: real memory, a shadow state for every page, and failures on order.
//!
//! A whole heap with many threads runs on it. It serves three purposes:
//!
//! * **Checking.** Each page has a shadow state. A transition that is not in the diagram of the
//!   [`os`](super) module, or byte counts that do not match the states, is a panic that names
//!   operation, range, page and state. Nothing has changed then.
//! * **Poisoning.** The kernel may keep the contents of a Prepared page or lose them; here the two
//!   alternate by seed, and lost contents are junk. Memory that was made inaccessible is junk at
//!   once. A caller that reads what it has no right to finds values that are no plausible pointers.
//! * **Failing.** The n-th fallible call fails, or all calls from the n-th on, or all that would
//!   make more bytes Ready than a budget allows. With [`SimOs::calls`] a test runs a scenario once,
//!   counts, and then runs it again for every n.
//!
//! Pages may have any size that the manager can work with (`os/page_sizes.rs`). Backing memory comes from the Rust
//! allocator, zeroed and over-allocated, so that large reservations cost nothing until they are touched.
//!
//! # What it cannot do
//! An access to Reserved, guarded or Prepared memory does not fault; the poison must give it away. Hints are
//! ignored, unless the simulation was built with a [contiguous](SimBuilder::contiguous) block.
//!
//! Memory that is still owned when the simulation goes away is kept for ever, as the kernel keeps what
//! nobody releases: a table that was made on this system may outlive it.
//!
//! # Locking
//! One lock around everything, [`Rank::Simulation`]. It is a leaf: nothing else is locked under it.
//!
//! # Safety
//! The functions that change states have the contract of ranges of [`os`](super), as on the kernel. O1
//! is checked here; of O2 the contents are taken at the caller's word.
#![allow(unsafe_code)]

mod runs;
mod shadow;

use core::fmt;
use std::sync::Arc;

use self::shadow::{Expect, Shadow};
use super::barrier::BarrierKind;
use super::feature::{Feature, Features};
use super::page_sizes::{is_page_size, usable_huge_page_size};
use super::splits::{MAPPINGS_PER_ENTRY, Splits};
use super::{Category, Guarding, Operation, OsError};
use crate::addr::{Addr, AddrRange, Bytes};
use crate::sync::{Guard, Lock, Rank};

/// What memory reads as after `unused`, when it does not read as zeros.
pub const UNUSED_JUNK: u8 = 0xa7;
/// What memory reads as after `fault` and `release`, for those who still look.
pub const FAULT_JUNK: u8 = 0xfd;

/// How a simulated system behaves. Start with [`SimOs::builder`].
#[derive(Clone, Debug)]
pub struct SimBuilder {
    page_size: Bytes,
    huge_page_size: Bytes,
    contiguous: Bytes,
    zero_after_unused: bool,
    seed: u64,
    fail_call: Option<usize>,
    fail_from: Option<usize>,
    fail_release: Option<usize>,
    budget: Option<Bytes>,
    files: Vec<(String, String)>,
    guard_markers: bool,
    moves: bool,
    split_limit: usize,
}

impl SimBuilder {
    /// The size of a page, a power of two from 4 KiB to 512 KiB. Default: 4 KiB.
    ///
    /// # Panics
    /// On any other size.
    pub fn page_size(mut self, bytes: Bytes) -> SimBuilder {
        assert!(is_page_size(bytes), "{bytes} is not a page size");
        self.page_size = bytes;
        self
    }

    /// The size of a huge page. One that the manager has no use for counts as none, as on the kernel.
    /// Default: none.
    ///
    /// # Panics
    /// When it is neither zero nor a power of two.
    pub fn huge_page_size(mut self, bytes: Bytes) -> SimBuilder {
        let allowed = bytes == Bytes::ZERO || bytes.get().is_power_of_two();
        assert!(allowed, "{bytes} is not a page size");
        self.huge_page_size = bytes;
        self
    }

    /// Sets one block of address space aside, aligned to a heap arena. Reservations are made inside
    /// it while there is room: at the hint if that is inside and free, else at the lowest free
    /// place. Reservations then follow each other as they do on a real system. Default: no such
    /// block; every reservation lies apart, and hints are ignored.
    pub fn contiguous(mut self, bytes: Bytes) -> SimBuilder {
        self.contiguous = bytes;
        self
    }

    /// Whether memory always reads as zeros after `unused` and `used`, as on Linux, and the system
    /// says so. Default: no; zeros and junk alternate by seed.
    pub fn zero_after_unused(mut self, zero: bool) -> SimBuilder {
        self.zero_after_unused = zero;
        self
    }

    /// What the choices of the simulation depend on. Default: 0.
    pub fn seed(mut self, seed: u64) -> SimBuilder {
        self.seed = seed;
        self
    }

    /// Exactly the `n`-th fallible call fails, counted from 1.
    pub fn fail_call(mut self, n: usize) -> SimBuilder {
        self.fail_call = Some(n);
        self
    }

    /// Every fallible call from the `n`-th on fails, counted from 1.
    pub fn fail_from(mut self, n: usize) -> SimBuilder {
        self.fail_from = Some(n);
        self
    }

    /// The system does not take back the `n`-th range that is released, counted from 1.
    pub fn fail_release(mut self, n: usize) -> SimBuilder {
        self.fail_release = Some(n);
        self
    }

    /// A file in which the system says something, such as `/proc/meminfo`. Default: none.
    pub fn file(mut self, path: &str, text: &str) -> SimBuilder {
        self.files.push((path.into(), text.into()));
        self
    }

    /// A call that would leave more than so many bytes Ready fails.
    pub fn budget(mut self, bytes: Bytes) -> SimBuilder {
        self.budget = Some(bytes);
        self
    }

    /// Whether `guard` has markers, so that every guarded access would fault at no cost. Default: yes.
    pub fn guard_markers(mut self, on: bool) -> SimBuilder {
        self.guard_markers = on;
        self
    }

    /// Whether memory can be moved. Default: yes.
    pub fn moves(mut self, on: bool) -> SimBuilder {
        self.moves = on;
        self
    }

    /// How many mappings `guard` may cost without markers; an odd number counts as the next smaller one.
    /// Default: 64.
    pub fn split_limit(mut self, mappings: usize) -> SimBuilder {
        self.split_limit = mappings;
        self
    }

    /// Starts the system.
    ///
    /// # Panics
    /// When there is no memory for the [contiguous](SimBuilder::contiguous) block.
    pub fn build(self) -> Arc<SimOs> {
        let mut shadow = Shadow::new(self.page_size);
        if self.contiguous != Bytes::ZERO {
            assert!(shadow.set_aside(self.contiguous), "no memory for {}", self.contiguous);
        }
        let state = State {
            shadow,
            random: self.seed,
            calls: 0,
            releases: 0,
            fail_call: self.fail_call,
            fail_from: self.fail_from,
            budget: self.budget,
            panics_on: None,
            splits: Splits::new(),
        };
        Arc::new(SimOs { config: self, state: Lock::new(Rank::Simulation, state) })
    }
}

/// A simulated operating system. See the [module](self).
pub struct SimOs {
    config: SimBuilder,
    state: Lock<State>,
}

struct State {
    shadow: Shadow,
    /// The state of the generator behind the choices.
    random: u64,
    /// Fallible calls so far.
    calls: usize,
    /// Releases so far.
    releases: usize,
    fail_call: Option<usize>,
    fail_from: Option<usize>,
    budget: Option<Bytes>,
    /// A thread whose next fallible call panics.
    panics_on: Option<&'static str>,
    /// What would cost mappings.
    splits: Splits,
}

impl State {
    /// Counts a fallible call and decides whether it fails; `more` is what it would make Ready.
    fn admit(&mut self, op: Operation, bytes: Bytes, more: Bytes) -> Result<(), OsError> {
        self.calls += 1;
        if let Some(name) = self.panics_on {
            let thread = std::thread::current();
            assert!(thread.name() != Some(name), "a call of the thread {name} was to panic");
        }
        let on_order = self.fail_call == Some(self.calls)
            || self.fail_from.is_some_and(|from| self.calls >= from);
        let too_much = more != Bytes::ZERO
            && self.budget.is_some_and(|budget| self.shadow.ready() + more > budget);
        let refused = on_order || too_much;
        if refused { Err(OsError::new(op, bytes, libc::ENOMEM)) } else { Ok(()) }
    }

    /// A range has become accessible, or is gone.
    fn leave(&mut self, range: AddrRange) {
        // There is memory for the list, or there would be none for the simulation.
        self.splits.remove(range).expect("memory for a simulation");
    }

    /// The next choice between two possibilities (splitmix64).
    fn coin(&mut self) -> bool {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) & 1 != 0
    }
}

impl SimOs {
    /// A system with 4 KiB pages that never fails, to be changed to taste.
    pub fn builder() -> SimBuilder {
        SimBuilder {
            page_size: Bytes::new(4096),
            huge_page_size: Bytes::ZERO,
            contiguous: Bytes::ZERO,
            zero_after_unused: false,
            seed: 0,
            fail_call: None,
            fail_from: None,
            fail_release: None,
            budget: None,
            files: Vec::new(),
            guard_markers: true,
            moves: true,
            split_limit: 64,
        }
    }

    /// The fallible calls so far: `reserve`, `map`, `used`, `fault`, `unguard`, `shut`, `open`, `move_memory`
    /// and `alloc`, failed ones included. An aligned reservation can be two calls.
    pub fn calls(&self) -> usize {
        self.lock().calls
    }

    /// The ranges that were released so far, those included that this system did not take back.
    pub fn releases(&self) -> usize {
        self.lock().releases
    }

    /// From now on exactly the `n`-th fallible call fails, counted from the first one ever.
    pub fn set_fail_call(&self, n: Option<usize>) {
        self.lock().fail_call = n;
    }

    /// From now on every fallible call from the `n`-th on fails, counted from the first one ever.
    pub fn set_fail_from(&self, n: Option<usize>) {
        self.lock().fail_from = n;
    }

    /// Replaces the budget of Ready bytes.
    pub fn set_budget(&self, bytes: Option<Bytes>) {
        self.lock().budget = bytes;
    }

    /// From now on the fallible calls of threads of this name panic, as if whoever calls had a bug.
    pub fn set_panics_on(&self, thread: Option<&'static str>) {
        self.lock().panics_on = thread;
    }

    /// The bytes that are Ready, by the shadow states.
    pub fn ready(&self) -> Bytes {
        self.lock().shadow.ready()
    }

    /// Panics, listing them, when ranges are still owned. Leaked ranges do not count: they were
    /// released, and this system did not take them back.
    #[track_caller]
    pub fn assert_all_released(&self) {
        let owned = self.lock().shadow.describe_owned();
        assert!(owned.is_empty(), "not released to the simulated system:{owned}");
    }

    fn lock(&self) -> Guard<'_, State> {
        // A panic of a check leaves everything as it was, so whoever comes next may go on.
        self.state.lock()
    }
}

/// The functions that [`Os`](super::Os) calls; their equals are in `linux`.
impl SimOs {
    pub(super) fn page_size(&self) -> Bytes {
        self.config.page_size
    }

    pub(super) fn huge_page_size(&self) -> Bytes {
        usable_huge_page_size(self.config.huge_page_size, self.config.page_size)
    }

    pub(super) fn zero_after_unused(&self) -> bool {
        self.config.zero_after_unused
    }

    pub(super) fn features(&self) -> Features {
        let or_off = |on| if on { Feature::Works } else { Feature::Off };
        let huge_page_size = self.huge_page_size();
        let huge = or_off(huge_page_size != Bytes::ZERO);
        Features {
            system: "simulation",
            page_size: self.page_size(),
            huge_page_size,
            zero_after_unused: self.zero_after_unused(),
            discard: Feature::Works,
            uncharged: Feature::Works,
            huge_hints: huge,
            collapse: huge,
            names: Feature::Off,
            guard_markers: or_off(self.config.guard_markers),
            moves: or_off(self.config.moves),
            split_limit: self.config.split_limit / MAPPINGS_PER_ENTRY * MAPPINGS_PER_ENTRY,
            splits: self.lock().splits.len() * MAPPINGS_PER_ENTRY,
            guards_without_fault: 0,
            barrier: BarrierKind::offered(),
        }
    }

    pub(super) fn reserve(&self, hint: Option<Addr>, bytes: Bytes) -> Result<Addr, OsError> {
        let mut state = self.lock();
        state.admit(Operation::Reserve, bytes, Bytes::ZERO)?;
        let placed = state.shadow.reserve(hint, bytes);
        placed.ok_or(OsError::new(Operation::Reserve, bytes, libc::ENOMEM))
    }

    pub(super) unsafe fn map(&self, range: AddrRange, category: Category) -> Result<(), OsError> {
        let mut state = self.lock();
        state.shadow.check("map", range, Expect::Reserved);
        state.admit(Operation::Map, range.bytes(), Bytes::ZERO)?;
        state.shadow.map(range, category);
        state.leave(range);
        Ok(())
    }

    pub(super) unsafe fn used(&self, range: AddrRange, prepared: Bytes) -> Result<(), OsError> {
        let mut state = self.lock();
        let tally = state.shadow.check("used", range, Expect::Mapped(None));
        tally.expect("used", range, "Prepared", tally.mapped - tally.ready, prepared);
        state.admit(Operation::Used, range.bytes(), prepared)?;
        state.shadow.used(range);
        Ok(())
    }

    pub(super) unsafe fn unused(&self, range: AddrRange, ready: Bytes) {
        let mut state = self.lock();
        let tally = state.shadow.check("unused", range, Expect::Mapped(None));
        tally.expect("unused", range, "Ready", tally.ready, ready);
        let zero = self.config.zero_after_unused || state.coin();
        state.shadow.unused(range, if zero { 0 } else { UNUSED_JUNK });
    }

    pub(super) unsafe fn fault(
        &self,
        range: AddrRange,
        category: Category,
        ready: Bytes,
    ) -> Result<(), OsError> {
        let mut state = self.lock();
        let tally = state.shadow.check("fault", range, Expect::Mapped(Some(category)));
        tally.expect("fault", range, "Ready", tally.ready, ready);
        state.admit(Operation::Fault, range.bytes(), Bytes::ZERO)?;
        let entered = state.splits.insert(range, None);
        entered.map_err(|_| OsError::new(Operation::Fault, range.bytes(), libc::ENOMEM))?;
        state.shadow.fault(range);
        Ok(())
    }

    pub(super) unsafe fn guard(
        &self,
        range: AddrRange,
        category: Category,
        ready: Bytes,
    ) -> Guarding {
        let mut state = self.lock();
        let tally = state.shadow.check("guard", range, Expect::Guardable(category));
        state.leave(range);
        tally.expect("guard", range, "Ready", tally.ready, ready);
        let limit = self.config.split_limit / MAPPINGS_PER_ENTRY;
        let faults = self.config.guard_markers || state.splits.insert(range, Some(limit)).is_ok();
        state.shadow.guard(range, if faults { FAULT_JUNK } else { 0 });
        if faults { Guarding::Faults } else { Guarding::ReadsZero }
    }

    pub(super) unsafe fn unguard(
        &self,
        range: AddrRange,
        category: Category,
    ) -> Result<(), OsError> {
        let mut state = self.lock();
        state.shadow.check("unguard", range, Expect::Guarded(category));
        state.admit(Operation::Unguard, range.bytes(), Bytes::ZERO)?;
        state.shadow.map(range, category);
        state.leave(range);
        Ok(())
    }

    pub(super) unsafe fn shut(&self, range: AddrRange) -> bool {
        let mut state = self.lock();
        state.shadow.check("shut", range, Expect::Ready);
        let limit = self.config.split_limit / MAPPINGS_PER_ENTRY / 2;
        let admitted = state.admit(Operation::Fault, range.bytes(), Bytes::ZERO).is_ok();
        let shut = admitted && state.splits.insert(range, Some(limit)).is_ok();
        if shut {
            state.shadow.shut(range);
        }
        shut
    }

    pub(super) unsafe fn open(&self, range: AddrRange) -> Result<(), OsError> {
        let mut state = self.lock();
        state.shadow.check("open", range, Expect::Shut);
        state.admit(Operation::Unguard, range.bytes(), Bytes::ZERO)?;
        state.shadow.open(range);
        state.leave(range);
        Ok(())
    }

    pub(super) fn can_move(&self) -> bool {
        self.config.moves
    }

    pub(super) unsafe fn move_memory(
        &self,
        from: AddrRange,
        to: AddrRange,
        category: Category,
    ) -> Option<Guarding> {
        let mut state = self.lock();
        let tally = state.shadow.check("move_memory from", from, Expect::Mapped(Some(category)));
        tally.expect("move_memory from", from, "Ready", tally.ready, from.bytes());
        let tally = state.shadow.check("move_memory to", to, Expect::Mapped(Some(category)));
        tally.expect("move_memory to", to, "Ready", tally.ready, Bytes::ZERO);
        let admitted = state.admit(Operation::Fault, from.bytes(), Bytes::ZERO).is_ok();
        let limit = self.config.split_limit / MAPPINGS_PER_ENTRY / 2;
        if !self.config.moves || !admitted || state.splits.insert(from, Some(limit)).is_err() {
            return None;
        }
        state.shadow.move_memory(from, to);
        Some(Guarding::Faults)
    }

    pub(super) unsafe fn release(
        &self,
        range: AddrRange,
        category: Category,
        mapped: Bytes,
        ready: Bytes,
    ) -> Result<(), OsError> {
        let mut state = self.lock();
        let tally = state.shadow.check("release", range, Expect::Owned(Some(category)));
        tally.expect("release", range, "mapped", tally.mapped, mapped);
        tally.expect("release", range, "Ready", tally.ready, ready);
        state.releases += 1;
        let kept = self.config.fail_release == Some(state.releases);
        state.shadow.release(range, kept);
        if kept {
            return Err(OsError::new(Operation::Release, range.bytes(), libc::ENOMEM));
        }
        state.leave(range);
        Ok(())
    }

    pub(super) fn alloc(&self, bytes: Bytes, category: Category) -> Result<Addr, OsError> {
        let mut state = self.lock();
        state.admit(Operation::Alloc, bytes, bytes)?;
        let placed = state.shadow.alloc(bytes, category);
        placed.ok_or(OsError::new(Operation::Alloc, bytes, libc::ENOMEM))
    }

    pub(super) fn hint_huge(&self, range: AddrRange, _wanted: bool) {
        self.lock().shadow.check("hint_huge", range, Expect::Owned(None));
    }

    pub(super) fn collapse(&self, range: AddrRange) {
        let unit = self.huge_page_size().get();
        let whole = range.base().is_aligned(unit) && range.end().is_aligned(unit);
        assert!(whole, "simulated os: collapse {range:?}: not whole huge pages");
        // Anything else would get memory that no count knows of.
        self.lock().shadow.check("collapse", range, Expect::Ready);
    }

    pub(super) fn resident(&self, range: AddrRange, visit: &mut impl FnMut(AddrRange)) {
        // The caller may do what it likes with the runs, so they are not visited under the lock.
        let runs = self.lock().shadow.ready_runs(range);
        runs.into_iter().for_each(visit);
    }

    pub(super) fn read_text(&self, path: &str) -> Option<String> {
        let mut files = self.config.files.iter();
        files.find(|(name, _)| name == path).map(|(_, text)| text.clone())
    }

    pub(super) fn process_resident(&self) -> Option<Bytes> {
        Some(self.ready())
    }
}

impl fmt::Debug for SimOs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimOs").field("config", &self.config).finish_non_exhaustive()
    }
}
