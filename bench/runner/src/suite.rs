//! What is run: the cases of `bench/suite.toml` and the goals of `bench/goals.toml`.
//!
//! Both are data, so that a case or a goal can be added without understanding this program, and both are copied
//! into the results: a page that is made years later still knows what was compared.
//!
//! A **case** is a workload with parameters: what each system is told is equal but for what `extra` adds for one
//! system (such as in which kind of arena objects are made). It has two sizes, `quick` and `full`.
//!
//! A **goal** is a bound for a *measure*. With a peer it bounds the ratio of the medians, ours to the peer's;
//! without one it bounds our median itself, if `minus` names another measure, less the median of that one. Of `at_most`
//! and `at_least` there is exactly one.
//!
//! Who takes part is called by the name of a system, or by one that `also` gives to a system with other parameters.
//! Where one run has results for several *variants* (an array `rows` in the program's line), `SYSTEM:VARIANT` is one
//! of them.
//!
//! A **measure** is `wall`, `user`, `system`, `cpu` (user and system together) or `peak` (largest resident set), as the
//! kernel counts them; or a key of the line that the program prints (`a.0.b` is the key `b` of the first thing in the
//! array `a`; of `a|b` the first that is there counts).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::systems::{AGAIN, OURS};

/// A workload with its parameters, and who takes part.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// By which it is chosen on the command line; unique.
    pub name: String,
    /// What the programs call the workload.
    pub workload: String,
    /// For the page.
    pub title: String,
    /// What it does and what it is to show, for somebody who does not know it.
    pub about: String,
    /// Who takes part, as far as there is a program.
    pub systems: Vec<String>,
    /// Names under which a system takes part once more, with other parameters, and that system.
    #[serde(default)]
    pub also: BTreeMap<String, String>,
    /// Threads of the program, besides those of a collector.
    #[serde(default = "one")]
    pub threads: u64,
    /// Further parameters for one of those who take part.
    #[serde(default)]
    pub extra: BTreeMap<String, BTreeMap<String, String>>,
    /// spanheap takes the parameters as options of their own (`--requests 1000`), not with `--set`.
    #[serde(default)]
    pub options: bool,
    /// Peers are given the document of this workload, in a file.
    #[serde(default)]
    pub document: bool,
    /// The case is also run in 1.3, 1.5, 2 and 3 times the memory that its live objects need.
    #[serde(default)]
    pub curve: bool,
    /// Its runs have no checksum, since what they do depends on time.
    #[serde(default)]
    pub unchecked: bool,
    /// The operation whose latencies the programs print, if they do.
    #[serde(default)]
    pub operation: Option<String>,
    /// The measure that the case is about.
    #[serde(default = "cpu")]
    pub primary: String,
    /// Who is held against all others, if not `spanheap`.
    #[serde(default)]
    pub base: Option<String>,
    /// Measures that are shown besides what is common to all.
    #[serde(default)]
    pub figures: Vec<Figure>,
    /// The size for a look.
    pub quick: Size,
    /// The size for a result.
    pub full: Size,
}

fn one() -> u64 {
    1
}

fn cpu() -> String {
    "cpu".to_owned()
}

impl Case {
    /// The system of somebody who takes part: a name from `systems` or from `also`, or our second self.
    pub fn system_of<'a>(&'a self, name: &'a str) -> &'a str {
        match self.also.get(name) {
            Some(system) => system,
            None if name == AGAIN => OURS,
            None => name,
        }
    }

    /// Whether somebody takes part. A variant, which has a row of its own in the line of a system, does if the
    /// system does.
    pub fn has(&self, name: &str) -> bool {
        let name = name.split_once(':').map_or(name, |(system, _)| system);
        self.also.contains_key(name) || self.systems.iter().any(|system| system == name)
    }
}

/// How large a case is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Parameters of the workload.
    pub params: BTreeMap<String, serde_json::Value>,
    /// After so many seconds a run is killed.
    pub seconds: u64,
    /// The most launches that are worth their time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launches: Option<usize>,
}

/// A measure that is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Its name.
    pub key: String,
    /// What it is, for the page.
    pub title: String,
}

/// A bound for a measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// The case that it is about.
    pub case: String,
    /// What is bounded.
    pub measure: String,
    /// Whose measure it is, if it is not `spanheap`'s.
    #[serde(default)]
    pub ours: Option<String>,
    /// Who it is held against.
    #[serde(default)]
    pub peer: Option<String>,
    /// A measure of ours that is taken off.
    #[serde(default)]
    pub minus: Option<String>,
    /// The upper bound.
    #[serde(default)]
    pub at_most: Option<f64>,
    /// The lower bound.
    #[serde(default)]
    pub at_least: Option<f64>,
    /// In words, if the rest does not say it.
    #[serde(default)]
    pub note: Option<String>,
}

