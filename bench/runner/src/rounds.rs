//! The runs: in turns, so that a machine that grows slower or faster hurts everybody.
//!
//! ```text
//! for each case:
//!     for each round:   everybody once; each round begins with another one, so that nobody always follows the same
//!     if the case has a curve:
//!         live = what our program says the workload keeps alive at most
//!         for each round, for each factor 1.3, 1.5, 2, 3:  everybody who can be limited once
//! ```
//! Who fails is not started again in that case: it would fail again, and a program that hangs would cost its time
//! limit each round. In the curve that holds for each factor by itself.
//!
//! What a program prints is taken as it is. Whether checksums agree is seen when all are there, in [`crate::findings`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::child::{self, Ending, Finished, Invocation, Limits};
use crate::failure::{Failure, Result};
use crate::results::{Problem, Results, Run};
use crate::suite::{Case, Size};
use crate::systems::{AGAIN, OURS, Setting, Style, System};

/// Multiples of what is alive that the curves consist of.
pub const FACTORS: [f64; 4] = [1.3, 1.5, 2.0, 3.0];
/// A peer that cannot do a workload, or not with these parameters, ends with this code.
const DECLINED: i32 = 3;

/// How the suite is run.
pub struct Plan<'a> {
    /// The systems that are there.
    pub systems: &'a [System],
    /// The small sizes.
    pub quick: bool,
    /// How often each program is started.
    pub launches: usize,
    /// How often for each point of a curve; 0 for no curves.
    pub curve_launches: usize,
    /// A run that has more resident bytes is killed.
    pub memory: u64,
    /// For files that programs read and write.
    pub folder: &'a Path,
    /// Is told what happens.
    pub progress: &'a dyn Fn(&str),
}

/// Runs a case, and adds all runs to the results.
///
/// # Errors
/// When files cannot be written or programs cannot be started. What programs do wrong is no error, but a result.
pub fn run_case(plan: &Plan<'_>, case: &Case, results: &mut Results) -> Result<()> {
    let mut everybody = participants(plan, case);
    if case.document {
        give_document(plan, case, &mut everybody)?;
    }
    let slots: Vec<Slot> = everybody.iter().map(|entrant| entrant.slot(Setting::Default)).collect();
    let size = if plan.quick { &case.quick } else { &case.full };
    let launches = size.launches.map_or(plan.launches, |most| most.min(plan.launches));
    in_turns(plan, case, &slots, launches, results)?;
    if !case.curve || plan.curve_launches == 0 {
        return Ok(());
    }
    let Some(live) = live_bytes(results, case) else { return Ok(()) };
    let limited = everybody.iter().filter(|entrant| {
        entrant.system.can_be_limited() && case.systems.contains(&entrant.system.name)
    });
    let slots: Vec<Slot> = limited
        .flat_map(|entrant| {
            FACTORS.map(|factor| {
                entrant.slot(Setting::Limit { factor, bytes: (live as f64 * factor) as u64 })
            })
        })
        .collect();
    in_turns(plan, case, &slots, plan.curve_launches, results)
}

/// Somebody who takes part in a case.
struct Entrant {
    system: System,
    size: Size,
}

/// Somebody with a setting.
struct Slot<'a> {
    entrant: &'a Entrant,
    setting: Setting,
}

impl Entrant {
    fn slot(&self, setting: Setting) -> Slot<'_> {
        Slot { entrant: self, setting }
    }
}

/// Everybody whose program is there, ours twice.
fn participants(plan: &Plan<'_>, case: &Case) -> Vec<Entrant> {
    let size = if plan.quick { &case.quick } else { &case.full };
    let again = case.systems.iter().filter(|name| *name == OURS).map(|_| AGAIN);
    let names = case.systems.iter().map(String::as_str).chain(again);
    let mut everybody = Vec::new();
    for name in names.chain(case.also.keys().map(String::as_str)) {
        let of = case.system_of(name);
        if let Some(system) = plan.systems.iter().find(|system| system.name == of) {
            let system = System { name: name.to_owned(), ..system.clone() };
            everybody.push(Entrant { system, size: size.clone() });
        }
    }
    everybody
}

/// Has our program write the document of a workload, and tells the others where it is.
fn give_document(plan: &Plan<'_>, case: &Case, everybody: &mut [Entrant]) -> Result<()> {
    let Some(ours) = plan.systems.iter().find(|system| system.style == Style::Spanheap) else {
        return Err(Failure::new(format!(
            "{}: without spanheap nobody makes the document",
            case.name
        )));
    };
    let mut arguments = vec!["bench".into(), case.workload.clone(), "--print-document".into()];
    let size = if plan.quick { &case.quick } else { &case.full };
    if let Some(bytes) = size.params.get("size") {
        arguments.extend(["--size".into(), bytes.to_string()]);
    }
    let invocation =
        Invocation { program: ours.program.clone(), arguments, environment: Vec::new() };
    let finished = child::run(&invocation, plan.limits(size), plan.folder)?;
    if finished.ending != Ending::Exited(0) {
        return Err(Failure::new(format!("{}: no document: {}", case.name, finished.complaints)));
    }
    let path: PathBuf = plan.folder.join(format!("{}.document", case.name));
    fs::write(&path, finished.output)?;
    for entrant in everybody.iter_mut().filter(|entrant| entrant.system.style != Style::Spanheap) {
        let value = Value::String(path.to_string_lossy().into_owned());
        entrant.size.params.insert("document".into(), value);
    }
    Ok(())
}

