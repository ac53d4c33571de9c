//! The workloads that press the collector: what they report, at sizes at which they take no time.
//!
//! Times and shares of the CPU belong to the machine and to the moment. What is asserted of them is that they are
//! there and fit each other; what is counted is asserted exactly.

use serde_json::Value;

use super::{bench, fail, succeed};

/// The keys of a workload behind those that are common to all, in their order.
pub fn keys(workload: &str) -> &'static [&'static str] {
    match workload {
        "write-storm" => &STORM,
        "lru" => &LRU,
        "limits" => &LIMITS,
        "leak" => &["refused", "error", "full_at", "relief_max_us"],
        "gcbench" => &["top_down_s", "bottom_up_s"],
        "marking" => &MARKING,
        "spatial-index" => &SPATIAL,
        "start-up" => &START_UP,
        _ => &[],
    }
}

const STORM: [&str; 24] = [
    "closure_p50_ns",
    "closure_p99_ns",
    "closure_p999_ns",
    "closure_p9999_ns",
    "closure_max_ns",
    "small_slots",
    "small_plain_ns",
    "small_atomic_ns",
    "small_idle_ns",
    "small_marking_ns",
    "small_stores_while_marking",
    "medium_slots",
    "medium_plain_ns",
    "medium_atomic_ns",
    "medium_idle_ns",
    "medium_marking_ns",
    "medium_stores_while_marking",
    "large_slots",
    "large_plain_ns",
    "large_atomic_ns",
    "large_idle_ns",
    "large_marking_ns",
    "large_stores_while_marking",
    "cycles_while_storing",
];

const LRU: [&str; 12] = [
    "op_p50_ns",
    "op_p99_ns",
    "op_p999_ns",
    "op_p9999_ns",
    "op_max_ns",
    "ops_per_s",
    "hit_ratio",
    "refused",
    "entries_left",
    "live_bytes",
    "resident_bytes",
    "resident_over_live",
];

const LIMITS: [&str; 19] = [
    "op_p50_ns",
    "op_p99_ns",
    "op_p999_ns",
    "op_p9999_ns",
    "op_max_ns",
    "ops_per_s",
    "hit_ratio",
    "refused",
    "refused_filling",
    "limit_bytes",
    "peak_ready_bytes",
    "peak_heap_resident_bytes",
    "overshoot",
    "collector_share",
    "live_bytes",
    "assisted_bytes",
    "assist_cpu_ms",
    "deferred_cycles",
    "samples",
];

const MARKING: [&str; 10] = [
    "cycle_p50_ns",
    "cycle_p99_ns",
    "cycle_p999_ns",
    "cycle_p9999_ns",
    "cycle_max_ns",
    "reached",
    "reached_bytes",
    "cpu_ns_per_object",
    "wall_ns_per_object",
    "cycle_bytes_per_s",
];

const SPATIAL: [&str; 15] = [
    "query_p50_ns",
    "query_p99_ns",
    "query_p999_ns",
    "query_p9999_ns",
    "query_max_ns",
    "build_s",
    "ops_per_s",
    "allocated_bytes_per_op",
    "queries",
    "moves",
    "move_p50_ns",
    "move_p999_ns",
    "move_max_ns",
    "nodes",
    "levels",
];

const START_UP: [&str; 8] = [
    "round_p50_ns",
    "round_p99_ns",
    "round_p999_ns",
    "round_p9999_ns",
    "round_max_ns",
    "first_round_ns",
    "first_resident_bytes",
    "grown_resident_bytes",
];

/// A number of a report.
#[track_caller]
fn number(report: &Value, key: &str) -> f64 {
    report[key].as_f64().unwrap_or_else(|| panic!("{key} is no number: {report}"))
}

#[test]
fn message_bus_sends_the_same_with_and_without_a_collector() {
    let small = ["window=100", "messages=2000", "size=64"];
    let with = |more: &[&str]| bench("message-bus", &[&small[..], more].concat(), 1);
    let on = with(&["collection=on", "live=1MiB", "continuous=on"]);
    let off = with(&["collection=off"]);
    assert_eq!(on["checksum"], off["checksum"]);
    assert_eq!((&on["params"]["live"], &off["params"]["live"]), (&(1 << 20).into(), &0.into()));
    assert_eq!(off["gc_cycles"], 0);
    let error = fail(&["bench", "message-bus", "--set", "collection=off", "continuous=on"]);
    assert_eq!(error, "collection is off and continuous is on: it cannot be both");
}

