//! The collector of a heap: what its thread, its mutators and its users share.
//!
//! This file is the state and the thread; the cycle itself is in [`super::cycle`].
//!
//! # Threads
//! - The **collector thread** sleeps until the alarm rings: the trigger was reached, somebody asked, or the
//!   heap is being dropped. It runs cycles and sweeps, returns memory to the system between them, and does
//!   what is left to do at the end of the heap.
//! - The **drop thread** runs destructors. The collector starts it at the end of the first cycle after which
//!   one is owed. If the system gives no thread, the collector runs what is owed itself, after each cycle.
//!
//! # Safety
//! The destructors of what is left at the end of a heap run when no mutator can enter any more.
#![allow(unsafe_code)]

use super::checkmark;
use super::control::{Control, Wish};
use super::grey::GreyQueue;
use super::mark::{self, Marked};
use super::pacer::{Measured, Plan, Policy};
use super::page_queue::PageQueue;
use super::phase::{Phase, PhaseWord};
use super::registry::{MutatorRecord, Registry};
use super::roots::RootTable;
use super::scavenger::Scavenger;
use crate::addr::{Addr, AddrRange, Bytes};
use crate::heap::central::Config;
use crate::heap::{Central, OutOfMemory};
use crate::os::barrier::ProcessBarrier;
use crate::os::{Os, OsError};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Lock, Rank};
use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

/// How many spans the collector's thread sweeps before it may give its processor away.
const SWEEP_BATCH: usize = 10;

/// How many such batches it sweeps between two looks at who else wants one.
const BATCHES_PER_LOOK: u32 = 16;

/// How a heap is to behave.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// When cycles begin, and how large the heap may become.
    pub policy: Policy,
    /// Collect all the time, whatever the size of the heap: for tests.
    pub continuously: bool,
    /// Verify each cycle with a second mark: see [`super::checkmark`].
    pub checkmark: bool,
    /// Fill freed slots with a pattern.
    pub poison: bool,
    /// Whether free memory goes back to the system without being asked for.
    pub return_memory: bool,
    /// Use full fences in mutators even where the kernel could do without: for tests.
    pub symmetric_fences: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            policy: Policy { percent: Some(100), limit: None },
            continuously: false,
            checkmark: false,
            poison: false,
            return_memory: true,
            symmetric_fences: false,
        }
    }
}

/// What a complete cycle has found.
#[derive(Clone, Copy, Default, Debug)]
pub struct CycleReport {
    /// Objects and bytes that were marked.
    pub marked: Marked,
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
    /// How many processors there are for the threads of the process.
    processors: usize,
    /// The memory of the page queue, which itself belongs to the collector thread; for statistics.
    pub(super) queue_memory: Lock<AddrRange>,
    /// The collector thread and the drop thread.
    threads: Lock<[Option<ThreadId>; 2]>,
}

/// What is known of the cycles so far.
#[derive(Clone, Copy, Debug)]
pub struct Last {
    /// Complete cycles.
    pub cycles: u64,
    /// What the last one has found.
    pub report: CycleReport,
    /// Bytes that it retained.
    pub retained: Bytes,
    /// When the next one begins.
    pub plan: Plan,
    /// CPU time of all cycles.
    pub cpu: Duration,
    /// Objects that checkmark mode has verified, over all cycles.
    pub checked: u64,
}

impl Collector {
    /// The collector of a new heap on `os`; its thread is not running yet.
    pub fn new(os: Os, options: Options) -> Result<Collector, OsError> {
        let config = Config { limit: options.policy.limit, poison: options.poison };
        let central = Central::new(os, config)?;
        let plan = options.policy.plan(Measured::default());
        central.set_trigger(plan.trigger);
        let fence = match options.symmetric_fences {
            true => ProcessBarrier::forced_symmetric(),
            false => ProcessBarrier::detect(),
        };
        let last = Last {
            cycles: 0,
            report: CycleReport::default(),
            retained: Bytes::ZERO,
            plan,
            cpu: Duration::ZERO,
            checked: 0,
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
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            queue_memory: Lock::new(Rank::Statistics, AddrRange::new(Addr::NULL, Addr::NULL)),
            threads: Lock::new(Rank::Statistics, [None; 2]),
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
    }

    /// Whether the calling thread belongs to this heap.
    pub fn is_own_thread(&self) -> bool {
        self.threads.lock().contains(&Some(std::thread::current().id()))
    }

    /// Where the page queue has its memory, as far as the last cycle had told.
    pub fn queue_memory(&self) -> AddrRange {
        *self.queue_memory.lock()
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
        record.buffer.flush(|target| self.take_grey(target, word.cycle()));
    }

    fn take_grey(&self, target: Addr, cycle: u32) {
        let (os, memory) = (self.central.os(), self.central.memory());
        self.grey.push(os, memory, cycle, target, || {
            let now = self.word();
            let clean = now.phase() == Phase::Marking && now.cycle() == cycle;
            if clean {
                mark::mark_directly(self.central.number(), cycle, target);
            }
            clean
        });
    }

    /// The life of the collector thread.
    pub fn run(self: &Arc<Collector>) {
        self.threads.lock()[0] = Some(std::thread::current().id());
        let mut queue = PageQueue::new();
        let mut drop_thread = None;
        let mut scavenger = Scavenger::new();
        loop {
            match self.control.wish() {
                Wish::Shutdown => break,
                Wish::Nothing if !self.options.continuously && !self.central.wants_cycle() => {
                    let pause = self.options.return_memory.then(|| scavenger.work(self)).flatten();
                    self.central.alarm().sleep(pause);
                    continue;
                }
                _ => {}
            }
            self.control.cycle_begins();
            self.cycle(&mut queue);
            self.start_drop_thread(&mut drop_thread);
            self.control.cycle_ends();
        }
        *self.queue_memory.lock() = AddrRange::new(Addr::NULL, Addr::NULL);
        queue.release(self.central.os());
        self.wind_up(drop_thread);
    }

    fn start_drop_thread(self: &Arc<Collector>, thread: &mut Option<JoinHandle<()>>) {
        if thread.is_some() || !self.central.drops().has_work() {
            return;
        }
        let collector = self.clone();
        let run = move || {
            // Before the first destructor: it may drop the last handle of this heap.
            collector.threads.lock()[1] = Some(std::thread::current().id());
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
        if self.options.checkmark {
            checkmark::release(&self.central);
        }
    }

    /// Plans the next cycle, when `allocated` bytes were taken while this one ran, and spans had `in_use` bytes
    /// of pages when marking was over.
    pub(super) fn plan_next(&self, allocated: Bytes, in_use: Bytes) -> Plan {
        let measured = Measured { retained: self.central.retained(), allocated };
        let plan = self.options.policy.plan(measured);
        self.central.set_trigger(plan.trigger);
        self.set_scavenge_goals(in_use, self.last_cycle().plan.goal, plan.goal);
        plan
    }

    /// Remembers what a cycle has found, and how the next one is planned.
    pub(super) fn finish_report(&self, report: CycleReport, plan: Plan, cpu: Duration) {
        let mut last = self.last.lock();
        last.cycles += 1;
        last.report = report;
        last.retained = self.central.retained();
        last.plan = plan;
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