impl Goal {
    /// Whether a value keeps the bound.
    pub fn holds(&self, value: f64) -> bool {
        self.at_most.is_none_or(|bound| value <= bound)
            && self.at_least.is_none_or(|bound| value >= bound)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuiteFile {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoalsFile {
    goal: Vec<Goal>,
}

/// What is run and what is hoped for.
#[derive(Clone, Debug)]
pub struct Suite {
    /// In the order of the file.
    pub cases: Vec<Case>,
    /// In the order of the file.
    pub goals: Vec<Goal>,
}

impl Suite {
    /// Reads the two files in `folder`.
    ///
    /// # Errors
    /// When one is not there, is no such file, or contradicts itself or the other.
    pub fn load(folder: &Path) -> Result<Suite> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))
        };
        Suite::parse(&read("suite.toml")?, &read("goals.toml")?)
    }

    /// From the texts of the two files.
    ///
    /// # Errors
    /// As for [`Suite::load`].
    pub fn parse(suite: &str, goals: &str) -> Result<Suite> {
        let wrong = |file, error: toml::de::Error| Failure::new(format!("{file}: {error}"));
        let SuiteFile { case: cases } =
            toml::from_str(suite).map_err(|error| wrong("suite.toml", error))?;
        let GoalsFile { goal: goals } =
            toml::from_str(goals).map_err(|error| wrong("goals.toml", error))?;
        let suite = Suite { cases, goals };
        suite.check()?;
        Ok(suite)
    }

    fn check(&self) -> Result<()> {
        for (index, case) in self.cases.iter().enumerate() {
            if self.cases[..index].iter().any(|other| other.name == case.name) {
                return Err(Failure::new(format!("suite.toml: two cases are {:?}", case.name)));
            }
            let stranger = case.extra.keys().find(|name| !case.has(name));
            if let Some(name) = stranger {
                return Err(Failure::new(format!(
                    "suite.toml: {:?} has extra parameters for {name:?}, which takes no part",
                    case.name
                )));
            }
        }
        for goal in &self.goals {
            let wrong = |why: &str| {
                Err(Failure::new(format!("goals.toml: {} of {:?} {why}", goal.measure, goal.case)))
            };
            let Some(case) = self.cases.iter().find(|case| case.name == goal.case) else {
                return wrong("is about no case of suite.toml");
            };
            if goal.at_most.is_some() == goal.at_least.is_some() {
                return wrong("needs either `at_most` or `at_least`");
            }
            if goal.peer.is_some() && goal.minus.is_some() {
                return wrong("has both `peer` and `minus`");
            }
            if let Some(name) =
                [&goal.ours, &goal.peer].into_iter().flatten().find(|name| !case.has(name))
            {
                return wrong(&format!("is about {name:?}, which takes no part"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Suite;

    const CASE: &str = r#"
        [[case]]
        name = "trees"
        workload = "binary-trees"
        title = "Trees"
        about = "Trees."
        systems = ["spanheap", "go"]
        quick = { params = { depth = 10 }, seconds = 10 }
        full = { params = { depth = 20 }, seconds = 100 }
    "#;

    fn error_of(suite: &str, goals: &str) -> String {
        Suite::parse(suite, goals).expect_err("contradictory").to_string()
    }

    #[test]
    fn the_files_of_this_folder_agree() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let suite = Suite::load(&folder).expect("well-formed files");
        assert!(suite.cases.len() > 5 && suite.goals.len() > 5);
    }

    #[test]
    fn a_goal_names_a_case_and_one_bound() {
        let goal = |rest: &str| format!("[[goal]]\nmeasure = \"cpu\"\n{rest}");
        let good = goal("case = \"trees\"\npeer = \"go\"\nat_most = 0.5");
        let suite = Suite::parse(CASE, &good).expect("fine");
        assert!(suite.goals[0].holds(0.5) && !suite.goals[0].holds(0.51));
        for (rest, expected) in [
            ("case = \"lists\"\nat_most = 1.0", "is about no case"),
            ("case = \"trees\"", "either `at_most` or `at_least`"),
            ("case = \"trees\"\nat_most = 1.0\nat_least = 0.5", "either `at_most` or `at_least`"),
            ("case = \"trees\"\nat_most = 1.0\npeer = \"box\"", "takes no part"),
            ("case = \"trees\"\nat_most = 1.0\npeer = \"go\"\nminus = \"wall\"", "has both"),
        ] {
            let error = error_of(CASE, &goal(rest));
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_case_is_there_once_and_says_nothing_to_strangers() {
        let none = "goal = []";
        assert!(error_of(&format!("{CASE}{CASE}"), none).contains("two cases are \"trees\""));
        let stranger = CASE.replace("quick =", "extra = { box = { place = \"arena\" } }\nquick =");
        assert!(error_of(&stranger, none).contains("which takes no part"));
        assert!(error_of(&CASE.replace("title", "titel"), none).contains("titel"));
    }
}
