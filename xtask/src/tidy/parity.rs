//! Rule `parity`: what `docs/parity.md` says about the code can be looked up in the code.
//!
//! Its tables have a row for each mechanism, which ends in the columns module, status and test. Checked is
//! that
//! - each name in backticks in the last column is a test that exists: a function, or, where a macro makes the
//!   tests of a list, `name:` in a file of tests;
//! - the module names layers of the core crate (the table of rule `layer`), or is `-`;
//! - the status is one of the four that the document explains; what is *done* names a module and a test,
//!   and what has *nothing to build* names neither.

use super::layers::LAYERS;
use super::tokens::Token;
use super::{Finding, Tree};
use std::collections::BTreeSet;

/// The document.
const DOCUMENT: &str = "docs/parity.md";
/// Where a row ends up.
const STATUSES: [&str; 4] = ["done", "first version", "planned", "nothing to build"];
/// Cells of a row, those outside of the outer bars included.
const CELLS: usize = 7;

/// Rows of the document that the code does not bear out.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    check_lines(tree, DOCUMENT, "parity", check_row)
}

/// What `check_row` finds wrong with each line of a document, if there is one, given the names of all tests.
pub(super) fn check_lines(
    tree: &Tree,
    document: &'static str,
    rule: &'static str,
    check_row: impl Fn(&str, &BTreeSet<&str>) -> Vec<String>,
) -> Vec<Finding> {
    let Some(source) = tree.source(document) else { return Vec::new() };
    let tests = test_names(tree);
    let mut findings = Vec::new();
    for (line, text) in (1..).zip(source.text.lines()) {
        for message in check_row(text, &tests) {
            findings.push(Finding { path: document.into(), line, rule, message });
        }
    }
    findings
}

/// All names in the tree that a test may have.
fn test_names(tree: &Tree) -> BTreeSet<&str> {
    let mut tests = BTreeSet::new();
    for source in tree.rust() {
        collect(source.tokens(), source.path.contains("tests"), &mut tests);
    }
    tests
}

/// The names that a test may have: functions, and in files of tests the heads of a macro's entries.
fn collect<'a>(tokens: &'a [Token], in_tests: bool, names: &mut BTreeSet<&'a str>) {
    for (index, token) in tokens.iter().enumerate() {
        if let Some(inner) = token.inner() {
            collect(inner, in_tests, names);
        }
        let Some(name) = token.ident() else { continue };
        let is_function = index > 0 && tokens[index - 1].is_ident("fn");
        let is_entry = in_tests && tokens.get(index + 1).is_some_and(|next| next.is_punct(':'));
        if is_function || is_entry {
            names.insert(name);
        }
    }
}

/// What is wrong with a line, if it is the row of a mechanism.
fn check_row(line: &str, tests: &BTreeSet<&str>) -> Vec<String> {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let is_head = cells.get(1).is_some_and(|cell| *cell == "mechanism" || cell.starts_with("--"));
    if cells.len() < 2 || is_head {
        return Vec::new();
    }
    if cells.len() != CELLS {
        return vec![format!("a row has five cells, and this one {}", cells.len() - 2)];
    }
    let (modules, status, test) = (cells[3], cells[4], cells[5]);
    let mut wrong = Vec::new();
    if modules != "-" {
        let unknown = modules.split(", ").filter(|module| !LAYERS.contains(module));
        wrong.extend(unknown.map(|module| format!("`{module}` is no layer of the core crate")));
    }
    if !STATUSES.contains(&status) {
        wrong.push(format!("`{status}` is none of the states of a row"));
    }
    let named: Vec<&str> = test.split('`').skip(1).step_by(2).collect();
    let missing = named.iter().filter(|name| !tests.contains(*name));
    wrong.extend(missing.map(|name| format!("there is no test `{name}`")));
    if status == "done" && (modules == "-" || named.is_empty()) {
        wrong.push("what is done names its module and its test".into());
    }
    if status == "nothing to build" && (modules != "-" || test != "-") {
        wrong.push("where there is nothing to build there is no module and no test".into());
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(row: &str) -> Vec<String> {
        let document = format!(
            "# Parity\n| mechanism | what | module | status | test |\n|---|---|---|---|---|\n{row}\n"
        );
        let tree = Tree::from_texts(&[
            (DOCUMENT, &document),
            ("a/src/lib.rs", "mod m { #[test] fn it_holds() { let not_this: u8 = 0; } }\n"),
            ("a/tests/b.rs", "panics! { it_panics: \"so\", |x| { x } }\n// fn in_a_comment() {}\n"),
        ]);
        check(&tree).into_iter().map(|f| format!("{}: {}", f.line, f.message)).collect()
    }

    #[test]
    fn true_rows_pass() {
        for row in [
            "| A | **same** | os | done | `it_holds`, `it_panics` (twice) |",
            "| A | **same** | heap, collect | first version | - |",
            "| A | **replaced** | - | nothing to build | - |",
            "| A | **same**: waits for B | - | planned | - |",
            "",
            "Text with a `name`.",
        ] {
            assert_eq!(findings(row), [""; 0], "{row}");
        }
    }

    #[test]
    fn a_test_that_does_not_exist_is_a_finding() {
        for name in ["gone", "in_a_comment", "not_this"] {
            let row = format!("| A | **same** | os | done | `it_holds`, `{name}` |");
            assert_eq!(findings(&row), [format!("4: there is no test `{name}`")]);
        }
    }

    #[test]
    fn states_and_modules_are_those_that_exist() {
        assert_eq!(
            findings("| A | **same** | moon | done | `it_holds` |"),
            ["4: `moon` is no layer of the core crate"]
        );
        assert_eq!(
            findings("| A | **same** | os | soon | - |"),
            ["4: `soon` is none of the states of a row"]
        );
        let incomplete = ["4: what is done names its module and its test"];
        assert_eq!(findings("| A | **same** | - | done | `it_holds` |"), incomplete);
        assert_eq!(findings("| A | **same** | os | done | - |"), incomplete);
        let idle = ["4: where there is nothing to build there is no module and no test"];
        assert_eq!(findings("| A | **replaced** | os | nothing to build | - |"), idle);
        let short = ["4: a row has five cells, and this one 4"];
        assert_eq!(findings("| A | **same** | os | done |"), short);
    }
}
