//! What stands before and behind the workloads: what this is, how to read it, goals, ratios, failures, method.

use super::markup::Markup;
use super::{Table, workload};
use crate::findings::{Judged, Verdict, judge};
use crate::results::Results;
use crate::sheet::{Sheet, matrix_cell, peers};
use crate::table::{bound_of, found, measure_of};
use crate::units::text;

/// The title, what this is, and where and when it was measured.
pub fn head(page: &mut Markup, results: &Results) {
    let about = &results.about;
    page.leaf("h1", &[], "spanheap beside others");
    page.leaf(
        "p",
        &[],
        "spanheap is a garbage-collected heap for Rust: Go's memory manager, re-created as a library. Here it does the same \
         work as other ways to manage memory, on the same machine, in turns: other collectors (Go's own, libgc for C, \
         gc-arena and dumpster for Rust), reference counting, and freeing by hand. Every program prints a checksum of \
         what it did, and only equal ones are compared.",
    );
    if about.quick {
        page.leaf(
            "p",
            &[("class", "fault")],
            "These are the small sizes, with few launches: good enough to see that all \
                  programs work, and not to be quoted.",
        );
    }
    page.element("dl", &[], |page| {
        let launches = format!("{} of each program and workload", about.launches);
        let own = [("date", format!("{} UTC", about.date)), ("launches", launches)];
        let own = own.iter().map(|(name, text)| (*name, text.as_str()));
        let facts = about.facts.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        for (name, text) in own.chain(facts) {
            page.leaf("dt", &[], name);
            page.leaf("dd", &[], text);
        }
        page.leaf("dt", &[], "command");
        page.element("dd", &[], |page| page.leaf("code", &[], &about.command));
    });
}

/// What went wrong, if something did.
pub fn faults(page: &mut Markup, results: &Results) {
    let faults = crate::findings::faults(results);
    if faults.is_empty() {
        return;
    }
    page.element("div", &[("class", "fault")], |page| {
        page.leaf("p", &[], "Not everything went well; what is named here is missing below:");
        list(page, &faults);
    });
}

fn list(page: &mut Markup, lines: &[String]) {
    page.element("ul", &[], |page| lines.iter().for_each(|line| page.leaf("li", &[], line)));
}

/// Links to the sections.
pub fn contents(page: &mut Markup, results: &Results) {
    page.element("nav", &[], |page| {
        let fixed = [("goals", "Goals"), ("ratios", "Ratios")];
        let cases = results.cases.iter().map(|case| (case.name.as_str(), case.title.as_str()));
        let end = [("method", "How it is measured")];
        for (name, title) in fixed.into_iter().chain(cases).chain(end) {
            page.leaf("a", &[("href", &format!("#{name}"))], title);
        }
    });
    page.line();
}

/// How pictures and ratios are to be read, and who takes part.
pub fn reading(page: &mut Markup, results: &Results) {
    page.leaf("h2", &[("id", "reading")], "How to read this");
    page.leaf(
        "p",
        &[],
        "A bar is the median of all launches; the thin line over its end goes from the lower quartile to the upper one, so a \
         quarter of the launches is below it and a quarter above. The figure behind a bar, such as ×0.50, is spanheap's \
         median divided by that system's: below 1, spanheap needs less. Figures in brackets are the interval in which the \
         ratio lies with 95 % confidence.",
    );
    page.leaf(
        "p",
        &[],
        "spanheap-again is spanheap once more, as if it were another system: how far these two are apart is noise, and \
         a ratio that is not farther from 1 than that is grey. Green is for spanheap, red is against it.",
    );
    let rows = results
        .systems
        .iter()
        .map(|system| vec![("", system.name.clone()), ("text", system.about.clone())]);
    let missing = results.missing.iter().map(|system| {
        vec![("", system.name.clone()), ("text", format!("not here: {}", system.about))]
    });
    let rows = rows.chain(missing).collect();
    Table { header: vec!["system", "what it is"], rows }.write(page);
}

