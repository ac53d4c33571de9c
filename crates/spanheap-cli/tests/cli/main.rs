//! The program as its users meet it: arguments in, text and an exit code out.
//!
//! Every mistake that a user can make gets one line on standard error that begins with `error: `, and exit
//! code 1; what clap refuses has exit code 2. Nothing here depends on how long anything takes.

mod arenas;
mod map;
mod memory;
mod pressure;
mod suite;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs the program and waits for it.
fn spanheap(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spanheap"))
        .args(arguments)
        .output()
        .expect("the program can be started")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

/// What a run that must succeed prints.
#[track_caller]
fn succeed(arguments: &[&str]) -> String {
    let output = spanheap(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    stdout(&output).to_owned()
}

/// The error of a run that must fail with exit code 1, in one line, and print no result.
#[track_caller]
fn fail(arguments: &[&str]) -> String {
    let output = spanheap(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    assert_eq!(stdout(&output), "", "{arguments:?}");
    one_error(&output)
}

/// The only line on standard error, without its `error: `.
#[track_caller]
fn one_error(output: &Output) -> String {
    let lines: Vec<&str> = stderr(output).lines().collect();
    let [line] = lines[..] else { panic!("not one line: {lines:?}") };
    line.strip_prefix("error: ").expect("an error").to_owned()
}

/// A file in the test's own directory.
fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).expect("the test's directory is writable");
    path
}

/// The error for a document with this content, without the name of the file.
#[track_caller]
fn refused_document(name: &str, content: &[u8]) -> String {
    let path = file(name, content);
    let path = path.to_str().expect("UTF-8");
    let error = fail(&["demo", path]);
    error.strip_prefix(path).expect("the file is named").to_owned()
}

#[test]
fn demo_verifies_the_documents_that_come_with_it() {
    let text = succeed(&["demo", "--seconds", "0.5"]);
    let last = text.lines().last().expect("a summary");
    assert!(last.starts_with("verified ") && last.ends_with(" documents, heap empty"), "{text}");
    for word in ["decoded", "edits", "collector", "memory", "longest stall"] {
        assert!(text.contains(word), "{word} is missing: {text}");
    }
}

#[test]
fn demo_works_under_a_limit_and_with_more_threads_than_processors() {
    let arguments = ["demo", "--seconds", "0.3", "--threads", "8", "--limit", "100000000"];
    assert!(succeed(&arguments).ends_with(" documents, heap empty\n"));
}

#[test]
fn demo_takes_files() {
    let numbers = file("numbers.json", br#"[0, -0.0, 18446744073709551615, -1, 1e-7, 0.1]"#);
    let nested = file("nested.json", br#"{"b": [{"a/~": null}, [[]], {}], "a": "\u00e9\n"}"#);
    let scalar = file("scalar.json", b"true");
    let paths = [&numbers, &nested, &scalar].map(|path| path.to_str().expect("UTF-8"));
    let [numbers, nested, scalar] = paths;
    let text = succeed(&["demo", numbers, nested, scalar, "--seconds", "0.2", "--threads", "3"]);
    assert!(text.ends_with(" documents, heap empty\n"), "{text}");
}

#[test]
fn demo_without_time_still_verifies_every_document() {
    assert!(succeed(&["demo", "--seconds", "0"]).ends_with(" documents, heap empty\n"));
}

#[test]
fn demo_refuses_what_is_not_a_document() {
    let error = fail(&["demo", "no/such/file.json"]);
    assert!(error.starts_with("no/such/file.json: cannot be read: "), "{error}");
    let directory = env!("CARGO_TARGET_TMPDIR");
    assert!(fail(&["demo", directory]).contains(": cannot be read: "));
    assert_eq!(refused_document("empty.json", b""), ": is empty, a JSON document was expected");
    assert_eq!(refused_document("latin1.json", b"[\"caf\xe9\"]"), ": not UTF-8 at byte 5");
    assert_eq!(
        refused_document("half.json", b"{\"a\": [1, 2"),
        ": malformed JSON: EOF while parsing a list at line 1 column 11"
    );
    assert_eq!(
        refused_document("two.json", b"[] []"),
        ": malformed JSON: trailing characters at line 1 column 4"
    );
    let deep = refused_document("deep.json", "[".repeat(200_000).as_bytes());
    assert!(deep.starts_with(": malformed JSON: recursion limit exceeded"), "{deep}");
    let large = refused_document("large.json", b"[1e999]");
    assert!(large.starts_with(": malformed JSON: number out of range"), "{large}");
}

#[test]
fn demo_refuses_numbers_that_make_no_sense() {
    assert_eq!(fail(&["demo", "--threads", "0"]), "--threads is 0, it must be 1 to 1024");
    assert_eq!(fail(&["demo", "--threads", "1025"]), "--threads is 1025, it must be 1 to 1024");
    for seconds in ["-1", "-0.5", "NaN", "inf", "1e300"] {
        let error = fail(&["demo", "--seconds", seconds]);
        assert!(error.starts_with("--seconds is "), "{error}");
    }
    for limit in ["0", "1", "1000000"] {
        assert!(fail(&["demo", "--limit", limit]).contains("memory limit"), "{limit}");
    }
}

#[test]
fn demo_says_so_when_the_documents_do_not_fit() {
    for threads in ["1", "4"] {
        let arguments = ["demo", "--seconds", "0", "--limit", "10000000", "--threads", threads];
        let error = fail(&arguments);
        assert!(error.contains("does not fit in the heap: out of memory"), "{error}");
    }
}

#[test]
fn what_cannot_be_understood_is_a_usage_error() {
    for arguments in [
        &["demo", "--threads", "two"][..],
        &["demo", "--threads", "-1"],
        &["demo", "--seconds", "soon"],
        &["demo", "--limit", "-5"],
        &["demo", "--limit", "99999999999999999999"],
        &["demo", "--colour"],
        &["bench"],
        &["bench", "binary-trees", "--gc-percent", "x"],
        &["bench", "phases", "--large", "64M"],
        &["bench", "phases", "--small", "-1"],
        &["bench", "phases", "--set", "large=1"],
        &["bench", "fragmentation", "--free", "all"],
        &["bench", "fragmentation", "--fill", "99999999TiB"],
        &["bench", "fragmentation", "--sizes", "16,x"],
        &["bench", "request-arena", "--size", "10K"],
        &["bench", "request-arena", "--requests", "-1"],
        &["map", "--workload", "quicksort"],
        &["map", "--once", "--every", "1"],
        &["map", "--colour", "red"],
        &["dance"],
        &[],
    ] {
        let output = spanheap(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(!stderr(&output).contains("panicked"), "{arguments:?}: {output:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [
        &["--help"][..],
        &["demo", "--help"],
        &["map", "--help"],
        &["bench", "--help"],
        &["bench", "phases", "--help"],
        &["bench", "fragmentation", "--help"],
        &["bench", "request-arena", "--help"],
        &["bench", "arena-objects", "--help"],
    ] {
        let text = succeed(arguments);
        assert!(text.contains("Usage: spanheap"), "{text}");
        let examples = text.contains("Examples:\n  spanheap ");
        assert!(examples || arguments[0] == "demo", "no examples: {text}");
    }
    assert!(succeed(&["--version"]).starts_with("spanheap "));
}

/// The reader of the results goes away before there are any: `spanheap .. | true`.
#[test]
fn a_closed_pipe_is_no_error() {
    for arguments in [
        &["demo", "--seconds", "0"][..],
        &["bench", "binary-trees", "--set", "depth=4"],
        &["map", "--workload", "trees", "--seconds", "0.2", "--every", "0.05"],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_spanheap"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let output = Command::new(env!("CARGO_BIN_EXE_spanheap"))
        .args(["bench", "binary-trees", "--set", "depth=4", "--json"])
        .stdout(full)
        .output()
        .expect("the program can be started");
    assert_eq!(output.status.code(), Some(1));
    assert!(one_error(&output).starts_with("cannot write to standard output: "), "{output:?}");
}

/// The report of a workload, with its keys checked.
#[track_caller]
fn bench(workload: &str, settings: &[&str], threads: usize) -> Value {
    let threads = threads.to_string();
    let mut arguments = vec!["bench", workload, "--json", "--threads", &threads];
    for setting in settings {
        arguments.extend(["--set", setting]);
    }
    let text = succeed(&arguments);
    assert_eq!(text.lines().count(), 1, "{text}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let mut expected = vec![
        "workload",
        "subject",
        "params",
        "footprint_bytes",
        "checksum",
        "wall_s",
        "user_s",
        "sys_s",
        "peak_rss_bytes",
        "gc_cycles",
        "gc_cpu_s",
        "longest_stall_ns",
        "longest_stall_cause",
    ];
    if workload == "message-bus" {
        let latency =
            ["push_p50_ns", "push_p99_ns", "push_p999_ns", "push_p9999_ns", "push_max_ns"];
        expected.extend(latency);
        expected.extend([
            "push_own_p50_us",
            "push_own_p99_us",
            "push_own_p999_us",
            "push_own_p9999_us",
            "push_own_max_us",
        ]);
    }
    expected.extend(pressure::keys(workload));
    assert_eq!(report.as_object().expect("an object").len(), expected.len(), "{text}");
    // In this order in the text, and each a member of the outermost object.
    let mut position = 0;
    for key in expected {
        assert!(report.get(key).is_some(), "{key} is missing: {text}");
        let found = text[position..].find(&format!("\"{key}\":"));
        position += found.unwrap_or_else(|| panic!("{key} is not in its place: {text}"));
    }
    assert_eq!(report["workload"], workload);
    assert_eq!(report["subject"], "spanheap");
    report
}

fn nodes(depth: u32) -> u64 {
    (2 << depth) - 1
}

#[test]
fn binary_trees_counts_every_node() {
    for (depth, threads) in [(4, 1), (5, 1), (10, 1), (10, 3), (7, 40)] {
        let short = (4..=depth).step_by(2).map(|d| (1 << (depth - d + 4)) * nodes(d)).sum::<u64>();
        let report = bench("binary-trees", &[&format!("depth={depth}")], threads);
        assert_eq!(report["checksum"], short + nodes(depth), "depth {depth}, {threads} threads");
        assert_eq!(report["params"]["depth"], depth);
        assert_eq!(report["params"]["threads"], threads);
        assert_eq!(report["params"]["gc_percent"], 100);
        assert_eq!(report["params"]["limit"], Value::Null);
        let arenas = bench("binary-trees", &[&format!("depth={depth}"), "arena=1"], threads);
        assert_eq!(report["checksum"], arenas["checksum"], "depth {depth}, {threads} threads");
    }
}

#[test]
fn gcbench_counts_what_it_made() {
    let settings = ["stretch=10", "longlived=8", "array=1000", "min=4", "max=9"];
    let made: u64 =
        [4, 6, 8].iter().map(|&d| 2 * (2 * nodes(10) / nodes(d)) * (u64::from(d) + 1)).sum();
    for threads in [1, 3] {
        let report = bench("gcbench", &settings, threads);
        assert_eq!(report["checksum"], made + nodes(8) + 1000, "{threads} threads");
    }
    let error = fail(&["bench", "gcbench", "--set", "min=9", "max=8"]);
    assert_eq!(error, "min is 9, it must not be above max, 8");
}

#[test]
fn message_bus_adds_up_what_was_sent() {
    // Per bus: those pushed out add their number and last byte, the others their number and all bytes.
    let sum = |messages: u64, window: u64, size: u64| -> u64 {
        let left = messages.saturating_sub(window);
        (0..messages).map(|n| n + (n % 256) * if n < left { 1 } else { size }).sum()
    };
    let report = bench("message-bus", &["window=100", "messages=1000", "size=64"], 1);
    assert_eq!(report["checksum"], sum(1000, 100, 64));
    let report = bench("message-bus", &["window=101", "messages=1001", "size=1"], 2);
    assert_eq!(report["checksum"], sum(501, 51, 1) + sum(500, 50, 1));
    let report = bench("message-bus", &["window=50", "messages=20", "size=40000"], 1);
    assert_eq!(report["checksum"], sum(20, 50, 40_000));
    let point = |key: &str| report[key].as_u64().expect("a number");
    assert!(point("push_p50_ns") <= point("push_p99_ns"), "{report}");
    assert!(point("push_p9999_ns") <= point("push_max_ns"), "{report}");
    assert!(point("push_max_ns") > 0, "{report}");
}

#[test]
fn bench_prints_a_table_without_json() {
    let text = succeed(&["bench", "message-bus", "--set", "window=10", "messages=20", "size=8"]);
    let first = "message-bus window=10 messages=20 size=8 live=0 collection=1 continuous=0 rate=0 \
                 threads=1 gc_percent=100 limit=off\n";
    for line in [first, "\npush  ", "\nlongest stall  "] {
        assert!(text.contains(line), "{line:?} is missing: {text}");
    }
}

#[test]
fn bench_works_in_so_much_memory_as_it_is_told() {
    let sizes = ["bench", "message-bus", "--json", "--set", "window=2000", "messages=20000"];
    let report = |more: &[&str]| -> Value {
        serde_json::from_str(&succeed(&[&sizes[..], more].concat())).expect("JSON")
    };
    let unlimited = report(&["--gc-percent", "off"]);
    // 20 MB pass through, and nobody has asked for a cycle.
    assert_eq!(unlimited["gc_cycles"], 0);
    assert_eq!(unlimited["params"]["gc_percent"], Value::Null);
    let limited = report(&["--gc-percent", "off", "--limit", "8MiB"]);
    assert!(limited["gc_cycles"].as_u64() > Some(0), "{limited}");
    assert_eq!(limited["params"]["limit"], 8 << 20);
    assert_eq!(limited["checksum"], unlimited["checksum"]);
    assert_eq!(limited["footprint_bytes"], 2000 * (1024 + 24 + 8));
    let error = fail(&["bench", "limits", "--limit", "1GiB"]);
    assert_eq!(error, "limits has a limit of its own, among its keys");
}

#[test]
fn bench_refuses_what_it_cannot_do() {
    let workload = fail(&["bench", "quicksort"]);
    assert_eq!(
        workload,
        "there is no workload \"quicksort\"; there are binary-trees, gcbench, message-bus, write-storm, \
         lru, limits, leak, marking, spatial-index, start-up, and with options of their own, which follow the name, phases, fragmentation, \
         stalls, request-arena, arena-objects and scaling"
    );
    for (arguments, expected) in [
        (
            &["binary-trees", "--set", "width=3"][..],
            "there is no key \"width\"; there are depth, arena",
        ),
        (&["binary-trees", "--set", "depth"], "--set \"depth\" is not key=value"),
        (&["binary-trees", "--set", "depth=deep"], "depth=\"deep\" is not a whole number"),
        (&["binary-trees", "--set", "depth=60"], "depth is 60, it must be 4 to 58"),
        (&["binary-trees", "--threads", "0"], "--threads is 0, it must be 1 to 1024"),
        (&["gcbench", "--set", "array=0"], "array is 0, it must be 1 to 18446744073709551615"),
        (
            &["gcbench", "--set", "array=18446744073709551615"],
            "gcbench: these parameters make a size that overflows 64 bits",
        ),
        (
            &["message-bus", "--set", "messages=99999999999999999999"],
            "messages=99999999999999999999 is too large, at most 18446744073709551615",
        ),
        (
            &["message-bus", "--set", "window=4294967296", "--set", "size=4294967296"],
            "message-bus: these parameters make a size that overflows 64 bits",
        ),
        (
            &["message-bus", "--set", "window=3", "--threads", "4"],
            "a window of 3 cannot be shared by 4 threads",
        ),
    ] {
        assert_eq!(fail(&[&["bench"], arguments].concat()), expected);
    }
    // Sizes that fit 64 bits but no machine.
    for arguments in [
        &["binary-trees", "--set", "depth=50"][..],
        &["binary-trees", "--set", "depth=58"],
        &["gcbench", "--set", "stretch=56", "--set", "array=1"],
        &["message-bus", "--set", "window=1000000000000", "--set", "messages=1000000000000"],
    ] {
        let error = fail(&[&["bench"], arguments].concat());
        assert!(
            error.contains("alive, this machine has ") || error.contains("overflows"),
            "{error}"
        );
    }
}

/// Address space is what this test takes away, since it can be taken from one process alone. How much
/// a heap needs to begin with is not this test's business: it tries amounts from too little to plenty, and
/// wants an error in one line or a result each time, and both at least once.
#[test]
fn want_of_memory_is_an_error() {
    for workload in [
        &["binary-trees", "--set", "depth=19"][..],
        &["gcbench", "--set", "longlived=20"],
        &["message-bus", "--set", "messages=70000"],
        &["phases", "--small", "0", "--large", "150MiB", "--phase-seconds", "0"],
    ] {
        let mut errors = 0;
        let mut results = 0;
        for kibibytes in [500_000, 720_000, 8_000_000] {
            let program = env!("CARGO_BIN_EXE_spanheap");
            let script = format!("ulimit -v {kibibytes} && exec \"$0\" bench \"$@\"");
            let output = Command::new("sh")
                .args(["-c", &script, program])
                .args(workload)
                .output()
                .expect("there is a shell");
            match output.status.code() {
                Some(0) => results += 1,
                Some(1) => {
                    one_error(&output);
                    errors += 1;
                }
                _ => panic!("{workload:?} in {kibibytes} KiB: {output:?}"),
            }
        }
        assert!(errors > 0 && results > 0, "{workload:?}: {errors} errors, {results} results");
    }
}

/// Line breaks in a name must not make two lines of one error.
#[test]
fn an_error_is_one_line_whatever_it_names() {
    assert!(fail(&["demo", "two\nlines"]).starts_with("two\\nlines: cannot be read: "));
    assert!(fail(&["bench", "two\nlines"]).contains("two\\nlines"));
}

/// The run is longer than the second after which the line is due, so it is there however slow the
/// machine is.
#[test]
fn a_live_line_goes_to_standard_error_only() {
    let output = spanheap(&["demo", "--seconds", "1.3"]);
    assert!(output.status.success(), "{output:?}");
    assert!(stderr(&output).contains(" cycles | live "), "{output:?}");
    assert!(!stdout(&output).contains('|'), "{output:?}");
}

/// The heap of the demo and those of workloads look at the environment; results stay as they are.
#[test]
fn the_environment_asks_for_a_line_for_each_cycle() {
    let run = |setting: &str, arguments: &[&str]| {
        let program = env!("CARGO_BIN_EXE_spanheap");
        let child = Command::new(program).args(arguments).env("SPANHEAP_DEBUG", setting).output();
        child.expect("the program can be started")
    };
    let tree = ["bench", "binary-trees", "--set", "depth=10", "--json"];
    for arguments in [&["demo", "--seconds", "0.2"][..], &tree] {
        let output = run("gctrace=1,continuously=1", arguments);
        assert!(output.status.success(), "{output:?}");
        let lines = stderr(&output).lines().filter(|line| line.starts_with("gc "));
        let lines: Vec<&str> = lines.collect();
        assert!(!lines.is_empty());
        let odd = lines.iter().find(|line| !line.contains(" | heap=1 why="));
        assert_eq!(odd, None);
        assert!(!stdout(&output).contains("gc 1 "), "the result is for itself");
        let error = one_error(&run("gctrace=yes", arguments));
        assert_eq!(error, "gctrace=yes is not a setting of SPANHEAP_DEBUG");
    }
}
