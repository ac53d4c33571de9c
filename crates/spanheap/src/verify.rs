//! Verification for users, hooks, and the line of a cycle: how a program finds out what is wrong with it, or with this
//! crate.
//!
//! | what | finds | costs |
//! |---|---|---|
//! | [`HeapBuilder::checkmark`] | objects that a cycle missed: a wrong `Trace`, a bug in marking | closures wait while a second mark compares |
//! | [`HeapBuilder::verify_trace`] | the same, and the field that a hand-written `Trace` does not report | the same and a look at every word of such objects |
//! | [`HeapBuilder::poison`] | uses of objects that were freed | a write to all that is freed |
//! | [`HeapBuilder::collect_every`] | what depends on when a cycle comes | each allocation takes the slow path |
//! | [`Heap::verify`] | structures of the heap that disagree | closures wait for a look at the whole heap |
//! | [`HeapBuilder::trace_cycles`], [`HeapBuilder::on_cycle`] | how often cycles come, why, and what they cost and find | a call to the system at the end of each cycle |
//!
//! All of them can be switched while the heap lives, and by an environment variable that the program has asked for
//! ([`HeapBuilder::from_env`]). A heap never reads the environment by itself.

use crate::attach;
use crate::builder::HeapBuilder;
use crate::heap::Heap;
use spanheap_core::collect::Options;
use spanheap_core::collect::kernel::Kernel;
use spanheap_core::heap::hooks::{Delay, UserPanic};
use spanheap_core::heap::verify::Finding;
use spanheap_core::observe::CycleTrace;
use std::sync::Arc;
use std::time::Duration;

/// The environment variable that [`HeapBuilder::from_env`] reads.
const VARIABLE: &str = "SPANHEAP_DEBUG";

/// What [`Heap::verify`] has looked at, when everything agrees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Objects, those included that are garbage or wait for their destructor. Small values without pointers that
    /// share a slot count as one.
    pub objects: u64,
    /// Bytes of their slots.
    pub bytes: usize,
    /// Objects that wait for their destructor.
    pub owed_objects: u64,
    /// Spans that hold them.
    pub spans: u64,
    /// Bytes of the spans.
    pub span_bytes: usize,
    /// Bytes of free pages, of which the side tables were read.
    pub free_bytes: usize,
}

impl HeapBuilder {
    /// Look for pointers that a hand-written [`Trace`](crate::Trace) does not report; includes
    /// [`HeapBuilder::checkmark`]. The process is aborted with the name of the type and the offset of the field,
    /// in the cycle that would free the object that the field points to.
    ///
    /// What is looked at is every word of every object whose type is not [`EXACT`](crate::Trace::EXACT). It is
    /// reported if it is the address of an object that nothing else retains. A number that happens to be such an
    /// address, or what an earlier variant of an enum has left behind, is a false alarm; so this is an option of
    /// its own. A derived implementation is never suspected, unless a field's is written by hand. Memory
    /// that an object owns elsewhere is not looked at.
    ///
    /// ```no_run
    /// use spanheap::{Gc, Heap, Trace, Tracer};
    ///
    /// struct Pair<'gc>(Gc<'gc, u64>, Gc<'gc, u64>);
    /// // SAFETY: none, it is wrong: the second pointer is missing.
    /// unsafe impl Trace for Pair<'_> {
    ///     fn trace(&self, tracer: &mut Tracer<'_>) {
    ///         self.0.trace(tracer);
    ///     }
    /// }
    ///
    /// let heap = Heap::builder().verify_trace(true).build()?;
    /// let _root: spanheap::Root<spanheap::Rootable![Pair<'_>]> = heap.enter(|mc| {
    ///     mc.root(mc.alloc(Pair(mc.alloc(1), mc.alloc(2))))
    /// });
    /// let _ = heap.collect(); // the `Trace` of Pair is wrong: the word at offset 8 ...
    /// # Ok::<(), spanheap::BuildError>(())
    /// ```
    pub fn verify_trace(mut self, on: bool) -> HeapBuilder {
        self.options.verify_trace = on;
        self
    }

