//! The conformance runner: reads suites, runs every case, compares, reports.
//!
//! A suite is a function from the `input` of a case to what the implementation answers, in the form
//! of the case's `expect`. The runner compares the two as whole values: so everything under
//! `expect` is compared, and a field that the implementation does not produce is a difference like
//! any other.
//!
//! What it does not know is a failure: a file that is no known suite, a field outside the format,
//! an operation, a kind. What it knows and cannot run yet is in [`WAITING`], by name and with the
//! reason.

pub(crate) mod arguments;
mod bitmaps;
mod histogram;
mod json;
mod kernels;
mod pacing;
mod page_alloc;
mod ranges;
mod scavenging;
mod simulation;
mod sizes;

use arguments::Selection;
use json::{Failure, exactly, list, text};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// From the `input` of a case to its `expect`.
type Suite = fn(&Value) -> Result<Value, Failure>;

/// The suites that are replayed.
pub(crate) const RUN: &[(&str, Suite)] = &[
    ("addr_range", ranges::one),
    ("addr_ranges_find_succ", ranges::find_succ),
    ("addr_ranges_script", ranges::script),
    ("fill_aligned", scavenging::fill_aligned),
    ("filter_nil", kernels::filter_nil),
    ("find_bit_range64", bitmaps::find_bit_range64),
    ("find_scavenge_candidate", scavenging::find_candidate),
    ("gc_cpu_limiter", pacing::limiter),
    ("heap_goal", pacing::heap_goal),
    ("idle_mark_workers", pacing::idle_workers),
    ("mark_workers", pacing::mark_workers),
    ("pacer", simulation::run),
    ("pacer_trace", pacing::trace),
    ("page_alloc_alloc", page_alloc::script),
    ("page_alloc_exhaust", page_alloc::script),
    ("page_alloc_free", page_alloc::script),
    ("page_alloc_grow", page_alloc::script),
    ("page_alloc_mixed", page_alloc::script),
    ("page_alloc_scavenge", page_alloc::script),
    ("page_alloc_to_cache", page_alloc::script),
    ("page_cache_alloc", page_alloc::cache_alloc),
    ("page_cache_flush", page_alloc::script),
    ("palloc_bits_find", bitmaps::find),
    ("palloc_bits_ops", bitmaps::ops),
    ("palloc_bits_summarize", bitmaps::summarize),
    ("parse_byte_count", pacing::parse_byte_count),
    ("pi_controller", scavenging::pi_controller),
    ("round_up_size", sizes::round_up_size),
    ("scan_span_packed", kernels::scan),
    ("scav_chunk_pack", scavenging::pack),
    ("scavenge_index", scavenging::index),
    ("scavenger", scavenging::scavenger),
    ("size_classes", sizes::classes),
    ("summary_merge", bitmaps::merge),
    ("time_histogram", histogram::time),
];

/// From `expect` and the whole answer to the parts of it that are asked for.
type Asked = fn(&Value, Value) -> Value;

/// The suites whose cases say only in `expect` which parts of the answer are asked for.
const ASKED_FOR: &[(&str, Asked)] = &[
    ("pacer", simulation::judge_rules),
    ("pacer_trace", pacing::asked_steps),
    ("scavenge_index", scavenging::asked_chunks),
];

/// The suites that nothing here can answer yet, with what they wait for.
pub(crate) const WAITING: &[(&str, &str)] =
    &[("heap_profile", "the heap profile does not exist yet")];

/// The directory to replay: the one that is asked for, else the one beside the workspace, else
/// ours.
pub(crate) fn directory() -> PathBuf {
    if let Some(asked) = std::env::var_os("SPANHEAP_CONFORMANCE_DIR") {
        return asked.into();
    }
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = package.join("../../../shared/conformance");
    if beside.is_dir() { beside } else { own_directory() }
}

/// The cases that are kept with the sources.
pub(crate) fn own_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/data")
}

