//! One workload on the page: what it does, bars for each measure, the distribution of its times, and time against
//! memory.

use super::Table;
use super::bars::bars;
use super::lines::{Point, curve, curves, distribution};
use super::markup::Markup;
use crate::findings::base;
use crate::results::{Results, Run};
use crate::sheet::{Cell, Column, Sheet, Standing};
use crate::statistics::Ratio;
use crate::systems::OURS;
use crate::table::{ratio, without_runs};
use crate::units::{Unit, text};

/// The section of a case.
pub fn section(page: &mut Markup, results: &Results, sheet: &Sheet<'_>) {
    let case = sheet.case;
    page.leaf("h2", &[("id", &case.name)], &case.title);
    page.leaf("p", &[], &case.about);
    let Some(run) = example(results, sheet) else {
        page.leaf("p", &[("class", "bad")], without_runs(results, sheet));
        return;
    };
    page.element("p", &[("class", "soft")], |page| {
        page.text("Run as ");
        page.leaf("code", &[], &run.command);
        match run.report.get("checksum").filter(|_| !case.unchecked) {
            Some(checksum) => {
                page.text(&format!(" · checksum {checksum}, the same for all shown."))
            }
            None => page.text(" · without a checksum, since what it does depends on time."),
        }
    });
    for column in &sheet.columns {
        measure(page, sheet, column);
    }
    let columns = sheet.latencies(results);
    if !columns.is_empty() {
        latencies(page, sheet, &columns);
    }
    let curves = curves(results, sheet);
    let has_curve =
        curves.iter().any(|(_, points)| points.iter().any(|point| point.factor.is_some()));
    if has_curve {
        memory(page, sheet, &curves);
    }
}

/// A good run, ours if there is one, of which the command is shown.
fn example<'a>(results: &'a Results, sheet: &Sheet<'_>) -> Option<&'a Run> {
    let first = sheet.names.first()?;
    let system = first.split_once(':').map_or(first.as_str(), |(system, _)| system);
    results.runs.iter().find(|run| {
        run.case == sheet.case.name
            && run.system == system
            && run.problem.is_none()
            && run.factor.is_none()
    })
}

fn measure(page: &mut Markup, sheet: &Sheet<'_>, column: &Column) {
    page.leaf("h3", &[], &column.title);
    page.element("figure", &[], |page| {
        bars(page, sheet, column);
        figures(page, sheet, column);
    });
}

/// The figures of a plot.
fn figures(page: &mut Markup, sheet: &Sheet<'_>, column: &Column) {
    let unit = Unit::of(&column.measure, column.largest());
    let by = format!("{} by it", base(sheet.case));
    let rows = sheet.names.iter().zip(&column.cells).filter_map(|(name, cell)| {
        let Cell { summary, ratio: held } = cell.as_ref()?;
        let mut row = vec![(if name == OURS { "ours" } else { "" }, name.clone())];
        let values = [summary.median, summary.lower, summary.upper, summary.least, summary.largest];
        row.extend(values.map(|value| ("", unit.text(value))));
        row.push(("", summary.count.to_string()));
        row.push(held.map_or(("", String::new()), |held| (class(column, &held), ratio(&held))));
        Some(row)
    });
    let header = vec![
        "system",
        "median",
        "lower quartile",
        "upper quartile",
        "least",
        "most",
        "runs",
        by.as_str(),
    ];
    let table = Table { header, rows: rows.collect() };
    page.element("details", &[], |page| {
        page.leaf("summary", &[], "Figures");
        table.write(page);
        if let Some(noise) = column.noise {
            let words = format!("Two equal programs differed by up to {:.1} %.", noise * 100.0);
            page.leaf("p", &[("class", "soft")], &words);
        }
    });
}

/// The class of a ratio.
pub fn class(column: &Column, ratio: &Ratio) -> &'static str {
    match column.standing(ratio) {
        Standing::Better => "good",
        Standing::Even => "even",
        Standing::Worse => "bad",
    }
}

fn latencies(page: &mut Markup, sheet: &Sheet<'_>, columns: &[Column]) {
    let operation = sheet.case.operation.as_deref().unwrap_or("operation");
    page.leaf("h3", &[], &format!("How long one {operation} takes"));
    page.element("figure", &[], |page| {
        distribution(page, sheet, columns);
        let words = "So many of the operations took no longer than this; medians of the launches. The scale is \
                     logarithmic: equal distances are equal ratios.";
        page.leaf("figcaption", &[], words);
        let mut header = vec!["system"];
        header.extend(columns.iter().map(|column| column.title.as_str()));
        let rows = sheet.names.iter().enumerate().map(|(row, name)| {
            let cells = columns.iter().map(|column| {
                let cell = column.cells[row].as_ref();
                ("", cell.map_or(String::new(), |cell| text(&column.measure, cell.summary.median)))
            });
            [(if name == OURS { "ours" } else { "" }, name.clone())].into_iter().chain(cells).collect()
        });
        let table = Table { header, rows: rows.collect() };
        page.element("details", &[], |page| {
            page.leaf("summary", &[], "Figures");
            table.write(page);
        });
    });
}

fn memory(page: &mut Markup, sheet: &Sheet<'_>, curves: &[(String, Vec<Point>)]) {
    page.leaf("h3", &[], "Time against memory");
    page.element("figure", &[], |page| {
        curve(page, sheet, curves);
        let words = "Collectors trade memory for time. Those that can be limited ran with 1.3, 1.5, 2 and 3 times what is \
                     alive at most, and without a limit; the others have one point. Lower is faster, farther left is smaller.";
        page.leaf("figcaption", &[], words);
        let mut rows = Vec::new();
        for (name, points) in curves {
            for point in points {
                let limit = point.factor.map_or("none".to_owned(), |factor| format!("{factor} × live"));
                let class = if name == OURS { "ours" } else { "" };
                let cells = [limit, text("peak", point.memory), text("cpu", point.cpu)];
                let row = [(class, name.clone())].into_iter().chain(cells.map(|cell| ("", cell)));
                rows.push(row.collect());
            }
        }
        let table = Table { header: vec!["system", "limit", "peak memory", "CPU time"], rows };
        page.element("details", &[], |page| {
            page.leaf("summary", &[], "Figures");
            table.write(page);
        });
    });
}