#[test]
fn write_storm_loses_no_store() {
    let settings = ["slots=8192", "nodes=1000", "stores=300000"];
    // A store that is lost is an error of the run.
    for threads in [1, 2] {
        let report = bench("write-storm", &settings, threads);
        let slots =
            ["small", "medium", "large"].map(|size| number(&report, &format!("{size}_slots")));
        assert_eq!(slots, [2.0 * threads as f64, 128.0, 8192.0]);
        for way in ["plain", "atomic", "idle"] {
            assert!(number(&report, &format!("large_{way}_ns")) > 0.0, "{way}: {report}");
        }
        assert!(number(&report, "large_stores_while_marking") <= 300_000.0 / 12.0, "{report}");
        let again = bench("write-storm", &settings, threads);
        assert_eq!(report["checksum"], again["checksum"]);
    }
}

#[test]
fn lru_counts_its_hits() {
    let settings = ["entries=1000", "keys=3000", "operations=20000", "shards=8"];
    for threads in [1, 3] {
        let report = bench("lru", &settings, threads);
        let again = bench("lru", &settings, threads);
        for key in ["checksum", "hit_ratio", "entries_left"] {
            assert_eq!(report[key], again[key], "{key}");
        }
        // Zipf 0.99 over 3000 keys: the most frequent third gets most of it.
        assert!((0.6..0.98).contains(&number(&report, "hit_ratio")), "{report}");
        // Shards are filled unevenly, but a full cache is what most operations leave.
        let left = number(&report, "entries_left");
        assert!((900.0..=1000.0).contains(&left), "{report}");
        // Nodes and values of what is left, and little besides.
        let live = number(&report, "live_bytes");
        assert!(live >= left * 192.0 && live < left * 192.0 + 40_000.0, "{report}");
        assert_eq!(report["refused"], 0);
    }
    let error = fail(&["bench", "lru", "--set", "entries=100", "shards=2", "--threads", "3"]);
    assert_eq!(error, "2 shards cannot be shared by 3 threads");
    let error = fail(&["bench", "lru", "--set", "entries=1", "shards=2"]);
    assert_eq!(error, "1 entries are too few for 2 shards");
}

#[test]
fn limits_stays_below_its_limit() {
    // Half as much again as 60,000 entries: small heaps need more in proportion.
    let settings = ["entries=60000", "keys=90000", "operations=60000", "shards=8", "percent=200"];
    for threads in [1, 2] {
        let report = bench("limits", &settings, threads);
        let limit = number(&report, "limit_bytes");
        assert!(limit > 2.0 * 60_000.0 * 192.0, "{report}");
        let (ready, over) = (number(&report, "peak_ready_bytes"), number(&report, "overshoot"));
        assert!(ready > 0.0 && over >= ready / limit - 1.0, "{report}");
        assert!(number(&report, "samples") >= 2.0, "{report}");
        assert!((0.0..=1.0).contains(&number(&report, "collector_share")), "{report}");
    }
    let error = fail(&["bench", "limits", "--set", "entries=100", "shards=1"]);
    assert!(error.contains("leaves no room for objects"), "{error}");
}

#[test]
fn message_bus_at_a_rate_sends_the_same() {
    let small = ["window=100", "messages=2000", "size=64"];
    let free = bench("message-bus", &small, 2);
    let paced = bench("message-bus", &[&small[..], &["rate=200000"]].concat(), 2);
    assert_eq!(free["checksum"], paced["checksum"]);
    // The last of 1000 messages of each thread is due 999 hundred-thousandths of a second after the first.
    assert!(number(&paced, "wall_s") >= 999e-5, "{paced}");
    let error = fail(&["bench", "message-bus", "--set", "rate=1", "--threads", "2"]);
    assert_eq!(error, "each thread must have one push per second at least");
}

#[test]
fn spatial_index_finds_the_same_with_and_without_a_collector() {
    for threads in ["1", "2"] {
        let arguments = ["bench", "spatial-index", "--json", "--threads", threads, "--set"];
        let arguments =
            [&arguments[..], &["points=4000", "operations=3000", "--gc-percent"]].concat();
        let [often, never] = ["10", "off"].map(|percent| {
            let text = succeed(&[&arguments[..], &[percent]].concat());
            serde_json::from_str::<Value>(&text).expect("JSON")
        });
        assert_eq!(often["checksum"], never["checksum"]);
        assert_eq!(number(&often, "queries") + number(&often, "moves"), 3000.0);
    }
    let report = bench("spatial-index", &["points=4000", "operations=1000"], 1);
    // Queues of 512 bytes and more, hits of 160, and a new point now and then.
    assert!((500.0..8000.0).contains(&number(&report, "allocated_bytes_per_op")), "{report}");
    // 4000 points in nodes of 12 to 32.
    assert!((2.0..=4.0).contains(&number(&report, "levels")), "{report}");
    assert!((125.0..400.0).contains(&number(&report, "nodes")), "{report}");
    let error = fail(&["bench", "spatial-index", "--set", "points=1", "--threads", "2"]);
    assert_eq!(error, "1 points cannot be shared by 2 threads");
}

