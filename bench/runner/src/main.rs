//! `spanheap-bench`: builds the systems that are here, runs them in turns, and writes results, a table and a page.
//!
//! See the library for how it is made. Here is only what is said to the user.

#![deny(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use spanheap_bench::build::{self, Folders, Missing};
use spanheap_bench::failure::{Failure, Result};
use spanheap_bench::options::Options;
use spanheap_bench::results::{About, Described, Results};
use spanheap_bench::rounds::{Plan, run_case};
use spanheap_bench::suite::{Case, Suite};
use spanheap_bench::systems::{AGAIN, KNOWN, OURS, System, find};
use spanheap_bench::{findings, machine, page, table};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well.
fn run(options: &Options) -> Result<bool> {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if let Some(file) = &options.from {
        let beside = file.parent().map_or_else(PathBuf::new, Path::to_owned);
        let results = Results::load(file)?;
        return finish(&results, options.out.as_ref().unwrap_or(&beside));
    }
    let suite = Suite::load(&bench)?;
    if options.list {
        list(&suite);
        return Ok(true);
    }
    let cases = chosen_cases(&suite, &options.workload)?;
    if let Some(name) = options.system.iter().find(|name| find(name).is_none()) {
        let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
        return Err(Failure::new(format!(
            "there is no system {name:?}; there are {}",
            names.join(", ")
        )));
    }
    let folders = Folders::of(&bench)?;
    let out = options.out.clone().unwrap_or_else(|| folders.root.join("bench/target/report"));
    fs::create_dir_all(&out)?;
    let out = out.canonicalize()?;
    let takes_part = |name: &str| {
        let is_meant = match (options.no_peers, options.system.is_empty()) {
            (true, _) => name == OURS,
            (false, true) => true,
            // The second self takes part wherever we do.
            (false, false) => options.system.iter().any(|system| system == name),
        };
        is_meant && name != AGAIN && cases.iter().any(|case| case.systems.iter().any(|s| s == name))
    };
    let (systems, missing) = match &options.programs {
        Some(folder) => build::built(folder, takes_part),
        None => {
            eprintln!("building");
            build::build(&folders, takes_part)?
        }
    };
    for Missing { name, why } in &missing {
        eprintln!("{name} takes no part: {why}");
    }
    let mut results = empty(options, &folders, &suite, &cases, &systems, &missing);
    measure(options, &cases, &systems, &out, &mut results)?;
    finish(&results, &out)
}

/// The cases that are named; all, if none is. A name that no case has may be that of a workload, for all its cases.
fn chosen_cases(suite: &Suite, names: &[String]) -> Result<Vec<Case>> {
    let is_case = |name: &String| suite.cases.iter().any(|case| case.name == *name);
    let is_meant = |case: &Case, name: &String| {
        case.name == *name || (case.workload == *name && !is_case(name))
    };
    let is_known = |name: &&String| suite.cases.iter().any(|case| is_meant(case, name));
    if let Some(name) = names.iter().find(|name| !is_known(name)) {
        let known: Vec<&str> = suite.cases.iter().map(|case| case.name.as_str()).collect();
        let known = known.join(", ");
        return Err(Failure::new(format!("there is no workload {name:?}; there are {known}")));
    }
    let wanted = |case: &&Case| names.is_empty() || names.iter().any(|name| is_meant(case, name));
    Ok(suite.cases.iter().filter(wanted).cloned().collect())
}

/// Results without runs.
fn empty(
    options: &Options,
    folders: &Folders,
    suite: &Suite,
    cases: &[Case],
    systems: &[System],
    missing: &[Missing],
) -> Results {
    // Nobody knows what they were built from.
    let given = options.programs.is_some();
    let given =
        given.then(|| ("programs".to_owned(), "given, and not built by this run".to_owned()));
    let about = About {
        date: machine::now(),
        command: command(std::env::args().skip(1)),
        quick: options.quick,
        launches: options.launches(),
        facts: machine::facts(&folders.root).into_iter().chain(given).collect(),
    };
    let described = |name: &str| Described {
        name: name.to_owned(),
        about: find(name).map_or(String::new(), |known| known.about.to_owned()),
    };
    let again = systems.iter().find(|system| system.name == OURS).map(|_| described(AGAIN));
    Results {
        about,
        systems: systems.iter().map(|system| described(&system.name)).chain(again).collect(),
        missing: missing
            .iter()
            .map(|missing| Described { name: missing.name.clone(), about: missing.why.clone() })
            .collect(),
        cases: cases.to_vec(),
        goals: suite.goals.clone(),
        runs: Vec::new(),
    }
}

/// What was typed, without the names of folders, which are of no use to others.
fn command(arguments: impl Iterator<Item = String>) -> String {
    let mut words = vec!["spanheap bench --peers".to_owned()];
    let mut is_folder = false;
    for argument in arguments {
        let names_folder = ["--out", "--programs"].iter().any(|name| argument.starts_with(name));
        if !names_folder && !is_folder {
            words.push(argument.clone());
        }
        is_folder = names_folder && !argument.contains('=');
    }
    words.join(" ")
}

/// Runs everything. What there is so far is saved after each case, so that nothing is lost when somebody has no more
/// patience.
fn measure(
    options: &Options,
    cases: &[Case],
    systems: &[System],
    out: &Path,
    results: &mut Results,
) -> Result<()> {
    let folder = out.join("files");
    fs::create_dir_all(&folder)?;
    let plan = Plan {
        systems,
        quick: options.quick,
        launches: options.launches(),
        curve_launches: options.curve_launches(),
        memory: options.memory << 20,
        folder: &folder,
        progress: &|line| eprintln!("{line}"),
    };
    for case in cases {
        run_case(&plan, case, results)?;
        results.save(&out.join("results.json"))?;
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Writes the table and the page, and says what is wrong. Whether nothing is.
fn finish(results: &Results, out: &Path) -> Result<bool> {
    let markdown = table::markdown(results);
    fs::create_dir_all(out)?;
    fs::write(out.join("table.md"), &markdown)?;
    fs::write(out.join("report.html"), page::html(results))?;
    print!("{markdown}");
    eprintln!("results.json, table.md and report.html are in {}", out.display());
    let faults = findings::faults(results);
    faults.iter().for_each(|fault| eprintln!("error: {fault}"));
    Ok(faults.is_empty())
}

fn list(suite: &Suite) {
    println!("workloads:");
    for case in &suite.cases {
        println!("  {:<20} {}", case.name, case.title);
    }
    println!("systems:");
    for known in &KNOWN {
        println!("  {:<20} {}", known.name, known.about);
    }
}

#[cfg(test)]
mod tests {
    use super::{Suite, chosen_cases, command};

    #[test]
    fn a_case_is_chosen_by_its_name_or_with_all_of_its_workload() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let suite = Suite::load(&folder).expect("well-formed files");
        let count = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            chosen_cases(&suite, &names)
                .map(|cases| cases.len())
                .map_err(|failure| failure.to_string())
        };
        assert_eq!(count(&[]), Ok(suite.cases.len()));
        assert_eq!(count(&["binary-trees"]), Ok(1));
        assert_eq!(count(&["marking", "lru"]), Ok(7));
        let error = count(&["binary-tree"]).expect_err("a typing error");
        assert!(
            error.starts_with("there is no workload \"binary-tree\"; there are binary-trees, ")
        );
    }

    #[test]
    fn folders_are_nobodys_business() {
        let typed = "--quick --out a/b --system go --programs=c --launches 3";
        let told = command(typed.split(' ').map(str::to_owned));
        assert_eq!(told, "spanheap bench --peers --quick --system go --launches 3");
    }
}
