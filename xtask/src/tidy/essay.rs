//! Rule `essay`: every Rust file opens by saying what it is.
//!
//! The first line is the first line of the essay, so that a reader who opens the file meets the
//! reasons before the code, and `head -20` of any file is an introduction.

use super::{Finding, Tree};

/// Files whose first line is not the start of an essay.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|source| !source.head().iter().any(|line| !line.trim().is_empty()))
        .map(|source| Finding {
            path: source.path.clone(),
            line: 1,
            rule: "essay",
            message: "a file opens with `//!` lines that say what it is and why".into(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> usize {
        check(&Tree::from_texts(&[("a.rs", text)])).len()
    }

    #[test]
    fn an_essay_is_required_on_the_first_line() {
        assert_eq!(count("//! What.\nfn a() {}\n"), 0);
        assert_eq!(count("fn a() {}\n"), 1);
        assert_eq!(count("// What.\n//! Too late.\n"), 1);
        assert_eq!(count("#![allow(dead_code)]\n//! Too late.\n"), 1);
        assert_eq!(count(""), 1);
    }

    #[test]
    fn an_empty_essay_says_nothing() {
        assert_eq!(count("//!\n//!\nfn a() {}\n"), 1);
    }

    #[test]
    fn other_files_have_no_such_head() {
        assert!(check(&Tree::from_texts(&[("a.md", "# A\n")])).is_empty());
    }
}
