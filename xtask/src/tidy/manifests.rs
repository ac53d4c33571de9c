//! Rule `dependency`: which crate may depend on what.
//!
//! The memory manager depends on `libc` alone, so that it can be vendored, audited and used where
//! nothing else is welcome; the safe crate adds the core and the derive; the program may be rich.
//! Dependencies of tests are free. A crate that is not in the table is a finding: deciding what it
//! may use comes first.
//!
//! Manifests are read by line, not by a parser of the format: only the headers of sections and the
//! keys at the starts of lines matter, and those are written plainly here.

use super::{Finding, Source, Tree};

/// What may stand in a crate's dependencies; nothing means anything. Crates of the workspace that
/// are not below `crates/` (such as this one) are not published and are left alone.
const ALLOWED: [(&str, Option<&[&str]>); 6] = [
    ("spanheap-core", Some(&["libc"])),
    ("spanheap-derive", Some(&["syn", "quote", "proc-macro2"])),
    (
        "spanheap",
        Some(&["spanheap-core", "spanheap-derive", "allocator-api2-02", "allocator-api2-04"]),
    ),
    ("spanheap-cli", None),
    // Nothing but tests.
    ("spanheap-interleavings", Some(&[])),
    // A program of the workspace's own, built with nothing that a user's program need not have.
    ("spanheap-instructions", Some(&["spanheap", "libc"])),
];

/// Dependencies against the table.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree.sources() {
        let Some(name) = crate_of(&source.path) else { continue };
        let finding = |line, message| Finding {
            path: source.path.clone(),
            line,
            rule: "dependency",
            message,
        };
        match ALLOWED.iter().find(|(known, _)| *known == name) {
            None => findings.push(finding(
                1,
                format!("`{name}` has no row in the table of {} (say what it may use)", file!()),
            )),
            Some((_, None)) => {}
            Some((_, Some(allowed))) => {
                for (line, dependency) in dependencies(source) {
                    if !allowed.contains(&dependency.as_str()) {
                        let message = format!("`{name}` may not depend on `{dependency}`");
                        findings.push(finding(line, message));
                    }
                }
            }
        }
    }
    findings
}

/// The folder's name, for the manifest of a crate below `crates/`.
fn crate_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
    (!name.contains('/')).then_some(name)
}

/// The packages that a manifest depends on outside tests, with their lines.
fn dependencies(source: &Source) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut section = Section::Other;
    for (number, line) in (1..).zip(source.text.lines().map(str::trim)) {
        if let Some(header) = line.strip_prefix('[') {
            section = Section::of(header.trim_end_matches(']'));
            if let Section::One(name) = &section {
                found.push((number, name.clone()));
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        match section {
            Section::Other => {}
            Section::List if line.starts_with('#') => {}
            Section::List => {
                let name = key.split('.').next().unwrap_or(key).trim().trim_matches('"');
                found.push((number, renamed(value).unwrap_or(name).to_string()));
            }
            Section::One(_) => {
                if let (Some(last), Some(name)) = (found.last_mut(), renamed(line)) {
                    last.1 = name.to_string();
                }
            }
        }
    }
    found
}

/// What the keys of a section of a manifest mean.
enum Section {
    /// Each key is a dependency.
    List,
    /// The section describes this dependency.
    One(String),
    /// Anything else, dependencies of tests included.
    Other,
}

impl Section {
    /// From the text between the brackets: `dependencies`, `build-dependencies`, either of them
    /// below `target.'cfg(..)'`, or with the name of one dependency behind it.
    fn of(header: &str) -> Section {
        let rest = match header.strip_prefix("target.") {
            Some(target) => target.rsplit_once("'.").map_or(target, |(_, rest)| rest),
            None => header,
        };
        let (kind, name) = rest.split_once('.').map_or((rest, None), |(a, b)| (a, Some(b)));
        match (kind, name) {
            ("dependencies" | "build-dependencies", None) => Section::List,
            ("dependencies" | "build-dependencies", Some(name)) => {
                Section::One(name.trim_matches('"').to_string())
            }
            _ => Section::Other,
        }
    }
}

/// The real name of a dependency that has been given another: what follows `package =`.
fn renamed(text: &str) -> Option<&str> {
    let (before, after) = text.split_once("package")?;
    let starts_a_key = before.is_empty() || before.ends_with(['{', ',', ' ']);
    let value = after.trim_start().strip_prefix('=')?.trim_start().strip_prefix('"')?;
    starts_a_key.then(|| value.split('"').next()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(name: &str, manifest: &str) -> Vec<String> {
        let path = format!("crates/{name}/Cargo.toml");
        check(&Tree::from_texts(&[(&path, manifest)])).into_iter().map(|f| f.to_string()).collect()
    }

    #[test]
    fn the_core_depends_on_libc_alone() {
        let good =
            "[package]\nname = \"x\"\n[dependencies]\n# more = \"1\"\nlibc.workspace = true\n";
        assert!(messages("spanheap-core", good).is_empty());
        let bad = "[dependencies]\nlibc = \"0.2\"\nserde = { version = \"1\" }\n";
        assert_eq!(
            messages("spanheap-core", bad),
            [
                "crates/spanheap-core/Cargo.toml:3: dependency: `spanheap-core` may not depend on `serde`"
            ]
        );
    }

    #[test]
    fn dependencies_of_tests_are_free() {
        let text =
            "[dev-dependencies]\nproptest = \"1\"\n[dev-dependencies.serde]\nversion = \"1\"\n";
        assert!(messages("spanheap-core", text).is_empty());
    }

    #[test]
    fn every_spelling_of_a_dependency_is_seen() {
        for text in [
            "[dependencies.rand]\nversion = \"1\"\n",
            "[build-dependencies]\nrand = \"1\"\n",
            "[target.'cfg(unix)'.dependencies]\nrand.workspace = true\n",
            "[target.'cfg(target_os = \"linux\")'.dependencies.rand]\nversion = \"1\"\n",
            "[dependencies]\nlibc = { version = \"1\", package = \"rand\" }\n",
            "[dependencies.libc]\npackage = \"rand\"\n",
        ] {
            let messages = messages("spanheap-core", text);
            assert_eq!(messages.len(), 1, "{text}: {messages:?}");
            assert!(messages[0].ends_with("`spanheap-core` may not depend on `rand`"), "{text}");
        }
    }

    #[test]
    fn the_direction_is_core_then_safe_then_program() {
        let on = |name: &str| format!("[dependencies]\n{name}.workspace = true\n");
        assert!(messages("spanheap", &on("spanheap-core")).is_empty());
        assert!(messages("spanheap", &on("spanheap-derive")).is_empty());
        assert!(messages("spanheap-cli", &on("clap")).is_empty());
        assert_eq!(messages("spanheap", &on("spanheap-cli")).len(), 1);
        assert_eq!(messages("spanheap-core", &on("spanheap")).len(), 1);
        assert_eq!(messages("spanheap-derive", &on("spanheap-core")).len(), 1);
    }

    #[test]
    fn an_unknown_crate_must_be_decided_about() {
        assert_eq!(messages("spanheap-new", "[package]\n").len(), 1);
        assert!(
            check(&Tree::from_texts(&[("xtask/Cargo.toml", "[dependencies]\na = \"1\"\n")]))
                .is_empty()
        );
    }
}
