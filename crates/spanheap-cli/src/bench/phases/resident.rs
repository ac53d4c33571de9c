//! [`Sampler`]: the resident set over time.
//!
//! A thread reads `/proc/self/statm` every 50 milliseconds; a reading costs some microseconds. Questions are
//! asked about the samples since some instant. Each moment that matters is sampled by the thread that
//! makes it as well, so that a short phase has at least one sample of its own.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};
use crate::process;

/// How often the resident set is read.
const INTERVAL: Duration = Duration::from_millis(50);

/// Samples in the order of time: when, and how many bytes.
type Samples = Mutex<Vec<(Instant, u64)>>;

/// The resident set over time, from its start until it is dropped.
pub(super) struct Sampler {
    samples: Arc<Samples>,
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Begins.
    pub(super) fn start() -> Result<Sampler> {
        let samples = Arc::new(Samples::default());
        let (stop, stopped) = mpsc::channel::<()>();
        let shared = samples.clone();
        let body = move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                add(&shared);
            }
        };
        let thread = thread::Builder::new()
            .name("sampler".into())
            .spawn(body)
            .map_err(|error| Failure::new(format!("the sampler cannot start: {error}")))?;
        Ok(Sampler { samples, stop: Some(stop), thread: Some(thread) })
    }

    /// Takes a sample and returns it, in bytes.
    pub(super) fn sample_now(&self) -> u64 {
        add(&self.samples)
    }

    /// How long after `start` the resident set was first at most `bytes`; none if it never was.
    pub(super) fn time_until(&self, start: Instant, bytes: u64) -> Option<Duration> {
        let since = self.since(start);
        since.iter().find(|sample| sample.1 <= bytes).map(|sample| sample.0 - start)
    }

    /// The largest resident set since `start`, 0 without any sample.
    pub(super) fn highest_since(&self, start: Instant) -> u64 {
        self.since(start).iter().map(|sample| sample.1).max().unwrap_or(0)
    }

    /// The smallest, 0 without any.
    pub(super) fn lowest_since(&self, start: Instant) -> u64 {
        self.since(start).iter().map(|sample| sample.1).min().unwrap_or(0)
    }

    /// The one in the middle, 0 without any.
    pub(super) fn median_since(&self, start: Instant) -> u64 {
        let mut sizes: Vec<u64> = self.since(start).iter().map(|sample| sample.1).collect();
        sizes.sort_unstable();
        sizes.get(sizes.len() / 2).copied().unwrap_or(0)
    }

    fn since(&self, start: Instant) -> Vec<(Instant, u64)> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let first = samples.partition_point(|sample| sample.0 < start);
        samples[first..].to_vec()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has no way to panic that would matter now.
            let _ = thread.join();
        }
    }
}

/// Reads under the lock, so that samples of two threads are in the order of time.
fn add(samples: &Samples) -> u64 {
    let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
    let resident = process::resident();
    samples.push((Instant::now(), resident));
    resident
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Sampler, Samples};

    #[test]
    fn questions_are_about_what_came_later() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let samples = vec![(at(0), 10), (at(50), 90), (at(100), 70), (at(150), 40), (at(200), 60)];
        let samples = std::sync::Arc::new(Samples::new(samples));
        let sampler = Sampler { samples, stop: None, thread: None };
        assert_eq!(sampler.highest_since(at(60)), 70);
        assert_eq!(sampler.lowest_since(at(50)), 40);
        assert_eq!(sampler.median_since(at(50)), 70);
        assert_eq!(sampler.time_until(at(50), 45), Some(Duration::from_millis(100)));
        assert_eq!(sampler.time_until(at(50), 39), None);
        assert_eq!(sampler.median_since(at(201)), 0);
    }

    #[test]
    fn a_running_sampler_ends_when_it_is_dropped() {
        let sampler = Sampler::start().expect("a thread");
        let start = Instant::now();
        assert!(sampler.sample_now() > 0);
        assert!(sampler.lowest_since(start) > 0);
    }
}
