//! What the results mean: samples, ratios, noise, goals, and what must not be believed.
//!
//! A **sample** is one measure of all good runs of one participant in one case. A **ratio** is ours by theirs, so that
//! below 1 is good for us where less is better. The **noise** of a measure in a case is how far the interval of the
//! ratio of ours to ours, run again as if it were another system, reaches from 1. A goal is *met* or *missed* by the
//! medians; it is said besides whether the whole interval is on that side.
//!
//! A checksum that is not that of the others makes all runs of that participant in that case void: they have done
//! something else.

use serde_json::Value;

use crate::results::{Results, Run};
use crate::statistics::{Ratio, Summary};
use crate::suite::{Case, Goal};
use crate::systems::{AGAIN, OURS};

/// The value of a measure in a run of a participant; see [`crate::suite`] for the names of both.
pub fn value(run: &Run, variant: Option<&str>, measure: &str) -> Option<f64> {
    match measure {
        "wall" => Some(run.wall_s),
        "user" => Some(run.user_s),
        "system" => Some(run.sys_s),
        "cpu" => Some(run.user_s + run.sys_s),
        "peak" => Some(run.peak_rss_bytes as f64),
        _ => {
            let mut report = &run.report;
            if let Some(variant) = variant {
                report =
                    rows(report).find(|row| row.get("variant").is_some_and(|v| v == variant))?;
            }
            let found = measure.split('|').find_map(|key| lookup(report, key)?.as_f64());
            // No operation takes no time: where there were none, programs print 0.
            found.filter(|value| *value != 0.0 || !measure.ends_with("_ns"))
        }
    }
}

/// What a key with dots leads to.
fn lookup<'a>(report: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(report, |place, part| match part.parse() {
        Ok(index) if place.is_array() => place.get::<usize>(index),
        _ => place.get(part),
    })
}

/// Who is held against the others.
pub fn base(case: &Case) -> &str {
    case.base.as_deref().unwrap_or(OURS)
}

/// The same of our second self.
fn again(case: &Case) -> Option<String> {
    Some(format!("{AGAIN}{}", base(case).strip_prefix(OURS)?))
}

/// The rows of a report with variants.
fn rows(report: &Value) -> impl Iterator<Item = &Value> {
    report.get("rows").and_then(Value::as_array).into_iter().flatten()
}

/// Everybody who has a result in a case: systems in the order of the suite, each with its variants.
pub fn participants(results: &Results, case: &Case) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let order = case.systems.iter().flat_map(|system| {
        let again = (system == OURS).then(|| AGAIN.to_owned());
        let also =
            case.also.iter().filter(move |(_, of)| *of == system).map(|(name, _)| name.clone());
        [system.clone()].into_iter().chain(also).chain(again)
    });
    for system in order {
        let Some(run) = good_runs(results, case, &system, None).next() else { continue };
        let mut variants = rows(&run.report)
            .filter_map(|row| Some(format!("{system}:{}", row.get("variant")?.as_str()?)))
            .peekable();
        if variants.peek().is_none() {
            names.push(system.clone());
        }
        names.extend(variants);
    }
    // Of our second self, what is held against the base is enough.
    let again = again(case);
    names.retain(|name| !name.starts_with(AGAIN) || again.as_ref() == Some(name));
    names
}

/// The runs that count: they ended well, and with the checksum of all.
fn good_runs<'a>(
    results: &'a Results,
    case: &'a Case,
    system: &'a str,
    factor: Option<f64>,
) -> impl Iterator<Item = &'a Run> {
    let expected = expected_checksum(results, case);
    results.runs.iter().filter(move |run| {
        run.case == case.name
            && run.system == system
            && run.factor == factor
            && run.problem.is_none()
            && (case.unchecked || checksum(run) == expected)
    })
}

/// One measure of all runs that count.
pub fn sample(
    results: &Results,
    case: &Case,
    participant: &str,
    factor: Option<f64>,
    measure: &str,
) -> Vec<f64> {
    let (system, variant) = match participant.split_once(':') {
        Some((system, variant)) => (system, Some(variant)),
        None => (participant, None),
    };
    good_runs(results, case, system, factor)
        .filter_map(|run| value(run, variant, measure))
        .collect()
}

fn checksum(run: &Run) -> Option<&Value> {
    run.report.get("checksum").filter(|value| !value.is_null())
}

/// What the checksum of a case is: ours, and without us that of the first who has one.
pub fn expected_checksum<'a>(results: &'a Results, case: &Case) -> Option<&'a Value> {
    let good = || results.runs.iter().filter(|run| run.case == case.name && run.problem.is_none());
    let of_ours = good().filter(|run| run.system == OURS).find_map(checksum);
    of_ours.or_else(|| good().find_map(checksum))
}

