//! Replays the conformance cases and prints what holds; see `data/README.md`.
//!
//! A program of its own instead of libtest tests: the cases are data, and a directory may bring
//! more of them than this build knows. It ends like a libtest program does, for those who count,
//! and exits with 1 on the first thing that it does not know as on any wrong answer.

mod suite;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A panic inside a case is reported as the failure of that case.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match suite::arguments::parse(&arguments) {
        suite::arguments::Mode::List => {
            for name in suite::RUN.iter().map(|(name, _)| name) {
                println!("{name}: test");
            }
            ExitCode::SUCCESS
        }
        suite::arguments::Mode::Run(selection) => {
            let report = suite::replay_directory(&suite::directory(), &selection);
            print!("{report}");
            if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}
