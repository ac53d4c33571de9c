//! Random sequences of transitions against a model, on the kernel and on simulated systems.
//!
//! The model keeps the state and the expected first word of every page. After each step the
//! counters of the `Os` must equal the model's sums; a step that the system refuses must have
//! changed nothing; Ready pages must hold what was last written, or zeros where zeros are promised;
//! and in the end everything must be back.
//!
//! # Safety
//! Reads and writes the first word of pages that are Ready, as the model knows and the `Os` under
//! test has agreed; each page belongs to the one thread that runs the sequence.

mod kernel;

use kernel::Probe;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use spanheap_core::addr::{Addr, AddrRange, Bytes};
use spanheap_core::os::{Category, Guarding, NativeBuilder, Os, OsError, SimOs};

const SEED: u64 = 0x05_2026;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Reserve,
    ReserveNear,
    ReserveAligned,
    Alloc,
    Map,
    Used,
    Unused,
    Fault,
    Guard,
    Unguard,
    Release,
    Hint,
    Collapse,
    Touch,
}

const KINDS: [Kind; 14] = [
    Kind::Reserve,
    Kind::ReserveNear,
    Kind::ReserveAligned,
    Kind::Alloc,
    Kind::Map,
    Kind::Used,
    Kind::Unused,
    Kind::Fault,
    Kind::Guard,
    Kind::Unguard,
    Kind::Release,
    Kind::Hint,
    Kind::Collapse,
    Kind::Touch,
];

#[derive(Clone, Debug)]
struct Step {
    kind: Kind,
    region: usize,
    page: usize,
    count: usize,
    category: usize,
    /// Whether a simulated system refuses the next call.
    refused: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Transitions are drawn more often than new regions.
    let kind = prop_oneof![
        1 => (0..4usize).prop_map(|i| KINDS[i]),
        4 => (4..KINDS.len()).prop_map(|i| KINDS[i]),
    ];
    let step = (kind, 0..64usize, 0..64usize, 1..24usize, 0..Category::COUNT, 0..8usize).prop_map(
        |(kind, region, page, count, category, refused)| Step {
            kind,
            region,
            page,
            count,
            category,
            refused: refused == 0,
        },
    );
    prop::collection::vec(step, 1..120)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    None,
    Reserved,
    Guarded,
    Prepared,
    Ready,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    state: State,
    category: Category,
    /// The first word, where it is defined.
    word: Option<u64>,
    /// What an access does, if the page is guarded.
    faults: bool,
}

impl Page {
    fn new(state: State, category: Category, word: Option<u64>) -> Page {
        Page { state, category, word, faults: false }
    }
}

// The operations under the contract of ranges, with the promise of this file.

fn map(os: &Os, range: AddrRange, category: Category) -> Result<(), OsError> {
    // SAFETY: the model passes runs of pages that it has got from this system and not released (O1),
    // and looks at a page only while it is Ready (O2).
    unsafe { os.map(range, category) }
}

fn used(os: &Os, range: AddrRange, prepared: Bytes) -> Result<(), OsError> {
    // SAFETY: as above.
    unsafe { os.used(range, prepared) }
}

fn unused(os: &Os, range: AddrRange, ready: Bytes) {
    // SAFETY: as above.
    unsafe { os.unused(range, ready) };
}

fn fault(os: &Os, range: AddrRange, category: Category, ready: Bytes) -> Result<(), OsError> {
    // SAFETY: as above.
    unsafe { os.fault(range, category, ready) }
}

fn guard(os: &Os, range: AddrRange, category: Category, ready: Bytes) -> Guarding {
    // SAFETY: as above.
    unsafe { os.guard(range, category, ready) }
}

fn unguard(os: &Os, range: AddrRange, category: Category) -> Result<(), OsError> {
    // SAFETY: as above.
    unsafe { os.unguard(range, category) }
}

fn release(os: &Os, range: AddrRange, category: Category, mapped: Bytes, ready: Bytes) {
    // SAFETY: as above.
    unsafe { os.release(range, category, mapped, ready) };
}

