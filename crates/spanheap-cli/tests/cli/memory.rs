//! The two benchmarks about memory: what they report, for sizes at which they take no time.
//!
//! Resident memory belongs to the machine and to the moment, so nothing is asserted of it but that its
//! figures fit each other. Pages of spans are the heap's own doing, and exact.

use serde_json::Value;

use super::{fail, succeed};

/// The one line of JSON of a run.
#[track_caller]
fn json(arguments: &[&str]) -> Value {
    let text = succeed(&[&["bench"], arguments, &["--json"]].concat());
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// A number of the report, by the path of its keys.
#[track_caller]
fn number(value: &Value, pointer: &str) -> f64 {
    let found = value.pointer(pointer).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no number at {pointer}: {value}"))
}

const PHASES: [&str; 7] =
    ["phases", "--small", "1MiB", "--large", "8MiB", "--phase-seconds", "0.12"];

#[test]
fn phases_reports_every_return() {
    let report = json(&[&PHASES[..], &["--cycles", "3", "--threads", "2"]].concat());
    assert_eq!(report["workload"], "phases");
    assert_eq!(report["subject"], "spanheap");
    assert_eq!(report["params"]["small"], 1 << 20);
    assert_eq!(report["params"]["large"], 8 << 20);
    assert_eq!(report["params"]["collect"], true);
    for key in ["wall_s", "user_s", "sys_s", "gc_cycles", "gc_cpu_s", "longest_stall_ns"] {
        assert!(report[key].is_number(), "{key}: {report}");
    }
    assert!(number(&report, "/base_rss_bytes") > 0.0 && number(&report, "/verified_objects") > 0.0);
    let returns = report["returns"].as_array().expect("a list");
    assert_eq!(returns.len(), 3);
    for (index, back) in returns.iter().enumerate() {
        assert_eq!(back["cycle"], index + 1);
        for key in ["grow_s", "collect_s", "cpu_s", "free_end_bytes", "returned_end_bytes"] {
            assert!(number(back, &format!("/{key}")) >= 0.0, "{key}: {back}");
        }
        assert!(number(back, "/window_s") >= 0.12, "{back}");
        assert!(number(back, "/ready_before_bytes") >= f64::from(8 << 20), "{back}");
        let lowest = number(back, "/lowest_rss_bytes");
        assert!(lowest <= number(back, "/end_rss_bytes"), "{back}");
        // Either it was within 10 % of the base at some sample, or no sample was.
        let base = report["base_rss_bytes"].as_u64().expect("a number");
        let bound = (base + base / 10) as f64;
        match back["within_10_percent_s"].as_f64() {
            Some(time) => assert!(time <= number(back, "/window_s") && lowest <= bound, "{report}"),
            None => assert!(lowest > bound, "{report}"),
        }
    }
}

#[test]
fn phases_prints_a_table() {
    let text = succeed(&[&["bench"], &PHASES[..], &["--cycles", "1", "--no-collect"]].concat());
    for words in [
        "phases         1.0 MB to 8.4 MB, 0.12 s each, churn 67.1 MB/s, 1 threads, without collect()\n",
        "\nbase           ",
        "\nreturn 1       ",
        "within 10 % of the base",
        " returned\n",
        " objects, heap empty\n",
    ] {
        assert!(text.contains(words), "{words:?} is missing: {text}");
    }
}

#[test]
fn phases_works_without_time_and_without_data() {
    let arguments = ["phases", "--small", "0", "--large", "0", "--churn", "0"];
    let report = json(&[&arguments[..], &["--phase-seconds", "0", "--cycles", "1"]].concat());
    assert_eq!(report["verified_objects"], 0);
}

#[test]
fn phases_refuses_what_makes_no_sense() {
    for (arguments, expected) in [
        (&["--threads", "0"][..], "--threads is 0, it must be 1 to 1024"),
        (&["--cycles", "0"], "--cycles is 0, it must be 1 to 1000"),
        (&["--cycles", "1001"], "--cycles is 1001, it must be 1 to 1000"),
        (&["--phase-seconds", "-1"], "--phase-seconds is -1, it must be 0 to 31622400"),
        (&["--phase-seconds", "NaN"], "--phase-seconds is NaN, it must be 0 to 31622400"),
        (
            &["--small", "2MB", "--large", "1MB"],
            "--small is 2.0 MB, it must not be above --large, 1.0 MB",
        ),
    ] {
        // Sizes that fit any machine come first, so that no other mistake is found.
        let sizes: &[&str] =
            if arguments[0] == "--small" { &[] } else { &["--small", "1MB", "--large", "2MB"] };
        assert_eq!(fail(&[&["bench", "phases"], sizes, arguments].concat()), expected);
    }
    let error = fail(&["bench", "phases", "--large", "1000000TiB"]);
    assert!(error.contains("alive, this machine has "), "{error}");
}

const FRAGMENTATION: [&str; 5] =
    ["fragmentation", "--fill", "2MiB", "--sizes", "16,1024,3200,32768,65536"];

/// The row of a case and a size.
#[track_caller]
fn row<'a>(report: &'a Value, case: &str, slot: u64) -> &'a Value {
    let rows = report["rows"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["case"] == case && row["slot_bytes"] == slot);
    row.unwrap_or_else(|| panic!("no row for {case} {slot}: {report}"))
}

