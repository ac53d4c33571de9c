//! What the operating system says about this process: CPU time, memory, and the machine's memory.
//!
//! The library reports what its heap holds; these figures are the outside view to hold against it,
//! and the ones that benchmarks of other collectors can report too.
//!
//! `exec` keeps a process, and with it what `getrusage` has counted: under `cargo run` that includes
//! cargo's own CPU time and memory. So CPU time is a difference between two readings, and the peak is
//! taken from `/proc/self/status`, where it belongs to the memory of the present program.
//!
//! # Safety
//! Three C functions are called: `getrusage` and `clock_gettime`, which fill structures that we own, and
//! `sysconf`, which takes and returns numbers.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::time::Duration;

/// CPU time of all threads of the process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    /// Outside the kernel.
    pub(crate) user: Duration,
    /// In the kernel.
    pub(crate) system: Duration,
}

impl CpuTime {
    /// What was used since an earlier reading.
    pub(crate) fn since(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }

    /// Both together.
    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }
}

/// Reads the CPU time used so far. It cannot fail with these arguments; if it did, all is zero.
pub(crate) fn cpu_time() -> CpuTime {
    let mut raw = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a whole `rusage` of ours, which the call may write.
    let status = unsafe { libc::getrusage(libc::RUSAGE_SELF, raw.as_mut_ptr()) };
    if status != 0 {
        return CpuTime::default();
    }
    // SAFETY: it was zeroed, which is a valid value of a structure of integers, and then filled.
    let raw = unsafe { raw.assume_init() };
    CpuTime { user: duration(raw.ru_utime), system: duration(raw.ru_stime) }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let microseconds = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(microseconds)
}

/// Reads the CPU time that the calling thread has used so far; zero if the system does not say.
pub(crate) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec` of ours, which the call may write.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if status != 0 {
        return Duration::ZERO;
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The resident set in bytes now, or 0 where `/proc` cannot tell.
pub(crate) fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(configuration(libc::_SC_PAGESIZE))
}

/// The largest resident set so far in bytes, or 0 where `/proc` cannot tell.
pub(crate) fn peak_resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    // "VmHWM:      1234 kB", where kB is 1024 bytes.
    let kibibytes = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1024)
}

/// Lets [`peak_resident`] begin anew with what is resident now. Says whether the system does that.
pub(crate) fn reset_peak_resident() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The machine's memory in bytes, or 0 where the system does not tell.
pub(crate) fn machine_memory() -> u64 {
    configuration(libc::_SC_PHYS_PAGES).saturating_mul(configuration(libc::_SC_PAGESIZE))
}

fn configuration(name: libc::c_int) -> u64 {
    // SAFETY: `sysconf` accepts every number and answers -1 to those that it does not know.
    let value = unsafe { libc::sysconf(name) };
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{cpu_time, machine_memory, peak_resident, resident};

    #[test]
    fn the_figures_agree_with_each_other() {
        let (now, peak) = (resident(), peak_resident());
        assert!(now > 0 && peak > 0, "a running process has pages: {now}, {peak}");
        assert!(machine_memory() > now, "{now} bytes are more than the machine has");
        let earlier = cpu_time();
        // Work that cannot be optimised away; at the end more time has passed than none.
        while cpu_time().since(earlier).total().is_zero() {
            std::hint::black_box(0);
        }
    }
}