    /// Ask for a cycle at every `n`-th allocation; 0, as if nothing is said: never. For tests: what goes wrong
    /// when a cycle comes at a certain moment goes wrong again in the next run.
    ///
    /// Counted is, over all threads, each slot that an allocation takes. Values of less than 16 bytes without
    /// pointers share slots, and the second one in a slot is not counted; a slice is one. The cycle is asked
    /// for, not waited for: it begins at once, works while closures go on, and is complete when every closure that
    /// is open has ended. What is asked for while a request is waiting is no second one.
    pub fn collect_every(mut self, n: u64) -> HeapBuilder {
        self.options.collect_every = n;
        self
    }

    /// Reads the settings of the environment variable `SPANHEAP_DEBUG`, if it is set, and lets them override
    /// what was said before: a list like `checkmark=1,poison=1,every=100`.
    ///
    /// | setting | is |
    /// |---|---|
    /// | `checkmark=0` or `1` | [`HeapBuilder::checkmark`] |
    /// | `verify_trace=0` or `1` | [`HeapBuilder::verify_trace`] |
    /// | `poison=0` or `1` | [`HeapBuilder::poison`] |
    /// | `continuously=0` or `1` | [`HeapBuilder::collect_continuously`] |
    /// | `every=` a number | [`HeapBuilder::collect_every`] |
    /// | `record_sites=0` or `1` | [`HeapBuilder::record_sites`] |
    /// | `gctrace=0` or `1` | [`HeapBuilder::trace_cycles`] |
    /// | `kernel=scalar`, `avx2` or `avx512` | read pages for pointers in this way, if the processor has it |
    ///
    /// Anything else in it makes [`HeapBuilder::build`] return an error.
    pub fn from_env(mut self) -> HeapBuilder {
        if let Some(settings) = std::env::var_os(VARIABLE) {
            let settings = settings.to_string_lossy();
            self.environment = apply(&mut self.options, &settings).err().map(str::to_owned);
        }
        self
    }

