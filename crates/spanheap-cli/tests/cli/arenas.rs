//! The benchmarks of memory that is freed at once: what they report, at sizes at which they take no time.
//!
//! Times belong to the machine and to the moment: what is asserted of them is that they are there. That every variant
//! decodes the same document, and makes the same objects, the program asserts itself; here it is made sure that
//! it looks.

use serde_json::Value;

use super::{fail, succeed};

/// The one line of JSON of a run.
#[track_caller]
fn json(arguments: &[&str]) -> Value {
    let text = succeed(&[&["bench"], arguments, &["--json"]].concat());
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// The variants of a report, in their order.
fn variants(report: &Value) -> Vec<&str> {
    let rows = report["rows"].as_array().expect("a list");
    rows.iter().map(|row| row["variant"].as_str().expect("a name")).collect()
}

/// The row of a variant.
#[track_caller]
fn row<'a>(report: &'a Value, variant: &str) -> &'a Value {
    let rows = report["rows"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["variant"] == variant);
    row.unwrap_or_else(|| panic!("no row for {variant}: {report}"))
}

/// The variants that are there whatever the program was built with; peers come behind them.
const VARIANTS: [&str; 8] =
    ["parse", "heap", "scoped", "scoped-reset", "shared", "shared-64", "promoted", "box"];

const REQUESTS: [&str; 5] = ["request-arena", "--requests", "50", "--rounds", "3"];

#[test]
fn request_arena_reports_every_variant() {
    let report = json(&REQUESTS);
    assert_eq!(report["workload"], "request-arena");
    assert_eq!(report["subject"], "spanheap");
    for (key, value) in
        [("requests", 50), ("rounds", 3), ("size", 10 << 10), ("promote", 100), ("gc_percent", 100)]
    {
        assert_eq!(report["params"][key], value, "{key}");
    }
    assert_eq!(report["depth"], 6);
    let objects = report["objects"].as_u64().expect("a number");
    assert!((280..=320).contains(&objects), "{objects} objects");
    assert!(report["checksum"].is_u64() && report["peak_rss_bytes"].is_u64(), "{report}");
    assert_eq!(variants(&report)[..VARIANTS.len()], VARIANTS);
    // Either the peers are there, or the report says how to get them.
    let has_peers = variants(&report).len() > VARIANTS.len();
    assert_ne!(report["peers_absent"].is_string(), has_peers, "{report}");
    for row in report["rows"].as_array().expect("a list") {
        for key in [
            "cpu_ns",
            "cpu_least_ns",
            "wall_ns",
            "request_p50_ns",
            "request_p999_ns",
            "request_max_ns",
        ] {
            assert!(row[key].as_f64().is_some_and(|time| time >= 0.0), "{key}: {row}");
        }
        let is_parse = row["variant"] == "parse";
        assert_eq!(row["object_ns"].is_null(), is_parse, "{row}");
        assert!(row["request_p50_ns"].as_u64() <= row["request_max_ns"].as_u64(), "{row}");
        assert!(row["grown_bytes"].is_u64() || row["grown_bytes"].is_null(), "{row}");
    }
    for variant in ["parse", "box"] {
        assert!(row(&report, variant)["gc_cycles"].is_null(), "no heap, no cycles: {report}");
    }
}

#[test]
fn request_arena_collects_the_heap_alone() {
    // Some 20 MB of documents, more than a heap takes before its first cycle.
    let report = json(&["request-arena", "--requests", "1000", "--rounds", "2"]);
    assert!(row(&report, "heap")["gc_cycles"].as_u64() > Some(0), "{report}");
    for variant in ["scoped", "scoped-reset"] {
        assert_eq!(row(&report, variant)["gc_cycles"], 0, "an arena begins no cycle: {report}");
    }
}

#[test]
fn request_arena_keeps_what_is_promoted() {
    // Every document, more than the table has room for: then the heap has something to collect.
    let arguments = ["request-arena", "--requests", "1000", "--rounds", "2", "--promote", "1"];
    let report = json(&[&arguments[..], &["--only", "promoted"]].concat());
    assert!(row(&report, "promoted")["gc_cycles"].as_u64() > Some(0), "{report}");
}

