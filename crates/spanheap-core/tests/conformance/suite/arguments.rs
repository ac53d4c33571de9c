//! The part of libtest's command line that makes sense here: filters, `--skip`, `--exact`,
//! `--list`.
//!
//! `cargo test` passes the same arguments to every test program, so unknown options are accepted.

/// What to do.
pub(crate) enum Mode {
    /// Name the suites.
    List,
    /// Replay those that are selected.
    Run(Selection),
}

/// Which suites were asked for.
#[derive(Default)]
pub(crate) struct Selection {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    /// `--ignored` asks for tests that are normally left out, and there are none.
    nothing: bool,
}

impl Selection {
    /// Whether the suite is to be replayed.
    pub(crate) fn takes(&self, suite: &str) -> bool {
        let matches = |pattern: &String| {
            if self.exact { suite == pattern } else { suite.contains(pattern.as_str()) }
        };
        !self.nothing
            && (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skips.iter().any(matches)
    }
}

/// Options of libtest that are followed by a value.
const WITH_VALUE: [&str; 6] =
    ["--test-threads", "--format", "--color", "--logfile", "--shuffle-seed", "-Z"];

/// Reads a command line without the program's name.
pub(crate) fn parse(arguments: &[String]) -> Mode {
    let mut selection = Selection::default();
    let mut list = false;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--list" => list = true,
            "--exact" => selection.exact = true,
            "--ignored" => selection.nothing = true,
            "--skip" => selection.skips.extend(rest.next().cloned()),
            option if WITH_VALUE.contains(&option) => drop(rest.next()),
            option if option.starts_with("--skip=") => {
                selection.skips.push(option["--skip=".len()..].to_string());
            }
            option if option.starts_with('-') => {}
            filter => selection.filters.push(filter.to_string()),
        }
    }
    if list { Mode::List } else { Mode::Run(selection) }
}