    /// Calls `hook` when a destructor has panicked, with the name of the type and what it has panicked with. The
    /// panic has been contained: the other values are dropped, and the heap goes on.
    ///
    /// The hook is called on the heap's drop thread, between two destructors, and may use the heap. At the end of
    /// the heap it is called on one of the heap's threads. If it panics, nobody hears of that.
    pub fn on_drop_panic(
        mut self,
        hook: impl Fn(&UserPanic<'_>) + Send + Sync + 'static,
    ) -> HeapBuilder {
        self.hooks.drop_panic = Some(Arc::new(hook));
        self
    }

    /// Calls `hook` when a [`Trace`](crate::Trace) implementation has panicked while the collector marked, with
    /// the name of the type and what it has panicked with. The cycle cannot know what is live then, and
    /// retains everything; the next one tries again. [`Stats`](crate::Stats) counts both.
    ///
    /// The hook is called where it has panicked: on one of the heap's threads, on one that offers its time, or on one
    /// that helps in the middle of an allocation. It may not use the heap: entering or collecting panics.
    pub fn on_trace_panic(
        mut self,
        hook: impl Fn(&UserPanic<'_>) + Send + Sync + 'static,
    ) -> HeapBuilder {
        self.hooks.trace_panic = Some(Arc::new(hook));
        self
    }

    /// Calls `hook` when the collector has waited for `every` for a closure to end, once for each thread that it
    /// waits for; and again each time that this time has passed. Nothing else is done about it: such a thread
    /// delays no other thread, but memory grows until it leaves its closure.
    ///
    /// The hook is called on the collector's thread and may not use the heap: entering or collecting panics.
    ///
    /// ```
    /// # use spanheap::Heap;
    /// # use std::time::Duration;
    /// let heap = Heap::builder().watchdog(Duration::from_secs(10), |delay| eprintln!("{delay}")).build()?;
    /// # Ok::<(), spanheap::BuildError>(())
    /// ```
    pub fn watchdog(
        mut self,
        every: Duration,
        hook: impl Fn(&Delay) + Send + Sync + 'static,
    ) -> HeapBuilder {
        self.hooks.watchdog = Some((every.max(Duration::from_millis(1)), Arc::new(hook)));
        self
    }

    /// Write a line to standard error for each cycle, when it has ended: as `GODEBUG=gctrace=1` does in Go, in the
    /// same order, so that tools which read that understand it; and after a ` | ` what only this heap has, as
    /// `key=value`. [`CycleTrace`] says what the figures are.
    ///
    /// The line is written in one piece, and errors are ignored. If standard error is a pipe that nobody reads, cycles
    /// wait until somebody does.
    ///
    /// ```
    /// # use spanheap::Heap;
    /// let heap = Heap::builder().trace_cycles(true).build()?;
    /// let _ = heap.collect(); // gc 1 @0.001s 0%: 0.019+0.058+0.002 ms clock, ...
    /// # Ok::<(), spanheap::BuildError>(())
    /// ```
    pub fn trace_cycles(mut self, on: bool) -> HeapBuilder {
        self.options.trace_cycles = on;
        self
    }

    /// Calls `hook` at the end of each cycle with what it was: why it began, how long its steps have taken and what
    /// they have cost, what it has found. `Display` makes the line of [`HeapBuilder::trace_cycles`] of it.
    ///
    /// The hook is called on the collector's thread, when everything is swept and before [`Heap::collect`] returns to
    /// those who wait for the cycle. It may not use the heap, except for [`Heap::stats`]: entering or collecting
    /// panics. A panic is contained, and nobody hears of it. The next cycle does not begin before the hook has
    /// returned; and if it waits for a lock whose owner waits for a cycle, it waits for ever. If it owns a handle of
    /// the heap, the heap never ends.
    ///
    /// ```
    /// # use spanheap::Heap;
    /// # use std::sync::atomic::{AtomicU64, Ordering};
    /// static MARKED: AtomicU64 = AtomicU64::new(0);
    /// let heap = Heap::builder()
    ///     .on_cycle(|cycle| _ = MARKED.fetch_add(cycle.marked_objects, Ordering::Relaxed))
    ///     .build()?;
    /// let _root: spanheap::Root<spanheap::Rootable![u64]> = heap.enter(|mc| mc.root(mc.alloc(1)));
    /// let _ = heap.collect();
    /// assert_eq!(MARKED.load(Ordering::Relaxed), 1);
    /// # Ok::<(), spanheap::BuildError>(())
    /// ```
    pub fn on_cycle(mut self, hook: impl Fn(&CycleTrace) + Send + Sync + 'static) -> HeapBuilder {
        self.hooks.cycle = Some(Arc::new(hook));
        self
    }
}

/// Applies a list of settings; the first one that is none is the error.
fn apply<'a>(options: &mut Options, settings: &'a str) -> Result<(), &'a str> {
    for setting in settings.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
        let (name, value) = setting.split_once('=').ok_or(setting)?;
        let switch = match value {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        };
        match name {
            "checkmark" => options.checkmark = switch.ok_or(setting)?,
            "verify_trace" => options.verify_trace = switch.ok_or(setting)?,
            "poison" => options.poison = switch.ok_or(setting)?,
            "continuously" => options.continuously = switch.ok_or(setting)?,
            "record_sites" => options.record_sites = switch.ok_or(setting)?,
            "gctrace" => options.trace_cycles = switch.ok_or(setting)?,
            "every" => options.collect_every = value.parse().map_err(|_| setting)?,
            "kernel" => options.kernel = Some(Kernel::named(value).ok_or(setting)?),
            _ => return Err(setting),
        }
    }
    Ok(())
}

