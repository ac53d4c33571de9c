//! The CPU time of a thread and of the process, for the collector's account of itself, and a clock that only
//! goes forward.
//!
//! # Safety
//! System calls that write to a local.
#![allow(unsafe_code)]

use std::time::Duration;

/// CPU time that the calling thread has used so far; zero if the system does not say.
pub fn thread_cpu_time() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time that all threads of the process have used so far; zero if the system does not say.
pub fn process_cpu_time() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to the timespec, which is ours.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) } != 0;
    if failed {
        return Duration::ZERO;
    }
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Nanoseconds since some moment before the process began, by a clock that nobody sets. Unlike an `Instant`
/// it fits into an atomic. Zero if the system does not say.
pub fn monotonic_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to the timespec, which is ours.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) } != 0;
    if failed {
        return 0;
    }
    time.tv_sec.unsigned_abs() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_a_thread_runs_while_it_works() {
        let before = thread_cpu_time();
        let mut sum = 0u64;
        while thread_cpu_time() - before < Duration::from_millis(2) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
    }

    #[test]
    fn the_clock_of_the_process_counts_all_threads() {
        let before = process_cpu_time();
        let work = || {
            let begun = thread_cpu_time();
            while thread_cpu_time() - begun < Duration::from_millis(2) {}
        };
        std::thread::scope(|scope| {
            scope.spawn(work);
            scope.spawn(work);
        });
        assert!(process_cpu_time() - before >= Duration::from_millis(4));
    }

    #[test]
    fn time_goes_forward() {
        let before = monotonic_nanos();
        std::thread::sleep(Duration::from_millis(1));
        assert!(monotonic_nanos() >= before + 1_000_000);
    }
}
