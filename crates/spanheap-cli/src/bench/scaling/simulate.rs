//! Threads that compute, and now and then need a lock: how much do they get done when there are many of them?
//!
//! A closed network of queues. Each thread computes for a while, needs one lock, waits for its turn, holds it,
//! and goes on; each has a processor of its own. Times are exponentially distributed around their means, so
//! for a single lock the result is known exactly (the test compares with it). A lock that comes
//! from another thread costs its new holder a *transfer* more: its cache line, and those of the data that it
//! protects, have to be fetched.
//!
//! What is left out: sleeping and waking, which make a lock that is fought for worse than this; memory
//! bandwidth; and everything that is shared without a lock. So the result is an upper bound.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::random::Random;

/// A lock, or several that share the work evenly.
pub(super) struct Station {
    /// How many there are of it.
    pub(super) copies: usize,
    /// How often a round needs one.
    pub(super) visits: f64,
    /// How long it is held, in nanoseconds.
    pub(super) service: f64,
}

/// What the threads do.
pub(super) struct Network {
    /// Time that a round computes without any of the locks, in nanoseconds.
    pub(super) think: f64,
    pub(super) stations: Vec<Station>,
    /// What it costs to fetch a lock from another processor, in nanoseconds.
    pub(super) transfer: f64,
}

/// What came out for a number of threads.
pub(super) struct Outcome {
    /// Rounds in a nanosecond, of all threads together.
    pub(super) throughput: f64,
    /// The part of the threads' time that went into waiting, for each station.
    pub(super) waiting: Vec<f64>,
    /// The part of the time that one copy of it was held, for each station.
    pub(super) busy: Vec<f64>,
}

/// One lock.
#[derive(Clone, Default)]
struct Server {
    free_at: f64,
    last: Option<usize>,
    held: f64,
    waited: f64,
}

impl Network {
    /// How many locks a round takes.
    fn visits(&self) -> f64 {
        self.stations.iter().map(|station| station.visits).sum()
    }

    /// The station that `part` of all visits, from 0 to 1, leads to.
    fn choose(&self, part: f64) -> usize {
        let mut left = part * self.visits();
        let found = self.stations.iter().position(|station| {
            left -= station.visits;
            left < 0.0
        });
        found.unwrap_or(self.stations.len() - 1)
    }

    /// Lets so many threads take so many locks together.
    pub(super) fn simulate(&self, threads: usize, visits: u64, seed: u64) -> Outcome {
        let mut random = Random::new(seed);
        let each = self.visits();
        if each == 0.0 {
            let throughput = threads as f64 / self.think;
            return Outcome { throughput, waiting: Vec::new(), busy: Vec::new() };
        }
        let think = self.think / each;
        let mut servers: Vec<Vec<Server>> =
            self.stations.iter().map(|station| vec![Server::default(); station.copies]).collect();
        // Who comes next, and when. Whoever comes is served after those who came before, so one look at each is enough.
        let mut arrivals: BinaryHeap<Reverse<(Time, usize)>> = (0..threads)
            .map(|thread| Reverse((Time(exponential(&mut random, think)), thread)))
            .collect();
        let mut now = 0.0;
        for _ in 0..visits {
            let Some(Reverse((Time(arrival), thread))) = arrivals.pop() else { break };
            now = arrival;
            let station = self.choose(unit(&mut random));
            let copy = random.below(self.stations[station].copies);
            let server = &mut servers[station][copy];
            let begin = server.free_at.max(arrival);
            let is_mine = server.last.is_none_or(|last| last == thread);
            let service = exponential(&mut random, self.stations[station].service)
                + if is_mine { 0.0 } else { self.transfer };
            server.free_at = begin + service;
            server.last = Some(thread);
            server.held += service;
            server.waited += begin - arrival;
            let next = server.free_at + exponential(&mut random, think);
            arrivals.push(Reverse((Time(next), thread)));
        }
        let sum = |part: fn(&Server) -> f64| -> Vec<f64> {
            servers.iter().map(|copies| copies.iter().map(part).sum::<f64>() / now).collect()
        };
        let copies = self.stations.iter().map(|station| station.copies as f64);
        Outcome {
            throughput: visits as f64 / each / now,
            waiting: sum(|server| server.waited)
                .iter()
                .map(|waited| waited / threads as f64)
                .collect(),
            busy: sum(|server| server.held)
                .iter()
                .zip(copies)
                .map(|(held, copies)| held / copies)
                .collect(),
        }
    }
}

/// A moment, in nanoseconds; never a NaN.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Time(f64);

impl Eq for Time {}

#[expect(clippy::derive_ord_xor_partial_ord, reason = "the orders agree where there is no NaN")]
impl Ord for Time {
    fn cmp(&self, other: &Time) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// A number from 0 to 1, without 1.
fn unit(random: &mut Random) -> f64 {
    const STEPS: usize = 1 << 53;
    random.below(STEPS) as f64 / STEPS as f64
}

/// An exponentially distributed time.
fn exponential(random: &mut Random, mean: f64) -> f64 {
    -mean * (1.0 - unit(random)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exact throughput of threads and one lock, by mean value analysis: whoever comes finds as many
    /// before him as there are on average with one thread less.
    fn exact(think: f64, service: f64, threads: usize) -> f64 {
        let mut found = 0.0;
        let mut throughput = 0.0;
        for count in 1..=threads {
            let response = service * (1.0 + found);
            throughput = count as f64 / (think + response);
            found = throughput * response;
        }
        throughput
    }

    fn one_lock(think: f64, service: f64, transfer: f64) -> Network {
        Network { think, stations: vec![Station { copies: 1, visits: 1.0, service }], transfer }
    }

    #[test]
    fn one_lock_is_as_the_theory_says() {
        for threads in [1, 2, 4, 16, 128] {
            let outcome = one_lock(1000.0, 50.0, 0.0).simulate(threads, 400_000, 7);
            let exact = exact(1000.0, 50.0, threads);
            let error = (outcome.throughput / exact - 1.0).abs();
            assert!(error < 0.02, "{threads} threads: {} and {exact}", outcome.throughput);
        }
    }

    #[test]
    fn a_full_lock_is_busy_all_the_time_and_the_rest_waits() {
        let outcome = one_lock(100.0, 100.0, 0.0).simulate(64, 400_000, 8);
        assert!((outcome.busy[0] - 1.0).abs() < 0.01, "{}", outcome.busy[0]);
        // Of 64 threads, one holds the lock and one computes.
        assert!((outcome.waiting[0] - 62.0 / 64.0).abs() < 0.01, "{}", outcome.waiting[0]);
    }

    #[test]
    fn a_transfer_is_paid_by_whoever_takes_a_lock_from_another() {
        let alone = one_lock(0.0, 100.0, 100.0).simulate(1, 100_000, 9).throughput;
        let fought = one_lock(0.0, 100.0, 100.0).simulate(64, 100_000, 9).throughput;
        assert!((alone * 100.0 - 1.0).abs() < 0.02, "{alone}");
        assert!((fought * 200.0 - 1.0).abs() < 0.03, "{fought}");
    }

    #[test]
    fn sixteen_copies_serve_sixteen_times_as_many() {
        let mut network = one_lock(10.0, 100.0, 0.0);
        network.stations[0].copies = 16;
        let many = network.simulate(512, 400_000, 10);
        assert!((many.throughput * 100.0 / 16.0 - 1.0).abs() < 0.05, "{}", many.throughput);
    }
}
