//! The fast paths take as many instructions as are written down in `counts.txt`, and not one more.
//!
//! The program that counts is built by the release profile, without link-time optimisation: what a user gets who
//! changes nothing. It has a directory of its own under the target directory, and is built once.
#![cfg(all(not(miri), target_arch = "x86_64", target_os = "linux"))]

use std::env;
use std::path::Path;
use std::process::Command;

#[test]
fn no_fast_path_has_grown() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What is in these variables makes other code.
    for variable in
        ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "RUSTC_WRAPPER"]
    {
        cargo.env_remove(variable);
    }
    let output = cargo
        .current_dir(here)
        .args(["run", "--quiet", "--profile", "instructions", "--", "check", "counts.txt"])
        .output()
        .expect("cargo runs");
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(77) {
        println!("\n*** NOTHING WAS MEASURED ***\n{complained}");
        eprintln!("\n*** NOTHING WAS MEASURED ***\n{complained}");
        return;
    }
    println!("{said}");
    assert!(output.status.success(), "{said}\n{complained}");
}