struct Model {
    os: Os,
    sim: Option<Arc<SimOs>>,
    page_size: usize,
    regions: Vec<(Addr, Vec<Page>)>,
    stamp: u64,
    probe: Probe,
}

/// A run of pages in the model.
#[derive(Clone, Copy)]
struct Run {
    region: usize,
    first: usize,
    count: usize,
}

impl Model {
    fn new(os: Os, sim: Option<Arc<SimOs>>) -> Model {
        let page_size = os.page_size().get();
        Model { os, sim, page_size, regions: Vec::new(), stamp: 0, probe: Probe::new() }
    }

    /// The longest run from the step's page on, up to its count, of pages that the step may change.
    fn run(&self, step: &Step, legal: impl Fn(&Page) -> bool) -> Option<Run> {
        let region = step.region.checked_rem(self.regions.len())?;
        let pages = &self.regions[region].1;
        let first = step.page % pages.len();
        let count = pages[first..].iter().take(step.count).take_while(|page| legal(page)).count();
        (count > 0).then_some(Run { region, first, count })
    }

    fn range(&self, run: Run) -> AddrRange {
        let base = self.regions[run.region].0 + Bytes::new(run.first * self.page_size);
        AddrRange::at(base, Bytes::new(run.count * self.page_size))
    }

    fn pages(&mut self, run: Run) -> &mut [Page] {
        &mut self.regions[run.region].1[run.first..run.first + run.count]
    }

    fn bytes_in(&mut self, run: Run, state: State) -> Bytes {
        let count = self.pages(run).iter().filter(|page| page.state == state).count();
        Bytes::new(count * self.page_size)
    }

    fn add_region(&mut self, base: Addr, count: usize, page: Page) {
        let range = AddrRange::at(base, Bytes::new(count * self.page_size));
        for (other, pages) in &self.regions {
            for (i, page) in pages.iter().enumerate() {
                let at = *other + Bytes::new(i * self.page_size);
                assert!(page.state == State::None || !range.contains(at), "{at} given twice");
            }
        }
        self.regions.push((base, vec![page; count]));
    }

    fn reserve(&mut self, step: &Step) {
        let bytes = Bytes::new(step.count * self.page_size);
        let near = step.region.checked_rem(self.regions.len()).map(|region| self.regions[region].0);
        let base = match step.kind {
            Kind::ReserveNear => self.os.reserve(near, bytes),
            Kind::ReserveAligned => {
                let align = self.page_size << (step.page % 8);
                let base = self.os.reserve_aligned(near, bytes, Bytes::new(align));
                base.inspect(|base| assert!(base.is_aligned(align)))
            }
            _ => self.os.reserve(None, bytes),
        };
        let page = Page::new(State::Reserved, Category::Heap, None);
        if let Ok(base) = base {
            self.add_region(base, step.count, page);
        }
    }

    fn alloc(&mut self, step: &Step) {
        let category = Category::ALL[step.category];
        let bytes = Bytes::new(step.count * self.page_size);
        let page = Page::new(State::Ready, category, Some(0));
        if let Ok(base) = self.os.alloc(bytes, category) {
            self.add_region(base, step.count, page);
        }
    }

    fn map(&mut self, step: &Step) {
        let category = Category::ALL[step.category];
        let Some(run) = self.run(step, |page| page.state == State::Reserved) else { return };
        if map(&self.os, self.range(run), category).is_ok() {
            self.pages(run).fill(Page::new(State::Prepared, category, Some(0)));
        }
    }

    fn used(&mut self, step: &Step) {
        let Some(run) = self.run(step, is_mapped) else { return };
        let prepared = self.bytes_in(run, State::Prepared);
        if used(&self.os, self.range(run), prepared).is_ok() {
            self.pages(run).iter_mut().for_each(|page| page.state = State::Ready);
        }
    }

