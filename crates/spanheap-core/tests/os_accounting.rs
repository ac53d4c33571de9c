//! The accounts against what the kernel says: after random operations, the bytes that are counted are the
//! bytes that the kernel lists as mapped for us.
//!
//! ```text
//!     readable and writable  =  mapped + what is guarded without a change of mappings
//!     inaccessible           =  reserved - that
//!     in memory              <= ready
//!     splits                 =  two for each run of pages that lost their access
//! ```
//!
//! 10 000 operations for each way of guarding; with `SPANHEAP_LONG=1`, a million.
//!
//! # Safety
//! Writes to pages that the test has made Ready, and asks the kernel about them.

mod kernel;
mod random;

use kernel::mappings;
use random::Random;
use spanheap_core::addr::{Addr, AddrRange, Bytes};
use spanheap_core::os::{Category, Guarding, NativeBuilder, Os};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Reserved,
    /// Reserved, after `fault`.
    Faulted,
    /// Guarded; whether the kernel lists the page as accessible.
    Guarded(bool),
    Prepared,
    Ready,
}

struct Region {
    base: Addr,
    category: Category,
    pages: Vec<State>,
}

struct Driver {
    os: Os,
    page: usize,
    regions: Vec<Region>,
    random: Random,
    /// Whether markers are what guarding is done with.
    markers: bool,
}

impl Driver {
    fn new(options: &NativeBuilder, markers: bool, seed: u64) -> Driver {
        let os = Os::native_with(options);
        let page = os.page_size().get();
        Driver { os, page, regions: Vec::new(), random: Random(seed), markers }
    }

    fn below(&mut self, n: usize) -> usize {
        self.random.below(n)
    }

    fn range(&self, region: usize, first: usize, count: usize) -> AddrRange {
        let base = self.regions[region].base + Bytes::new(first * self.page);
        AddrRange::at(base, Bytes::new(count * self.page))
    }

    fn begin(&mut self) {
        let pages = 1 + self.below(48);
        let bytes = Bytes::new(pages * self.page);
        let category = Category::ALL[self.below(Category::COUNT)];
        let (base, state) = match self.below(3) {
            0 => (self.os.alloc(bytes, category), State::Ready),
            1 => (self.os.reserve(None, bytes), State::Reserved),
            _ => {
                let align = Bytes::new(self.page << self.below(6));
                (self.os.reserve_aligned(None, bytes, align), State::Reserved)
            }
        };
        self.regions.push(Region { base: base.unwrap(), category, pages: vec![state; pages] });
    }

    /// A run of pages of one state, from a random page on, and that state.
    fn pick(&mut self) -> (usize, usize, usize, State) {
        let region = self.below(self.regions.len());
        let first = self.below(self.regions[region].pages.len());
        let most = 1 + self.below(12);
        let pages = &self.regions[region].pages[first..];
        let state = pages[0];
        let count = pages.iter().take(most).take_while(|&&page| page == state).count();
        (region, first, count, state)
    }

    fn step(&mut self) {
        if self.regions.is_empty() || (self.regions.len() < 40 && self.below(20) == 0) {
            self.begin();
            return;
        }
        if self.below(60) == 0 {
            let region = self.below(self.regions.len());
            self.end(region);
            return;
        }
        let (region, first, count, state) = self.pick();
        let choice = self.below(4);
        let range = self.range(region, first, count);
        let after = self.change(range, self.regions[region].category, state, choice);
        self.regions[region].pages[first..first + count].fill(after);
    }

    /// Takes a range on to another state, by choice, and returns that.
    fn change(&self, range: AddrRange, category: Category, state: State, choice: usize) -> State {
        let (os, bytes, none) = (&self.os, range.bytes(), Bytes::ZERO);
        let ready = if state == State::Ready { bytes } else { none };
        match (state, choice) {
            (State::Reserved | State::Faulted, _) => {
                // SAFETY: a run of pages that this driver owns alone (O1), and that nobody uses (O2).
                unsafe { os.map(range, category) }.unwrap();
                State::Prepared
            }
            (State::Guarded(_), _) => {
                // SAFETY: as above.
                unsafe { os.unguard(range, category) }.unwrap();
                State::Prepared
            }
            (State::Prepared | State::Ready, 0) => {
                // SAFETY: as above.
                let guarding = unsafe { os.guard(range, category, ready) };
                State::Guarded(self.markers || guarding == Guarding::ReadsZero)
            }
            (State::Prepared | State::Ready, 1) => {
                // SAFETY: as above.
                unsafe { os.fault(range, category, ready) }.unwrap();
                State::Faulted
            }
            (State::Prepared, _) => {
                // SAFETY: as above.
                unsafe { os.used(range, bytes) }.unwrap();
                // SAFETY: the range is Ready now, and nobody else uses it.
                unsafe { range.base().as_ptr::<u8>().write_bytes(0x5a, bytes.get()) };
                State::Ready
            }
            (State::Ready, _) => {
                // SAFETY: as above.
                unsafe { os.unused(range, bytes) };
                State::Prepared
            }
        }
    }

