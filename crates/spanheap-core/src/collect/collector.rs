//! The collector of a heap: what its thread, its mutators and its users share.
//!
//! This file is the state and the thread; the cycle itself is in [`super::cycle`].
//!
//! # Threads
//! - The **collector thread** sleeps until the alarm rings: the trigger was reached, somebody asked, or the
//!   heap is being dropped. It runs cycles and sweeps, returns memory to the system between them, and does
//!   what is left to do at the end of the heap.
//! - **Helpers** mark along with it, in large heaps on large machines ([`super::workers`]).
//! - The **drop thread** runs destructors. The collector starts it at the end of the first cycle after which
//!   one is owed. If the system gives no thread, the collector runs what is owed itself, after each cycle.
//! - The **pressure thread** tells the program of limits that are near, if it wants to hear of them
//!   ([`super::pressure`]).
//!
//! # Safety
//! The destructors of what is left at the end of a heap run when no mutator can enter any more.
#![allow(unsafe_code)]

use super::buffer::Entries;
use super::checkmark;
use super::control::{Control, Wish};
use super::crew::{Crew, Marked};
use super::grey::GreyQueue;
use super::kernel::Kernel;
use super::mark;
use super::pacer::{Pacer, Plan, Policy, Tuning, periodic};
use super::phase::{Phase, PhaseWord};
use super::pressure::{Desk, PressureHook, Watch};
use super::ration::{Due, Ration};
use super::registry::{MutatorRecord, Registry};
use super::roots::RootTable;
use super::scavenger::Scavenger;
use super::settings::Settings;
use super::spent::Spent;
use super::undertaker::Undertaker;
use super::workers::{Helpers, workers};
use crate::addr::{AddrRange, Bytes};
use crate::heap::central::Config;
use crate::heap::hooks::Hooks;
use crate::heap::{Central, OutOfMemory, Reason};
use crate::os::barrier::ProcessBarrier;
use crate::os::{Os, OsError};
use crate::span::Generation;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Lock, Rank};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

/// How many spans the collector's thread sweeps before it may give its processor away.
const SWEEP_BATCH: usize = 16;

/// How many such batches it sweeps between two looks at who else wants one.
const BATCHES_PER_LOOK: u32 = 16;

/// The thread does not sleep longer than this for a periodic cycle, however far away it is: the system takes
/// no time without bounds.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// How a heap is to behave.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// When cycles begin, and how large the heap should be at most.
    pub policy: Policy,
    /// Begin a cycle when there was none for so long, if the policy has a percent; `None`: do not.
    pub periodic: Option<Duration>,
    /// Bytes of ready memory beyond which pages for objects are refused.
    pub hard_limit: Option<Bytes>,
    /// Collect all the time, whatever the size of the heap: for tests.
    pub continuously: bool,
    /// Verify each cycle with a second mark: see [`super::checkmark`].
    pub checkmark: bool,
    /// Look for pointers that trace functions miss, too; implies the former.
    pub verify_trace: bool,
    /// Ask for a cycle at each so-many-th slot that is taken; 0: never.
    pub collect_every: u64,
    /// Fill freed slots with a pattern.
    pub poison: bool,
    /// Whether free memory goes back to the system without being asked for.
    pub return_memory: bool,
    /// Use full fences in mutators even where the kernel could do without: for tests.
    pub symmetric_fences: bool,
    /// How many threads mark, the collector's own included; `None`: a quarter of the processors, and only the
    /// collector's in a small heap.
    pub mark_threads: Option<NonZeroUsize>,
    /// How pages are read for pointers; `None`: in the widest way that the processor has.
    pub kernel: Option<Kernel>,
    /// Let every allocation pay for itself while a cycle marks, whatever the size of the heap: for tests.
    pub always_assist: bool,
    /// Note the type of each value that is allocated in a user arena, and where in the program that was, for a
    /// report of a use after the arena was freed ([`crate::span::sites`]).
    pub record_sites: bool,
    /// Write a line to standard error for each cycle.
    pub trace_cycles: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            policy: Policy { percent: Some(100), limit: None },
            periodic: Some(periodic::PERIOD),
            hard_limit: None,
            continuously: false,
            checkmark: false,
            verify_trace: false,
            collect_every: 0,
            poison: false,
            return_memory: true,
            symmetric_fences: false,
            mark_threads: None,
            kernel: None,
            always_assist: false,
            record_sites: false,
            trace_cycles: false,
        }
    }
}

/// What a complete cycle has found.
#[derive(Clone, Copy, Default, Debug)]
pub struct CycleReport {
    /// Objects and bytes that were marked.
    pub marked: Marked,
    /// Bytes that had to be looked at for that.
    pub work: u64,
    /// Termination rounds that it took.
    pub rounds: u32,
    /// Whether everything was retained because marking could not be finished.
    pub retained_everything: bool,
}

