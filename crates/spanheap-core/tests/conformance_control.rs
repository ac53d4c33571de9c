//! Tests of the conformance runner itself: does it see a wrong answer, wherever it stands?
//!
//! A runner that compares too little, or steps over what it does not know, looks exactly like an
//! implementation without faults. So every value under every `expect` of a few cases of each suite
//! is made wrong in turn, inputs get fields and operations that do not exist, and each time the
//! case must fail.

#[path = "conformance/suite/mod.rs"]
mod suite;

use serde_json::{Value, json};
use std::path::Path;
use suite::arguments::{Mode, Selection, parse};
use suite::{Outcome, RUN, WAITING};

fn load(name: &str) -> Value {
    let path = suite::own_directory().join(format!("{name}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("the file is JSON")
}

/// The suite with only one of its cases.
fn with_one_case(file: &Value, case: Value) -> Value {
    let mut file = file.clone();
    file["cases"] = json!([case]);
    file
}

/// Cases that together have every kind and every operation of a suite, and are short: for each
/// kind, and for each name of an operation, the shortest case that has it.
fn typical_cases(file: &Value) -> Vec<Value> {
    let mut shortest: std::collections::BTreeMap<String, &Value> = Default::default();
    for case in file["cases"].as_array().expect("a list of cases") {
        let mut features = vec![format!("kind {}", case["input"]["kind"])];
        for op in case["input"]["ops"].as_array().into_iter().flatten() {
            features.push(format!("op {}", op[0]));
        }
        for feature in features {
            let best = shortest.entry(feature).or_insert(case);
            if case.to_string().len() < best.to_string().len() {
                *best = case;
            }
        }
    }
    shortest.into_values().cloned().collect()
}

/// The paths of all values that contain no others, and of all empty lists.
fn leaves(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Array(list) if !list.is_empty() => {
            for (i, value) in list.iter().enumerate() {
                leaves(value, format!("{path}/{i}"), found);
            }
        }
        Value::Object(object) => {
            for (key, value) in object {
                leaves(value, format!("{path}/{key}"), found);
            }
        }
        _ => found.push(path),
    }
}

/// Another value of the same kind.
fn wrong(value: &Value) -> Value {
    match value {
        Value::Null => json!(0),
        Value::Bool(flag) => json!(!flag),
        Value::Number(number) => match number.as_u64() {
            Some(number) => json!(number ^ 1),
            None => json!(number.as_f64().expect("a number") + 0.01),
        },
        Value::String(text) => json!(format!("{text}0")),
        Value::Array(list) if list.is_empty() => json!([[0, 1]]),
        other => panic!("{other} has no wrong counterpart"),
    }
}

fn failures(name: &str, file: &Value) -> Vec<String> {
    match suite::replay(name, file) {
        Outcome::Ran { failures, .. } => failures,
        Outcome::Waiting { reason, .. } => panic!("{name} is waiting: {reason}"),
        Outcome::Refused(failure) => vec![failure],
    }
}

#[test]
fn every_wrong_expectation_is_a_failure() {
    for (name, _) in RUN {
        let file = load(name);
        for case in typical_cases(&file) {
            assert_eq!(failures(name, &with_one_case(&file, case.clone())), [""; 0], "{name}");
            let mut paths = Vec::new();
            leaves(&case["expect"], "/expect".to_string(), &mut paths);
            assert!(!paths.is_empty(), "{name}: nothing is expected");
            // Long lists of equal things are thinned out.
            let step = paths.len().div_ceil(40);
            for path in paths.iter().step_by(step) {
                let mut broken = case.clone();
                let value = broken.pointer_mut(path).expect("the path was found in this case");
                *value = wrong(value);
                let failures = failures(name, &with_one_case(&file, broken));
                assert_eq!(failures.len(), 1, "{name}, {}: {path} is not compared", case["name"]);
            }
        }
    }
}

#[test]
fn a_case_that_asks_for_something_unknown_is_a_failure() {
    for (name, _) in RUN {
        let file = load(name);
        for case in typical_cases(&file) {
            let fails = |what: &str, change: &dyn Fn(&mut Value)| {
                let mut broken = case.clone();
                change(&mut broken);
                let failures = failures(name, &with_one_case(&file, broken));
                assert_eq!(failures.len(), 1, "{name}, {}: {what} is accepted", case["name"]);
            };
            fails("a field of the case", &|case| case["flavour"] = json!(1));
            fails("a field of the input", &|case| case["input"]["flavour"] = json!(1));
            fails("a part of the answer", &|case| match &mut case["expect"] {
                Value::Array(parts) => parts.push(json!(1)),
                fields => fields["flavour"] = json!(1),
            });
            fails("an origin", &|case| case["origin"] = json!("hearsay"));
            if case["input"].get("kind").is_some() {
                fails("a kind", &|case| case["input"]["kind"] = json!("other"));
            }
            if case["input"]["ops"].as_array().is_some_and(|ops| !ops.is_empty()) {
                fails("an operation", &|case| case["input"]["ops"][0][0] = json!("other"));
                fails("an argument", &|case| {
                    let op = case["input"]["ops"][0].as_array_mut().expect("an operation");
                    op.push(json!(1));
                });
            }
        }
    }
}

/// The rules of `pacer` say again what the figures beside them say, so they would not be missed if
/// nobody judged them.
#[test]
fn a_rule_that_does_not_hold_is_a_failure() {
    let file = load("pacer");
    let mut rules = 0;
    for case in file["cases"].as_array().expect("a list of cases") {
        for index in 0..case["expect"]["rules"].as_array().expect("a list of rules").len() {
            let mut broken = case.clone();
            let rule = &mut broken["expect"]["rules"][index];
            let fields = rule.as_object_mut().expect("a rule");
            for (name, value) in
                [("range", json!([2e18, 3e18])), ("less_than", json!(0)), ("equals", json!(-1))]
            {
                fields.entry(name).and_modify(|field| *field = value);
            }
            fields.entry("target").and_modify(|field| *field = json!(1e18));
            let failures = failures("pacer", &with_one_case(&file, broken));
            assert_eq!(failures.len(), 1, "{}, rule {index} is not judged", case["name"]);
            rules += 1;
        }
    }
    assert!(rules > 30, "{rules} rules were tried");
}

#[test]
fn a_file_that_is_no_known_suite_is_refused() {
    let file = load("find_bit_range64");
    let refused = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut broken = file.clone();
        change(&mut broken);
        matches!(suite::replay(name, &broken), Outcome::Refused(_))
    };
    assert!(!refused("find_bit_range64", &|_| {}));
    assert!(refused("another_name", &|file| file["suite"] = json!("another_name")));
    assert!(refused("find_bit_range64", &|file| file["suite"] = json!("another_name")));
    assert!(refused("find_bit_range64", &|file| file["flavour"] = json!(1)));
    assert!(refused("find_bit_range64", &|file| file["cases"] = json!([])));
    // A suite that is waiting is read as far as its frame.
    let (waiting, _) = WAITING[0];
    assert!(matches!(suite::replay(waiting, &load(waiting)), Outcome::Waiting { .. }));
}

