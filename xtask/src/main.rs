//! The workspace's own chores, run as `cargo xtask <chore>`.
//!
//! There is one chore so far: `tidy`, the conventions that neither the compiler nor clippy can
//! check. It prints one line per finding and fails when there is any. The same check is a test of
//! this crate, so `cargo test` enforces it too.

mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => run_tidy(),
        _ => {
            eprintln!("usage: cargo xtask tidy");
            ExitCode::from(2)
        }
    }
}

/// Prints the findings; the exit code says whether there were any.
fn run_tidy() -> ExitCode {
    let findings = match tidy::check(&workspace_root()) {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("tidy: the workspace cannot be read: {error}");
            return ExitCode::from(2);
        }
    };
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("tidy: {} finding(s)", findings.len());
    ExitCode::FAILURE
}

/// The folder above this crate. The variable that cargo sets while it runs the program wins over
/// the one of the build, because a target folder may be shared by several checkouts.
fn workspace_root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or(manifest.clone(), PathBuf::from)
}
