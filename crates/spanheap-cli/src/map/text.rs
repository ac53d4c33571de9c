//! The picture as text: a character for each cell, a row for [`COLUMNS`] of them, and below it what fills the
//! classes.
//!
//! Without colours the characters alone tell the uses apart; colours are those of 256-colour terminals,
//! chosen to be told apart on dark and on light ground.

use std::fmt::Write;

use super::Shot;
use super::cells::{COLUMNS, Look, PAGE_BYTES, Row};
use super::classes;

/// Rows of the table of classes.
const MAX_CLASSES: usize = 12;

/// The picture, without a line end behind its last line.
pub(super) fn draw(shot: &Shot, colour: bool) -> String {
    let mut out = String::new();
    heading(&mut out, shot);
    for arena in &shot.picture.arenas {
        let _ = writeln!(out, "arena {:#x}", arena.base.get());
        let rows = shot.scale.rows(&arena.pages);
        for row in &rows {
            draw_row(&mut out, row, colour);
        }
        let length = shot.scale.pages * COLUMNS;
        let left = arena.pages.len().saturating_sub(rows.len() * length) * PAGE_BYTES;
        if left > 0 {
            let _ = writeln!(out, "          {} reserved and never used", mebibytes(left));
        }
    }
    legend(&mut out, shot.has_arenas(), colour);
    table(&mut out, shot);
    out.truncate(out.trim_end().len());
    out
}

fn heading(out: &mut String, shot: &Shot) {
    let _ = writeln!(
        out,
        "{}  {:.1} s  {} cycles  a cell is {} pages, {}",
        shot.workload,
        shot.elapsed.as_secs_f64(),
        shot.stats.cycles,
        shot.scale.pages,
        kibibytes(shot.scale.pages * PAGE_BYTES),
    );
    let _ = writeln!(out, "{}", shot.figures().join("; "));
}

fn draw_row(out: &mut String, row: &Row, colour: bool) {
    let _ = write!(out, "{:>8}  ", mebibytes(row.first_page * PAGE_BYTES));
    // Reserved cells at the end are spaces that nobody sees.
    let last = row.cells.iter().rposition(|cell| cell.look != Look::Reserved);
    let cells = &row.cells[..last.map_or(0, |last| last + 1)];
    for run in cells.chunk_by(|a, b| a.look == b.look) {
        let text = glyph(run[0].look).to_string().repeat(run.len());
        paint(out, run[0].look, &text, colour);
    }
    out.push('\n');
}

fn legend(out: &mut String, arenas: bool, colour: bool) {
    let entries = [
        (Look::Small(1), "to 25 %"),
        (Look::Small(2), "50 %"),
        (Look::Small(3), "75 %"),
        (Look::Small(4), "100 % of slots"),
        (Look::Small(0), "empty span"),
        (Look::Large, "large"),
        (Look::Arena, "user arena"),
        (Look::Quarantined, "quarantined"),
        (Look::Held, "held"),
        (Look::Free, "free"),
        (Look::Returned, "returned"),
    ];
    let shown = |look| arenas || !matches!(look, Look::Arena | Look::Quarantined);
    for (look, name) in entries.into_iter().filter(|&(look, _)| shown(look)) {
        paint(out, look, &glyph(look).to_string(), colour);
        let _ = write!(out, " {name}  ");
    }
    out.truncate(out.trim_end().len());
    out.push_str("\n\n");
}

fn table(out: &mut String, shot: &Shot) {
    let (rows, more) = classes::rows(&shot.picture.classes, MAX_CLASSES);
    let headings = classes::HEADINGS.map(str::to_owned);
    for [slot, spans, pages, objects, free, percent, name] in std::iter::once(headings).chain(rows)
    {
        let _ = writeln!(
            out,
            "{slot:>8} {spans:>7} {pages:>9} {objects:>9} {free:>10} {percent:>7}  {name}"
        );
    }
    if more > 0 {
        let _ = writeln!(out, "     and {more} classes with less free");
    }
}

/// The character for a cell.
fn glyph(look: Look) -> char {
    match look {
        Look::Reserved => ' ',
        Look::Returned => '_',
        Look::Free => '·',
        Look::Held => '+',
        Look::Quarantined => 'x',
        Look::Arena => 'A',
        Look::Small(0) => '0',
        Look::Small(1) => '░',
        Look::Small(2) => '▒',
        Look::Small(3) => '▓',
        Look::Small(_) => '█',
        Look::Large => 'L',
    }
}

fn paint(out: &mut String, look: Look, text: &str, colour: bool) {
    let code = match look {
        Look::Reserved => None,
        Look::Returned => Some(243),
        Look::Free => Some(172),
        Look::Held => Some(170),
        Look::Quarantined => Some(245),
        Look::Arena => Some(37),
        Look::Small(0) => Some(160),
        Look::Small(1) => Some(166),
        Look::Small(2) => Some(136),
        Look::Small(3) => Some(70),
        Look::Small(_) => Some(35),
        Look::Large => Some(33),
    };
    match code.filter(|_| colour) {
        Some(code) => {
            let _ = write!(out, "\x1b[38;5;{code}m{text}\x1b[0m");
        }
        None => out.push_str(text),
    }
}

fn kibibytes(bytes: usize) -> String {
    format!("{} KiB", bytes >> 10)
}

fn mebibytes(bytes: usize) -> String {
    match bytes % (1 << 20) {
        0 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}
