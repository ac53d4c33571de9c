//! Lines: distributions of times, and time against memory. One line for each system, with its name at its end.

use super::draw::{Scale, apart, dot, line, path, picture, words};
use super::markup::Markup;
use crate::results::Results;
use crate::rounds::FACTORS;
use crate::sheet::{Column, Sheet};
use crate::systems::{AGAIN, KNOWN, OURS, stands_for};
use crate::units::{Unit, text};

/// Where the plot begins and ends, from the left.
const SIDES: (f64, f64) = (86.0, 560.0);
/// Where it begins and ends, from the top.
const ENDS: (f64, f64) = (14.0, 300.0);

/// The distribution of the times of an operation: a point for each of some percentiles, medians of the launches, on a
/// logarithmic scale.
pub fn distribution(page: &mut Markup, sheet: &Sheet<'_>, columns: &[Column]) {
    let values = || columns.iter().flat_map(|column| column.cells.iter().flatten());
    let medians = || values().map(|cell| cell.summary.median).filter(|median| *median > 0.0);
    let (least, largest) = (medians().fold(f64::INFINITY, f64::min), medians().fold(0.0, f64::max));
    if largest <= 0.0 {
        return;
    }
    // A little more than there is, so that even equal values have a scale.
    let values = (least / 1.5, largest * 1.5);
    let scale = Scale { values, places: (ENDS.1, ENDS.0), logarithmic: true };
    let step = (SIDES.1 - SIDES.0) / (columns.len() - 1).max(1) as f64;
    let x_of = |index: usize| SIDES.0 + 10.0 + index as f64 * (step - 10.0 / columns.len() as f64);
    let label = format!("{}: distribution of times", sheet.case.title);
    picture(page, ENDS.1 + 26.0, &label, |page| {
        for tick in scale.ticks() {
            let y = scale.place(tick);
            line(page, "grid", (SIDES.0, y), (SIDES.1, y));
            words(page, "tick", "end", (SIDES.0 - 8.0, y + 4.0), &text("_ns", tick));
        }
        for (index, column) in columns.iter().enumerate() {
            words(page, "tick", "middle", (x_of(index), ENDS.1 + 18.0), &column.title);
        }
        let mut drawn = Vec::new();
        for (row, name) in sheet.names.iter().enumerate() {
            let points: Vec<(f64, f64, String)> = columns
                .iter()
                .enumerate()
                .filter_map(|(index, column)| {
                    let median = column.cells[row].as_ref()?.summary.median;
                    let words =
                        format!("{name}, {}: {}", column.title, text(&column.measure, median));
                    Some((x_of(index), scale.place(median), words))
                })
                .collect();
            drawn.push(Drawn { name: name.clone(), points });
        }
        draw(page, &drawn);
    });
}

/// What is drawn for somebody: places, and words for each.
struct Drawn {
    name: String,
    points: Vec<(f64, f64, String)>,
}

/// Lines through points, and the names at their right ends.
fn draw(page: &mut Markup, drawn: &[Drawn]) {
    let drawn: Vec<&Drawn> = drawn.iter().filter(|one| !one.points.is_empty()).collect();
    let ends: Vec<(f64, f64)> = drawn
        .iter()
        .map(|one| {
            one.points
                .iter()
                .map(|(x, y, _)| (*x, *y))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .unwrap_or_default()
        })
        .collect();
    let mut heights: Vec<f64> = ends.iter().map(|(_, y)| *y).collect();
    apart(&mut heights, 14.0, ENDS.1);
    // Ours is drawn last, over the others.
    let mut order: Vec<usize> = (0..drawn.len()).collect();
    order.sort_by_key(|&index| drawn[index].name == OURS);
    for index in order {
        let Drawn { name, points } = drawn[index];
        let colour = colour(name);
        let places: Vec<(f64, f64)> = points.iter().map(|(x, y, _)| (*x, *y)).collect();
        if places.len() > 1 {
            path(page, &format!("line {colour}"), &places);
        }
        points
            .iter()
            .for_each(|(x, y, words)| dot(page, &format!("dot {colour}"), (*x, *y), words));
        let (x, y) = ends[index];
        let at = (SIDES.1 + 22.0, heights[index]);
        line(page, "leader", (x + 6.0, y), (at.0 - 5.0, at.1));
        dot(page, &format!("dot {colour}"), at, name);
        words(page, "name", "start", (at.0 + 9.0, at.1 + 4.5), name);
    }
}

