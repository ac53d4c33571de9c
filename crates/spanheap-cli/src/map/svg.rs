//! The picture as SVG: one file that needs nothing else, for a browser or a report.
//!
//! Cells that are equal and side by side are one rectangle; its `<title>` tells, under the mouse, where it
//! begins, how many pages it has and what they hold. Colours are defined once, in a style, for dark and for light
//! ground; the ground itself is left to the page. They differ in lightness as well as in hue, so the drawing
//! survives a printer and colour blindness.

use std::collections::BTreeMap;
use std::fmt::Write;

use spanheap::ArenaPicture;

use super::Shot;
use super::cells::{COLUMNS, Cell, Look, PAGE_BYTES, Row};
use super::classes;

/// Edge of a cell.
const CELL: usize = 11;
/// Room for the offsets on the left.
const MARGIN: usize = 72;
/// Height of a line of text.
const LINE: usize = 18;
/// Width of the whole.
const WIDTH: usize = MARGIN + COLUMNS * CELL + 20;
/// Rows of the table of classes.
const MAX_CLASSES: usize = 40;

const STYLE: &str = "<style>
svg { font: 12px ui-monospace, Menlo, Consolas, monospace; --ink: #24292f; --faint: #8c959f; }
text { fill: var(--ink); }
.title { font-size: 15px; font-weight: bold; }
.faint { fill: var(--faint); }
.label { fill: var(--faint); font-size: 10px; }
.reserved { fill: #8c959f; fill-opacity: 0; }
.returned { fill: #8c959f; fill-opacity: 0.25; }
.free { fill: #e3a008; fill-opacity: 0.55; }
.held { fill: #c026d3; }
.arena { fill: #0891b2; }
.quarantined { fill: #64748b; fill-opacity: 0.5; }
.s0 { fill: #dc2626; }
.s1 { fill: #99d8c9; }
.s2 { fill: #5bb99f; }
.s3 { fill: #2a917a; }
.s4 { fill: #0b6b58; }
.large { fill: #3b6fd4; }
.edge { fill: none; stroke: var(--faint); stroke-opacity: 0.6; }
rect:hover { stroke: var(--ink); }
@media (prefers-color-scheme: dark) { svg { --ink: #e6edf3; --faint: #7d8590; } }
</style>
";

/// The picture as a file.
pub(super) fn draw(shot: &Shot) -> String {
    let names: BTreeMap<u32, String> = shot
        .picture
        .classes
        .iter()
        .map(|class| {
            let name = classes::short(class.type_name);
            let slot = class.slot.map_or(String::new(), |slot| format!("{} B, ", slot.get()));
            (class.class, format!("{slot}{name}"))
        })
        .collect();
    let mut drawing = Drawing { out: String::new(), y: 28, names };
    drawing.heading(shot);
    drawing.legend();
    for arena in &shot.picture.arenas {
        drawing.arena(shot, arena);
    }
    drawing.table(shot);
    let Drawing { out, y, .. } = drawing;
    let height = y + LINE;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xml:space=\"preserve\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\">\n{STYLE}{out}</svg>\n"
    )
}

struct Drawing {
    out: String,
    /// Where the next line of text stands.
    y: usize,
    /// What the classes hold, by number.
    names: BTreeMap<u32, String>,
}

impl Drawing {
    fn text(&mut self, x: usize, class: &str, text: &str) {
        let (y, text) = (self.y, escape(text));
        let _ = writeln!(self.out, "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{text}</text>");
    }

    fn heading(&mut self, shot: &Shot) {
        self.text(10, "title", &format!("spanheap map: {}", shot.workload));
        self.y += LINE;
        let (elapsed, cycles) = (shot.elapsed.as_secs_f64(), shot.stats.cycles);
        let cell = (shot.scale.pages * PAGE_BYTES) >> 10;
        let line = format!("after {elapsed:.1} s and {cycles} cycles; a cell is {cell} KiB");
        self.text(10, "", &line);
        self.y += LINE;
        for line in shot.figures() {
            self.text(10, "", &line);
            self.y += LINE;
        }
    }

    fn legend(&mut self) {
        let rows: [&[(&str, &str)]; 2] = [
            &[
                ("s1", "to 25 % of slots live"),
                ("s2", "50 %"),
                ("s3", "75 %"),
                ("s4", "100 %"),
                ("s0", "empty span"),
            ],
            &[
                ("large", "large object"),
                ("arena", "user arena"),
                ("quarantined", "freed user arena"),
                ("held", "in use, no objects"),
                ("free", "free"),
                ("returned", "returned"),
                ("reserved edge", "never used"),
            ],
        ];
        for row in rows {
            let mut x = 10;
            for (class, name) in row {
                let y = self.y - 10;
                let _ = writeln!(
                    self.out,
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{CELL}\" height=\"{CELL}\" class=\"{class}\"/>"
                );
                self.text(x + CELL + 5, "", name);
                x += CELL + 22 + name.len() * 7;
            }
            self.y += LINE;
        }
        self.y += LINE / 2;
    }

    fn arena(&mut self, shot: &Shot, arena: &ArenaPicture) {
        let rows = shot.scale.rows(&arena.pages);
        let length = shot.scale.pages * COLUMNS;
        let left = arena.pages.len().saturating_sub(rows.len() * length) * PAGE_BYTES;
        let mut title = format!("arena {:#x}", arena.base.get());
        if left > 0 {
            let _ = write!(title, "  ({} MiB at its end never used)", left >> 20);
        }
        self.text(10, "", &title);
        self.y += 6;
        let (top, height) = (self.y, rows.len() * CELL);
        let width = COLUMNS.min(arena.pages.len().div_ceil(shot.scale.pages)) * CELL;
        for row in &rows {
            self.row(shot.scale.pages, arena, row);
        }
        let _ = writeln!(
            self.out,
            "<rect x=\"{MARGIN}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" class=\"edge\" \
             pointer-events=\"none\"/>"
        );
        self.y += LINE + 4;
    }

    fn row(&mut self, pages: usize, arena: &ArenaPicture, row: &Row) {
        let y = self.y;
        let label = format!("{:>6} MiB", (row.first_page * PAGE_BYTES) >> 20);
        self.y = y + CELL - 2;
        self.text(4, "label", &label);
        self.y = y + CELL;
        let mut column = 0;
        for run in row.cells.chunk_by(|a, b| a == b) {
            let (cell, first) = (run[0], row.first_page + column * pages);
            let address = arena.base.get() + first * PAGE_BYTES;
            let count = (run.len() * pages).min(arena.pages.len() - first);
            let title = self.describe(cell);
            let (x, width) = (MARGIN + column * CELL, run.len() * CELL);
            let _ = writeln!(
                self.out,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{CELL}\" class=\"{}\">\
                 <title>{address:#x}, {count} pages: {}</title></rect>",
                style_of(cell.look),
                escape(&title),
            );
            column += run.len();
        }
    }

    fn describe(&self, cell: Cell) -> String {
        let name = cell.class.and_then(|class| self.names.get(&class));
        let name = name.map_or("", String::as_str);
        match cell.look {
            Look::Reserved => "reserved, never used".to_owned(),
            Look::Returned => "free, returned to the system".to_owned(),
            Look::Free => "free, with memory".to_owned(),
            Look::Held => "in use, but by no objects".to_owned(),
            Look::Arena => "user arenas".to_owned(),
            Look::Quarantined => {
                "freed user arenas, of which only the addresses are kept".to_owned()
            }
            Look::Small(0) => format!("small, no slot live: mostly {name}"),
            Look::Small(quarters) => {
                format!("small, up to {} % of slots live: mostly {name}", 25 * u32::from(quarters))
            }
            Look::Large => format!("large: {name}"),
        }
    }

    fn table(&mut self, shot: &Shot) {
        let (rows, more) = classes::rows(&shot.picture.classes, MAX_CLASSES);
        let line = |[slot, spans, pages, objects, free, percent, name]: [String; 7]| {
            format!("{slot:>8} {spans:>7} {pages:>9} {objects:>9} {free:>10} {percent:>7}  {name}")
        };
        self.text(10, "faint", &line(classes::HEADINGS.map(str::to_owned)));
        self.y += LINE;
        for row in rows {
            self.text(10, "", &line(row));
            self.y += LINE;
        }
        if more > 0 {
            self.text(10, "faint", &format!("     and {more} classes with less free"));
        }
    }
}

/// The name of a look in the style.
fn style_of(look: Look) -> &'static str {
    match look {
        Look::Reserved => "reserved",
        Look::Returned => "returned",
        Look::Free => "free",
        Look::Held => "held",
        Look::Arena => "arena",
        Look::Quarantined => "quarantined",
        Look::Small(0) => "s0",
        Look::Small(1) => "s1",
        Look::Small(2) => "s2",
        Look::Small(3) => "s3",
        Look::Small(_) => "s4",
        Look::Large => "large",
    }
}

/// Text as XML: names of types have angle brackets.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn names_of_types_become_text() {
        assert_eq!(escape("&mut Option<Gc<u8>>"), "&amp;mut Option&lt;Gc&lt;u8&gt;&gt;");
    }
}