impl Plan<'_> {
    fn limits(&self, size: &Size) -> Limits {
        Limits { time: Duration::from_secs(size.seconds), memory: self.memory }
    }
}

fn in_turns(
    plan: &Plan<'_>,
    case: &Case,
    slots: &[Slot<'_>],
    launches: usize,
    results: &mut Results,
) -> Result<()> {
    let mut failed = BTreeSet::new();
    for round in 0..launches {
        for place in 0..slots.len() {
            let index = (place + round) % slots.len();
            if failed.contains(&index) {
                continue;
            }
            let run = launch(plan, case, &slots[index], round)?;
            (plan.progress)(&told(&run, launches));
            if run.problem.is_some() {
                failed.insert(index);
            }
            results.runs.push(run);
        }
    }
    Ok(())
}

fn launch(plan: &Plan<'_>, case: &Case, slot: &Slot<'_>, round: usize) -> Result<Run> {
    let Entrant { system, size } = slot.entrant;
    let invocation = system.invocation(case, size, slot.setting);
    let limits = plan.limits(size);
    let finished = child::run(&invocation, limits, plan.folder)
        .map_err(|error| Failure::new(format!("{}: {error}", invocation.line())))?;
    let (report, problem) = match understand(&finished, limits) {
        Ok(report) => (report, None),
        Err(problem) => (Value::Null, Some(problem)),
    };
    let account = finished.account;
    let told_peak = report.get("peak_rss_bytes").and_then(Value::as_u64);
    Ok(Run {
        case: case.name.clone(),
        system: system.name.clone(),
        factor: match slot.setting {
            Setting::Default => None,
            Setting::Limit { factor, .. } => Some(factor),
        },
        round,
        command: invocation.line(),
        problem,
        wall_s: account.wall.as_secs_f64(),
        user_s: account.user.as_secs_f64(),
        sys_s: account.system.as_secs_f64(),
        peak_rss_bytes: match told_peak {
            Some(peak) if account.peak_is_floor => peak,
            _ => account.peak,
        },
        report,
    })
}

/// The line of a run that ended well, or why there is none.
fn understand(finished: &Finished, limits: Limits) -> std::result::Result<Value, Problem> {
    let fault = |text: String| Err(Problem { declined: false, text });
    let words = || last_line(&finished.complaints).unwrap_or("without a word").to_owned();
    match finished.ending {
        Ending::Exited(0) => {}
        Ending::Exited(DECLINED) => return Err(Problem { declined: true, text: words() }),
        Ending::Exited(code) => return fault(format!("ended with code {code}: {}", words())),
        Ending::Signal(signal) => {
            return fault(format!("crashed with signal {signal}: {}", words()));
        }
        Ending::TookTooLong => {
            return fault(format!("killed after {} s", limits.time.as_secs_f64()));
        }
        Ending::TookTooMuch => {
            return fault(format!(
                "killed with more than {} MB of memory",
                limits.memory / 1_000_000
            ));
        }
    }
    let line = last_line(&finished.output).unwrap_or_default();
    match serde_json::from_str::<Value>(line) {
        Ok(report) if report.is_object() => Ok(report),
        _ => fault("printed no line of JSON".to_owned()),
    }
}

fn last_line(text: &str) -> Option<&str> {
    text.lines().rev().map(str::trim).find(|line| !line.is_empty())
}

/// What our program says the workload keeps alive at most.
fn live_bytes(results: &Results, case: &Case) -> Option<u64> {
    let ours = results.runs.iter().filter(|run| run.case == case.name && run.system == OURS);
    ours.filter_map(|run| run.report.get("footprint_bytes")?.as_u64()).next()
}

fn told(run: &Run, launches: usize) -> String {
    let Run { case, system, round, .. } = run;
    let setting = run.factor.map_or(String::new(), |factor| format!(" at {factor}x"));
    let outcome = match &run.problem {
        Some(problem) => problem.text.clone(),
        None => format!(
            "{:.2} s, CPU {:.2} s, {} MB",
            run.wall_s,
            run.user_s + run.sys_s,
            run.peak_rss_bytes / 1_000_000
        ),
    };
    format!("{case} {}/{launches} {system}{setting}: {outcome}", round + 1)
}