/// What spanheap is to reach, and whether it does.
pub fn goals(page: &mut Markup, results: &Results) {
    page.leaf("h2", &[("id", "goals")], "Goals");
    let judged = judge(results);
    let count = |of: fn(&Verdict) -> bool| judged.iter().filter(|goal| of(&goal.verdict)).count();
    let (met, unknown) = (count(|v| v.is_met()), count(|v| *v == Verdict::Unknown));
    let words = format!(
        "Set before the measurement: {met} met, {} missed, {unknown} not measured here. “Not surely” means that part of the \
         interval is on the other side, or that there were too few launches for one.",
        judged.len() - met - unknown
    );
    page.leaf("p", &[], &words);
    let header = vec![
        "workload",
        "verdict",
        "measure",
        "held against",
        "goal",
        "found",
        "spanheap",
        "theirs",
    ];
    Table { header, rows: judged.iter().map(goal).collect() }.write(page);
}

fn goal(judged: &Judged<'_>) -> Vec<(&'static str, String)> {
    let Judged { goal, ours, theirs, value, verdict } = judged;
    let class = match verdict {
        Verdict::Unknown => "even",
        verdict if verdict.is_met() => "good",
        _ => "bad",
    };
    let number =
        |value: Option<f64>| value.map_or("–".into(), |value| text(&goal.measure, value));
    let other = goal.peer.as_ref().or(goal.minus.as_ref());
    [
        goal.case.clone(),
        verdict.words().to_owned(),
        measure_of(goal),
        other.cloned().unwrap_or_else(|| "–".into()),
        bound_of(goal),
        value.map_or("–".into(), |value| found(goal, value)),
        number(*ours),
        number(*theirs),
    ]
    .into_iter()
    .enumerate()
    .map(|(index, text)| (if index == 1 { class } else { "" }, text))
    .collect()
}

/// spanheap by every other system, in the measure that each workload is about.
pub fn matrix(page: &mut Markup, results: &Results, sheets: &[Sheet<'_>]) {
    let peers = peers(results);
    page.leaf("h2", &[("id", "ratios")], "spanheap by the others");
    if peers.is_empty() {
        page.leaf("p", &[], "Nobody else took part.");
        return;
    }
    page.leaf("p", &[], "Ratios of medians, in the measure that the workload is about. Less is better for spanheap, except \
              where more of something is good.");
    let mut header = vec!["workload", "measure"];
    header.extend(&peers);
    let rows = sheets.iter().map(|sheet| {
        let column = sheet.primary(results);
        let measure = sheet.case.primary.split('|').next().unwrap_or_default().to_owned();
        let cells = peers.iter().map(|peer| {
            let ratio = matrix_cell(&sheet.names, &column, peer).and_then(|cell| cell.ratio);
            ratio.map_or(("", String::new()), |ratio| {
                (workload::class(&column, &ratio), format!("{:.2}", ratio.value))
            })
        });
        [("", sheet.case.name.clone()), ("", measure)].into_iter().chain(cells).collect()
    });
    Table { header, rows: rows.collect() }.write(page);
}

/// What systems said they cannot do, and what they could not do in little memory.
pub fn refusals(page: &mut Markup, results: &Results) {
    let refusals = crate::findings::refusals(results);
    if refusals.is_empty() {
        return;
    }
    page.leaf("h2", &[("id", "refusals")], "What could not be done");
    list(page, &refusals);
}

/// How it is measured, for who wants to know or to do it again.
pub fn method(page: &mut Markup, results: &Results) {
    page.leaf("h2", &[("id", "method")], "How it is measured");
    let words = [
        "The programs are built from one source tree, in release mode for the baseline of the processor's architecture, and run \
         one after the other, never two at once. Within a workload they take turns, and each round begins with another one, \
         so that a machine that grows slower hurts everybody.",
        "Wall time, CPU time and the peak of resident memory are the kernel's account of the finished process (wait4), from its \
         start to its end, all threads and all children included: a collector that works on other threads cannot hide there. \
         Latencies and what is called by a key of its own come from the programs, which count them in the same buckets. \
         A program that is smaller than the one that starts it tells its peak itself.",
        "Collectors get two processors. Nobody uses pools, or tricks that the others do not have; what a program has to do \
         for its system (roots, handles, counts) is in its times.",
        "Ratios are those of medians. Their intervals come from 4000 resamplings with a fixed seed (bootstrap, percentiles 2.5 \
         and 97.5), so that the same runs give the same page.",
        "What each workload does is defined, down to the random numbers, in bench/WORKLOADS.md of the source tree. Every \
         single run is in results.json, beside this page.",
    ];
    words.iter().for_each(|words| page.leaf("p", &[], words));
    let count = results.runs.len();
    page.leaf("p", &[("class", "soft")], &format!("{count} runs."));
}
