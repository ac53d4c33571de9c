//! What must not compile, and what the compiler says about it.
//!
//! The safety of the whole interface is that these programs are refused: each file in `ui` is one
//! way to lose a pointer, or to give one to the wrong hands. The message is part of the test,
//! because a refusal that nobody understands is half a feature; and because a program that is
//! refused for another reason than the one it was written for, such as a misspelt name, tests
//! nothing.
//!
//! `ui/derive` needs nothing but the derive, `ui/api` needs a heap. After a change of a message,
//! look at the new one, and write it down with `TRYBUILD=overwrite cargo test -p spanheap --test
//! ui`.

#[test]
fn the_derive_refuses() {
    trybuild::TestCases::new().compile_fail("tests/ui/derive/*.rs");
}

#[test]
fn the_heap_refuses() {
    trybuild::TestCases::new().compile_fail("tests/ui/api/*.rs");
}
