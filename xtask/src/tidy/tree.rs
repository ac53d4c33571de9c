//! The files that the rules look at: what git would commit, read once.
//!
//! `git ls-files` names the tracked files and those that are new and not ignored, so a finding
//! appears before the commit and build output never counts. In an unpacked release there is no git;
//! then the folders are walked, without `.git` and `target`.

use super::tokens::{self, Token};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A text file of the workspace.
pub(crate) struct Source {
    /// Relative to the root, with `/` between folders.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
    /// The tokens, for Rust files; `Err` holds the line and the reason when they cannot be read.
    lexed: Option<Result<Vec<Token>, (usize, String)>>,
}

impl Source {
    fn new(path: String, text: String) -> Source {
        let lexed = path.ends_with(".rs").then(|| tokens::lex(&text));
        Source { path, text, lexed }
    }

    /// Whether this is a Rust file.
    pub(crate) fn is_rust(&self) -> bool {
        self.lexed.is_some()
    }

    /// The tokens of a Rust file; none for other files and for those that do not lex, which
    /// [`Source::lex_error`] reports.
    pub(crate) fn tokens(&self) -> &[Token] {
        match &self.lexed {
            Some(Ok(tokens)) => tokens,
            _ => &[],
        }
    }

    /// Line and reason, when a Rust file cannot be split into tokens.
    pub(crate) fn lex_error(&self) -> Option<&(usize, String)> {
        self.lexed.as_ref()?.as_ref().err()
    }

    /// The `//!` lines at the very top, without their marker.
    pub(crate) fn head(&self) -> Vec<&str> {
        self.text.lines().map_while(|line| line.strip_prefix("//!")).collect()
    }

    /// Whether the file lies in a folder of integration tests or benchmarks.
    pub(crate) fn is_in_tests(&self) -> bool {
        let (folder, _) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        folder.split('/').any(|part| part == "tests" || part == "benches")
    }
}

/// All files of the workspace.
pub(crate) struct Tree {
    sources: Vec<Source>,
    paths: BTreeSet<String>,
}

impl Tree {
    /// Reads the files below `root`.
    ///
    /// # Errors
    /// When a folder or a file cannot be read. Files that are not UTF-8 count as existing, but have
    /// no text.
    pub(crate) fn load(root: &Path) -> io::Result<Tree> {
        let listed = match git_files(root) {
            Some(listed) => listed,
            None => walk(root)?,
        };
        let mut tree = Tree { sources: Vec::new(), paths: BTreeSet::new() };
        for path in listed {
            let bytes = match std::fs::read(root.join(&path)) {
                Ok(bytes) => bytes,
                // A tracked file that is deleted and not yet committed as such.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
            };
            tree.paths.insert(path.clone());
            if let Ok(text) = String::from_utf8(bytes) {
                tree.sources.push(Source::new(path, text));
            }
        }
        Ok(tree)
    }

    /// A tree of given texts, for the tests of the rules.
    #[cfg(test)]
    pub(crate) fn from_texts(files: &[(&str, &str)]) -> Tree {
        let paths = files.iter().map(|(path, _)| path.to_string()).collect();
        let source = |(path, text): &(&str, &str)| Source::new(path.to_string(), text.to_string());
        Tree { sources: files.iter().map(source).collect(), paths }
    }

    /// The text files.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter()
    }

    /// The Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &Source> {
        self.sources().filter(|source| source.is_rust())
    }

    /// The text file of that name.
    pub(crate) fn source(&self, path: &str) -> Option<&Source> {
        self.sources().find(|source| source.path == path)
    }

    /// Whether a file, or a folder with a file somewhere in it, has that name.
    pub(crate) fn exists(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty()
            || self.paths.contains(path)
            || self.paths.range(folder.clone()..).next().is_some_and(|p| p.starts_with(&folder))
    }
}

/// What git knows and does not ignore; nothing when there is no git or no repository.
fn git_files(root: &Path) -> Option<Vec<String>> {
    // A tree unpacked inside somebody else's repository is not what that repository tracks.
    if !root.join(".git").exists() {
        return None;
    }
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    let names = String::from_utf8(output.stdout).ok()?;
    Some(names.split('\0').filter(|name| !name.is_empty()).map(str::to_string).collect())
}

/// Every file below `root` but build output and git's own.
fn walk(root: &Path) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name();
            let path = folder.join(&name);
            if entry.file_type()?.is_dir() {
                if name != ".git" && name != "target" {
                    folders.push(path);
                }
            } else if let Some(path) = path.to_str() {
                files.push(path.replace(std::path::MAIN_SEPARATOR, "/"));
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_exists_when_a_file_lies_in_it() {
        let tree = Tree::from_texts(&[("docs/a.md", ""), ("docs-old/b.md", ""), ("c.md", "")]);
        assert!(tree.exists("docs") && tree.exists("docs/a.md") && tree.exists(""));
        assert!(!tree.exists("doc") && !tree.exists("docs/b.md") && !tree.exists("c.md/x"));
    }

    #[test]
    fn the_head_ends_with_the_first_other_line() {
        let tree =
            Tree::from_texts(&[("a.rs", "//! One.\n//!\n//! Two.\n\n//! Three.\nfn a() {}\n")]);
        assert_eq!(tree.source("a.rs").expect("given").head(), [" One.", "", " Two."]);
    }

    #[test]
    fn only_the_folder_makes_a_test_file() {
        let tree =
            Tree::from_texts(&[("a/tests/b.rs", ""), ("a/src/tests.rs", ""), ("benches/c.rs", "")]);
        let in_tests: Vec<bool> = tree.sources().map(Source::is_in_tests).collect();
        assert_eq!(in_tests, [true, false, true]);
    }

    /// Walking finds what git lists, when nothing is ignored but build output.
    #[test]
    fn the_walk_finds_this_file_and_no_build_output() {
        let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = walk(crate_root).expect("the crate is readable");
        assert!(files.iter().any(|file| file == "src/tidy/tree.rs"));
        assert!(!files.iter().any(|file| file.split('/').any(|part| part == "target")));
    }
}