#[test]
fn fragmentation_tells_scattered_objects_from_whole_spans() {
    let report = json(&FRAGMENTATION);
    assert_eq!(report["workload"], "fragmentation");
    assert_eq!(report["params"]["free"], "alternating");
    assert_eq!(report["rows"].as_array().expect("a list").len(), 10);
    for slot in [16, 1024, 3200, 32768, 65536] {
        for case in ["scattered", "spans"] {
            let row = row(&report, case, slot);
            for moment in ["filled", "freed", "refilled"] {
                for key in ["resident_over_live", "ready_over_live", "live_bytes", "free_slots"] {
                    assert!(number(row, &format!("/{moment}/{key}")) >= 0.0, "{key}: {row}");
                }
                assert!(number(row, &format!("/{moment}/pages_over_live")) >= 1.0, "{row}");
            }
        }
        // Where whole spans go, their pages serve the next size.
        let again = number(row(&report, "spans", slot), "/refilled/pages_over_live");
        assert!(again < 1.3, "{slot}: {again}");
    }
    for slot in [16, 1024, 3200] {
        // Each span keeps half of its objects, so all its pages.
        let row = row(&report, "scattered", slot);
        let freed = number(row, "/freed/pages_over_live");
        assert!((1.95..2.3).contains(&freed), "{slot}: {freed}");
        let objects = number(row, "/freed/live_bytes") / slot as f64;
        assert!(number(row, "/freed/free_slots") >= objects - 1.0, "{row}");
        assert!(number(row, "/refilled/pages_over_live") > 1.4, "{row}");
    }
    for case in ["scattered", "spans"] {
        assert!(report["worst"][case]["resident_over_live"].is_number(), "{report}");
        assert!(report["worst"][case]["within_bound"].is_boolean(), "{report}");
    }
}

#[test]
fn fragmentation_at_random_can_be_repeated() {
    let freed = |seed: &str| {
        let arguments = ["fragmentation", "--fill", "1MiB", "--sizes", "128", "--free", "random"];
        let report = json(&[&arguments[..], &["--seed", seed]].concat());
        number(row(&report, "scattered", 128), "/freed/live_bytes")
    };
    let (first, other) = (freed("7"), freed("8"));
    assert_eq!(first, freed("7"));
    assert_ne!(first, other);
    let fill = f64::from(1 << 20);
    assert!((fill * 0.4..fill * 0.6).contains(&first), "{first} of {fill}");
}

#[test]
fn fragmentation_prints_two_tables() {
    let text = succeed(&[&["bench"], &FRAGMENTATION[..]].concat());
    for words in [
        "scattered: every second object of 2.1 MB freed\n",
        "spans: every second run of whole spans of 2.1 MB freed\n",
        "free slots",
        "worst refilled  scattered",
        "worst refilled  spans",
        "the bound of 1.3",
    ] {
        assert!(text.contains(words), "{words:?} is missing: {text}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("   3200 ")).count(), 2, "{text}");
}

#[test]
fn fragmentation_refuses_what_makes_no_sense() {
    let fragmentation =
        |arguments: &[&str]| fail(&[&["bench", "fragmentation"], arguments].concat());
    assert_eq!(fragmentation(&["--fill", "1000"]), "--fill is 1.0 kB, it must be 1.0 MB at least");
    let error = fragmentation(&["--sizes", "17"]);
    assert!(error.starts_with("no slot has 17 bytes; there are 16, 24, 32, "), "{error}");
    let error = fragmentation(&["--fill", "1000000TiB"]);
    assert!(error.contains("alive, this machine has "), "{error}");
}
