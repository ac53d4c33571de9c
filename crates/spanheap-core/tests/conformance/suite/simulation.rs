//! The suite `pacer`: a pacer and a simulated program, in a loop. The program allocates and scans at
//! given rates, and does what the pacer's prices make it do; the pacer sees what comes of it.

use super::json::{Failure, decimal, exactly, list, number};
use super::pacing::{Config, PacedHeap};
use serde_json::{Value, json};
use spanheap_core::addr::Bytes;
use spanheap_core::collect::pacer::{Tuning, Work};
use std::collections::BTreeMap;

/// Nanoseconds between two revisions.
const PERIOD: f64 = 500_000.0;

/// From KiB per millisecond to bytes per period.
const RATE: f64 = 1024.0 * 0.5;

/// Bytes that the first cycle marks.
const FIRST_MARKED: usize = 256 << 10;

/// A program, as it is in one cycle.
struct Program {
    alloc_rate: f64,
    scan_rate: f64,
    growth: f64,
    scannable: f64,
    stacks: usize,
}

/// What a cycle has come to.
#[derive(Default)]
struct Cycle {
    steps: usize,
    black: usize,
    elapsed: u64,
    assists: u64,
}

/// `pacer`. The rules are judged in [`judge_rules`].
pub(crate) fn run(input: &Value) -> Result<Value, Failure> {
    let [config, programs] = exactly(input, ["config", "per_cycle"])?;
    let config = Config::read(config)?;
    let programs = read_programs(programs, config.length)?;
    let mut heap = PacedHeap::new(&config);
    let mut black = 0;
    let mut columns: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (i, program) in programs.iter().enumerate() {
        let live = heap.pacer.marked().get();
        let old = (live - black) as f64;
        let first = heap.start(program.stacks, config.globals, program.scannable);
        let next = if i == 0 { FIRST_MARKED } else { (old * program.growth) as usize };
        let left = Work {
            heap: Bytes::new((next as f64 * program.scannable) as usize),
            stacks: Bytes::new(program.stacks),
            globals: Bytes::new(config.globals),
        };
        let cycle = mark(&mut heap, program, config.cores, left, first.work_per_byte);
        let all = cycle.elapsed * config.cores as u64;
        let utilization = cycle.assists as f64 / all as f64 + Tuning::GO.background;
        let mut note = |name, value| columns.entry(name).or_default().push(value);
        note("live", json!(live));
        note("trigger", json!(heap.pacer.triggered().map(Bytes::get)));
        note("peak", json!(heap.live));
        note("goal", json!(heap.pacer.goal().get()));
        note("utilization", json!(utilization));
        note("scannable", json!((old * program.scannable) as usize));
        note("steps", json!(cycle.steps));
        note("first_assist_ratio", json!(first.work_per_byte));
        note("assist_time", json!(cycle.assists));
        note("gc_duration", json!(cycle.elapsed));
        note("next_marked", json!(next));
        heap.end(next + cycle.black, cycle.assists, cycle.elapsed, config.cores);
        note("cons_mark_after", json!(heap.pacer.speed_ratio()));
        black = cycle.black;
    }
    Ok(json!({ "cycles": columns, "rules": [] }))
}

/// Marks until no work is left.
fn mark(
    heap: &mut PacedHeap,
    program: &Program,
    cores: usize,
    mut left: Work,
    mut price: f64,
) -> Cycle {
    let mut cycle = Cycle::default();
    let cores = cores as f64;
    while left.all() > Bytes::ZERO {
        let helps = price * program.alloc_rate;
        let used = (helps / (helps + program.scan_rate)).max(Tuning::GO.background);
        let capacity = program.scan_rate * RATE * cores * used;
        let scan = Bytes::new(capacity as usize);
        let mut allocated = program.alloc_rate * RATE * cores * (1.0 - used);
        let mut elapsed = PERIOD;
        let done = take(&mut left, scan);
        if done.all() < scan {
            elapsed = (done.all().get() as f64 * PERIOD / capacity).trunc();
            allocated = program.alloc_rate * RATE * elapsed / PERIOD * cores * (1.0 - used);
        }
        let allocated = allocated as usize;
        let scannable = (allocated as f64 * program.scannable) as usize;
        price = heap.revise(allocated, scannable, done).work_per_byte;
        cycle.assists += (elapsed * cores * (used - Tuning::GO.background)) as u64;
        cycle.elapsed += elapsed as u64;
        cycle.black += allocated;
        cycle.steps += 1;
    }
    cycle
}

