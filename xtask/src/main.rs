//! The workspace's own chores, run as `cargo xtask <chore>`.
//!
//! - `tidy` checks the conventions that neither the compiler nor clippy can check. It prints one
//!   line per finding and fails when there is any. The same check is a test of this crate, so
//!   `cargo test` enforces it too.
//! - `unsafe-inventory` prints the table of unsafe code that `SAFETY.md` holds; with `--write` it
//!   puts the table there.
//! - `instructions` counts the instructions of the fast paths and compares them with those that are written down; with
//!   `--write` it writes them down. (A test of `spanheap-instructions` compares them, too.)

mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["tidy"] => run_tidy(),
        ["unsafe-inventory"] => run_inventory(false),
        ["unsafe-inventory", "--write"] => run_inventory(true),
        ["instructions"] => run_instructions("check"),
        ["instructions", "--write"] => run_instructions("write"),
        _ => {
            eprintln!(
                "usage: cargo xtask tidy | unsafe-inventory [--write] | instructions [--write]"
            );
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

/// Runs the program that counts.
fn run_instructions(what: &str) -> ExitCode {
    let crate_root = workspace_root().join("crates/spanheap-instructions");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = std::process::Command::new(cargo)
        .current_dir(crate_root)
        .args(["run", "--quiet", "--profile", "instructions", "--", what, "counts.txt"])
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: cargo cannot be started: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints the inventory of unsafe code, or writes it into the document that holds it.
fn run_inventory(write: bool) -> ExitCode {
    let root = workspace_root();
    let done = tidy::Tree::load(&root).and_then(|tree| {
        let table = tidy::unsafe_inventory(&tree);
        if !write {
            print!("{table}");
            return Ok(());
        }
        let path = root.join(tidy::INVENTORY_DOCUMENT);
        let text = std::fs::read_to_string(&path)?;
        let missing = || std::io::Error::other("the document has no marks around a table");
        let text = tidy::replace_inventory(&text, &table).ok_or_else(missing)?;
        std::fs::write(path, text)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("unsafe-inventory: {error}");
            ExitCode::from(2)
        }
    }
}

/// The folder above this crate. The variable that cargo sets while it runs the program wins over
/// the one of the build, because a target folder may be shared by several checkouts.
fn workspace_root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or(manifest.clone(), PathBuf::from)
}