    fn unused(&mut self, step: &Step) {
        let Some(run) = self.run(step, is_mapped) else { return };
        let ready = self.bytes_in(run, State::Ready);
        unused(&self.os, self.range(run), ready);
        let after = self.os.zero_after_unused().then_some(0);
        for page in self.pages(run).iter_mut().filter(|page| page.state == State::Ready) {
            (page.state, page.word) = (State::Prepared, after);
        }
    }

    fn fault(&mut self, step: &Step) {
        let Some(category) = self.first_category(step) else { return };
        let legal = |page: &Page| is_mapped(page) && page.category == category;
        let Some(run) = self.run(step, legal) else { return };
        let ready = self.bytes_in(run, State::Ready);
        if fault(&self.os, self.range(run), category, ready).is_ok() {
            self.pages(run).iter_mut().for_each(|page| page.state = State::Reserved);
        }
    }

    fn guard(&mut self, step: &Step) {
        let Some(category) = self.first_category(step) else { return };
        let legal = |page: &Page| is_mapped(page) && page.category == category;
        let Some(run) = self.run(step, legal) else { return };
        let ready = self.bytes_in(run, State::Ready);
        let before = self.os.features().guards_without_fault;
        let faults = guard(&self.os, self.range(run), category, ready) == Guarding::Faults;
        let counted = self.os.features().guards_without_fault - before;
        assert_eq!(counted, u64::from(!faults));
        for page in self.pages(run) {
            (page.state, page.faults) = (State::Guarded, faults);
        }
        self.check_guarded(run);
    }

    /// What the answers have promised is what happens, on the kernel.
    fn check_guarded(&mut self, run: Run) {
        let (range, size) = (self.range(run), self.page_size);
        if self.sim.is_some() {
            return;
        }
        for i in 0..run.count {
            let page = self.pages(run)[i];
            let last = range.base() + Bytes::new((i + 1) * size - 1);
            let expected = if page.faults { None } else { Some(0) };
            assert_eq!(self.probe.read(last), expected, "{page:?}");
        }
    }

    fn unguard(&mut self, step: &Step) {
        let guarded = |page: &Page| page.state == State::Guarded;
        let Some(run) = self.run(step, guarded) else { return };
        let category = self.pages(run)[0].category;
        let legal = |page: &Page| guarded(page) && page.category == category;
        let Some(run) = self.run(step, legal) else { return };
        self.check_guarded(run);
        if unguard(&self.os, self.range(run), category).is_ok() {
            self.pages(run).fill(Page::new(State::Prepared, category, Some(0)));
        }
    }

    fn collapse(&mut self, step: &Step) {
        if let Some(run) = self.run(step, |page| page.state == State::Ready) {
            self.os.collapse(self.range(run));
        }
    }

    fn release(&mut self, step: &Step) -> bool {
        let Some(category) = self.first_category(step) else { return false };
        let legal = |page: &Page| match page.state {
            State::None => false,
            State::Reserved | State::Guarded => true,
            _ => page.category == category,
        };
        let Some(run) = self.run(step, legal) else { return false };
        let ready = self.bytes_in(run, State::Ready);
        let mapped = self.bytes_in(run, State::Prepared) + ready;
        release(&self.os, self.range(run), category, mapped, ready);
        self.pages(run).iter_mut().for_each(|page| page.state = State::None);
        true
    }

    fn touch(&mut self, step: &Step) {
        let Some(run) = self.run(step, |page| page.state == State::Ready) else { return };
        let (base, size) = (self.range(run).base(), self.page_size);
        let mut stamp = self.stamp;
        for (i, page) in self.pages(run).iter_mut().enumerate() {
            let word = (base + Bytes::new(i * size)).as_ptr::<u64>();
            // SAFETY: the page is Ready, says the model, and only this thread uses it.
            let found = unsafe { word.read() };
            assert!(page.word.is_none_or(|expected| expected == found), "{word:?}: {found:#x}");
            stamp += 1;
            // SAFETY: as above.
            unsafe { word.write(stamp) };
            page.word = Some(stamp);
        }
        self.stamp = stamp;
    }

