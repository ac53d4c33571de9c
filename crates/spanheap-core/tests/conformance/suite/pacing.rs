//! Suites about when to collect, and how much of the processors may be used for it.
//!
//! The pacer under test counts stacks and globals as Go's does, and is tuned like Go's
//! ([`Tuning::GO`]). What the collector of this crate does otherwise is in its own tuning, and in
//! tests beside it:
//!
//! - it has no stacks and no globals, and says that they are empty. Every case that has them is
//!   replayed with them, since the pacer takes them from its caller;
//! - it never stops the program, so it has no use for `finish_transition` of the limiter; the cases
//!   are replayed with it;
//! - while those who allocate do not help to mark, a cycle may begin earlier than any trigger in
//!   `pacer`, `pacer_trace` and `heap_goal`. All cases are about a collector with help;
//! - Go has no heap without a limit, only one with a limit of 2^63-1. Without a limit and a percent,
//!   the plan here is "never", where `heap_goal` expects a number; the cases are replayed with that
//!   limit.
//!
//! No case is left out, and all numbers are compared to the last digit.

use super::json::{self, Failure, decimal, exactly, flag, list, number, text};
use serde_json::{Value, json};
use spanheap_core::addr::Bytes;
use spanheap_core::collect::limiter::CpuLimiter;
use spanheap_core::collect::mark_workers::{IdleWorkers, MarkWorkers};
use spanheap_core::collect::pacer::goal::{self, Bounds};
use spanheap_core::collect::pacer::speed::Times;
use spanheap_core::collect::pacer::{
    Assist, Finished, MemoryUse, Pacer, Policy, Tuning, Work, trigger,
};
use std::time::Duration;

/// Go's limit where there is none.
const NO_LIMIT: usize = isize::MAX.unsigned_abs();

/// `gc_percent`, which is negative where the goal by percent is off.
fn percent(value: &Value) -> Result<Option<u32>, Failure> {
    match value.as_i64() {
        Some(-1) => Ok(None),
        _ => u32::try_from(number(value)?).map(Some).map_err(|error| error.to_string()),
    }
}

/// A number of bytes, or none.
fn bytes(value: &Value) -> Result<Option<Bytes>, Failure> {
    if value.is_null() { Ok(None) } else { Ok(Some(Bytes::new(number(value)?))) }
}

fn nanoseconds(value: &Value) -> Result<Duration, Failure> {
    Ok(Duration::from_nanos(number(value)? as u64))
}

/// `parse_byte_count`
pub(crate) fn parse_byte_count(input: &Value) -> Result<Value, Failure> {
    let [amount] = exactly(input, ["text"])?;
    let amount = text(amount)?.parse::<Bytes>().ok();
    Ok(json!({ "bytes": amount.map(Bytes::get) }))
}

/// `mark_workers`
pub(crate) fn mark_workers(input: &Value) -> Result<Value, Failure> {
    let [processors, periodic] = exactly(input, ["procs", "periodic"])?;
    let workers = MarkWorkers::new(number(processors)?, flag(periodic)?);
    Ok(json!({
        "dedicated": workers.dedicated,
        "fractional": workers.fractional,
        "idle_max": workers.idle,
    }))
}

/// `idle_mark_workers`
pub(crate) fn idle_workers(input: &Value) -> Result<Value, Failure> {
    let [ops] = exactly(input, ["ops"])?;
    let mut workers = IdleWorkers::new();
    let mut answers = Vec::new();
    for op in list(ops)? {
        let (name, arguments) = operation(op)?;
        answers.push(match (name, arguments) {
            ("set_max", [most]) => {
                workers.set_most(number(most)?);
                Value::Null
            }
            ("need", []) => workers.is_wanted().into(),
            ("add", []) => workers.begin().into(),
            ("remove", []) => {
                workers.end();
                Value::Null
            }
            _ => return Err(format!("unknown operation {op}")),
        });
    }
    Ok(answers.into())
}

fn operation(op: &Value) -> Result<(&str, &[Value]), Failure> {
    let (name, arguments) = list(op)?.split_first().ok_or("an empty operation")?;
    Ok((text(name)?, arguments))
}

