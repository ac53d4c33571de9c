//! `scaling`: where would threads get into each other's way, if there were many processors?
//!
//! A workload runs with one thread, on this machine, while each lock of the heap counts how often it is taken and how
//! long it is held ([`locks`]; only in a program built with the feature `lock-profile`). It runs again with
//! two, which shows what is fought for already. With the counts of the first run, so many threads, each with a
//! processor of its own, are [simulated](simulate): what they get done, how long they wait, and for which lock.
//!
//! ```text
//! round = 1000 objects allocated;   thinking = the threads' CPU time for a round, less what shared locks are held
//! ```
//! Locks that are a thread's own count as thinking. What the collector takes is counted as if the threads took it, in
//! proportion to their work: there are more cycles when more is allocated.
//!
//! The results are upper bounds, for the reasons that [`simulate`] gives. `docs/scaling.md` reads them.

#[cfg(feature = "lock-profile")]
mod locks;
#[cfg(not(feature = "lock-profile"))]
#[path = "no_locks.rs"]
mod locks;
mod simulate;

use clap::Args;
use serde_json::{Value, json};
use spanheap::Heap;

use super::params::Params;
use super::{WORKLOADS, Work, Workload, check_footprint};
use crate::failure::{Failure, Result};
use crate::options::check_range;
use crate::{output, process};
use locks::locks;
use simulate::{Network, Outcome, Station};

/// What `spanheap bench scaling` is told.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// The workload whose locks are counted.
    #[arg(long, default_value = "binary-trees")]
    workload: String,
    /// Parameters of the workload.
    #[arg(long = "set", value_name = "KEY=VALUE", num_args = 1..)]
    set: Vec<String>,
    /// What it costs to fetch a lock from another processor, in nanoseconds.
    #[arg(long, default_value_t = 100)]
    transfer: u64,
    /// How many threads are simulated, a row for each.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128")]
    threads: Vec<usize>,
    /// How many takings of locks are simulated for each row.
    #[arg(long, default_value_t = 1_000_000)]
    takings: u64,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  cargo run --release --features lock-profile -- bench scaling
  cargo run --release --features lock-profile -- bench scaling --workload lru --threads 16,128";

/// How many locks of a kind there are.
#[cfg_attr(not(feature = "lock-profile"), expect(dead_code, reason = "nothing is counted"))]
#[derive(Clone, Copy, PartialEq)]
enum Copies {
    One,
    Shards(usize),
    /// As many as threads, or more.
    Own,
}

/// The locks of a kind, and what they were used for. Times in nanoseconds.
#[derive(Clone)]
struct Lock {
    name: String,
    copies: Copies,
    taken: f64,
    contended: f64,
    held: f64,
    /// What the readings of the clock cost.
    clock: f64,
}

/// A run of the workload.
struct Run {
    /// What a round, a thousand objects, has used of each lock.
    locks: Vec<Lock>,
    /// CPU time of a round in nanoseconds: of the threads without the collector's.
    cpu: f64,
    /// And the collector's.
    collector: f64,
    rounds: f64,
}

/// Runs the benchmark.
pub(super) fn run(options: &Options) -> Result<()> {
    let most = 1 << 16;
    for &threads in &options.threads {
        check_range("--threads", threads as u64, 1..=most)?;
    }
    check_range("--takings", options.takings, 1..=1 << 32)?;
    check_range("--transfer", options.transfer, 0..=1_000_000)?;
    let Some(workload) = WORKLOADS.iter().find(|workload| workload.name == options.workload) else {
        return Err(Failure::new(format!("there is no workload {:?}", options.workload)));
    };
    let one = measure(workload, options, 1)?;
    let two = measure(workload, options, 2)?;
    let network = network(&one, options.transfer as f64);
    let rows: Vec<(usize, Outcome)> = options
        .threads
        .iter()
        .map(|&threads| (threads, network.simulate(threads, options.takings, threads as u64)))
        .collect();
    let shared = shared(&one);
    if options.json {
        output::line(&output::json(&report(options, &one, &two, &shared, &rows))?)
    } else {
        print(options, &one, &two, &shared, &rows)
    }
}

