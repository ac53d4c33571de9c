//! Rule `faults`: `docs/faults.md` lists faults with their tests, and the tests are there.
//!
//! A row begins with the number of a fault and ends with its tests. Checked is that each row names one, that each
//! name in backticks is a test that exists, and that it begins with `fault_` and the numbers of its rows.

use super::parity::check_lines;
use super::{Finding, Tree};
use std::collections::BTreeSet;

/// The document.
const DOCUMENT: &str = "docs/faults.md";
/// Cells of a row, those outside of the outer bars included.
const CELLS: usize = 6;

/// Rows of the document that no test bears out.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    check_lines(tree, DOCUMENT, "faults", check_row)
}

/// What is wrong with a line, if it is the row of a fault.
fn check_row(line: &str, tests: &BTreeSet<&str>) -> Vec<String> {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let is_head = cells.get(1).is_some_and(|cell| *cell == "row" || cell.starts_with("--"));
    if cells.len() < 2 || is_head {
        return Vec::new();
    }
    if cells.len() != CELLS {
        return vec![format!("a row has four cells, and this one {}", cells.len() - 2)];
    }
    let Ok(row) = cells[1].parse::<u32>() else {
        return vec![format!("`{}` is no number of a fault", cells[1])];
    };
    let named: Vec<&str> = cells[4].split('`').skip(1).step_by(2).collect();
    if named.is_empty() {
        return vec!["a fault has a test".into()];
    }
    let mut wrong = Vec::new();
    for name in named {
        if !tests.contains(name) {
            wrong.push(format!("there is no test `{name}`"));
        } else if !numbers(name).any(|number| number == row) {
            wrong.push(format!("`{name}` is no test of row {row} by its name"));
        }
    }
    wrong
}

/// The numbers that stand between `fault_` and the words of a name.
fn numbers(name: &str) -> impl Iterator<Item = u32> {
    let rest = name.strip_prefix("fault_").unwrap_or_default();
    rest.split('_').map_while(|part| part.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(row: &str) -> Vec<String> {
        let document =
            format!("# Faults\n| row | fault | what | tests |\n|---|---|---|---|\n{row}\n");
        let tree = Tree::from_texts(&[
            (DOCUMENT, &document),
            (
                "a/tests/b.rs",
                "fn fault_07_is_survived() {}\nfn fault_7_12_two() {}\nfn other() {}\n",
            ),
        ]);
        check(&tree).into_iter().map(|f| format!("{}: {}", f.line, f.message)).collect()
    }

    #[test]
    fn true_rows_pass() {
        for row in [
            "| 7 | A | it goes on | `fault_07_is_survived`, `fault_7_12_two` |",
            "| 12 | A | it goes on | `fault_7_12_two` |",
            "",
            "Text with a `name`.",
        ] {
            assert_eq!(findings(row), [""; 0], "{row}");
        }
    }

    #[test]
    fn a_row_without_a_test_of_its_number_is_a_finding() {
        for (tests, message) in [
            ("", "a fault has a test"),
            ("`fault_07_gone`", "there is no test `fault_07_gone`"),
            ("`other`", "`other` is no test of row 8 by its name"),
            ("`fault_07_is_survived`", "`fault_07_is_survived` is no test of row 8 by its name"),
        ] {
            let row = format!("| 8 | A | it goes on | {tests} |");
            assert_eq!(findings(&row), [format!("4: {message}")], "{tests}");
        }
        assert_eq!(findings("| x | A | B | `other` |"), ["4: `x` is no number of a fault"]);
        assert_eq!(findings("| 7 | A | `other` |"), ["4: a row has four cells, and this one 3"]);
    }
}