/// `gc_cpu_limiter`
pub(crate) fn limiter(input: &Value) -> Result<Value, Failure> {
    let [ops] = exactly(input, ["ops"])?;
    let (first, ops) = list(ops)?.split_first().ok_or("no operation")?;
    let mut limiter = match operation(first)? {
        ("new", [now, processors]) => CpuLimiter::new(nanoseconds(now)?, number(processors)?),
        _ => return Err(format!("the first operation is {first}")),
    };
    let mut answers = vec![describe(&limiter, None)];
    for op in ops {
        let mut answer = None;
        match operation(op)? {
            ("update", [now]) => limiter.update(nanoseconds(now)?),
            ("add_assist_time", [time]) => limiter.add_collector_time(nanoseconds(time)?),
            ("add_idle_time", [time]) => limiter.add_idle_time(nanoseconds(time)?),
            ("need_update", [now]) => answer = Some(limiter.needs_update(nanoseconds(now)?)),
            ("start_transition", [on, now]) => {
                limiter.start_transition(flag(on)?, nanoseconds(now)?);
            }
            ("finish_transition", [now]) => limiter.finish_transition(nanoseconds(now)?),
            ("reset_capacity", [now, processors]) => {
                limiter.set_processors(nanoseconds(now)?, number(processors)?);
            }
            _ => return Err(format!("unknown operation {op}")),
        }
        answers.push(describe(&limiter, answer));
    }
    Ok(answers.into())
}

fn describe(limiter: &CpuLimiter, answer: Option<bool>) -> Value {
    let state = limiter.state();
    let [fill, capacity, overflow] =
        [state.fill, state.capacity, state.overflow].map(|time| time.as_nanos() as u64);
    let mut all = vec![json!(fill), json!(capacity), json!(overflow), json!(state.limiting)];
    all.extend(answer.map(Value::from));
    all.into()
}

/// `heap_goal`
pub(crate) fn heap_goal(input: &Value) -> Result<Value, Failure> {
    let [gc_percent, limit, cons_mark, swept, triggered, sizes @ ..] = exactly(
        input,
        [
            "gc_percent",
            "memory_limit",
            "cons_mark",
            "sweep_done",
            "triggered",
            "heap_marked",
            "heap_live",
            "last_heap_scan",
            "last_stack_scan",
            "globals",
            "mapped_ready",
            "heap_free",
            "heap_alloc",
        ],
    )?;
    let mut numbers = [Bytes::ZERO; 8];
    for (slot, value) in numbers.iter_mut().zip(sizes) {
        *slot = Bytes::new(number(value)?);
    }
    let [marked, live, heap, stacks, globals, ready, free, objects] = numbers;
    let work = Work { heap, stacks, globals };
    let percent = percent(gc_percent)?;
    let limit = bytes(limit)?.unwrap_or(Bytes::new(NO_LIMIT));
    let by_percent = goal::by_percent(percent, marked, stacks + globals);
    let by_limit = goal::by_limit(limit, MemoryUse { ready, free, objects }, marked);
    let sweep_line = if flag(swept)? { Bytes::ZERO } else { goal::sweep_line(live) };
    let bounds = Bounds { by_percent, by_limit, sweep_line, triggered: bytes(triggered)? };
    let goal = bounds.goal();
    let runway = trigger::runway(decimal(cons_mark)?, Tuning::GO.background, work.all());
    let trigger = trigger::trigger(goal, marked, runway, Tuning::GO.earliest);
    Ok(json!({
        "heap_minimum": percent.map(|percent| goal::smallest(percent).get()),
        "gc_percent_goal": percent.map(|_| by_percent.get()),
        "memory_limit_goal": by_limit.get(),
        "goal": goal.size.get(),
        "min_trigger": goal.not_before.get(),
        "trigger": trigger.get(),
        "runway": runway.get(),
    }))
}

/// What `pacer` and `pacer_trace` are about.
pub(crate) struct Config {
    policy: Policy,
    pub(crate) globals: usize,
    pub(crate) cores: usize,
    pub(crate) length: usize,
}

impl Config {
    pub(crate) fn read(value: &Value) -> Result<Config, Failure> {
        let names = ["gc_percent", "memory_limit", "globals", "cores", "length"];
        let [gc_percent, limit, globals, cores, length] = exactly(value, names)?;
        Ok(Config {
            policy: Policy { percent: percent(gc_percent)?, limit: bytes(limit)? },
            globals: number(globals)?,
            cores: number(cores)?,
            length: number(length)?,
        })
    }
}

