//! [`HeapBuilder`]: the settings of a heap, and what may be wrong with them.

use crate::heap::Heap;
use core::fmt;
use spanheap_core::collect::pressure::{Pressure, PressureHook, Response};
use spanheap_core::collect::{LimitError, MemoryLimit, Options};
use spanheap_core::heap::hooks::Hooks;
use spanheap_core::mutator::{Heap as CoreHeap, NewHeapError};
use spanheap_core::os::Os;
use spanheap_core::span::sites::{self, AfterReport, InstallError};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// Why a heap could not be made.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// A memory limit is none.
    Limit(LimitError),
    /// [`HeapBuilder::from_env`] has found a setting that it does not know.
    Environment {
        /// The setting, as it is in the variable.
        setting: String,
    },
    /// The system gives no memory or no thread.
    System(NewHeapError),
    /// The system does not install a handler for faults.
    Handler(InstallError),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Limit(error) => error.fmt(f),
            BuildError::Environment { setting } => {
                write!(f, "{} is not a setting of SPANHEAP_DEBUG", setting.escape_debug())
            }
            BuildError::System(error) => error.fmt(f),
            BuildError::Handler(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BuildError::Limit(error) => Some(error),
            BuildError::Environment { .. } => None,
            BuildError::System(error) => Some(error),
            BuildError::Handler(error) => Some(error),
        }
    }
}

/// Settings for a [`Heap`].
#[must_use = "settings make no heap until `build` is called"]
pub struct HeapBuilder {
    pub(crate) options: Options,
    pub(crate) hooks: Hooks,
    /// What was wrong in the environment, if it was asked.
    pub(crate) environment: Option<String>,
    memory_limit: MemoryLimit,
    hard_limit: MemoryLimit,
    on_pressure: Option<PressureHook>,
    os: Option<Os>,
    report_faults: Option<AfterReport>,
}

impl HeapBuilder {
    pub(crate) fn new() -> HeapBuilder {
        HeapBuilder {
            options: Options::default(),
            hooks: Hooks::none(),
            environment: None,
            memory_limit: MemoryLimit::Off,
            hard_limit: MemoryLimit::Off,
            on_pressure: None,
            os: None,
            report_faults: None,
        }
    }

    /// How much the heap may grow, in percent of what the last cycle retained, before the next one is
    /// complete. 100 if nothing is said: twice the live heap, and 4 MiB at least. With 0 the goal is always
    /// reached: one cycle follows the other without pause.
    pub fn gc_percent(mut self, percent: u32) -> HeapBuilder {
        self.options.policy.percent = Some(percent);
        self
    }

    /// No cycle begins because the heap has grown; only [`Heap::collect`], memory limits and an allocation
    /// that was refused begin one.
    pub fn gc_percent_off(mut self) -> HeapBuilder {
        self.options.policy.percent = None;
        self
    }