/// Runs the workload with so many threads.
fn measure(workload: &Workload, options: &Options, threads: usize) -> Result<Run> {
    let params = Params::parse(workload.keys, &options.set, threads)?;
    check_footprint(workload, &params)?;
    let heap = (workload.settings)(&params, Heap::builder()).build()?;
    let (before, cpu, stats) = (locks()?, process::cpu_time(), heap.stats());
    let Work::OnHeap(work) = &workload.run else {
        return Err(Failure::new(format!("{} makes its heaps itself", workload.name)));
    };
    work(&heap, &params)?;
    let cpu = process::cpu_time().since(cpu).total().as_nanos() as f64;
    let (after, stats_after) = (locks()?, heap.stats());
    let rounds = (stats_after.allocated_objects - stats.allocated_objects) as f64 / 1000.0;
    if rounds < 1.0 {
        return Err(Failure::new(format!(
            "{} allocates too little to be counted by objects",
            workload.name
        )));
    }
    let collector = (stats_after.gc_cpu - stats.gc_cpu).as_nanos() as f64;
    let locks: Vec<Lock> =
        before.iter().zip(after).map(|(before, after)| after.since(before, rounds)).collect();
    let clocks: f64 = locks.iter().map(|lock| lock.clock).sum();
    Ok(Run {
        locks,
        cpu: ((cpu - collector) / rounds - clocks).max(0.0),
        collector: collector / rounds,
        rounds,
    })
}

impl Lock {
    /// What was used since an earlier reading, for each round.
    fn since(self, earlier: &Lock, rounds: f64) -> Lock {
        Lock {
            taken: (self.taken - earlier.taken) / rounds,
            contended: (self.contended - earlier.contended) / rounds,
            held: (self.held - earlier.held).max(0.0) / rounds,
            clock: (self.clock - earlier.clock) / rounds,
            ..self
        }
    }

    /// How long one holding takes.
    fn holding(&self) -> f64 {
        ratio(self.held, self.taken)
    }
}

/// A part of nothing is nothing.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The locks that threads share, which the simulation knows.
fn shared(run: &Run) -> Vec<Lock> {
    run.locks
        .iter()
        .filter(|lock| lock.copies != Copies::Own && lock.taken > 0.0)
        .cloned()
        .collect()
}

/// What is simulated.
fn network(run: &Run, transfer: f64) -> Network {
    let locks = shared(run);
    let held: f64 = locks.iter().map(|lock| lock.held).sum();
    let station = |lock: &Lock| Station {
        copies: if let Copies::Shards(shards) = lock.copies { shards } else { 1 },
        visits: lock.taken,
        service: lock.holding(),
    };
    Network {
        think: (run.cpu - held).max(1.0),
        stations: locks.iter().map(station).collect(),
        transfer,
    }
}

/// The lock of which `measure` is greatest.
fn worst<'a>(shared: &'a [Lock], measure: &[f64]) -> (&'a str, f64) {
    let greatest = shared.iter().zip(measure).max_by(|one, other| one.1.total_cmp(other.1));
    greatest.map_or(("none", 0.0), |(lock, &measure)| (lock.name.as_str(), measure))
}

fn print(
    options: &Options,
    one: &Run,
    two: &Run,
    shared: &[Lock],
    rows: &[(usize, Outcome)],
) -> Result<()> {
    output::line(&format!(
        "{}: {:.0} objects; CPU time of a thousand: {:.1} us of the thread, {:.1} us of the collector\n",
        options.workload,
        one.rounds * 1000.0,
        one.cpu / 1e3,
        one.collector / 1e3
    ))?;
    output::line(
        "lock              taken for 1000 objects    held each   contended: 1 thread  2 threads",
    )?;
    for (lock, again) in one.locks.iter().zip(&two.locks).filter(|(lock, _)| lock.taken > 0.0) {
        let own = if lock.copies == Copies::Own { "  a thread's own, or a span's" } else { "" };
        output::line(&format!(
            "{:<16} {:>23.3} {:>9.0} ns {:>19.2} % {:>8.2} %{own}",
            lock.name,
            lock.taken,
            lock.holding(),
            100.0 * ratio(lock.contended, lock.taken),
            100.0 * ratio(again.contended, again.taken),
        ))?;
    }
    output::line("\nthreads   speed-up   waiting   most of it for          busiest")?;
    let single = rows
        .iter()
        .find(|(threads, _)| *threads == 1)
        .map_or(rows[0].1.throughput, |row| row.1.throughput);
    for (threads, outcome) in rows {
        let (waited, part) = worst(shared, &outcome.waiting);
        let (busiest, busy) = worst(shared, &outcome.busy);
        output::line(&format!(
            "{threads:>7} {:>10.1} {:>7.1} %   {waited:<14} {:>5.1} %   {busiest:<14} {:>5.1} %",
            outcome.throughput / single,
            100.0 * outcome.waiting.iter().sum::<f64>(),
            100.0 * part,
            100.0 * busy,
        ))?;
    }
    Ok(())
}

