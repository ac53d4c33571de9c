//! Bars: one measure of one case, everybody below each other.
//!
//! The length is the median, the whisker goes from the lower quartile to the upper one, and the figure stands beside
//! it with how the base compares. A bar that would be many times as long as ours is cut, with a gap drawn in it, or
//! all others would be too short to be compared.

use super::draw::{Scale, WIDTH, line, picture, place, words};
use super::markup::Markup;
use crate::findings::base;
use crate::sheet::{Cell, Column, Sheet};
use crate::systems::{AGAIN, OURS, stands_for};
use crate::units::Unit;

/// Where bars begin, behind the names.
const LEFT: f64 = 190.0;
/// Where the longest bar ends, before its figure.
const RIGHT: f64 = 560.0;
/// From one bar to the next.
const STEP: f64 = 26.0;
/// The thickness of a bar.
const THICK: f64 = 16.0;
/// A bar is cut when it is so many times as long as the second longest and as ours.
const CUT: f64 = 4.0;

/// Draws a column of a sheet.
pub fn bars(page: &mut Markup, sheet: &Sheet<'_>, column: &Column) {
    let rows: Vec<(&String, &Cell)> =
        sheet.names.iter().zip(&column.cells).filter_map(|(n, c)| Some((n, c.as_ref()?))).collect();
    let longest = longest(sheet, &rows);
    let scale = Scale { values: (0.0, longest), places: (LEFT, RIGHT), logarithmic: false };
    let unit = Unit::of(&column.measure, column.largest());
    let bottom = 8.0 + rows.len() as f64 * STEP;
    let label = format!("{}: {}", sheet.case.title, column.title);
    picture(page, bottom + 22.0, &label, |page| {
        for tick in scale.ticks() {
            let x = scale.place(tick);
            line(page, "grid", (x, 4.0), (x, bottom));
            words(page, "tick", "middle", (x, bottom + 15.0), &unit.text(tick));
        }
        for (index, (name, cell)) in rows.iter().enumerate() {
            bar(page, &scale, 8.0 + index as f64 * STEP, name, cell, &unit);
        }
        line(page, "axis", (LEFT, 4.0), (LEFT, bottom));
    });
}

/// The value at the end of the scale.
fn longest(sheet: &Sheet<'_>, rows: &[(&String, &Cell)]) -> f64 {
    let mut medians: Vec<f64> = rows.iter().map(|(_, cell)| cell.summary.upper).collect();
    medians.sort_by(f64::total_cmp);
    let ours = rows.iter().find(|(name, _)| *name == base(sheet.case));
    let ours = ours.map_or(0.0, |(_, cell)| cell.summary.upper);
    let mut longest = medians.pop().unwrap_or(0.0);
    while let Some(next) = medians.pop() {
        let bound = CUT * next.max(ours);
        if longest <= bound || bound <= 0.0 {
            break;
        }
        // What is cut is drawn a little longer than what is not.
        longest = next.max(ours) * 1.15;
    }
    if longest > 0.0 { longest } else { 1.0 }
}

fn bar(page: &mut Markup, scale: &Scale, top: f64, name: &str, cell: &Cell, unit: &Unit) {
    let summary = &cell.summary;
    let middle = top + THICK / 2.0;
    let end = scale.place(summary.median);
    words(page, "name", "end", (LEFT - 8.0, middle + 4.5), name);
    let (x, y, width) = (place(LEFT), place(top), place((end - LEFT).max(1.0)));
    let thick = place(THICK);
    let attributes = [
        ("class", class_of(name)),
        ("x", x.as_str()),
        ("y", y.as_str()),
        ("width", width.as_str()),
        ("height", thick.as_str()),
        ("rx", "2"),
    ];
    page.empty("rect", &attributes);
    let is_cut = summary.median > scale.values.1;
    if is_cut {
        let x = RIGHT - 24.0;
        line(page, "gap", (x - 3.0, top + THICK + 3.0), (x + 3.0, top - 3.0));
    } else {
        let (low, high) = (scale.place(summary.lower), scale.place(summary.upper));
        line(page, "whisker", (low, middle), (high, middle));
        for x in [low, high] {
            line(page, "whisker", (x, middle - 4.0), (x, middle + 4.0));
        }
    }
    let ratio = cell.ratio.map_or(String::new(), |ratio| format!(" · ×{}", short(ratio.value)));
    let text = format!("{}{ratio}", unit.text(summary.median));
    let behind = if is_cut { RIGHT } else { end.max(scale.place(summary.upper)) };
    words(page, "value", "start", ((behind + 8.0).min(WIDTH - 150.0), middle + 4.5), &text);
}

fn class_of(name: &str) -> &'static str {
    match stands_for(name) {
        OURS => "bar ours",
        AGAIN => "bar again",
        _ => "bar",
    }
}

fn short(ratio: f64) -> String {
    if ratio >= 10.0 { format!("{ratio:.0}") } else { format!("{ratio:.2}") }
}
