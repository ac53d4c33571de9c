//! [`RunQueue`]: how long the calling thread has waited for a processor.
//!
//! The slowest operation of a million is often one in whose midst the system gave the processor to somebody
//! else. That is no stall of the heap's making. Linux counts this waiting for each thread: the second
//! number of `/proc/thread-self/schedstat`, in nanoseconds, is the time that the thread was ready to run and did not.
//!
//! Reading it costs about a microsecond, so it is read behind slow operations only ([`SLOW`]). What an operation
//! waited is then counted to it together with what earlier ones have waited since the reading before, which is less than
//! [`SLOW`] for each of them, and nothing for nearly all.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// An operation that takes so long is looked into.
pub(super) const SLOW: Duration = Duration::from_micros(20);

/// The waiting of the thread that has made it.
pub(super) struct RunQueue {
    /// `None` where the system does not count.
    file: Option<File>,
    waited: Duration,
}

impl RunQueue {
    /// Begins to count, for the calling thread.
    pub(super) fn new() -> RunQueue {
        let file = File::open("/proc/thread-self/schedstat").ok();
        let mut queue = RunQueue { file, waited: Duration::ZERO };
        queue.waited = queue.read().unwrap_or_default();
        queue
    }

    /// The part of an operation that was not waiting for a processor. It has just ended, on the thread that
    /// has made this.
    pub(super) fn own_part(&mut self, operation: Duration) -> Duration {
        if operation < SLOW {
            return operation;
        }
        let waited = self.read().unwrap_or_default();
        let before = std::mem::replace(&mut self.waited, waited);
        operation.saturating_sub(waited.saturating_sub(before))
    }

    fn read(&self) -> Option<Duration> {
        let mut text = [0; 96];
        let count = self.file.as_ref()?.read_at(&mut text, 0).ok()?;
        second_number(&text[..count]).map(Duration::from_nanos)
    }
}

fn second_number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_number_is_the_waiting() {
        assert_eq!(second_number(b"7 3887121 1\n"), Some(3_887_121));
        assert_eq!(second_number(b"7\n"), None);
        assert_eq!(second_number(b""), None);
    }

    #[test]
    fn a_short_operation_is_not_looked_into_and_no_waiting_is_counted_twice() {
        let mut queue = RunQueue::new();
        let short = SLOW - Duration::from_nanos(1);
        assert_eq!(queue.own_part(short), short);
        // Whatever this thread has waited since, it is less than an hour, and it is read.
        let hour = Duration::from_secs(3600);
        assert!(queue.own_part(hour) > hour / 2);
        let mut nowhere = RunQueue { file: None, waited: Duration::ZERO };
        assert_eq!(nowhere.own_part(hour), hour);
    }
}
