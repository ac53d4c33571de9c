//! Programs that are shell scripts, and a suite of one case in which they take part.
//!
//! Tests take turns. A script that is being written cannot be started, and a process that another test starts at
//! that moment has the file open for a while: until it has become another program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use spanheap_bench::results::{About, Described, Results};
use spanheap_bench::rounds::{Plan, run_case};
use spanheap_bench::suite::Suite;
use spanheap_bench::systems::{Style, System};

/// Held by the test whose turn it is.
static TURN: Mutex<()> = Mutex::new(());

/// The programs of one test, in a folder of its own, which goes with it.
pub struct Fakes {
    folder: PathBuf,
    systems: Vec<System>,
    _turn: MutexGuard<'static, ()>,
    /// Until a run is killed.
    pub seconds: u64,
    /// Resident bytes until a run is killed.
    pub memory: u64,
    /// Launches for each point of the curve.
    pub curve_launches: usize,
    /// Whether the case has a document.
    pub document: bool,
    /// A line of the case that says who is held against the others, or nothing.
    pub base: &'static str,
    /// More about the size of the case.
    pub size: &'static str,
}

impl Drop for Fakes {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Fakes {
    pub fn new(test: &str) -> Fakes {
        let name = format!("spanheap-bench-{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder for temporary files");
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Fakes {
            folder,
            systems: Vec::new(),
            _turn: turn,
            seconds: 3600,
            memory: 1 << 40,
            curve_launches: 0,
            document: false,
            base: "",
            size: "",
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program that prints one line.
    pub fn add(&mut self, name: &str, style: Style, line: &str) {
        self.script(name, style, &format!("echo '{line}'"));
    }

    /// A program that does what the script says.
    pub fn script(&mut self, name: &str, style: Style, script: &str) {
        let program = self.folder.join(name);
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a folder of ours");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a file of ours");
        self.systems.push(System { name: name.to_owned(), style, program });
    }

    /// Runs all programs in one case.
    pub fn run(&self, goals: &str, launches: usize) -> Results {
        let names: Vec<&str> = self.systems.iter().map(|system| system.name.as_str()).collect();
        let suite = format!(
            r#"
            [[case]]
            name = "work"
            workload = "work"
            title = "Work & <play>"
            about = "Nothing is done."
            systems = {names:?}
            operation = "op"
            curve = {1}
            document = {2}
            {3}
            figures = [{{ key = "cost_ns", title = "Cost" }}, {{ key = "ops_per_s", title = "Rate" }}]
            quick = {{ params = {{ size = 1 }}, seconds = {0}{4} }}
            full = {{ params = {{ size = 2 }}, seconds = {0}{4} }}
            "#,
            self.seconds,
            self.curve_launches > 0,
            self.document,
            self.base,
            self.size,
        );
        let Suite { cases, goals } = Suite::parse(&suite, goals).expect("well-formed");
        let described =
            |system: &System| Described { name: system.name.clone(), about: "a script".to_owned() };
        let mut results = Results {
            about: About { date: "2000-01-01 00:00".into(), launches, ..About::default() },
            systems: self.systems.iter().map(described).collect(),
            missing: Vec::new(),
            cases: cases.clone(),
            goals,
            runs: Vec::new(),
        };
        let plan = Plan {
            systems: &self.systems,
            quick: false,
            launches,
            curve_launches: self.curve_launches,
            memory: self.memory,
            folder: &self.folder,
            progress: &|_| {},
        };
        run_case(&plan, &cases[0], &mut results).expect("scripts can be run");
        results
    }
}
