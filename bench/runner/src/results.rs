//! What was seen: every run with its account and its line, and everything that is needed to read them later.
//!
//! Nothing here is derived. Medians, ratios and verdicts are computed from this when a table or a page is made, so that
//! a mistake in them costs no new runs.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::suite::{Case, Goal};

/// Everything about one run of the suite.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Where and when.
    pub about: About,
    /// The systems that took part.
    pub systems: Vec<Described>,
    /// The systems that did not, and why.
    pub missing: Vec<Described>,
    /// What was run.
    pub cases: Vec<Case>,
    /// What was hoped for.
    pub goals: Vec<Goal>,
    /// In the order in which they ended.
    pub runs: Vec<Run>,
}

/// Where and when, and what with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct About {
    /// When it began, in UTC.
    pub date: String,
    /// What was typed.
    pub command: String,
    /// Whether the small sizes were run.
    pub quick: bool,
    /// How often each program was started.
    pub launches: usize,
    /// Name and text, for a list: commit, machine, system, compilers.
    pub facts: Vec<(String, String)>,
}

/// A name, and something about it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Described {
    /// The name.
    pub name: String,
    /// What is said about it.
    pub about: String,
}

/// One run of one program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The case.
    pub case: String,
    /// Who ran.
    pub system: String,
    /// The memory limit as a multiple of what is alive; none by default.
    pub factor: Option<f64>,
    /// The number of the launch, from 0.
    pub round: usize,
    /// What was started.
    pub command: String,
    /// Why there is no result.
    pub problem: Option<Problem>,
    /// Wall time in seconds.
    pub wall_s: f64,
    /// CPU time outside the kernel, in seconds.
    pub user_s: f64,
    /// CPU time in the kernel, in seconds.
    pub sys_s: f64,
    /// The largest resident set, in bytes.
    pub peak_rss_bytes: u64,
    /// The line that the program printed; null if there is none.
    pub report: Value,
}

/// Why a run has no result.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// The program said that it cannot do this. Anything else is a fault.
    pub declined: bool,
    /// In words.
    pub text: String,
}

impl Results {
    /// Reads what [`Results::save`] has written.
    ///
    /// # Errors
    /// When the file cannot be read, or is something else.
    pub fn load(path: &Path) -> Result<Results> {
        let wrong = |error: String| Failure::new(format!("{}: {error}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
    }

    /// Writes everything, with one run on each line, so that other programs can take the lines.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let wrong = |error: String| Failure::new(format!("{}: {error}", path.display()));
        let text = self.text().map_err(|error| wrong(error.to_string()))?;
        fs::write(path, text).map_err(|error| wrong(error.to_string()))
    }

    fn text(&self) -> serde_json::Result<String> {
        let Results { about, systems, missing, cases, goals, runs } = self;
        let lines =
            runs.iter().map(serde_json::to_string).collect::<serde_json::Result<Vec<_>>>()?;
        Ok(format!(
            "{{\"about\": {},\n\"systems\": {},\n\"missing\": {},\n\"cases\": {},\n\"goals\": {},\n\"runs\": [\n{}\n]}}\n",
            serde_json::to_string(about)?,
            serde_json::to_string(systems)?,
            serde_json::to_string(missing)?,
            serde_json::to_string(cases)?,
            serde_json::to_string(goals)?,
            lines.join(",\n"),
        ))
    }

    /// The case of that name.
    pub fn case(&self, name: &str) -> Option<&Case> {
        self.cases.iter().find(|case| case.name == name)
    }
}