    /// A soft limit on the memory of the heap that is ready for use, its own records included: a number of bytes, or
    /// a [`MemoryLimit`], such as a part of what the process's control group allows. None if nothing is said.
    ///
    /// As the heap comes near, cycles begin earlier and free memory is returned. It is exceeded rather than
    /// that an allocation fails: where live objects need more, or come faster than one finds out which are
    /// dead. Cycles that only a limit wants never have more than about half of the processor time of the process,
    /// so a limit that is too low makes a program half as fast, and not standing still.
    ///
    /// ```
    /// use spanheap::{Heap, MemoryLimit};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Heap::builder().memory_limit(MemoryLimit::Cgroup).build()?;
    /// println!("at most {:?} bytes if possible", heap.memory_limit());
    /// heap.set_memory_limit(512 << 20)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn memory_limit(mut self, limit: impl Into<MemoryLimit>) -> HeapBuilder {
        self.memory_limit = limit.into();
        self
    }

    /// A hard limit, of the same kinds: when pages for objects would exceed it, `try_alloc` returns an error and
    /// `alloc` panics, after free memory was returned and everything known to be dead was swept. None if nothing
    /// is said. The collector keeps below it as it does with a soft limit; if there are both, the lower one.
    ///
    /// Records are refused nothing; a thirty-second part of the limit and half a mebibyte are kept for them. An
    /// allocation that was refused asks for a cycle, and not again at once if that was in vain; who has let go of
    /// something calls [`Heap::collect`].
    pub fn hard_limit(mut self, limit: impl Into<MemoryLimit>) -> HeapBuilder {
        self.hard_limit = limit.into();
        self
    }

    /// A function that is called when a limit is near, while there is something that the program can do: after a
    /// cycle which has found that the heap needs more than 15/16 of the limit, or since the last of which an
    /// allocation was refused.
    ///
    /// It runs on a thread of the heap's own, one call at a time, outside of closures and without any lock: it may
    /// enter the heap, drop roots, and wait for a cycle. If it answers [`Response::Shed`], another cycle is begun,
    /// after which it is not called. A panic is contained, and counted in [`Stats`](crate::Stats). The heap cannot
    /// be dropped before a call has returned.
    ///
    /// ```
    /// use spanheap::{Heap, Response};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Heap::builder()
    ///     .hard_limit(64 << 20)
    ///     .on_pressure(|pressure| {
    ///         eprintln!("{} of {} in use:\n{}", pressure.needed, pressure.limit, pressure.types);
    ///         // ... empty a cache ...
    ///         Response::Shed
    ///     })
    ///     .build()?;
    /// # drop(heap);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_pressure(
        mut self,
        call: impl Fn(&Pressure) -> Response + Send + Sync + 'static,
    ) -> HeapBuilder {
        self.on_pressure = Some(Box::new(call));
        self
    }

    /// A cycle begins when there was none for so long: two minutes if nothing is said. So a heap that does not
    /// grow runs its destructors and gives its memory back all the same. `None`: it is not collected for that.
    /// With [`HeapBuilder::gc_percent_off`] it never is.
    pub fn periodic_collection(mut self, period: Option<Duration>) -> HeapBuilder {
        self.options.periodic = period;
        self
    }

    /// How many threads mark, the collector's own included. If nothing is said, a quarter of the processors
    /// does, one at least, and in a heap below 64 MiB one. Threads that the system refuses are done without.
    pub fn mark_threads(mut self, threads: NonZeroUsize) -> HeapBuilder {
        self.options.mark_threads = Some(threads);
        self
    }

    /// Let every allocation pay with marking while a cycle marks, as if the collector were behind. For tests; in
    /// a large heap it does when the collector is.
    pub fn always_assist(mut self, on: bool) -> HeapBuilder {
        self.options.always_assist = on;
        self
    }

    /// Collect all the time, one cycle after the other. For tests.
    pub fn collect_continuously(mut self, on: bool) -> HeapBuilder {
        self.options.continuously = on;
        self
    }

    /// Verify every cycle: when it has marked, all closures are waited for, no new one may begin, and a
    /// second mark compares. A live object that was missed aborts the process with a report.
    ///
    /// For tests. A closure that waits for another thread's closure to begin waits for ever in this mode.
    pub fn checkmark(mut self, on: bool) -> HeapBuilder {
        self.options.checkmark = on;
        self
    }

    /// Fill freed objects with a pattern. For tests.
    pub fn poison(mut self, on: bool) -> HeapBuilder {
        self.options.poison = on;
        self
    }

    /// Whether free memory goes back to the system by itself; it does if nothing is said. A program that is
    /// alone on its machine and comes back to its largest size again and again may save the page faults.
    /// [`Heap::release_memory`] and memory limits return it in either case.
    pub fn return_memory(mut self, on: bool) -> HeapBuilder {
        self.options.return_memory = on;
        self
    }

    /// Use full memory fences where the kernel could do without. For tests; the heap does so by itself where
    /// the kernel cannot.
    pub fn symmetric_fences(mut self, on: bool) -> HeapBuilder {
        self.options.symmetric_fences = on;
        self
    }

    /// Tell of uses of freed arenas: calls [`report_faults`](crate::report_faults), which is for the whole process,
    /// when the heap is made.
    pub fn report_faults(mut self, after: AfterReport) -> HeapBuilder {
        self.report_faults = Some(after);
        self
    }

    /// Note the type of each value that is allocated in a shared arena, and where in the program that was. A report
    /// ([`HeapBuilder::report_faults`]) of a use of the freed arena says so then. For finding an error that has been
    /// seen: it costs 32 bytes and about a hundred nanoseconds for each value, and what is noted is kept until nobody
    /// points into the freed arena any more.
    pub fn record_sites(mut self, on: bool) -> HeapBuilder {
        self.options.record_sites = on;
        self
    }

    /// The operating system to live on: for tests, a simulated one that refuses memory on request.
    pub fn os(mut self, os: Os) -> HeapBuilder {
        self.os = Some(os);
        self
    }

    /// Makes the heap.
    ///
    /// # Errors
    /// When a memory limit is too small for any heap, or a share of something that is not known; when the environment
    /// was asked and says what nobody understands; and when the system gives no memory or no thread, or refuses the
    /// handler for faults.
    pub fn build(mut self) -> Result<Heap, BuildError> {
        if let Some(setting) = self.environment {
            return Err(BuildError::Environment { setting });
        }
        let os = self.os.unwrap_or_else(Os::native);
        self.options.policy.limit = self.memory_limit.resolve(&os).map_err(BuildError::Limit)?;
        self.options.hard_limit = self.hard_limit.resolve(&os).map_err(BuildError::Limit)?;
        if let Some(after) = self.report_faults {
            sites::report_faults(after).map_err(BuildError::Handler)?;
        }
        let core = CoreHeap::with_hooks(os, self.options, self.hooks, self.on_pressure);
        Ok(Heap { core: Arc::new(core.map_err(BuildError::System)?) })
    }
}
