//! The systems that are compared, and how each is told what to do.
//!
//! | system | programs | memory limit |
//! |---|---|---|
//! | `spanheap` | `spanheap bench WORKLOAD --set key=value --json` | `--gc-percent off --limit bytes` |
//! | Rust without a collector, or with another one | `PROGRAM WORKLOAD key=value` | none: they take what they take |
//! | Go | the same | `GOGC=off GOMEMLIMIT=bytes` in its environment |
//! | C on libgc | the same | `GC_MAXIMUM_HEAP_SIZE=bytes` |
//!
//! Collectors get two processors: one for the program and one for themselves, which is what spanheap uses with one
//! thread. `spanheap-again` is `spanheap` under another name: what differs between these two is noise.

use std::path::PathBuf;

use crate::child::Invocation;
use crate::suite::{Case, Size};

/// The name of our own system.
pub const OURS: &str = "spanheap";
/// Ours a second time, to see what chance does.
pub const AGAIN: &str = "spanheap-again";

/// How a program is told what to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// As spanheap's own program.
    Spanheap,
    /// As a peer that cannot be limited.
    Peer,
    /// As a peer in Go.
    Go,
    /// As a peer on libgc.
    Libgc,
}

/// What is known about a system before it is built.
pub struct Known {
    /// Its name on the command line and in the files.
    pub name: &'static str,
    /// For the page.
    pub about: &'static str,
    /// How it is told.
    pub style: Style,
}

/// Every system that the runner knows, in the order of the page.
pub const KNOWN: [Known; 13] = [
    known(OURS, Style::Spanheap, "this library"),
    known(AGAIN, Style::Spanheap, "this library once more: the difference is noise"),
    known("go", Style::Go, "Go's own collector, GOMAXPROCS=2"),
    known("go-arena", Style::Go, "Go's arenas, an experiment (GOEXPERIMENT=arenas)"),
    known("libgc", Style::Libgc, "C on the collector of Boehm, Demers and Weiser, GC_MARKERS=2"),
    known("box", Style::Peer, "Rust's Box on the system's allocator; no cycles, no sharing"),
    known("box-mimalloc", Style::Peer, "Rust's Box on mimalloc; no cycles, no sharing"),
    known("rc", Style::Peer, "Rust's Rc: counts, one thread; cycles are never freed"),
    known("arc", Style::Peer, "Rust's Arc: atomic counts; cycles are never freed"),
    known("gc-arena", Style::Peer, "the crate gc-arena: mark and sweep in steps, one thread"),
    known("dumpster", Style::Peer, "the crate dumpster: counts, and a search for cycles"),
    known("dumpster-sync", Style::Peer, "the same crate for several threads"),
    known("bumpalo", Style::Peer, "the crate bumpalo: frees everything at once, or nothing"),
];

const fn known(name: &'static str, style: Style, about: &'static str) -> Known {
    Known { name, about, style }
}

/// What is known about the system of that name.
pub fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// The system that a participant belongs to. Some peers are built into our own program, where they take turns with us
/// in one process: these variants of ours are theirs. What only decodes is nobody's.
pub fn stands_for(participant: &str) -> &str {
    match participant.split_once(':') {
        Some((OURS | AGAIN, "bumpalo" | "bumpalo-new")) => "bumpalo",
        Some((OURS | AGAIN, "mimalloc")) => "box-mimalloc",
        Some((OURS | AGAIN, "box")) => "box",
        Some((OURS | AGAIN, "parse")) => "",
        Some((system, _)) => system,
        None => participant,
    }
}

/// Somebody who takes part, with a program that can be run.
#[derive(Clone, Debug)]
pub struct System {
    /// One of [`KNOWN`], or a name of its own in a case.
    pub name: String,
    /// How it is told.
    pub style: Style,
    /// What is run.
    pub program: PathBuf,
}

/// How much memory a run may use.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Setting {
    /// What the system takes by default.
    Default,
    /// A limit.
    Limit {
        /// As a multiple of what is alive.
        factor: f64,
        /// In bytes.
        bytes: u64,
    },
}

impl Setting {
    /// The name in files: nothing for the default.
    pub fn name(&self) -> String {
        match self {
            Setting::Default => String::new(),
            Setting::Limit { factor, .. } => format!("{factor}x"),
        }
    }
}

impl System {
    /// Whether the system can be told how much memory it may use.
    pub fn can_be_limited(&self) -> bool {
        self.style != Style::Peer
    }

