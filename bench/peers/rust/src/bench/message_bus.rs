//! What the programs for `message-bus` have in common: the pushes, their times, the sum. The bus is theirs.

use std::time::{Duration, Instant};

use super::{Failure, Outcome, Result, Times, in_threads, share};
use crate::options::Params;

/// A ring of messages.
pub(super) trait Bus: Sized {
    fn new(window: usize, params: &Params) -> Self;
    /// Puts a message in place of another. Returns what that one adds to the checksum ([`gone`]).
    fn push(&mut self, number: u64, size: usize) -> u64;
    /// What the messages that are left add to the checksum ([`left`]). The bus is not torn down.
    fn finish(self) -> u64;
}

/// When a push is to begin.
#[derive(Clone, Copy)]
struct Schedule {
    start: Instant,
    /// Pushes per second, or 0 for as many as there can be.
    rate: u64,
}

impl Schedule {
    /// Waits until the push `number` is due, and returns from when on its time counts.
    fn begin(self, number: u64) -> Instant {
        if self.rate == 0 {
            return Instant::now();
        }
        let nanoseconds = u128::from(number) * 1_000_000_000 / u128::from(self.rate);
        let due = self.start + Duration::from_nanos(nanoseconds as u64);
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        due
    }
}

pub(super) fn run<B: Bus>(params: &Params) -> Result<Outcome> {
    let [window, messages, size, rate] =
        ["window", "messages", "size", "rate"].map(|key| params.get(key));
    let threads = params.threads;
    if threads as u64 > window {
        return Err(Failure::new(format!(
            "a window of {window} is too small for {threads} threads"
        )));
    }
    if rate > 0 && rate < threads as u64 {
        return Err(Failure::new(format!("a rate of {rate} is too small for {threads} threads")));
    }
    let parts = in_threads(threads, |index| {
        let mut bus = B::new(share(window, threads, index) as usize, params);
        let (mut times, mut sum) = (Times::default(), 0_u64);
        let schedule = Schedule { start: Instant::now(), rate: share(rate, threads, index) };
        for number in 0..share(messages, threads, index) {
            let started = schedule.begin(number);
            let gone = bus.push(number, size as usize);
            times.record(started.elapsed());
            sum = sum.wrapping_add(gone);
        }
        Ok((sum.wrapping_add(bus.finish()), times))
    })?;
    let (mut times, mut checksum) = (Times::default(), 0_u64);
    for part in &parts {
        checksum = checksum.wrapping_add(part.0);
        times.merge(&part.1);
    }
    Ok(Outcome { checksum, latency: Some(("push", times)), figures: Vec::new() })
}

/// What a message that was pushed out adds to the checksum.
pub(super) fn gone(number: u64, payload: &[u8]) -> u64 {
    // A message has at least one byte: `size` is at least 1.
    number.wrapping_add(u64::from(payload[payload.len() - 1]))
}

/// What a message that is left adds to the checksum.
pub(super) fn left(number: u64, payload: &[u8]) -> u64 {
    number.wrapping_add(payload.iter().map(|&byte| u64::from(byte)).sum())
}