#[test]
fn marking_and_start_up_report_what_they_measured() {
    let report = bench("marking", &["objects=2000", "shape=2", "rounds=2"], 1);
    assert_eq!((&report["reached"], &report["reached_bytes"]), (&2000.into(), &128_000.into()));
    assert_eq!(report["checksum"], 2000 * 2001 / 2);
    let report = bench("start-up", &["rounds=3", "objects=10"], 1);
    assert_eq!(report["checksum"], 3 * 45 + 10 * 3);
    let point = |key: &str| number(&report, key);
    assert!(point("first_round_ns") <= point("round_max_ns"), "{report}");
    for workload in ["marking", "start-up"] {
        let error = fail(&["bench", workload, "--threads", "2"]);
        assert!(error.starts_with(&format!("{workload} runs on one thread")), "{error}");
    }
}

#[test]
fn leak_goes_on_after_every_refusal() {
    let settings = ["limit=16MiB", "objects=40000", "size=1024"];
    let report = bench("leak", &settings, 1);
    let sum: u64 = (0..40_000_u64).map(|n| n + n % 256).sum();
    assert_eq!(report["checksum"], sum);
    // 40 MiB do not fit in 16, and half of what fits is let go each time.
    let refused = number(&report, "refused");
    assert!((3.0..100.0).contains(&refused), "{report}");
    let error = report["error"].as_str().expect("a text");
    assert!(error.starts_with("out of memory: need ") && error.contains(" of limit "), "{error}");
    assert!((0.5..=1.0).contains(&number(&report, "full_at")), "{report}");
    assert!(number(&report, "relief_max_us") > 0.0, "{report}");
    let roomy = bench("leak", &["limit=64MiB", "objects=1000", "size=100"], 1);
    assert_eq!((&roomy["refused"], &roomy["error"]), (&0.into(), &"none".into()));
    let error = fail(&["bench", "leak", "--set", "limit=8MiB", "objects=1", "size=16MiB"]);
    assert!(error.starts_with("one object alone does not fit: out of memory: "), "{error}");
    assert_eq!(fail(&["bench", "leak", "--threads", "2"]), "leak runs on one thread");
}

const STALLS: [&str; 8] =
    ["bench", "stalls", "--window", "100", "--messages", "2000", "--size", "64"];

#[test]
fn stalls_has_a_row_for_each_size_and_one_without_a_collector() {
    let live = ["--live", "1MiB,2MiB", "--threads", "2", "--json"];
    let text = succeed(&[&STALLS[..], &live].concat());
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let rows = report["rows"].as_array().expect("rows");
    let live: Vec<_> = rows.iter().map(|row| (&row["live_bytes"], &row["collection"])).collect();
    let (small, large) = (Value::from(1 << 20), Value::from(2 << 20));
    let (on, off) = (Value::from(true), Value::from(false));
    assert_eq!(live, [(&small, &off), (&small, &on), (&large, &on)]);
    for row in rows {
        assert!(number(row, "push_p50_ns") <= number(row, "push_max_ns"), "{row}");
        assert!(row["longest_stall_cause"].is_string(), "{row}");
    }
    assert_eq!(rows[0]["gc_cycles"], 0);
}

#[test]
fn stalls_prints_a_table_and_refuses_what_makes_no_sense() {
    let text = succeed(&[&STALLS[..], &["--live", "0"]].concat());
    assert_eq!(text.lines().count(), 4, "{text}");
    for word in ["live ", "p99.99", "off ", "continuous", "longest stall"] {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
    for (arguments, expected) in [
        (["--threads", "0"], "--threads is 0, it must be 1 to 1024"),
        (["--window", "0"], "--window is 0, it must be 1 to 1099511627776"),
        (["--messages", "0"], "--messages is 0, it must be 1 to 1099511627776"),
        (["--size", "0"], "--size is 0, it must be 1 to 1073741824"),
    ] {
        assert_eq!(fail(&[&["bench", "stalls"], &arguments[..]].concat()), expected);
    }
    let error = fail(&["bench", "stalls", "--live", "1000000TiB"]);
    assert!(error.contains("alive, this machine has "), "{error}");
}

/// Counting locks costs time, so a program has to be built for it; it says so, and what makes no sense is told before.
#[test]
fn scaling_says_how_to_build_a_program_that_counts() {
    let error = fail(&["bench", "scaling", "--threads", "0"]);
    assert_eq!(error, "--threads is 0, it must be 1 to 65536");
    let error = fail(&["bench", "scaling", "--workload", "start-up", "--set", "rounds=1"]);
    match cfg!(feature = "lock-profile") {
        true => assert_eq!(error, "start-up makes its heaps itself"),
        false => assert!(error.contains("cargo run --release --features lock-profile"), "{error}"),
    }
}
