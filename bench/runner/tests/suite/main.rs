//! The runner with programs that behave, and with programs that do not: crash, hang, differ, decline, talk nonsense.
//!
//! The programs are shell scripts, which print the line that a real one would print. What the runner makes of them is
//! looked at where a user would: in the results that are saved and read again, in the table, and on the page, which is
//! parsed.

mod fakes;
mod markup;

use fakes::Fakes;
use spanheap_bench::findings::{Verdict, faults, judge, noise, participants, refusals, sample};
use spanheap_bench::systems::{AGAIN, Style};
use spanheap_bench::{page, table};

#[test]
fn programs_that_agree_have_ratios_and_goals() {
    let mut fakes = Fakes::new("agree");
    fakes.add("spanheap", Style::Spanheap, r#"{"checksum":7,"ops_per_s":50,"cost_ns":1.5}"#);
    fakes.add("go", Style::Go, r#"{"checksum":7,"ops_per_s":100,"cost_ns":3}"#);
    let goals = r#"
        [[goal]]
        case = "work"
        measure = "cost_ns"
        peer = "go"
        at_most = 0.6
        [[goal]]
        case = "work"
        measure = "ops_per_s"
        peer = "go"
        at_least = 0.6
        [[goal]]
        case = "work"
        measure = "cost_ns"
        minus = "ops_per_s"
        at_most = -40.0
        [[goal]]
        case = "work"
        measure = "cost_ns"
        at_most = 1.0
        [[goal]]
        case = "work"
        measure = "unheard_of"
        at_most = 1.0
    "#;
    let results = fakes.run(goals, 3);
    assert_eq!(faults(&results), [""; 0]);
    // Three launches of each, ours twice.
    assert_eq!(results.runs.len(), 9);
    assert!(results.runs.iter().any(|run| run.system == AGAIN));
    let verdicts: Vec<Verdict> = judge(&results).iter().map(|judged| judged.verdict).collect();
    let expected = [Verdict::Met, Verdict::Missed, Verdict::Met, Verdict::Missed, Verdict::Unknown];
    assert_eq!(verdicts, expected);
    let ratios: Vec<Option<f64>> =
        judge(&results).iter().map(|judged| judged.value.map(|value| value.value)).collect();
    assert_eq!(ratios, [Some(0.5), Some(0.5), Some(-48.5), Some(1.5), None]);
}

#[test]
fn everybody_takes_turns() {
    let mut fakes = Fakes::new("turns");
    for (name, style) in [("spanheap", Style::Spanheap), ("go", Style::Go), ("box", Style::Peer)] {
        fakes.add(name, style, r#"{"checksum":1}"#);
    }
    let results = fakes.run("goal = []", 4);
    let order: Vec<&str> = results.runs.iter().map(|run| run.system.as_str()).collect();
    let first = ["spanheap", "go", "box", AGAIN];
    assert_eq!(order[..4], first);
    assert_eq!(order[4..8], ["go", "box", AGAIN, "spanheap"]);
    assert_eq!(order[12..], [AGAIN, "spanheap", "go", "box"]);
}

#[test]
fn a_case_may_have_fewer_launches() {
    let mut fakes = Fakes::new("launches");
    fakes.size = ", launches = 2";
    fakes.add("go", Style::Go, r#"{"checksum":1}"#);
    assert_eq!(fakes.run("goal = []", 5).runs.len(), 2);
    assert_eq!(fakes.run("goal = []", 1).runs.len(), 1);
}

#[test]
fn a_different_checksum_is_a_fault_and_its_runs_count_for_nothing() {
    let mut fakes = Fakes::new("checksum");
    fakes.add("spanheap", Style::Spanheap, r#"{"checksum":18446744073709551615}"#);
    fakes.add("go", Style::Go, r#"{"checksum":18446744073709551614}"#);
    fakes.add("box", Style::Peer, r#"{"cost_ns":1}"#);
    let results = fakes.run("goal = []", 2);
    let faults = faults(&results);
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].starts_with(
        "go in work: the checksum is 18446744073709551614, and not 18446744073709551615"
    ));
    assert!(faults[1].starts_with("box in work: the checksum is null"));
    let case = &results.cases[0];
    assert!(sample(&results, case, "go", None, "cpu").is_empty());
    assert_eq!(sample(&results, case, "spanheap", None, "cpu").len(), 2);
    for text in [table::markdown(&results), page::html(&results)] {
        assert!(text.contains("the checksum is 18446744073709551614"));
    }
}

#[test]
fn programs_that_fail_are_told_of_and_not_started_again() {
    let mut fakes = Fakes::new("fail");
    fakes.add("spanheap", Style::Spanheap, r#"{"checksum":1}"#);
    fakes.script("go", Style::Go, "echo 'out of <memory>' >&2; kill -ABRT $$");
    fakes.script("rc", Style::Peer, "echo no JSON");
    fakes.script("arc", Style::Peer, "echo; echo 'wrong key' >&2; exit 1");
    fakes.script("bumpalo", Style::Peer, "echo 'error: bumpalo: frees nothing' >&2; exit 3");
    let results = fakes.run("goal = []", 3);
    assert_eq!(
        faults(&results),
        [
            "go in work: crashed with signal 6: out of <memory>",
            "rc in work: printed no line of JSON",
            "arc in work: ended with code 1: wrong key",
        ]
    );
    assert_eq!(refusals(&results), ["bumpalo in work: error: bumpalo: frees nothing"]);
    assert_eq!(results.runs.iter().filter(|run| run.system == "go").count(), 1);
    assert_eq!(results.runs.iter().filter(|run| run.system == "spanheap").count(), 3);
    let page = page::html(&results);
    markup::check(&page);
    assert!(page.contains("out of &lt;memory&gt;") && page.contains("frees nothing"));
}

#[test]
fn a_program_that_hangs_is_ended() {
    let mut fakes = Fakes::new("hang");
    fakes.seconds = 1;
    fakes.script("box", Style::Peer, "exec sleep 600");
    assert_eq!(faults(&fakes.run("goal = []", 3)), ["box in work: killed after 1 s"]);
}

#[test]
fn too_much_memory_ends_a_run() {
    let mut fakes = Fakes::new("memory");
    fakes.memory = 1 << 12;
    fakes.script("go", Style::Go, "exec sleep 600");
    let results = fakes.run("goal = []", 1);
    assert_eq!(faults(&results), ["go in work: killed with more than 0 MB of memory"]);
}

#[test]
fn a_curve_is_in_multiples_of_what_is_alive() {
    let mut fakes = Fakes::new("curve");
    fakes.curve_launches = 2;
    fakes.add("spanheap", Style::Spanheap, r#"{"checksum":1,"footprint_bytes":1000}"#);
    fakes.script(
        "go",
        Style::Go,
        r#"[ "$GOMEMLIMIT" = 1300 ] && exit 1; echo '{"checksum":1,"limit":"'$GOMEMLIMIT$GOGC'"}'"#,
    );
    fakes.add("box", Style::Peer, r#"{"checksum":1}"#);
    let results = fakes.run("goal = []", 1);
    // Too little memory is no fault.
    assert_eq!(faults(&results), [""; 0]);
    assert_eq!(refusals(&results).len(), 1);
    let limits: Vec<(&str, f64)> =
        results.runs.iter().filter_map(|run| Some((run.system.as_str(), run.factor?))).collect();
    assert_eq!(limits.iter().filter(|(system, _)| *system == "spanheap").count(), 8);
    // The one that failed was not tried again, and who cannot be limited was not tried at all.
    assert_eq!(limits.iter().filter(|(system, _)| *system == "go").count(), 7);
    assert!(limits.iter().all(|(system, _)| *system != "box" && *system != AGAIN));
    let at = |factor: f64| {
        let run = results.runs.iter().find(|run| run.system == "go" && run.factor == Some(factor));
        run.and_then(|run| run.report["limit"].as_str().map(str::to_owned))
    };
    assert_eq!((at(1.5).as_deref(), at(3.0).as_deref()), (Some("1500off"), Some("3000off")));
    let page = page::html(&results);
    markup::check(&page);
    assert!(page.contains("Time against memory") && page.contains("1.3 × live"));
}

#[test]
fn the_document_of_a_workload_is_made_by_our_program() {
    let mut fakes = Fakes::new("document");
    fakes.document = true;
    fakes.script(
        "spanheap",
        Style::Spanheap,
        r#"[ "$3" = --print-document ] && echo a document && exit; echo '{"checksum":1,"rows":[{"variant":"heap","cost_ns":2},{"variant":"arena","cost_ns":1}]}'"#,
    );
    fakes.script(
        "go",
        Style::Go,
        r#"for a; do case $a in document=*) read -r text <"${a#document=}"; [ "$text" = "a document" ] && echo '{"checksum":1,"rows":[{"variant":"heap","cost_ns":4}]}';; esac; done"#,
    );
    let results = fakes.run("goal = []", 2);
    assert_eq!(faults(&results), [""; 0]);
    let case = &results.cases[0];
    assert_eq!(sample(&results, case, "spanheap:arena", None, "cost_ns"), [1.0, 1.0]);
    assert_eq!(sample(&results, case, "go:heap", None, "cost_ns"), [4.0, 4.0]);
    assert_eq!(sample(&results, case, "go:heap", None, "unheard|cost_ns"), [4.0, 4.0]);
    let page = page::html(&results);
    markup::check(&page);
    assert!(page.contains("spanheap:arena"));
}

/// Where nothing was timed a program prints 0, which is no time; and of our second self one variant is enough.
#[test]
fn what_was_not_timed_has_no_time() {
    let mut fakes = Fakes::new("untimed");
    fakes.base = "base = \"spanheap:arena\"";
    let rows = r#"{"variant":"heap","cost_ns":0},{"variant":"arena","cost_ns":1},{"variant":"bumpalo","cost_ns":2}"#;
    fakes.add("spanheap", Style::Spanheap, &format!(r#"{{"checksum":1,"rows":[{rows}]}}"#));
    let results = fakes.run("goal = []", 3);
    let case = &results.cases[0];
    assert!(sample(&results, case, "spanheap:heap", None, "cost_ns").is_empty());
    let expected = ["spanheap:heap", "spanheap:arena", "spanheap:bumpalo", "spanheap-again:arena"];
    assert_eq!(participants(&results, case), expected);
    assert_eq!(noise(&results, case, "cost_ns"), Some(0.0));
    assert!(page::html(&results).contains("<rect class=\"bar\""), "bumpalo is a peer");
}

/// Everything that was measured is on the page: each participant in each plot and each table, well formed.
#[test]
fn the_page_has_everybody_and_is_well_formed() {
    let mut fakes = Fakes::new("page");
    let names = ["spanheap", "go", "libgc", "box", "gc-arena"];
    for (place, name) in (1..).zip(names) {
        let line = format!(
            r#"{{"checksum":1,"ops_per_s":{place}000,"cost_ns":{place}.5,"op_p50_ns":{place}00,"op_p99_ns":{place}000,"op_max_ns":{place}00000}}"#
        );
        fakes.add(name, Style::Peer, &line);
    }
    let results = fakes.run("goal = []", 2);
    let page = page::html(&results);
    let elements = markup::check(&page);
    // Bars for CPU, wall, memory and the two figures of the case, and one distribution.
    assert_eq!(elements.iter().filter(|name| *name == "svg").count(), 6);
    let rows_of_plots = (names.len() + 1) * 5;
    assert_eq!(elements.iter().filter(|name| *name == "rect").count(), rows_of_plots);
    for name in names.iter().chain(&[AGAIN]) {
        // In each plot and in each table below one, and in the list of systems.
        assert!(page.matches(&format!(">{name}<")).count() >= 12, "{name}");
        assert!(table::markdown(&results).contains(&format!("| {name} |")) || *name == "spanheap");
    }
    assert!(page.contains("4.50 ns") && page.contains("4.00 k/s") && page.contains("400 µs"));
    // Nothing is asked from elsewhere.
    assert!(!page.contains("src=") && !page.contains("@import") && !page.contains("url("));
}

#[test]
fn results_survive_being_saved() {
    let mut fakes = Fakes::new("saved");
    fakes.add("spanheap", Style::Spanheap, r#"{"checksum":18446744073709551615,"cost_ns":0.1}"#);
    let results = fakes.run("goal = []", 2);
    let path = fakes.folder().join("results.json");
    results.save(&path).expect("a folder of ours");
    let again = spanheap_bench::results::Results::load(&path).expect("what was saved");
    assert_eq!(page::html(&again), page::html(&results));
    assert_eq!(table::markdown(&again), table::markdown(&results));
    std::fs::write(&path, "{}").expect("a folder of ours");
    assert!(spanheap_bench::results::Results::load(&path).is_err());
}
