//! A case as tables: who took part, what is measured, and how the base stands to each of them.
//!
//! The table in Markdown and the page show the same sheets, so that they cannot disagree.

use crate::findings::{base, noise, participants, sample};
use crate::results::Results;
use crate::statistics::{Ratio, Summary};
use crate::suite::Case;
use crate::systems::{AGAIN, KNOWN, OURS, stands_for};
use crate::units::{Quantity, quantity};

/// The points of a distribution of times: what they are called in keys, and for people.
pub const PERCENTILES: [(&str, &str); 5] = [
    ("p50", "half"),
    ("p99", "99 %"),
    ("p999", "99.9 %"),
    ("p9999", "99.99 %"),
    ("max", "longest"),
];

/// Everything about a case.
pub struct Sheet<'a> {
    /// The case.
    pub case: &'a Case,
    /// Who took part, in the order of the page.
    pub names: Vec<String>,
    /// Each measure of which there are values.
    pub columns: Vec<Column>,
}

/// One measure for everybody.
pub struct Column {
    /// Its name; see [`crate::suite`].
    pub measure: String,
    /// For people.
    pub title: String,
    /// In the order of the names.
    pub cells: Vec<Option<Cell>>,
    /// How far chance alone moves a ratio.
    pub noise: Option<f64>,
}

/// One measure for one participant.
pub struct Cell {
    /// Of all runs.
    pub summary: Summary,
    /// The base by this one; none for the base itself.
    pub ratio: Option<Ratio>,
}

impl<'a> Sheet<'a> {
    /// Of a case of these results.
    pub fn of(results: &Results, case: &'a Case) -> Sheet<'a> {
        let names = participants(results, case);
        // In a run with several variants the account of the process is that of all of them.
        let has_variants = names.iter().any(|name| name.contains(':'));
        let common = [
            ("cpu", "CPU time, all threads"),
            ("wall", "Wall time"),
            ("peak", "Peak of resident memory"),
        ];
        let common = if has_variants { &common[..0] } else { &common[..] };
        let common = common.iter().map(|(measure, title)| (measure.to_string(), title.to_string()));
        let own = case.figures.iter().map(|figure| (figure.key.clone(), figure.title.clone()));
        let columns = common
            .chain(own)
            .map(|(measure, title)| column(results, case, &names, measure, title))
            .filter(|column| column.cells.iter().any(Option::is_some))
            .collect();
        Sheet { case, names, columns }
    }

    /// The points of the distribution of the case's operation, if it has one: a column for each.
    pub fn latencies(&self, results: &Results) -> Vec<Column> {
        let Some(operation) = &self.case.operation else { return Vec::new() };
        let column = |(part, title): (&str, &str)| {
            column(
                results,
                self.case,
                &self.names,
                format!("{operation}_{part}_ns"),
                title.to_owned(),
            )
        };
        let columns = PERCENTILES.map(column).into_iter();
        columns.filter(|column| column.cells.iter().any(Option::is_some)).collect()
    }

    /// The measure that the case is about.
    pub fn primary(&self, results: &Results) -> Column {
        column(results, self.case, &self.names, self.case.primary.clone(), String::new())
    }
}

fn column(
    results: &Results,
    case: &Case,
    names: &[String],
    measure: String,
    title: String,
) -> Column {
    let ours = sample(results, case, base(case), None, &measure);
    let cell = |name: &String| {
        let theirs = sample(results, case, name, None, &measure);
        let ratio = if name == base(case) { None } else { Ratio::of(&ours, &theirs) };
        Some(Cell { summary: Summary::of(&theirs)?, ratio })
    };
    let cells = names.iter().map(cell).collect();
    let noise = noise(results, case, &measure);
    Column { measure, title, cells, noise }
}

impl Column {
    /// The largest median.
    pub fn largest(&self) -> f64 {
        self.cells.iter().flatten().map(|cell| cell.summary.median).fold(0.0, f64::max)
    }

    /// Whether more is better.
    pub fn more_is_better(&self) -> bool {
        matches!(quantity(&self.measure), Quantity::Rate | Quantity::Bandwidth)
    }

    /// How a ratio is to be read: whether the base is better, worse, or not surely either.
    pub fn standing(&self, ratio: &Ratio) -> Standing {
        if !ratio.is_beyond(self.noise.unwrap_or(0.0)) {
            return Standing::Even;
        }
        match (ratio.value < 1.0) != self.more_is_better() {
            true => Standing::Better,
            false => Standing::Worse,
        }
    }
}

/// What a ratio says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The base is better.
    Better,
    /// The interval reaches into the noise.
    Even,
    /// The base is worse.
    Worse,
}

/// The systems that have a column in the matrix of ratios: those that took part somewhere, without ourselves.
pub fn peers(results: &Results) -> Vec<&'static str> {
    let all = results.cases.iter().flat_map(|case| participants(results, case));
    let all: Vec<String> = all.collect();
    let took_part = |name: &str| all.iter().any(|participant| stands_for(participant) == name);
    let names = KNOWN.iter().map(|known| known.name);
    names.filter(|name| *name != OURS && *name != AGAIN && took_part(name)).collect()
}

/// The cell of a system in the matrix: the base by the system, in the measure that the case is about. Of several
/// variants the best one counts.
pub fn matrix_cell<'a>(names: &[String], column: &'a Column, system: &str) -> Option<&'a Cell> {
    let is_its = |name: &str| stands_for(name) == system && !name.starts_with(AGAIN);
    let cells = names.iter().zip(&column.cells).filter(|(name, _)| is_its(name));
    cells.filter_map(|(_, cell)| cell.as_ref()).min_by(|a, b| {
        let order = a.summary.median.total_cmp(&b.summary.median);
        if column.more_is_better() { order.reverse() } else { order }
    })
}
