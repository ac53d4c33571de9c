//! What must not compile, and what the compiler says about it.
//!
//! The safety of the whole interface is that these programs are refused: each file in `ui` is one
//! way to lose a pointer, or to give one to the wrong hands. The message is part of the test,
//! because a refusal that nobody understands is half a feature; and because a program that is
//! refused for another reason than the one it was written for, such as a misspelt name, tests
//! nothing.
//!
//! `ui/derive` needs nothing but the derive, `ui/api` needs a heap, `ui/arena` is about scoped arenas and `ui/shared_arena`
//! about shared ones. After a change of a message,
//! look at the new one, and write it down with `TRYBUILD=overwrite cargo test -p spanheap --test
//! ui`.

/// The compiler whose messages are written down. Another one refuses the same programs in other words, and
/// then the comparison would say nothing about this crate; the `compile_fail` examples in the documentation
/// are checked with any compiler.
const COMPILER: &str = "1.95";

fn messages_are_known() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc).arg("--version").output();
    let version =
        output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let known = version.starts_with(&format!("rustc {COMPILER}."));
    if !known {
        println!("skipped: the messages are those of rustc {COMPILER}, and this is {version}");
    }
    known
}

#[test]
fn the_derive_refuses() {
    if !messages_are_known() {
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/derive/*.rs");
}

#[test]
fn the_heap_refuses() {
    if !messages_are_known() {
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/api/*.rs");
}

#[test]
fn the_arena_refuses() {
    if !messages_are_known() {
        return;
    }
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/arena/pass/*.rs");
    cases.compile_fail("tests/ui/arena/*.rs");
}

#[test]
fn shared_arenas_refuse() {
    if !messages_are_known() {
        return;
    }
    let cases = trybuild::TestCases::new();
    // With a program that compiles among them all are compiled to the end, where assertions about types are found.
    cases.pass("tests/ui/shared_arena/accepted/*.rs");
    cases.compile_fail("tests/ui/shared_arena/*.rs");
}