fn report(
    options: &Options,
    one: &Run,
    two: &Run,
    shared: &[Lock],
    rows: &[(usize, Outcome)],
) -> Value {
    let locks = one.locks.iter().zip(&two.locks).filter(|(lock, _)| lock.taken > 0.0).map(
        |(lock, again)| {
            json!({
                "lock": lock.name,
                "is_shared": lock.copies != Copies::Own,
                "taken": lock.taken,
                "holding_ns": lock.holding(),
                "contended": ratio(lock.contended, lock.taken),
                "contended_by_two": ratio(again.contended, again.taken),
            })
        },
    );
    let rows = rows.iter().map(|(threads, outcome)| {
        json!({
            "threads": threads,
            "objects_per_s": outcome.throughput * 1e12,
            "waiting": outcome.waiting.iter().sum::<f64>(),
            "waiting_most_for": worst(shared, &outcome.waiting).0,
            "busiest": worst(shared, &outcome.busy).0,
            "busy": worst(shared, &outcome.busy).1,
        })
    });
    json!({
        "workload": options.workload,
        "transfer_ns": options.transfer,
        "objects": one.rounds * 1000.0,
        "cpu_us_per_1000": one.cpu / 1e3,
        "collector_us_per_1000": one.collector / 1e3,
        "locks": locks.collect::<Vec<_>>(),
        "rows": rows.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(name: &str, copies: Copies, taken: f64, held: f64) -> Lock {
        Lock { name: name.into(), copies, taken, contended: 0.0, held, clock: 0.0 }
    }

    #[test]
    fn what_is_a_threads_own_is_thinking() {
        let locks = vec![
            lock("own", Copies::Own, 10.0, 500.0),
            lock("shared", Copies::One, 2.0, 100.0),
            lock("unused", Copies::One, 0.0, 0.0),
        ];
        let run = Run { locks, cpu: 1000.0, collector: 0.0, rounds: 1.0 };
        let network = network(&run, 0.0);
        assert_eq!(network.think, 900.0);
        assert_eq!(network.stations.len(), 1);
        assert_eq!((network.stations[0].visits, network.stations[0].service), (2.0, 50.0));
    }

    #[test]
    fn the_worst_lock_is_named() {
        let locks = [lock("a", Copies::One, 1.0, 1.0), lock("b", Copies::One, 1.0, 1.0)];
        assert_eq!(worst(&locks, &[0.1, 0.3]), ("b", 0.3));
        assert_eq!(worst(&[], &[]), ("none", 0.0));
    }

    #[cfg(not(feature = "lock-profile"))]
    #[test]
    fn a_program_that_does_not_count_says_how_to_get_one_that_does() {
        let failure = locks().err().expect("nothing to read").to_string();
        assert!(failure.contains("--features lock-profile"), "{failure}");
    }

    #[cfg(feature = "lock-profile")]
    #[test]
    fn a_workload_takes_locks() {
        let options = Options {
            workload: "binary-trees".into(),
            set: vec!["depth=12".into()],
            transfer: 100,
            threads: vec![1, 2],
            takings: 1000,
            json: false,
        };
        let workload =
            WORKLOADS.iter().find(|workload| workload.name == options.workload).expect("there");
        let run = measure(workload, &options, 1).expect("memory");
        let spans = run.locks.iter().find(|lock| lock.name == "SpanSet").expect("a rank");
        assert!(spans.taken > 0.0 && spans.held > 0.0);
        assert!(run.cpu > 0.0);
    }
}