/// What became of one file.
pub(crate) enum Outcome {
    /// Its cases were run; the failures say which ones do not hold, and how.
    Ran { cases: usize, failures: Vec<String> },
    /// Its subject does not exist yet.
    Waiting { cases: usize, reason: &'static str },
    /// It could not be read, or is not a suite that is known.
    Refused(Failure),
}

/// What became of all files of a directory.
pub(crate) struct Report {
    directory: PathBuf,
    suites: Vec<(String, Outcome)>,
    filtered_out: usize,
    /// The directory itself could not be read, or has no suite at all.
    failure: Option<Failure>,
}

/// Replays every `*.json` of the directory that is selected.
pub(crate) fn replay_directory(directory: &Path, selection: &Selection) -> Report {
    let mut report = Report {
        directory: directory.to_path_buf(),
        suites: Vec::new(),
        filtered_out: 0,
        failure: None,
    };
    let files = match suite_files(directory) {
        Ok(files) => files,
        Err(failure) => {
            report.failure = Some(failure);
            return report;
        }
    };
    for (name, path) in files {
        if selection.takes(&name) {
            let outcome = replay_file(&name, &path);
            report.suites.push((name, outcome));
        } else {
            report.filtered_out += 1;
        }
    }
    report
}

/// The suites of a directory by name, in the order of their names.
fn suite_files(directory: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
    let broken = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(broken)? {
        let path = entry.map_err(broken)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            files.push((name, path));
        }
    }
    if files.is_empty() {
        return Err(format!("{}: no suite is here", directory.display()));
    }
    files.sort();
    Ok(files)
}

fn replay_file(name: &str, path: &Path) -> Outcome {
    let file = std::fs::read(path)
        .map_err(|error| error.to_string())
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
    match file {
        Ok(file) => replay(name, &file),
        Err(failure) => Outcome::Refused(failure),
    }
}

/// Replays a suite: the contents of the file with this name.
pub(crate) fn replay(name: &str, file: &Value) -> Outcome {
    let cases = match cases(name, file) {
        Ok(cases) => cases,
        Err(failure) => return Outcome::Refused(failure),
    };
    if let Some((_, reason)) = WAITING.iter().find(|(known, _)| *known == name) {
        return Outcome::Waiting { cases: cases.len(), reason };
    }
    let Some((_, suite)) = RUN.iter().find(|(known, _)| *known == name) else {
        return Outcome::Refused("this suite is not known".to_string());
    };
    let asked = ASKED_FOR.iter().find(|(known, _)| *known == name).map(|(_, asked)| *asked);
    let mut seen = BTreeSet::new();
    let replay = |case| replay_case(*suite, asked, case, &mut seen);
    let failures = cases.iter().map(replay).filter_map(Result::err);
    Outcome::Ran { cases: cases.len(), failures: failures.collect() }
}

/// The cases of a file, whose frame must be right.
fn cases<'a>(name: &str, file: &'a Value) -> Result<&'a Vec<Value>, Failure> {
    let [suite, source, notes, cases] = exactly(file, ["suite", "source", "notes", "cases"])?;
    if text(suite)? != name {
        return Err(format!("the file says that it is {suite}"));
    }
    text(source)?;
    for note in list(notes)? {
        text(note)?;
    }
    let cases = list(cases)?;
    if cases.is_empty() { Err("the suite has no cases".to_string()) } else { Ok(cases) }
}