impl Heap {
    /// Looks at the whole heap and compares its structures with each other: records of spans, lists, bits of
    /// objects, the page map, free pages, queues and counters.
    ///
    /// The call waits, as [`Heap::collect`] does, for every closure that is open; meanwhile and until it returns
    /// no closure can begin. It takes milliseconds for each 100 MB. Garbage stays where it is.
    ///
    /// # Errors
    /// What disagrees, structure by structure (the first 64 findings). The heap is broken then, by unsafe code
    /// that has written where it should not, or by a bug in this crate.
    ///
    /// # Panics
    /// Inside a closure of this heap, for which it would wait; in the destructor of a thread-local that runs
    /// late; and where [`Heap::collect`] panics.
    pub fn verify(&self) -> Result<VerifyReport, Vec<Finding>> {
        assert!(
            !attach::is_inside(&self.core) || !self.core.is_here(),
            "a heap is verified outside of its closures, for which it waits"
        );
        let found = self.core.verify();
        if !found.findings.is_empty() {
            return Err(found.findings.clone());
        }
        Ok(VerifyReport {
            objects: found.objects,
            bytes: found.bytes.get(),
            owed_objects: found.owed,
            spans: found.spans,
            span_bytes: found.pages.bytes().get(),
            free_bytes: found.free_pages.bytes().get(),
        })
    }

    /// Switches [`HeapBuilder::checkmark`] on or off, from the next cycle on.
    pub fn set_checkmark(&self, on: bool) {
        self.core.set_checkmark(on);
    }

    /// Switches [`HeapBuilder::verify_trace`] on or off, from the next cycle on. What was allocated before it was
    /// switched on is not looked at; nor is what threads allocate before they have noticed a change of phase.
    pub fn set_verify_trace(&self, on: bool) {
        self.core.set_verify_trace(on);
    }

    /// Switches [`HeapBuilder::poison`] on or off, for what is freed from here on.
    pub fn set_poison(&self, on: bool) {
        self.core.set_poison(on);
    }

    /// As [`HeapBuilder::collect_every`], from here on; the count begins again. Slots that threads have taken in
    /// advance, for up to one span of each type, are used up uncounted.
    pub fn set_collect_every(&self, n: u64) {
        self.core.set_collect_every(n);
    }

    /// Switches [`HeapBuilder::trace_cycles`] on or off, from the next cycle on.
    pub fn set_trace_cycles(&self, on: bool) {
        self.core.set_trace_cycles(on);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_environment_are_understood_or_refused() {
        let mut options = Options::default();
        assert_eq!(apply(&mut options, " checkmark=1, poison=1,every=100 ,"), Ok(()));
        assert!(options.checkmark && options.poison && !options.continuously);
        assert_eq!(options.collect_every, 100);
        assert_eq!(
            apply(&mut options, "checkmark=0,verify_trace=1,continuously=1,record_sites=1"),
            Ok(())
        );
        assert!(!options.checkmark && options.verify_trace && options.continuously);
        assert!(!options.trace_cycles);
        assert_eq!(apply(&mut options, "gctrace=1"), Ok(()));
        assert!(options.trace_cycles);
        assert_eq!(apply(&mut options, "kernel=scalar"), Ok(()));
        assert_eq!(options.kernel, Some(Kernel::SCALAR));
        for wrong in [
            "checkmark",
            "checkmark=yes",
            "kernel=",
            "kernel=abacus",
            "every=-1",
            "gctrace",
            "gctrace=2",
            "every=",
            "colour=red",
            "=1",
        ] {
            assert_eq!(apply(&mut options, wrong), Err(wrong));
            assert_eq!(apply(&mut options, &format!("poison=0,{wrong}")), Err(wrong));
        }
        assert_eq!(apply(&mut options, ""), Ok(()));
    }
}
