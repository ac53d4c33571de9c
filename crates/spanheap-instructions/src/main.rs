//! Counts the instructions that one allocation, one store, one dereference and one root take, and compares the counts
//! with those that are written down.
//!
//! ```text
//! spanheap-instructions print                 one line for each operation
//! spanheap-instructions check counts.txt      says what differs, and fails if anything does
//! spanheap-instructions write counts.txt      writes the counts of this compiler down
//! ```
//!
//! Times differ from machine to machine and from minute to minute, so a fast path that has grown by two instructions
//! goes unnoticed. Counts do not: the same compiler makes the same code. They are of the machine code of a plain
//! release build, as a program gets it that uses the library.
//!
//! # How it counts
//! Each operation runs in a child process, `n` times and then `2 n` times, with a breakpoint instruction before,
//! between and after. The parent steps the child from one breakpoint to the next, and counts the steps. What the
//! second stretch has more than the first is `n` operations exactly: the loop around them is the same code, and
//! belongs to the count. (The row `loop` is that of a loop around nothing.) No tool is needed but the system's
//! `ptrace`. Where that is not permitted, the program says so and exits with [`NOT_PERMITTED`].
//!
//! `n` is so small that no operation leaves its fast path: one run of slots is enough for all of them.
//!
//! # Safety
//! See `trace`.

mod counts;
mod operations;
mod trace;

use counts::{Counts, Verdict};
use std::process::ExitCode;
use trace::Failure;

/// The exit code that says that nothing was measured.
const NOT_PERMITTED: u8 = 77;

fn main() -> ExitCode {
    if cfg!(debug_assertions) {
        eprintln!("spanheap-instructions: this is a debug build, whose counts are nobody's");
        return ExitCode::from(2);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["print"] => measure().map(|counts| {
            print!("{counts}");
            true
        }),
        ["check", path] => measure().and_then(|counts| check(&counts, path)),
        ["write", path] => measure().and_then(|counts| {
            counts::write(path, &counts)?;
            Ok(true)
        }),
        _ => {
            eprintln!("usage: spanheap-instructions print | check FILE | write FILE");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Failure::NotPermitted(why)) => {
            eprintln!("spanheap-instructions: NOTHING WAS MEASURED: {why}");
            ExitCode::from(NOT_PERMITTED)
        }
        Err(Failure::Other(why)) => {
            eprintln!("spanheap-instructions: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Counts all operations.
fn measure() -> Result<Counts, Failure> {
    let mut counts = Counts::of_this_compiler();
    for operation in operations::ALL {
        let (once, twice) = trace::count(operation.run)?;
        // Twice as many operations, in the same loop.
        let tenths = (twice - once) * 10 / operations::TIMES as u64;
        counts.add(operation.name, tenths);
    }
    Ok(counts)
}

/// Compares, and says what is other than it was. False if anything is.
fn check(counts: &Counts, path: &str) -> Result<bool, Failure> {
    print!("{counts}");
    let verdict = counts::compare(path, counts)?;
    match &verdict {
        Verdict::Same => {}
        Verdict::NoLine(nearest) => println!(
            "there are no counts of this compiler: these are within a quarter of those of {nearest}"
        ),
        Verdict::Different(lines) => {
            lines.iter().for_each(|line| eprintln!("{line}"));
            eprintln!("If that is meant: cargo xtask instructions --write");
        }
    }
    Ok(!matches!(verdict, Verdict::Different(_)))
}
