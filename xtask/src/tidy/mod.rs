//! Conventions as checks: each rule is one file, each finding one line.
//!
//! A rule is a pure function from a [`Tree`] (the names and texts of the workspace's files) to
//! findings. Only the tree's loader touches the disk, so every rule is tested on small strings.
//!
//! Rules that look at Rust code read *tokens*, not lines: what stands in a string or a comment is
//! no code, and what stands in a macro is. Nothing here resolves names or expands macros; where a
//! rule would need that, it asks for the plainer spelling instead.
//!
//! | rule | file |
//! |---|---|
//! | the order of the layers of the core crate | `layers.rs` |
//! | which crate may depend on what | `manifests.rs` |
//! | lengths of files and functions | `lengths.rs` |
//! | unsafe code is justified, and its file says so | `safety.rs` |
//! | every file opens with an essay | `essay.rs` |
//! | nothing unfinished, no paths of somebody's machine | `marks.rs` |
//! | documents name files that exist | `paths.rs` |
//! | the comparison with Go names tests that exist | `parity.rs` |
//! | the list of faults names tests that exist | `faults.rs` |
//! | tables in documents that repeat what the code says | `tables.rs` |
//! | the inventory of unsafe code is up to date | `inventory.rs` |

mod essay;
mod faults;
mod inventory;
mod layers;
mod lengths;
mod manifests;
mod marks;
mod parity;
mod paths;
mod safety;
mod tables;
mod tokens;
mod tree;

pub(crate) use inventory::{
    DOCUMENT as INVENTORY_DOCUMENT, replace as replace_inventory, table as unsafe_inventory,
};
pub(crate) use tree::{Source, Tree};

use std::fmt;
use std::io;
use std::path::Path;

/// One violation of one rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Finding {
    /// The file, relative to the root of the workspace, with `/` between folders.
    pub(crate) path: String,
    /// The line, counted from one.
    pub(crate) line: usize,
    /// The name of the rule.
    pub(crate) rule: &'static str,
    /// What is wrong, and what would be right.
    pub(crate) message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { path, line, rule, message } = self;
        write!(f, "{path}:{line}: {rule}: {message}")
    }
}

/// Applies every rule to the workspace at `root`; the findings are sorted by file and line.
///
/// # Errors
/// When the files cannot be listed or read.
pub(crate) fn check(root: &Path) -> io::Result<Vec<Finding>> {
    Ok(check_tree(&Tree::load(root)?))
}

/// Applies every rule to a tree.
fn check_tree(tree: &Tree) -> Vec<Finding> {
    let rules: [fn(&Tree) -> Vec<Finding>; 12] = [
        tokens::check,
        essay::check,
        faults::check,
        inventory::check,
        layers::check,
        lengths::check,
        manifests::check,
        marks::check,
        parity::check,
        paths::check,
        safety::check,
        tables::check,
    ];
    let mut findings: Vec<Finding> = rules.iter().flat_map(|rule| rule(tree)).collect();
    findings.sort();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole workspace keeps its own conventions.
    #[test]
    fn the_workspace_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root");
        let tree = Tree::load(root).expect("the workspace is readable");
        // Guards against a listing that finds nothing and therefore finds nothing wrong.
        assert!(tree.exists("crates/spanheap-core/src/lib.rs"));
        let findings = check_tree(&tree);
        let report: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(report.is_empty(), "\n{}\n", report.join("\n"));
    }

    #[test]
    fn a_finding_prints_as_path_line_rule_message() {
        let finding =
            Finding { path: "a/b.rs".into(), line: 7, rule: "essay", message: "none".into() };
        assert_eq!(finding.to_string(), "a/b.rs:7: essay: none");
    }

    #[test]
    fn findings_of_all_rules_come_sorted_by_place() {
        let tree = Tree::from_texts(&[("b.rs", "fn b() {}\n"), ("a.rs", "fn a() { ) }\n")]);
        let findings = check_tree(&tree);
        let places: Vec<_> = findings.iter().map(|f| (f.path.as_str(), f.rule)).collect();
        assert_eq!(places, [("a.rs", "essay"), ("a.rs", "lex"), ("b.rs", "essay")]);
    }
}