/// What must not be: programs that failed, and checksums that differ. Each is a sentence, and said once.
pub fn faults(results: &Results) -> Vec<String> {
    let mut faults: Vec<String> = Vec::new();
    for run in &results.runs {
        let Some(case) = results.case(&run.case) else { continue };
        let place = format!("{} in {}", run.system, place(run));
        let fault = match &run.problem {
            Some(problem) if problem.declined => continue,
            // Too little memory for a system is a result of the curve, and stands there.
            Some(_) if run.factor.is_some() => continue,
            Some(problem) => format!("{place}: {}", problem.text),
            None if case.unchecked || checksum(run) == expected_checksum(results, case) => continue,
            None => format!(
                "{place}: the checksum is {}, and not {}: it has done something else, and its runs count for nothing",
                checksum(run).unwrap_or(&Value::Null),
                expected_checksum(results, case).unwrap_or(&Value::Null),
            ),
        };
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    faults
}

/// What systems could not do, or not in so little memory: sentences, each said once.
pub fn refusals(results: &Results) -> Vec<String> {
    let mut refusals: Vec<String> = Vec::new();
    for run in &results.runs {
        if let Some(problem) = &run.problem
            && (problem.declined || run.factor.is_some())
        {
            let refusal = format!("{} in {}: {}", run.system, place(run), problem.text);
            if !refusals.contains(&refusal) {
                refusals.push(refusal);
            }
        }
    }
    refusals
}

fn place(run: &Run) -> String {
    match run.factor {
        Some(factor) => format!("{} with {factor} times the live memory", run.case),
        None => run.case.clone(),
    }
}

/// How far chance alone moves a ratio of this measure in this case; nothing, if we did not run twice.
pub fn noise(results: &Results, case: &Case, measure: &str) -> Option<f64> {
    let of = |name: &str| sample(results, case, name, None, measure);
    let ratio = Ratio::of(&of(base(case)), &of(&again(case)?));
    ratio.filter(Ratio::has_interval).map(|ratio| ratio.reach())
}

/// How a goal stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The median keeps the bound, and so does the whole interval.
    Met,
    /// The median keeps the bound, part of the interval does not, or there is none.
    MetBarely,
    /// The median does not keep the bound, part of the interval does, or there is none.
    MissedBarely,
    /// Nothing of the interval keeps the bound.
    Missed,
    /// A system or a measure was not there.
    Unknown,
}

impl Verdict {
    /// In a word or three.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Met => "met",
            Verdict::MetBarely => "met, not surely",
            Verdict::MissedBarely => "missed, not surely",
            Verdict::Missed => "missed",
            Verdict::Unknown => "not measured",
        }
    }

    /// Whether the median keeps the bound.
    pub fn is_met(self) -> bool {
        matches!(self, Verdict::Met | Verdict::MetBarely)
    }
}

/// A goal, and what was found.
pub struct Judged<'a> {
    /// The goal.
    pub goal: &'a Goal,
    /// Our median.
    pub ours: Option<f64>,
    /// The median of the peer, or of what is taken off.
    pub theirs: Option<f64>,
    /// The value that is bounded, and its interval: the ratio, or the value itself.
    pub value: Option<Ratio>,
    /// How it stands.
    pub verdict: Verdict,
}

/// Every goal, in the order of the file, of the cases that were run.
pub fn judge(results: &Results) -> Vec<Judged<'_>> {
    results
        .goals
        .iter()
        .filter_map(|goal| Some(judge_one(results, results.case(&goal.case)?, goal)))
        .collect()
}

fn judge_one<'a>(results: &'a Results, case: &Case, goal: &'a Goal) -> Judged<'a> {
    let our_name = goal.ours.as_deref().unwrap_or(OURS);
    let ours = sample(results, case, our_name, None, &goal.measure);
    let (theirs, value) = match (&goal.peer, &goal.minus) {
        (Some(peer), _) => {
            let theirs = sample(results, case, peer, None, &goal.measure);
            let ratio = Ratio::of(&ours, &theirs);
            (theirs, ratio)
        }
        (None, Some(minus)) => {
            let off = sample(results, case, our_name, None, minus);
            let differences: Vec<f64> = ours.iter().zip(&off).map(|(a, b)| a - b).collect();
            (off, spread(&differences))
        }
        (None, None) => (Vec::new(), spread(&ours)),
    };
    let median = |sample: &[f64]| Summary::of(sample).map(|summary| summary.median);
    let verdict = value.map_or(Verdict::Unknown, |value| verdict(goal, value));
    Judged { goal, ours: median(&ours), theirs: median(&theirs), value, verdict }
}

/// A median between its quartiles, for what is no ratio.
fn spread(sample: &[f64]) -> Option<Ratio> {
    let Summary { lower, median, upper, count, .. } = Summary::of(sample)?;
    Some(Ratio { value: median, low: lower, high: upper, count })
}

fn verdict(goal: &Goal, found: Ratio) -> Verdict {
    let ends = [found.low, found.high].map(|end| goal.holds(end));
    let is_sure = |side: bool| found.has_interval() && ends == [side; 2];
    match goal.holds(found.value) {
        true if is_sure(true) => Verdict::Met,
        true => Verdict::MetBarely,
        false if is_sure(false) => Verdict::Missed,
        false => Verdict::MissedBarely,
    }
}
