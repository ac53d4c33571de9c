//! The table: goals, ratios and figures in Markdown, for a README or a terminal.

use std::fmt::Write as _;

use crate::findings::{Judged, Verdict, base, faults, judge, refusals};
use crate::results::Results;
use crate::sheet::{Cell, Column, Sheet, Standing, matrix_cell, peers};
use crate::statistics::Ratio;
use crate::suite::Goal;
use crate::systems::OURS;
use crate::units::{Unit, text};

/// The whole file.
pub fn markdown(results: &Results) -> String {
    let mut page = String::from("# spanheap beside others\n\n");
    let about = &results.about;
    let _ = writeln!(page, "- date: {} UTC\n- command: `{}`", about.date, about.command);
    for (name, text) in &about.facts {
        let _ = writeln!(page, "- {name}: {text}");
    }
    let sizes = if about.quick { "small sizes, **not to be quoted**" } else { "full sizes" };
    let _ = writeln!(page, "- {sizes}; {} launches of each, in turns; medians", about.launches);
    goals(results, &mut page);
    matrix(results, &mut page);
    for case in &results.cases {
        sheet(results, &Sheet::of(results, case), &mut page);
    }
    list("Faults", &faults(results), &mut page);
    list("What systems could not do", &refusals(results), &mut page);
    let missing: Vec<String> =
        results.missing.iter().map(|system| format!("{}: {}", system.name, system.about)).collect();
    list("Systems that are not here", &missing, &mut page);
    page
}

/// Writes a table of one header line and rows.
fn table(header: &[String], rows: &[Vec<String>], page: &mut String) {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    page.push_str(&line(header));
    page.push_str(&format!("|---|{}\n", "---:|".repeat(header.len().saturating_sub(1))));
    rows.iter().for_each(|row| page.push_str(&line(row)));
}

fn goals(results: &Results, page: &mut String) {
    let judged = judge(results);
    if judged.is_empty() {
        return;
    }
    let _ = writeln!(page, "\n## Goals\n");
    if results.about.quick {
        let _ = writeln!(page, "They are set for the full sizes, and these are the small ones.\n");
    }
    let header = ["workload", "measure", "held against", "goal", "found", "spanheap", "theirs", ""];
    let rows: Vec<Vec<String>> = judged.iter().map(goal_row).collect();
    table(&header.map(str::to_owned), &rows, page);
}

fn goal_row(judged: &Judged<'_>) -> Vec<String> {
    let Judged { goal, ours, theirs, value, verdict } = judged;
    let number = |value: Option<f64>| value.map_or("-".into(), |value| text(&goal.measure, value));
    let is_missed = !verdict.is_met() && *verdict != Verdict::Unknown;
    let strong = if is_missed { "**" } else { "" };
    vec![
        goal.case.clone(),
        measure_of(goal),
        goal.peer.as_ref().or(goal.minus.as_ref()).cloned().unwrap_or_else(|| "-".into()),
        bound_of(goal),
        value.map_or("-".into(), |value| found(goal, value)),
        number(*ours),
        number(*theirs),
        format!("{strong}{}{strong}", verdict.words()),
    ]
}

/// The measure of a goal, with whose it is if not simply ours.
pub fn measure_of(goal: &Goal) -> String {
    let measure = goal.measure.split('|').next().unwrap_or_default();
    match &goal.ours {
        Some(ours) => format!("{measure} of {ours}"),
        None => measure.to_owned(),
    }
}

/// The bound of a goal.
pub fn bound_of(goal: &Goal) -> String {
    let number = |bound: f64| match goal.peer {
        Some(_) => format!("{bound}"),
        None => text(&goal.measure, bound),
    };
    match (goal.at_most, goal.at_least) {
        (Some(bound), _) => format!("≤ {}", number(bound)),
        (None, Some(bound)) => format!("≥ {}", number(bound)),
        (None, None) => String::new(),
    }
}

/// What was found for a goal: a ratio, or a value.
pub fn found(goal: &Goal, found: Ratio) -> String {
    match goal.peer {
        Some(_) => ratio(&found),
        None => text(&goal.measure, found.value),
    }
}

/// A ratio with its interval.
pub fn ratio(ratio: &Ratio) -> String {
    let Ratio { value, low, high, .. } = ratio;
    match ratio.has_interval() {
        true => format!("{} [{}, {}]", two(*value), two(*low), two(*high)),
        false => two(*value),
    }
}

