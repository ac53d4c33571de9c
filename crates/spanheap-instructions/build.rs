//! Tells the program which compiler has made it: counts are compared with those of the same one.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = env::var_os("RUSTC").expect("set by cargo");
    let output = Command::new(rustc).arg("--version").output().expect("the compiler runs");
    let text = String::from_utf8(output.stdout).expect("a version is text");
    // `rustc 1.95.0 (59807616e 2026-04-14)`
    let version = text.split_whitespace().nth(1).expect("a version");
    println!("cargo::rustc-env=SPANHEAP_RUSTC={version}");
}