    fn end(&mut self, region: usize) {
        let whole = self.range(region, 0, self.regions[region].pages.len());
        let region = self.regions.swap_remove(region);
        let count = |wanted: &dyn Fn(State) -> bool| {
            Bytes::new(region.pages.iter().filter(|&&page| wanted(page)).count() * self.page)
        };
        let mapped = count(&|state| matches!(state, State::Prepared | State::Ready));
        let ready = count(&|state| state == State::Ready);
        // SAFETY: as in `change`, and the driver has forgotten the region.
        unsafe { self.os.release(whole, region.category, mapped, ready) };
    }

    /// The runs of pages that lost their access.
    fn count_splits(&self) -> usize {
        let lost = |state| matches!(state, State::Faulted | State::Guarded(false));
        let mut pages: Vec<usize> = Vec::new();
        for region in &self.regions {
            let lost = region.pages.iter().enumerate().filter(|&(_, &page)| lost(page));
            pages.extend(lost.map(|(i, _)| region.base.get() + i * self.page));
        }
        pages.sort_unstable();
        pages.chunk_by(|a, b| a + self.page == *b).count()
    }

    /// Compares the sums with the kernel's list. (How much is in memory is asked only where a huge page
    /// cannot cover pages that were never touched.)
    fn check(&self, memory: bool) {
        let mut owned: Vec<AddrRange> = (0..self.regions.len())
            .map(|region| self.range(region, 0, self.regions[region].pages.len()))
            .collect();
        owned.sort_by_key(|range| range.base());
        let (open, closed) = mappings::accessible_and_not(&owned);
        let counted = self.os.accounting();
        let pages = self.regions.iter().flat_map(|region| &region.pages);
        let guarded = pages.filter(|&&page| page == State::Guarded(true)).count();
        let expected = counted.mapped_total() + Bytes::new(guarded * self.page);
        assert_eq!(open, expected, "readable and writable");
        assert_eq!(closed, counted.reserved() - expected, "inaccessible");
        assert_eq!(self.os.features().splits, 2 * self.count_splits(), "mappings that are split");
        assert_eq!(open + closed, owned.iter().map(|range| range.bytes()).sum());
        assert!(counted.leaked() == Bytes::ZERO);
        let resident: usize =
            owned.iter().map(|&range| mappings::resident_bytes(&self.os, range)).sum();
        assert!(!memory || resident <= counted.ready().get(), "{resident} bytes in memory");
    }
}

fn run(name: &str, options: &NativeBuilder, markers: bool) {
    let long = std::env::var("SPANHEAP_LONG").is_ok_and(|value| value == "1");
    let (steps, every) = if long { (1_000_000, 5000) } else { (10_000, 200) };
    let seed = 0x05_acc0 + u64::from(markers);
    println!("{name}: seed {seed:#x}, {steps} steps");
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let memory = !enabled.is_ok_and(|text| text.contains("[always]"));
    let mut driver = Driver::new(options, markers, seed);
    for step in 1..=steps {
        driver.step();
        if step % every == 0 {
            driver.check(memory);
        }
    }
    driver.check(memory);
    while !driver.regions.is_empty() {
        driver.end(0);
    }
    assert_eq!(driver.os.accounting().reserved(), Bytes::ZERO);
    assert_eq!(driver.os.accounting().mapped_total(), Bytes::ZERO);
    assert_eq!(driver.os.accounting().ready(), Bytes::ZERO);
    assert_eq!(driver.os.features().splits, 0, "what is gone splits nothing");
}

#[test]
fn the_kernel_has_mapped_what_is_counted() {
    let options = NativeBuilder::default();
    let probe = Os::native().features().guard_markers;
    let markers = probe == spanheap_core::os::Feature::Untried;
    println!("markers: {probe}");
    run("as the kernel has it", &options, markers);
}

#[test]
fn the_kernel_has_mapped_what_is_counted_without_markers() {
    run("by protection", &NativeBuilder::default().guard_markers(false), false);
}

#[test]
fn the_kernel_has_mapped_what_is_counted_without_means_to_guard() {
    run("by policy", &NativeBuilder::default().guard_markers(false).split_limit(0), false);
}