/// Runs one case; an error says which and why. Names are unique within a suite.
fn replay_case(
    suite: Suite,
    asked: Option<Asked>,
    case: &Value,
    seen: &mut BTreeSet<String>,
) -> Result<(), Failure> {
    let [name, origin, input, expect] = exactly(case, ["name", "origin", "input", "expect"])?;
    let name = text(name)?;
    let failed = |why: Failure| format!("{name}: {why}");
    if !["table", "generated"].contains(&text(origin)?) {
        return Err(failed(format!("unknown origin {origin}")));
    }
    if !seen.insert(name.to_string()) {
        return Err(failed("two cases have this name".to_string()));
    }
    let answer = catch_unwind(AssertUnwindSafe(|| suite(input)))
        .map_err(|panic| failed(format!("panic: {}", panic_message(&*panic))))?
        .map_err(failed)?;
    let answer = match asked {
        Some(asked) => asked(expect, answer),
        None => answer,
    };
    match difference(expect, &answer, "expect") {
        None => Ok(()),
        Some(difference) => Err(failed(difference)),
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or(panic.downcast_ref::<&str>().copied()).unwrap_or("with a value that is no text")
}

/// The first place where two values differ. A whole number may stand where a float is meant.
fn difference(expect: &Value, answer: &Value, path: &str) -> Option<String> {
    match (expect, answer) {
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(i, (a, b))| difference(a, b, &format!("{path}[{i}]")))
        }
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            let mut pairs = a.iter().zip(b.values());
            pairs.find_map(|((key, a), b)| difference(a, b, &format!("{path}.{key}")))
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() != b.is_f64() => {
            (a.as_f64() != b.as_f64()).then(|| format!("{path} is {answer}, must be {expect}"))
        }
        _ => (expect != answer).then(|| format!("{path} is {answer}, must be {expect}")),
    }
}

impl Report {
    /// Whether every case of every suite that is not waiting holds, and nothing unknown was met.
    pub(crate) fn holds(&self) -> bool {
        self.failure.is_none() && self.failed_suites() == 0
    }

    fn failed_suites(&self) -> usize {
        self.suites.iter().filter(|(_, outcome)| !outcome.holds()).count()
    }

    fn waiting_suites(&self) -> usize {
        let waiting = |outcome: &Outcome| matches!(outcome, Outcome::Waiting { .. });
        self.suites.iter().filter(|(_, outcome)| waiting(outcome)).count()
    }
}

impl Outcome {
    /// Whether nothing is wrong.
    pub(crate) fn holds(&self) -> bool {
        match self {
            Outcome::Ran { failures, .. } => failures.is_empty(),
            Outcome::Waiting { .. } => true,
            Outcome::Refused(_) => false,
        }
    }

    /// Cases that hold, and cases that do not; a file that was refused counts as one that does not.
    fn count(&self) -> (usize, usize) {
        match self {
            Outcome::Ran { cases, failures } => (cases - failures.len(), failures.len()),
            Outcome::Waiting { .. } => (0, 0),
            Outcome::Refused(_) => (0, 1),
        }
    }
}

/// Failures of a suite that are printed; the others are only counted.
const SHOWN_FAILURES: usize = 5;

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Ran { cases, failures } if failures.is_empty() => {
                write!(f, "{cases:>5} of {cases:>5} cases hold")
            }
            Outcome::Ran { cases, failures } => {
                write!(f, "{:>5} of {cases:>5} cases hold  FAILED", cases - failures.len())?;
                for failure in failures.iter().take(SHOWN_FAILURES) {
                    write!(f, "\n      {failure}")?;
                }
                match failures.len().saturating_sub(SHOWN_FAILURES) {
                    0 => Ok(()),
                    more => write!(f, "\n      and {more} more"),
                }
            }
            Outcome::Waiting { cases, reason } => write!(f, "waiting: {reason} ({cases} cases)"),
            Outcome::Refused(failure) => write!(f, "FAILED: {failure}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nconformance cases of {}", self.directory.display())?;
        for (name, outcome) in &self.suites {
            writeln!(f, "  {name:<24} {outcome}")?;
        }
        if let Some(failure) = &self.failure {
            writeln!(f, "  {failure}")?;
        }
        let (failed, waiting) = (self.failed_suites(), self.waiting_suites());
        let passed = self.suites.len() - failed - waiting;
        writeln!(f, "{passed} suites passed, {failed} failed, {waiting} waiting")?;

        let counts = self.suites.iter().map(|(_, outcome)| outcome.count());
        let (hold, fail) = counts.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        let fail = fail + usize::from(self.failure.is_some());
        let word = if self.holds() { "ok" } else { "FAILED" };
        writeln!(
            f,
            "\ntest result: {word}. {hold} passed; {fail} failed; {waiting} ignored; 0 measured; \
             {} filtered out\n",
            self.filtered_out,
        )
    }
}