/// A heap as its pacer sees it.
pub(crate) struct PacedHeap {
    pub(crate) pacer: Pacer,
    pub(crate) live: usize,
    /// Bytes that would have to be scanned if everything were alive.
    worst: Work,
    done: Work,
}

impl PacedHeap {
    pub(crate) fn new(config: &Config) -> PacedHeap {
        let pacer = Pacer::new(config.policy, Tuning::GO);
        PacedHeap { pacer, live: 0, worst: Work::default(), done: Work::default() }
    }

    /// The heap grows to the trigger, and a cycle starts.
    pub(crate) fn start(&mut self, stacks: usize, globals: usize, scannable: f64) -> Assist {
        let marked = self.pacer.marked();
        self.live = self.pacer.plan().trigger.max(marked).get();
        let new = (self.live - marked.get()) as f64 * scannable;
        self.worst.heap += Bytes::new(new as usize);
        self.worst.stacks = Bytes::new(stacks);
        self.worst.globals = Bytes::new(globals);
        self.done = Work::default();
        self.pacer.start(Bytes::new(self.live), self.worst)
    }

    pub(crate) fn revise(&mut self, live: usize, scannable: usize, done: Work) -> Assist {
        self.live += live;
        self.worst.heap += Bytes::new(scannable);
        self.done = self.done.and(done);
        self.pacer.revise(Bytes::new(self.live), self.worst, self.done)
    }

    /// The cycle ends with so many bytes marked, and the sweep begins.
    pub(crate) fn end(&mut self, marked: usize, assists: u64, elapsed: u64, cores: usize) {
        let times = Times {
            elapsed: Duration::from_nanos(elapsed),
            processors: cores,
            workers: None,
            assists: Duration::from_nanos(assists),
            idle: Duration::ZERO,
        };
        let (live, marked) = (Bytes::new(self.live), Bytes::new(marked));
        self.pacer.finish(Finished { live, marked, done: self.done, times });
        self.live = marked.get();
        self.worst.heap = self.done.heap;
        self.pacer.commit(Some(marked));
    }
}

/// `pacer_trace`. Answers every call; see [`asked_steps`].
pub(crate) fn trace(input: &Value) -> Result<Value, Failure> {
    let [config, ops] = exactly(input, ["config", "ops"])?;
    let mut heap = PacedHeap::new(&Config::read(config)?);
    let mut answers = Vec::new();
    for op in list(ops)? {
        answers.push(call(&mut heap, op)?);
    }
    Ok(answers.into())
}

fn call(heap: &mut PacedHeap, op: &Value) -> Result<Value, Failure> {
    match operation(op)? {
        ("start", [stacks, globals, scannable, cores]) => {
            let assist = heap.start(number(stacks)?, number(globals)?, decimal(scannable)?);
            let workers = MarkWorkers::new(number(cores)?, false);
            let triggered = heap.pacer.triggered().map(Bytes::get);
            Ok(json!([
                triggered,
                heap.pacer.goal().get(),
                assist.work_per_byte,
                workers.dedicated,
                workers.fractional,
                workers.idle,
            ]))
        }
        ("revise", [live, scannable, done @ ..]) => {
            let [on_heap, stacks, globals] = json::numbers(&done.into())?.map(Bytes::new);
            let done = Work { heap: on_heap, stacks, globals };
            let assist = heap.revise(number(live)?, number(scannable)?, done);
            Ok(json!([assist.work_per_byte, heap.pacer.goal().get()]))
        }
        ("end", [marked, assists, elapsed, cores]) => {
            let (assists, elapsed) = (number(assists)? as u64, number(elapsed)? as u64);
            heap.end(number(marked)?, assists, elapsed, number(cores)?);
            let plan = heap.pacer.plan();
            Ok(json!([
                heap.pacer.marked().get(),
                plan.goal.get(),
                plan.trigger.get(),
                heap.pacer.runway().get(),
                heap.pacer.speed_ratio(),
            ]))
        }
        _ => Err(format!("unknown operation {op}")),
    }
}

/// Of the answers to all calls those that were recorded.
pub(crate) fn asked_steps(expect: &Value, mut answer: Value) -> Value {
    let recorded = expect.as_array().into_iter().flatten();
    let answers = answer.as_array_mut().into_iter().flatten();
    for (expect, answer) in recorded.zip(answers) {
        if expect.is_null() {
            *answer = Value::Null;
        }
    }
    answer
}