/// The collector of a heap.
pub struct Collector {
    pub(super) central: Central,
    pub(super) options: Options,
    pub(super) fence: ProcessBarrier,
    word: AtomicU64,
    pub(super) registry: Registry,
    pub(super) grey: GreyQueue,
    pub(super) roots: RootTable,
    pub(super) control: Control,
    pub(super) last: Lock<Last>,
    /// What can be changed, and the pacer.
    pub(super) settings: Lock<Settings>,
    /// How many processors there are for the threads of the process.
    pub(super) processors: usize,
    /// What the workers of a cycle share.
    pub(super) crew: Crew,
    /// What mutators have done in the middle of allocations, and who has offered his time.
    pub(super) spent: Spent,
    /// What limits and assists may cost.
    pub(super) ration: Lock<Ration>,
    /// Who has this may bury freed user arenas: the collector's thread, but while it sleeps between two cycles.
    pub(super) undertaker: Lock<Undertaker>,
    /// The threads of this heap.
    threads: Lock<Threads>,
    /// Where notices for the pressure thread go.
    pub(super) pressure: Option<Desk>,
    /// When the heap was made.
    pub(super) begun: Instant,
}

/// The threads of a heap.
#[derive(Default)]
struct Threads {
    /// By [`OwnThread`].
    own: [Option<ThreadId>; 3],
    helpers: Vec<ThreadId>,
}

/// A thread that a heap has one of.
#[derive(Clone, Copy)]
pub(super) enum OwnThread {
    Collector = 0,
    Drops = 1,
    Pressure = 2,
}

/// What is known of the cycles so far.
#[derive(Clone, Copy, Debug)]
pub struct Last {
    /// Complete cycles.
    pub cycles: u64,
    /// Those of them that retained everything.
    pub broken: u64,
    /// What the last one has found.
    pub report: CycleReport,
    /// Bytes that it retained.
    pub retained: Bytes,
    /// When the next one begins.
    pub plan: Plan,
    /// CPU time of all cycles, of the heap's own threads.
    pub cpu: Duration,
    /// Objects that checkmark mode has verified, over all cycles.
    pub checked: u64,
    /// How often a cycle that a limit wanted had to wait.
    pub deferred: u64,
}

impl Collector {
    /// The collector of a new heap on `os`; its thread is not running yet.
    pub fn new(os: Os, options: Options, hooks: Hooks) -> Result<Collector, OsError> {
        let config = Config {
            soft_limit: options.policy.limit,
            hard_limit: options.hard_limit,
            poison: options.poison,
            shards: None,
        };
        let central = Central::with_hooks(os, config, hooks)?;
        central.switches().set_checkmark(options.checkmark);
        central.switches().set_verify_trace(options.verify_trace);
        central.switches().set_collect_every(options.collect_every);
        central.switches().set_trace_cycles(options.trace_cycles);
        central.arenas().sites().set_notes_values(options.record_sites);
        let processors = crate::os::thread::processors();
        let limit = central.pages().limits().target();
        let background = workers(processors, options.mark_threads);
        let pacer = Pacer::new(
            Policy { limit, ..options.policy },
            Tuning::unassisted(background, processors),
        );
        let plan = pacer.plan();
        central.set_trigger(plan.trigger);
        central.set_unlimited_trigger(plan.unlimited);
        central.outside().set_least(plan.trigger);
        let fence = match options.symmetric_fences {
            true => ProcessBarrier::forced_symmetric(),
            false => ProcessBarrier::detect(),
        };
        let last = Last {
            cycles: 0,
            broken: 0,
            report: CycleReport::default(),
            retained: Bytes::ZERO,
            plan,
            cpu: Duration::ZERO,
            checked: 0,
            deferred: 0,
        };
        Ok(Collector {
            central,
            options,
            fence,
            word: AtomicU64::new(PhaseWord::FIRST.bits()),
            registry: Registry::new(),
            grey: GreyQueue::new(),
            roots: RootTable::new(),
            control: Control::new(),
            last: Lock::new(Rank::Statistics, last),
            settings: Lock::new(Rank::Settings, Settings::new(pacer)),
            processors,
            crew: Crew::new(background),
            spent: Spent::default(),
            ration: Lock::new(Rank::Statistics, Ration::new(processors)),
            undertaker: Lock::new(Rank::Undertaker, Undertaker::default()),
            threads: Lock::new(Rank::Statistics, Threads::default()),
            pressure: None,
            begun: Instant::now(),
        })
    }

    /// What is known of the cycles so far.
    pub fn last_cycle(&self) -> Last {
        *self.last.lock()
    }