    /// How to run `case` in one of its sizes. The parameters are in the order of their names, so that a line can
    /// be searched for.
    pub fn invocation(&self, case: &Case, size: &Size, setting: Setting) -> Invocation {
        // What is said once more to our second self is what is said to us.
        let name = if self.name == AGAIN { OURS } else { &self.name };
        let mut params: Vec<String> =
            size.params.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
        let extra = case.extra.get(name).into_iter().flatten();
        params.extend(extra.map(|(key, value)| format!("{key}={value}")));
        let (mut arguments, mut environment) = match self.style {
            Style::Spanheap => (spanheap_arguments(case, params), Vec::new()),
            Style::Go => (peer_arguments(case, params), vec![variable("GOMAXPROCS", "2")]),
            Style::Libgc => (peer_arguments(case, params), vec![variable("GC_MARKERS", "2")]),
            Style::Peer => (peer_arguments(case, params), Vec::new()),
        };
        if let Setting::Limit { bytes, .. } = setting {
            let bytes = bytes.to_string();
            match self.style {
                Style::Spanheap => {
                    arguments.extend(["--gc-percent", "off", "--limit", &bytes].map(str::to_owned));
                }
                Style::Go => {
                    environment.push(variable("GOGC", "off"));
                    environment.push(variable("GOMEMLIMIT", &bytes));
                }
                Style::Libgc => environment.push(variable("GC_MAXIMUM_HEAP_SIZE", &bytes)),
                Style::Peer => {}
            }
        }
        Invocation { program: self.program.clone(), arguments, environment }
    }
}

fn variable(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn spanheap_arguments(case: &Case, params: Vec<String>) -> Vec<String> {
    let mut arguments = vec!["bench".into(), case.workload.clone(), "--json".into()];
    if case.threads != 1 {
        arguments.extend(["--threads".into(), case.threads.to_string()]);
    }
    for param in params {
        match param.split_once('=') {
            Some((key, value)) if case.options => {
                arguments.extend([format!("--{}", key.replace('_', "-")), value.to_owned()]);
            }
            _ => arguments.extend(["--set".into(), param]),
        }
    }
    arguments
}

fn peer_arguments(case: &Case, params: Vec<String>) -> Vec<String> {
    let threads = (case.threads != 1).then(|| format!("threads={}", case.threads));
    [case.workload.clone()].into_iter().chain(params).chain(threads).collect()
}

/// A value without the quotes of a text.
fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{AGAIN, KNOWN, Setting, Style, System};
    use crate::suite::Suite;

    const SUITE: &str = r#"
        [[case]]
        name = "trees-2"
        workload = "binary-trees"
        title = "Trees"
        about = "Trees."
        systems = ["spanheap", "go", "box"]
        threads = 2
        extra = { spanheap = { place = "scoped" } }
        quick = { params = { depth = 10, kind = "dense" }, seconds = 10 }
        full = { params = { depth = 20 }, seconds = 100 }
    "#;

    fn line(name: &str, style: Style, setting: Setting) -> String {
        let suite = Suite::parse(SUITE, "goal = []").expect("well-formed");
        let system = System { name: name.into(), style, program: "/bin/p".into() };
        system.invocation(&suite.cases[0], &suite.cases[0].quick, setting).line()
    }

    #[test]
    fn each_style_has_its_words() {
        let ours = "p bench binary-trees --json --threads 2 --set depth=10 --set kind=dense --set place=scoped";
        assert_eq!(line("spanheap", Style::Spanheap, Setting::Default), ours);
        assert_eq!(line(AGAIN, Style::Spanheap, Setting::Default), ours);
        let peer = "p binary-trees depth=10 kind=dense threads=2";
        assert_eq!(line("box", Style::Peer, Setting::Default), peer);
        assert_eq!(line("go", Style::Go, Setting::Default), format!("GOMAXPROCS=2 {peer}"));
    }

    #[test]
    fn a_workload_may_have_options() {
        let suite =
            SUITE.replace("threads = 2", "options = true").replace("depth =", "phase_seconds =");
        let suite = Suite::parse(&suite, "goal = []").expect("well-formed");
        let system =
            System { name: "spanheap".into(), style: Style::Spanheap, program: "p".into() };
        assert_eq!(
            system.invocation(&suite.cases[0], &suite.cases[0].quick, Setting::Default).line(),
            "p bench binary-trees --json --kind dense --phase-seconds 10 --place scoped"
        );
    }

    #[test]
    fn a_limit_is_said_in_each_systems_way() {
        let limit = Setting::Limit { factor: 1.5, bytes: 1500 };
        assert_eq!(limit.name(), "1.5x");
        assert!(
            line("spanheap", Style::Spanheap, limit).ends_with(" --gc-percent off --limit 1500")
        );
        assert!(
            line("go", Style::Go, limit).starts_with("GOMAXPROCS=2 GOGC=off GOMEMLIMIT=1500 p ")
        );
        let libgc = line("libgc", Style::Libgc, limit);
        assert!(libgc.starts_with("GC_MARKERS=2 GC_MAXIMUM_HEAP_SIZE=1500 p "), "{libgc}");
    }

    #[test]
    fn no_two_systems_have_one_name() {
        for (index, known) in KNOWN.iter().enumerate() {
            assert!(KNOWN[..index].iter().all(|other| other.name != known.name), "{}", known.name);
        }
    }
}
