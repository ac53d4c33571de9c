//! `bench --peers` passes everything on to the runner of the benchmark suite, which cargo starts. Cargo is a program
//! here that says what it was told.

use std::process::{Command, Output};

use super::{one_error, stdout};

/// Runs `bench --peers` with these arguments and another program for cargo.
fn peers(cargo: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spanheap"))
        .args(["bench", "--peers"])
        .args(arguments)
        .env("CARGO", cargo)
        .output()
        .expect("the program can be started")
}

#[test]
fn the_runner_is_told_all_that_follows() {
    for told in [&[][..], &["--quick", "--json", "--set", "a=b"], &["--workload", "lru", "--help"]]
    {
        let output = peers("echo", told);
        assert!(output.status.success(), "{output:?}");
        let line = stdout(&output).trim_end();
        let (cargo, runner) = line.split_once(" --").expect("options of cargo");
        assert_eq!(cargo, "run");
        assert!(runner.contains("bench/Cargo.toml --"), "{line}");
        let passed = line.split_once("bench/Cargo.toml --").expect("looked at").1;
        assert_eq!(passed.trim(), told.join(" "));
    }
}

#[test]
fn a_suite_that_fails_is_an_error() {
    let output = peers("false", &["--quick"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(one_error(&output), "the benchmark suite has failed, see above");
    let output = peers("no-such-program", &[]);
    assert!(one_error(&output).starts_with("--peers needs cargo, which cannot be started: "));
}

#[test]
fn a_workload_stands_behind_the_switch() {
    let output = Command::new(env!("CARGO_BIN_EXE_spanheap"))
        .args(["bench", "lru", "--peers"])
        .output()
        .expect("the program can be started");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