#[test]
fn request_arena_has_the_same_checksum_for_each_variant_alone() {
    let all = json(&REQUESTS);
    for variant in variants(&all) {
        let report = json(&[&REQUESTS[..], &["--only", variant]].concat());
        assert_eq!(variants(&report), [variant]);
        assert_eq!(report["checksum"], all["checksum"]);
    }
    let two = json(&[&REQUESTS[..], &["--only", "heap,parse"]].concat());
    assert_eq!(variants(&two), ["parse", "heap"]);
    // Without the decoding alone nobody knows what the rest is.
    let report = json(&[&REQUESTS[..], &["--only", "heap"]].concat());
    assert!(row(&report, "heap")["object_ns"].is_null(), "{report}");
}

#[test]
fn request_arena_takes_documents_of_other_sizes() {
    for (size, bytes) in [("2KiB", 2048), ("100000", 100_000)] {
        let report = json(&["request-arena", "--requests", "2", "--rounds", "2", "--size", size]);
        assert_eq!(report["params"]["size"], bytes);
        let text = succeed(&["bench", "request-arena", "--size", size, "--print-document"]);
        assert_eq!(text.len(), bytes + 1, "and a line end");
        serde_json::from_str::<Value>(&text).expect("JSON");
    }
}

#[test]
fn request_arena_prints_a_table() {
    let text = succeed(&[&["bench"], &REQUESTS[..]].concat());
    for words in [
        "request-arena  50 requests in 3 rounds, a document of 10240 bytes, ",
        "\nvariant ",
        "\nmemory ",
    ] {
        assert!(text.contains(words), "{words:?} is missing: {text}");
    }
    for variant in VARIANTS {
        assert!(text.contains(&format!("\n{variant} ")), "{variant} is missing: {text}");
    }
}

#[test]
fn arena_objects_reports_every_variant() {
    let report = json(&["arena-objects", "--objects", "100", "--arenas", "6", "--rounds", "3"]);
    assert_eq!(report["workload"], "arena-objects");
    for (key, value) in [("objects", 100), ("arenas", 6), ("rounds", 3), ("gc_percent", 100)] {
        assert_eq!(report["params"][key], value, "{key}");
    }
    assert_eq!(variants(&report)[..3], ["heap", "scoped", "shared"]);
    assert_eq!(row(&report, "scoped")["gc_cycles"], 0);
    for row in report["rows"].as_array().expect("a list") {
        for shape in ["node", "small"] {
            for key in ["cpu", "cpu_least", "free", "wall"] {
                let time = row[format!("{shape}_{key}_ns")].as_f64();
                assert!(time.is_some_and(|time| time >= 0.0), "{shape} {key}: {row}");
            }
        }
    }
    let text =
        succeed(&["bench", "arena-objects", "--objects", "1", "--arenas", "1", "--rounds", "1"]);
    assert!(text.contains("\nvariant ") && text.contains("\nheap "), "{text}");
}

#[test]
fn arena_benchmarks_refuse_what_makes_no_sense() {
    for (arguments, expected) in [
        (&["--size", "1KiB"][..], "--size is 1024, it must be 2048 to 67108864"),
        (&["--rounds", "0"], "--rounds is 0, it must be 1 to 10000"),
        (&["--requests", "5", "--rounds", "6"], "--requests is 5, it must be 6 to 1099511627776"),
        (&["--promote", "0"], "--promote is 0, it must be 1 to 1099511627776"),
    ] {
        assert_eq!(fail(&[&["bench", "request-arena"], arguments].concat()), expected);
    }
    let error = fail(&["bench", "request-arena", "--only", "heap,stack"]);
    let expected = "there is no variant \"stack\"; there are parse, heap, scoped, scoped-reset, shared, \
                    shared-64, promoted, box";
    assert!(error.starts_with(expected), "{error}");
    for (arguments, expected) in [
        (&["--objects", "0"][..], "--objects is 0, it must be 1 to 100000000"),
        (&["--arenas", "2", "--rounds", "3"], "--arenas is 2, it must be 3 to 1099511627776"),
    ] {
        assert_eq!(fail(&[&["bench", "arena-objects"], arguments].concat()), expected);
    }
    let error = fail(&["bench", "arena-objects", "--only", "stack"]);
    assert!(error.starts_with("there is no variant \"stack\"; there are heap"), "{error}");
}