#[test]
fn two_cases_of_one_name_are_a_failure() {
    let mut file = load("find_bit_range64");
    let case = file["cases"][0].clone();
    file["cases"] = json!([case, case]);
    assert_eq!(failures("find_bit_range64", &file).len(), 1);
}

#[test]
fn every_suite_that_is_kept_here_is_run_or_waits_and_none_does_both() {
    let mut known: Vec<&str> = RUN.iter().map(|(name, _)| *name).collect();
    known.extend(WAITING.iter().map(|(name, _)| *name));
    known.sort();
    let mut kept: Vec<String> = std::fs::read_dir(suite::own_directory())
        .expect("the cases are kept here")
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    kept.sort();
    assert_eq!(known, kept);
}

#[test]
fn a_directory_without_suites_does_not_pass() {
    let all = Selection::default();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let report = suite::replay_directory(&sources, &all);
    assert!(!report.holds());
    assert!(report.to_string().contains("test result: FAILED"), "{report}");
    assert!(!suite::replay_directory(&sources.join("nowhere"), &all).holds());
    assert!(suite::directory().is_dir());
}

#[test]
fn the_command_line_selects_suites() {
    let arguments = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
    let Mode::Run(selection) =
        parse(&arguments(&["cache", "--skip", "flush", "--format", "terse"]))
    else {
        panic!("nothing was to be listed");
    };
    assert!(selection.takes("page_cache_alloc"));
    assert!(!selection.takes("page_cache_flush"));
    assert!(!selection.takes("size_classes"));
    assert!(matches!(parse(&arguments(&["--list"])), Mode::List));
    let Mode::Run(exact) = parse(&arguments(&["--exact", "size_classes"])) else { panic!() };
    assert!(exact.takes("size_classes") && !exact.takes("classes"));

    let report = suite::replay_directory(&suite::own_directory(), &exact);
    let text = report.to_string();
    assert!(text.contains("1 suites passed, 0 failed, 0 waiting"), "{text}");
    assert!(text.contains("test result: ok. 50 passed; 0 failed; 0 ignored"), "{text}");
}
