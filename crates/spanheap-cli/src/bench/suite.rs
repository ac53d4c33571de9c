//! `spanheap bench --peers`: the front door of the benchmark suite.
//!
//! The suite is a workspace of its own, `bench/` in the source tree, because other systems bring dependencies that
//! the library must not have. So this program does not contain it: it finds the tree, lets cargo build and start
//! the runner there, and passes everything on that it was told. The tree is that of the current folder, if it is in
//! one, or else that which this program was built from. An installed program without a tree says so.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Failure, Result};

/// What makes a folder the root of a source tree, for this purpose.
const RUNNER: &str = "bench/runner/Cargo.toml";

/// Runs the suite with these arguments.
pub(super) fn run(arguments: &[String]) -> Result<()> {
    let here = std::env::current_dir().unwrap_or_default();
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = root_above(&here).or_else(|| root_above(built_from)).ok_or_else(|| {
        Failure::new(
            "--peers needs the source tree of spanheap, with its folder bench: get it, and run this in it",
        )
    })?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--package", "runner", "--manifest-path"])
        .arg(root.join("bench/Cargo.toml"))
        .arg("--")
        .args(arguments)
        .status()
        .map_err(|error| {
            Failure::new(format!("--peers needs cargo, which cannot be started: {error}"))
        })?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new("the benchmark suite has failed, see above"))
    }
}

/// The nearest folder, from `folder` upwards, that is the root of a source tree.
fn root_above(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().find(|folder| folder.join(RUNNER).is_file()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::root_above;
    use std::path::Path;

    #[test]
    fn the_tree_is_found_from_a_folder_in_it() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = package.parent().and_then(Path::parent).expect("it lies in crates");
        assert_eq!(root_above(&package.join("src/bench")).as_deref(), Some(root));
        assert_eq!(root_above(Path::new("/")), None);
    }
}