/// Two digits behind the point, three if there is nothing before it, none if it is large.
fn two(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn matrix(results: &Results, page: &mut String) {
    let peers = peers(results);
    if peers.is_empty() {
        return;
    }
    let _ = writeln!(
        page,
        "\n## Ratios\n\nspanheap by the other, in the measure that the workload is about; **bold** where spanheap is worse, \
         in (brackets) where the difference is within noise.\n"
    );
    let header: Vec<String> = ["workload", "measure"]
        .into_iter()
        .chain(peers.iter().copied())
        .map(str::to_owned)
        .collect();
    let mut rows = Vec::new();
    for case in &results.cases {
        let sheet = Sheet::of(results, case);
        let column = sheet.primary(results);
        let cells = peers.iter().map(|peer| {
            let ratio = matrix_cell(&sheet.names, &column, peer).and_then(|cell| cell.ratio);
            ratio.map_or(String::new(), |ratio| match column.standing(&ratio) {
                Standing::Better => two(ratio.value),
                Standing::Even => format!("({})", two(ratio.value)),
                Standing::Worse => format!("**{}**", two(ratio.value)),
            })
        });
        let measure = case.primary.split('|').next().unwrap_or_default().to_owned();
        rows.push([case.name.clone(), measure].into_iter().chain(cells).collect());
    }
    table(&header, &rows, page);
}

fn sheet(results: &Results, sheet: &Sheet<'_>, page: &mut String) {
    let _ = writeln!(page, "\n## {}\n", sheet.case.title);
    if sheet.names.is_empty() {
        let _ = writeln!(page, "{}", without_runs(results, sheet));
        return;
    }
    let columns: Vec<&Column> = sheet.columns.iter().collect();
    let units = |column: &&Column| Unit::of(&column.measure, column.largest());
    let mut header = vec!["system".to_owned()];
    for column in &columns {
        header.push(
            format!("{}, {}", column.title, units(column).name).trim_end_matches(", ").to_owned(),
        );
        header.push(format!("{} by it", base(sheet.case)));
    }
    let mut rows = Vec::new();
    for (index, name) in sheet.names.iter().enumerate() {
        let mut row = vec![if name == OURS { format!("**{name}**") } else { name.clone() }];
        for column in &columns {
            let cell = column.cells[index].as_ref();
            row.push(cell.map_or(String::new(), |cell| spread(cell, &units(column))));
            row.push(cell.and_then(|cell| cell.ratio).map_or(String::new(), |r| ratio(&r)));
        }
        rows.push(row);
    }
    table(&header, &rows, page);
    let noise = columns
        .iter()
        .filter_map(|column| Some(format!("{} ±{:.0} %", column.title, column.noise? * 100.0)));
    let noise: Vec<String> = noise.collect();
    if !noise.is_empty() {
        let _ = writeln!(page, "\nNoise between two equal programs: {}.", noise.join(", "));
    }
    latencies(results, sheet, page);
}

/// Why a case has nothing to show.
pub fn without_runs(results: &Results, sheet: &Sheet<'_>) -> &'static str {
    match results.runs.iter().any(|run| run.case == sheet.case.name) {
        true => "No run of it ended well.",
        false => "It was not run.",
    }
}

/// The median, and the quartiles beside it.
fn spread(cell: &Cell, unit: &Unit) -> String {
    let summary = &cell.summary;
    let [low, middle, high] =
        [summary.lower, summary.median, summary.upper].map(|value| unit.number(value));
    format!("{middle} ({low} to {high})")
}

fn latencies(results: &Results, sheet: &Sheet<'_>, page: &mut String) {
    let columns = sheet.latencies(results);
    let Some(operation) = sheet.case.operation.as_ref().filter(|_| !columns.is_empty()) else {
        return;
    };
    let _ = writeln!(page, "\nHow long one {operation} takes, medians of the launches:\n");
    let mut header = vec!["system".to_owned()];
    header.extend(columns.iter().map(|column| column.title.clone()));
    let mut rows = Vec::new();
    for (index, name) in sheet.names.iter().enumerate() {
        let cells = columns.iter().map(|column| {
            let median = column.cells[index].as_ref().map(|cell| cell.summary.median);
            median.map_or(String::new(), |median| text(&column.measure, median))
        });
        rows.push([name.clone()].into_iter().chain(cells).collect());
    }
    table(&header, &rows, page);
}

fn list(title: &str, lines: &[String], page: &mut String) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(page, "\n## {title}\n");
    lines.iter().for_each(|line| {
        let _ = writeln!(page, "- {line}");
    });
}