    /// Tells the threads to stop, and lets nobody in any more.
    pub fn begin_shutdown(&self) {
        self.control.shut_down();
        self.central.alarm().ring();
        if let Some(desk) = &self.pressure {
            desk.close();
        }
    }

    /// The program wants to be told of limits that are near.
    pub fn set_pressure_hook(&mut self, hook: PressureHook) {
        self.pressure = Some(Desk::new(hook));
    }

    /// The calling thread is one of the heap's own.
    pub(super) fn note_own_thread(&self, thread: OwnThread) {
        self.threads.lock().own[thread as usize] = Some(std::thread::current().id());
    }

    /// Whether the calling thread is the collector's, which can wait for no cycle.
    pub fn is_collector_thread(&self) -> bool {
        let me = std::thread::current().id();
        self.threads.lock().own[OwnThread::Collector as usize] == Some(me)
    }

    /// Whether the calling thread belongs to this heap.
    pub fn is_own_thread(&self) -> bool {
        let (me, threads) = (std::thread::current().id(), self.threads.lock());
        threads.own.contains(&Some(me)) || threads.helpers.contains(&me)
    }

    /// Notes which threads help to mark.
    pub(super) fn set_helpers(&self, helpers: &Helpers) {
        let mut threads = self.threads.lock();
        if threads.helpers.len() != helpers.len() {
            threads.helpers = helpers.ids().collect();
        }
    }

    /// Where the page queue has its memory.
    pub fn queue_memory(&self) -> AddrRange {
        self.crew.queue_memory(self.central.os())
    }

    /// Bytes of objects that mutators have scanned in the middle of allocations.
    pub fn assisted(&self) -> u64 {
        self.spent.scanned()
    }

    /// Processor time of these assists, and of threads that have offered theirs.
    pub fn spent(&self) -> [Duration; 2] {
        [self.spent.assists(), self.spent.offered()]
    }

    /// What mutators allocate from.
    #[inline]
    pub fn central(&self) -> &Central {
        &self.central
    }

    /// The root table.
    pub fn roots(&self) -> &RootTable {
        &self.roots
    }

    /// The mutators.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Requests for cycles.
    #[inline]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The fence between a mutator's "inside" and its reading the phase.
    #[inline]
    pub fn fence(&self) -> &ProcessBarrier {
        &self.fence
    }

    /// The phase word as it is now.
    #[inline]
    pub fn word(&self) -> PhaseWord {
        PhaseWord::from_bits(self.word.load(Ordering::Acquire))
    }

    /// Publishes a phase word.
    pub(super) fn publish(&self, word: PhaseWord) {
        self.word.store(word.bits(), Ordering::Release);
    }

    /// Asks for a cycle; the ticket is for [`Control::wait`].
    pub fn request(&self) -> u64 {
        let ticket = self.control.request();
        self.central.alarm().ring();
        ticket
    }

    /// Takes what a mutator's barrier buffer holds over to the grey queue, on behalf of a closure that
    /// entered with `word`.
    pub fn flush(&self, record: &MutatorRecord, word: PhaseWord) {
        record.buffer.flush(|targets| self.take_grey(targets, word.cycle()));
    }

    /// The other end of a flush. What is marked already is dropped before anybody waits for the queue's lock.
    fn take_grey(&self, mut targets: Entries<'_>, cycle: u32) {
        let (heap, now) = (self.central.number(), self.word());
        if now.phase() == Phase::Marking && now.cycle() == cycle {
            mark::keep_unmarked(heap, Generation::new(cycle).table(), &mut targets);
        }
        if !targets.is_empty() {
            let (os, memory) = (self.central.os(), self.central.memory());
            let mark = |target| mark::mark_directly(heap, cycle, target);
            self.grey.push(os, memory, cycle, targets.iter(), mark);
        }
    }

    /// The life of the collector thread.
    pub fn run(self: &Arc<Collector>) {
        self.note_own_thread(OwnThread::Collector);
        let mut helpers = Helpers::default();
        let mut drop_thread = None;
        let mut scavenger = Scavenger::new(self.processors);
        let mut undertaker = self.undertaker.lock();
        let mut watch = Watch::default();
        let mut last_end = Instant::now();
        loop {
            let reason = match self.control.wish() {
                Wish::Shutdown => break,
                // In turn, or who verifies all the time would keep cycles away that are due.
                Wish::Verify => match self.control.has_just_verified().then(|| self.due()) {
                    Some(Due::Now(reason)) => reason,
                    _ => {
                        self.serve_verifiers(&mut undertaker);
                        continue;
                    }
                },
                Wish::Nothing if !self.options.continuously => {
                    match self.reason(&mut scavenger, last_end) {
                        Ok(reason) => reason,
                        Err(pause) => {
                            undertaker = self.rest(undertaker, pause);
                            continue;
                        }
                    }
                }
                Wish::Nothing => Reason::Continuous,
                Wish::Cycle => Reason::Asked,
            };
            let before = self.central.live();
            self.control.cycle_begins();
            self.cycle(&mut helpers, reason, &mut undertaker);
            self.start_drop_thread(&mut drop_thread);
            self.enter_cycle(reason, before);
            self.control.cycle_ends();
            self.watch_limits(&mut watch);
            last_end = Instant::now();
        }
        helpers.end(self);
        self.crew.release(self.central.os());
        self.wind_up(drop_thread);
        undertaker.end();
    }