/// Takes up to `most` bytes of work: globals first, then stacks, then the heap.
fn take(left: &mut Work, most: Bytes) -> Work {
    let mut room = most;
    let mut some = |left: &mut Bytes| {
        let taken = room.min(*left);
        room -= taken;
        *left -= taken;
        taken
    };
    let globals = some(&mut left.globals);
    let stacks = some(&mut left.stacks);
    Work { heap: some(&mut left.heap), stacks, globals }
}

fn read_programs(value: &Value, length: usize) -> Result<Vec<Program>, Failure> {
    let names = ["alloc_rate", "scan_rate", "growth_rate", "scannable_frac", "stack_bytes"];
    let mut columns = Vec::new();
    for column in exactly(value, names)? {
        let column = list(column)?;
        if column.len() != length {
            return Err(format!("{} values for {length} cycles", column.len()));
        }
        columns.push(column);
    }
    let program = |i: usize| {
        Ok(Program {
            alloc_rate: decimal(&columns[0][i])?,
            scan_rate: decimal(&columns[1][i])?,
            growth: decimal(&columns[2][i])?,
            scannable: decimal(&columns[3][i])?,
            stacks: number(&columns[4][i])?,
        })
    };
    (0..length).map(program).collect()
}

/// Puts those rules of the case into the answer that hold for it; the others are `null` there. Rules are
/// about figures that are compared one by one as well, so this shows that the rules were understood.
pub(crate) fn judge_rules(expect: &Value, mut answer: Value) -> Value {
    let Some(rules) = expect["rules"].as_array() else { return answer };
    let judged = rules.iter().map(|rule| match broken(rule, &answer["cycles"]) {
        Ok(None) => rule.clone(),
        Ok(Some(_)) | Err(_) => Value::Null,
    });
    answer["rules"] = judged.collect();
    answer
}

/// The first cycle in which a rule does not hold.
fn broken(rule: &Value, cycles: &Value) -> Result<Option<usize>, Failure> {
    let fields = rule.as_object().ok_or("a rule is an object")?;
    let length = list(&cycles["live"])?.len();
    let quantity = super::json::text(&rule["quantity"])?;
    for range in list(&rule["n"])? {
        let [from, to] = super::json::tuple(range)?;
        let to = if to.is_null() { length } else { number(to)? };
        for n in number(from)?..=to {
            let value = figure(cycles, quantity, n)?;
            let holds = match (fields.len(), fields) {
                (3, _) if fields.contains_key("range") => {
                    let [low, high] = super::json::tuple(&rule["range"])?;
                    value >= decimal(low)? && value <= decimal(high)?
                }
                (3, _) if fields.contains_key("less_than") => value < decimal(&rule["less_than"])?,
                (3, _) if fields.contains_key("equals") => match rule["equals"].as_str() {
                    Some(other) => value == figure(cycles, other, n)?,
                    None => value == decimal(&rule["equals"])?,
                },
                (4, _) => {
                    let target = match rule["target"].as_str() {
                        Some("previous_cycle") => figure(cycles, quantity, n - 1)?,
                        Some("cycle_12") => figure(cycles, quantity, 12)?,
                        _ => decimal(&rule["target"])?,
                    };
                    (value - target).abs() <= decimal(&rule["within"])?
                }
                _ => return Err(format!("unknown rule {rule}")),
            };
            if !holds {
                return Ok(Some(n));
            }
        }
    }
    Ok(None)
}

/// A figure of cycle `n`, counted from 1.
fn figure(cycles: &Value, quantity: &str, n: usize) -> Result<f64, Failure> {
    let of = |name: &str| {
        let column = list(cycles.get(name).ok_or_else(|| format!("no figure {name:?}"))?)?;
        decimal(column.get(n.wrapping_sub(1)).ok_or_else(|| format!("no cycle {n}"))?)
    };
    Ok(match quantity {
        "goal_ratio" => of("peak")? / of("goal")?,
        "trigger_ratio" => (of("trigger")? - of("live")?) / (of("goal")? - of("live")?),
        "runway" => of("goal")? - of("trigger")?,
        name => of(name)?,
    })
}
