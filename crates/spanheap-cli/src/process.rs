//! What the operating system says about this process: CPU time, memory, and the machine's memory.
//!
//! The library reports what its heap holds; these figures are the outside view to hold against it,
//! and the ones that benchmarks of other collectors can report too.
//!
//! # Safety
//! Two C functions are called: `getrusage`, which fills a structure that we own, and `sysconf`,
//! which takes and returns numbers.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::time::Duration;

/// What the process has used since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time outside the kernel.
    pub(crate) user: Duration,
    /// CPU time in the kernel.
    pub(crate) system: Duration,
    /// The largest resident set so far, in bytes.
    pub(crate) peak_resident: u64,
}

/// Reads the process's own usage. It cannot fail with these arguments; if it did, all is zero.
pub(crate) fn usage() -> Usage {
    let mut raw = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a whole `rusage` of ours, which the call may write.
    let status = unsafe { libc::getrusage(libc::RUSAGE_SELF, raw.as_mut_ptr()) };
    if status != 0 {
        return Usage::default();
    }
    // SAFETY: it was zeroed, which is a valid value of a structure of integers, and then filled.
    let raw = unsafe { raw.assume_init() };
    Usage {
        user: duration(raw.ru_utime),
        system: duration(raw.ru_stime),
        // Linux counts in kibibytes.
        peak_resident: u64::try_from(raw.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let microseconds = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(microseconds)
}

/// The resident set in bytes now, or 0 where `/proc` cannot tell.
pub(crate) fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(configuration(libc::_SC_PAGESIZE))
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
    use super::{machine_memory, resident, usage};

    #[test]
    fn the_figures_agree_with_each_other() {
        let now = resident();
        let peak = usage().peak_resident;
        assert!(now > 0, "a running process has pages");
        assert!(peak > 0 && machine_memory() > now, "peak {peak}, resident {now}");
    }
}
