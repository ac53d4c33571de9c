//! A test body in a process of its own: the test program starts itself again, for this one test.
//!
//! # Safety
//! Sets limits of the process.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

const VARIABLE: &str = "SPANHEAP_TEST_CHILD";

/// How the child ended, and what it said.
pub struct Outcome {
    pub signal: Option<i32>,
    pub code: Option<i32>,
    pub output: String,
}

/// In the child: runs the body and returns `None`. Else: starts the child, waits for it, and says how
/// it ended. `test` is the path of the calling test, as the test program prints it; `variant` tells the
/// children of one test apart.
pub fn outcome(test: &str, variant: &str, body: impl FnOnce()) -> Option<Outcome> {
    outcome_with(test, variant, &[], body)
}

/// The same, with variables in the child's environment.
pub fn outcome_with(
    test: &str,
    variant: &str,
    environment: &[(&str, &str)],
    body: impl FnOnce(),
) -> Option<Outcome> {
    let id = format!("{test}/{variant}");
    if let Ok(wanted) = std::env::var(VARIABLE) {
        if wanted == id {
            body();
            // The parent looks for this line: a child that found no such test would end well, too.
            println!("the child has run {id}");
        }
        return None;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(VARIABLE, &id);
    child.envs(environment.iter().copied());
    let output = child.output().unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    print!("{text}");
    Some(Outcome { signal: output.status.signal(), code: output.status.code(), output: text })
}

/// The same, for a child that is to end well.
#[track_caller]
pub fn run_variant(test: &str, variant: &str, body: impl FnOnce()) {
    run_variant_with(test, variant, &[], body);
}

/// The same, with variables in the child's environment.
#[track_caller]
pub fn run_variant_with(
    test: &str,
    variant: &str,
    environment: &[(&str, &str)],
    body: impl FnOnce(),
) {
    if let Some(outcome) = outcome_with(test, variant, environment, body) {
        let end = (outcome.signal, outcome.code);
        assert_eq!(end, (None, Some(0)), "the child of {test}/{variant}");
        let ran = format!("the child has run {test}/{variant}");
        assert!(outcome.output.contains(&ran), "there is no test {test}");
    }
}

/// The same, for a test with one child.
#[track_caller]
pub fn run(test: &str, body: impl FnOnce()) {
    run_variant(test, "only", body);
}

/// Sets the soft limit of a resource, and returns the one before. Up to the hard limit it can be raised
/// again.
pub fn set_limit(resource: libc::__rlimit_resource_t, soft: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is valid for the call.
    assert_eq!(unsafe { libc::getrlimit(resource, &mut limit) }, 0);
    let before = limit.rlim_cur;
    limit.rlim_cur = soft.min(limit.rlim_max);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0);
    before
}

/// A field of `/proc/self/status` that is in kB, in bytes.
pub fn status_bytes(field: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).expect("such a field");
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// Limits the address space to what the process has now, and `more`. Returns the limit before.
pub fn limit_address_space(more: usize) -> u64 {
    set_limit(libc::RLIMIT_AS, (status_bytes("VmSize:") + more) as u64)
}
