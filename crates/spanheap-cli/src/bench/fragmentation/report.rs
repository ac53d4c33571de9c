//! What `fragmentation` found out, as one line of JSON or as two tables.

use serde::Serialize;
use serde_json::{Value, json};

use super::{BOUND, Case, Figures, Free, Options};
use crate::failure::Result;
use crate::output::{self, bytes};

/// Everything that is known after a run.
pub(super) struct Report<'a> {
    pub(super) options: &'a Options,
    pub(super) rows: &'a [Row],
    pub(super) peak_resident: u64,
}

/// One experiment. Sizes are bytes.
pub(super) struct Row {
    pub(super) case: Case,
    /// The size of the objects, and of those that the heap is refilled with.
    pub(super) slot: usize,
    pub(super) next: usize,
    /// The heap at its three moments.
    pub(super) filled: Figures,
    pub(super) freed: Figures,
    pub(super) refilled: Figures,
}

#[derive(Serialize)]
struct Moment {
    live_bytes: u64,
    resident_bytes: u64,
    ready_bytes: u64,
    pages_bytes: u64,
    free_slots: u64,
    resident_over_live: f64,
    ready_over_live: f64,
    pages_over_live: f64,
}

impl Figures {
    fn over_live(&self, bytes: u64) -> f64 {
        bytes as f64 / self.live.max(1) as f64
    }

    /// The ratios: resident, ready, and pages over live.
    fn ratios(&self) -> [f64; 3] {
        [self.resident, self.ready, self.pages].map(|bytes| self.over_live(bytes))
    }

    fn moment(&self) -> Moment {
        let [resident_over_live, ready_over_live, pages_over_live] = self.ratios();
        Moment {
            live_bytes: self.live,
            resident_bytes: self.resident,
            ready_bytes: self.ready,
            pages_bytes: self.pages,
            free_slots: self.free_slots,
            resident_over_live,
            ready_over_live,
            pages_over_live,
        }
    }
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Case::Scattered => "scattered",
            Case::Spans => "spans",
        }
    }
}

impl Free {
    fn name(self) -> &'static str {
        match self {
            Free::Alternating => "alternating",
            Free::Random => "random",
        }
    }
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "case": self.case.name(),
            "slot_bytes": self.slot,
            "next_slot_bytes": self.next,
            "filled": self.filled.moment(),
            "freed": self.freed.moment(),
            "refilled": self.refilled.moment(),
        })
    }

    fn print(&self) -> Result<()> {
        let [freed, ready, pages] = self.freed.ratios();
        let [again, ready_again, pages_again] = self.refilled.ratios();
        output::line(&format!(
            "{:>7} {:>9} {:>11} {freed:>8.2} {ready:>8.2} {pages:>8.2}  {:>7} {again:>8.2} \
             {ready_again:>8.2} {pages_again:>8.2}",
            self.slot,
            bytes(self.freed.live),
            self.freed.free_slots,
            self.next,
        ))
    }
}

impl Report<'_> {
    fn of(&self, case: Case) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.case == case)
    }

    /// The row of a case with the largest resident set over live bytes when it was refilled.
    fn worst(&self, case: Case) -> Option<&Row> {
        let ratio = |row: &Row| row.refilled.ratios()[0];
        self.of(case).max_by(|a, b| ratio(a).total_cmp(&ratio(b)))
    }

    fn worst_json(&self, case: Case) -> Value {
        self.worst(case).map_or(Value::Null, |row| {
            json!({
                "slot_bytes": row.slot,
                "resident_over_live": row.refilled.ratios()[0],
                "within_bound": row.refilled.ratios()[0] < BOUND,
            })
        })
    }

    /// The result as one line of JSON.
    pub(super) fn json(&self) -> Result<String> {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let value = json!({
            "workload": "fragmentation",
            "subject": "spanheap",
            "params": {
                "fill": self.options.fill,
                "free": self.options.free.name(),
                "seed": self.options.seed,
            },
            "peak_rss_bytes": self.peak_resident,
            "bound": BOUND,
            "worst": {
                "scattered": self.worst_json(Case::Scattered),
                "spans": self.worst_json(Case::Spans),
            },
            "rows": rows,
        });
        output::json(&value)
    }

    /// Prints the result for a person.
    pub(super) fn print(&self) -> Result<()> {
        let fill = bytes(self.options.fill);
        let which = match self.options.free {
            Free::Alternating => "every second object".to_owned(),
            Free::Random => format!("objects at random, seed {}", self.options.seed),
        };
        self.print_case(Case::Scattered, &format!("scattered: {which} of {fill} freed"))?;
        output::line("")?;
        self.print_case(
            Case::Spans,
            &format!("spans: every second run of whole spans of {fill} freed"),
        )?;
        output::line("")?;
        for case in [Case::Scattered, Case::Spans] {
            let Some(row) = self.worst(case) else { continue };
            let ratio = row.refilled.ratios()[0];
            let verdict = match case {
                Case::Scattered => String::new(),
                Case::Spans if ratio < BOUND => format!(", within the bound of {BOUND}"),
                Case::Spans => format!(", OVER the bound of {BOUND}"),
            };
            let (case, slot) = (case.name(), row.slot);
            output::line(&format!(
                "worst refilled  {case:<9}  {ratio:.2} resident over live, at {slot} bytes{verdict}"
            ))?;
        }
        Ok(())
    }

    fn print_case(&self, case: Case, title: &str) -> Result<()> {
        output::line(title)?;
        output::line(&format!(
            "{:>7} {:>47}  {:>34}",
            "", "freed, over live", "refilled, over live"
        ))?;
        output::line(&format!(
            "{:>7} {:>9} {:>11} {:>8} {:>8} {:>8}  {:>7} {:>8} {:>8} {:>8}",
            "slot",
            "live",
            "free slots",
            "resident",
            "ready",
            "pages",
            "next",
            "resident",
            "ready",
            "pages"
        ))?;
        self.of(case).try_for_each(Row::print)
    }
}