    /// The category of the first page of the step's run that is mapped, if there is a region at
    /// all.
    fn first_category(&self, step: &Step) -> Option<Category> {
        let run = self.run(step, |page| page.state != State::None)?;
        let pages = &self.regions[run.region].1[run.first..run.first + run.count];
        Some(pages.iter().find(|page| is_mapped(page)).map_or(Category::Heap, |page| page.category))
    }

    fn step(&mut self, step: &Step) {
        if let Some(sim) = &self.sim {
            sim.set_fail_call(step.refused.then(|| sim.calls() + 1 + step.page % 2));
        }
        match step.kind {
            Kind::Reserve | Kind::ReserveNear | Kind::ReserveAligned => self.reserve(step),
            Kind::Alloc => self.alloc(step),
            Kind::Map => self.map(step),
            Kind::Used => self.used(step),
            Kind::Unused => self.unused(step),
            Kind::Fault => self.fault(step),
            Kind::Guard => self.guard(step),
            Kind::Unguard => self.unguard(step),
            Kind::Collapse => self.collapse(step),
            Kind::Release => drop(self.release(step)),
            Kind::Hint => {
                if let Some(run) = self.run(step, |page| page.state != State::None) {
                    self.os.hint_huge(self.range(run), step.category % 2 == 0);
                }
            }
            Kind::Touch => self.touch(step),
        }
        self.check();
    }

    fn check(&self) {
        let pages = || self.regions.iter().flat_map(|(_, pages)| pages);
        let bytes = |which: &dyn Fn(&Page) -> bool| {
            Bytes::new(pages().filter(|page| which(page)).count() * self.page_size)
        };
        let counted = self.os.accounting();
        for category in Category::ALL {
            let expected = bytes(&|page| is_mapped(page) && page.category == category);
            assert_eq!(counted.mapped(category), expected, "{category}");
        }
        assert_eq!(counted.mapped_total(), bytes(&is_mapped));
        assert_eq!(counted.ready(), bytes(&|page| page.state == State::Ready));
        assert_eq!(counted.reserved(), bytes(&|page| page.state != State::None));
        assert_eq!(counted.leaked(), Bytes::ZERO);
    }

    fn finish(mut self) {
        for region in 0..self.regions.len() {
            for page in 0..self.regions[region].1.len() {
                let count = self.regions[region].1.len();
                let kind = Kind::Release;
                let step = Step { kind, region, page, count, category: 0, refused: false };
                self.release(&step);
            }
        }
        self.check();
        assert_eq!(self.os.accounting().reserved(), Bytes::ZERO);
        if let Some(sim) = &self.sim {
            sim.assert_all_released();
        }
    }
}

fn is_mapped(page: &Page) -> bool {
    matches!(page.state, State::Prepared | State::Ready)
}

fn run_sequences(system: impl Fn() -> (Os, Option<Arc<SimOs>>)) {
    println!("seed {SEED:#x}");
    let config = Config {
        cases: 128,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(SEED),
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        let (os, sim) = system();
        let mut model = Model::new(os, sim);
        steps.iter().for_each(|step| model.step(step));
        model.finish();
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn the_kernel_follows_the_model() {
    run_sequences(|| (Os::native(), None));
}

/// Guarding by protection, with a share that lasts for some of it, or for none.
#[test]
fn the_kernel_follows_the_model_without_markers_and_names() {
    for mappings in [8192, 6, 0] {
        let options =
            NativeBuilder::default().names(false).guard_markers(false).split_limit(mappings);
        run_sequences(|| (Os::native_with(&options), None));
    }
}

#[test]
fn simulated_systems_follow_the_model() {
    let builders = [
        SimOs::builder(),
        SimOs::builder().page_size(Bytes::new(64 << 10)).seed(1).guard_markers(false),
        SimOs::builder()
            .contiguous(Bytes::new(1 << 20))
            .zero_after_unused(true)
            .huge_page_size(Bytes::new(16 << 10)),
    ];
    for builder in builders {
        run_sequences(|| {
            let sim = builder.clone().build();
            (Os::simulated(sim.clone()), Some(sim))
        });
    }
}