/// The class of a system's colour: its place among all.
fn colour(name: &str) -> String {
    let place = KNOWN.iter().position(|known| known.name == stands_for(name));
    place.map_or("c-other".to_owned(), |place| format!("c{place}"))
}

/// A point of a curve.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// The limit as a multiple of the live memory; none if there was none.
    pub factor: Option<f64>,
    /// The median of the peaks of resident memory, in bytes.
    pub memory: f64,
    /// The median of the CPU times, in seconds.
    pub cpu: f64,
}

/// Each participant's points: those with a limit first, and then that without one.
pub fn curves(results: &Results, sheet: &Sheet<'_>) -> Vec<(String, Vec<Point>)> {
    let point = |name: &str, factor: Option<f64>| {
        let median = |measure: &str| {
            let sample = crate::findings::sample(results, sheet.case, name, factor, measure);
            crate::statistics::Summary::of(&sample).map(|summary| summary.median)
        };
        Some(Point { factor, memory: median("peak")?, cpu: median("cpu")? })
    };
    let names = sheet.names.iter().filter(|name| *name != AGAIN);
    names
        .map(|name| {
            let factors = FACTORS.map(Some).into_iter().chain([None]);
            (name.clone(), factors.filter_map(|factor| point(name, factor)).collect())
        })
        .collect()
}

/// CPU time against the memory that was really used.
pub fn curve(page: &mut Markup, sheet: &Sheet<'_>, curves: &[(String, Vec<Point>)]) {
    let all = || curves.iter().flat_map(|(_, points)| points);
    let memory = all().map(|point| point.memory).fold(0.0, f64::max);
    // One that takes very long would press all others down; it is drawn at the upper edge.
    let mut times: Vec<f64> = all().map(|point| point.cpu).collect();
    times.sort_by(f64::total_cmp);
    let middle = times.get(times.len() / 2).copied().unwrap_or(1.0);
    let time = times.last().copied().unwrap_or(1.0).min(middle * 4.0);
    let across = Scale { values: (0.0, memory * 1.05), places: SIDES, logarithmic: false };
    let up = Scale { values: (0.0, time * 1.05), places: (ENDS.1, ENDS.0), logarithmic: false };
    let units = (Unit::of("peak", memory), Unit::of("cpu", time));
    let label = format!("{}: CPU time against memory", sheet.case.title);
    picture(page, ENDS.1 + 44.0, &label, |page| {
        for tick in up.ticks() {
            line(page, "grid", (SIDES.0, up.place(tick)), (SIDES.1, up.place(tick)));
            words(page, "tick", "end", (SIDES.0 - 8.0, up.place(tick) + 4.0), &units.1.text(tick));
        }
        for tick in across.ticks() {
            line(page, "grid", (across.place(tick), ENDS.0), (across.place(tick), ENDS.1));
            words(page, "tick", "middle", (across.place(tick), ENDS.1 + 18.0), &units.0.text(tick));
        }
        words(
            page,
            "tick",
            "middle",
            ((SIDES.0 + SIDES.1) / 2.0, ENDS.1 + 38.0),
            "peak of resident memory",
        );
        let drawn: Vec<Drawn> = curves
            .iter()
            .map(|(name, points)| Drawn {
                name: name.clone(),
                points: places(name, points, &across, &up),
            })
            .collect();
        draw(page, &drawn);
    });
}

/// The places of the points of a curve, from the least memory to the most.
fn places(name: &str, points: &[Point], across: &Scale, up: &Scale) -> Vec<(f64, f64, String)> {
    let mut points: Vec<&Point> = points.iter().collect();
    points.sort_by(|a, b| a.memory.total_cmp(&b.memory));
    let words = |point: &Point| {
        let limit =
            point.factor.map_or("no limit".to_owned(), |factor| format!("limit {factor} × live"));
        format!(
            "{name}, {limit}: {} of CPU, {}",
            text("cpu", point.cpu),
            text("peak", point.memory)
        )
    };
    points.iter().map(|p| (across.place(p.memory), up.place(p.cpu), words(p))).collect()
}