    /// The reason for a cycle that is due without being asked for. If none is, returns free memory, and says how long
    /// the thread may sleep as far as that goes.
    fn reason(
        &self,
        scavenger: &mut Scavenger,
        last_end: Instant,
    ) -> Result<Reason, Option<Duration>> {
        match self.due() {
            Due::Now(reason) => Ok(reason),
            Due::In(pause) => Err(Some(pause)),
            Due::No if self.central.rearm() => Err(Some(Duration::ZERO)),
            Due::No => match self.until_periodic(last_end) {
                Some(Duration::ZERO) => Ok(Reason::Periodic),
                until => {
                    let pause = self.options.return_memory.then(|| scavenger.work(self));
                    Err(pause.flatten().into_iter().chain(until).min())
                }
            },
        }
    }

    /// How long it is at most until a cycle is due for no other reason than that there was none for long; zero: it
    /// is. The last one has ended at `last_end`.
    fn until_periodic(&self, last_end: Instant) -> Option<Duration> {
        let policy = self.settings.lock().policy();
        let due = periodic::until_due(policy, self.options.periodic, last_end.elapsed())?;
        Some(due.min(LONGEST_SLEEP))
    }

    fn start_drop_thread(self: &Arc<Collector>, thread: &mut Option<JoinHandle<()>>) {
        if thread.is_some() || !self.central.drops().has_work() {
            return;
        }
        let collector = self.clone();
        let run = move || {
            // Before the first destructor: it may drop the last handle of this heap.
            collector.note_own_thread(OwnThread::Drops);
            let central = &collector.central;
            let writer = central.counters().shared();
            while let Some(batch) = central.drops().wait_and_run_batch(writer) {
                central.finish_drops(batch);
            }
        };
        match std::thread::Builder::new().name("spanheap-drop".into()).spawn(run) {
            Ok(handle) => *thread = Some(handle),
            // Without a thread the destructors run here. Slower, but nothing is owed for ever.
            Err(_) => while self.central.run_owed() {},
        }
    }

    /// The end of the heap: nobody is inside and nobody will be. Gives caches back and runs every
    /// destructor that is owed, on a thread that is not a user's.
    fn wind_up(&self, drop_thread: Option<JoinHandle<()>>) {
        self.publish(self.word().closed());
        self.registry.close(&self.central);
        self.central.drops().close();
        if let Some(thread) = drop_thread {
            // The thread contains panics of destructors; if it died all the same, what it left is dropped
            // below.
            let _ = thread.join();
        }
        while self.central.run_owed() {}
        // SAFETY: the registry is closed, so no mutator can enter, and whoever drops a heap holds no
        // pointer into it.
        unsafe { self.central.drop_everything() };
        self.central.arenas().close();
        checkmark::release(&self.central);
    }

    /// Remembers what a cycle has found.
    pub(super) fn finish_report(&self, report: CycleReport, cpu: Duration) {
        let mut last = self.last.lock();
        last.cycles += 1;
        last.broken += u64::from(report.retained_everything);
        last.report = report;
        last.retained = self.central.retained();
        last.cpu += cpu;
    }

    /// Sweeps everything that waits to be swept. Where mutators are at work on every processor, they get
    /// theirs back between two batches.
    pub(super) fn sweep_all(&self) {
        self.central.catch_up();
        let (mut batches, mut busy) = (0u32, false);
        while self.central.sweep_batch(SWEEP_BATCH) {
            // How many threads are inside is a matter of a lock, so it is not asked for each batch.
            if batches % BATCHES_PER_LOOK == 0 {
                busy = self.registry.counts().1 >= self.processors;
            }
            batches = batches.wrapping_add(1);
            if busy {
                std::thread::yield_now();
            }
        }
    }

    /// The error for a request that no heap could meet.
    pub fn out_of_memory(&self, requested: Bytes) -> OutOfMemory {
        self.central.out_of_memory(requested, crate::heap::Refused::TooLarge)
    }
}
