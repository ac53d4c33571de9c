//! Counts of all operations, and the file that holds them: a block for each compiler.
//!
//! ```text
//! rustc 1.95
//! loop 3
//! alloc-16 14
//! ```
//! Counts are of an operation and may have a tenth. A compiler of another version makes other code, so without a
//! block of its own it is compared with the nearest one, and has a quarter to spare.

use crate::operations;
use crate::trace::Failure;
use std::fmt;
use std::fs;

/// What a count may differ by where it need not be equal: one part in so many, and [`SLACK_TENTHS`].
const SLACK_PART: u64 = 4;
/// Two instructions.
const SLACK_TENTHS: u64 = 20;

/// The counts of one compiler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    /// Major and minor version.
    compiler: (u32, u32),
    /// Names and tenths of instructions.
    rows: Vec<(String, u64)>,
}

/// What a comparison says.
pub(crate) enum Verdict {
    /// All counts are what they were.
    Same,
    /// There is nothing to compare with but another compiler, whose counts are near.
    NoLine(String),
    /// These are not.
    Different(Vec<String>),
}

impl Counts {
    /// None yet.
    pub(crate) fn of_this_compiler() -> Counts {
        let compiler = version(env!("SPANHEAP_RUSTC")).expect("the build script wrote it");
        Counts { compiler, rows: Vec::new() }
    }

    /// Adds the next one.
    pub(crate) fn add(&mut self, name: &str, tenths: u64) {
        self.rows.push((name.to_string(), tenths));
    }

    fn get(&self, name: &str) -> Option<u64> {
        self.rows.iter().find(|(other, _)| other == name).map(|&(_, tenths)| tenths)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rustc {}.{}", self.compiler.0, self.compiler.1)?;
        for (name, tenths) in &self.rows {
            writeln!(f, "{name} {}", Tenths(*tenths))?;
        }
        Ok(())
    }
}

/// A number of tenths.
struct Tenths(u64);

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 10, self.0 % 10) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, tenth) => write!(f, "{whole}.{tenth}"),
        }
    }
}

/// `1.95` of `1.95.0-nightly`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn tenths(text: &str) -> Option<u64> {
    let (whole, tenth) = text.split_once('.').unwrap_or((text, "0"));
    Some(whole.parse::<u64>().ok()? * 10 + tenth.parse::<u64>().ok().filter(|&tenth| tenth < 10)?)
}

/// The blocks of a file, and the comment above them.
fn parse(text: &str) -> Result<(String, Vec<Counts>), Failure> {
    let (mut head, mut blocks) = (String::new(), Vec::<Counts>::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let wrong = || Failure::Other(format!("the file of counts has a line {line:?}"));
        match (words.as_slice(), blocks.last_mut()) {
            ([], _) => {}
            ([first, ..], None) if first.starts_with('#') => {
                head.push_str(line);
                head.push('\n');
            }
            (["rustc", compiler], _) => {
                let compiler = version(compiler).ok_or_else(wrong)?;
                blocks.push(Counts { compiler, rows: Vec::new() });
            }
            ([name, count], Some(block)) => block.add(name, tenths(count).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        }
    }
    Ok((head, blocks))
}

fn read(path: &str) -> Result<(String, Vec<Counts>), Failure> {
    let text = fs::read_to_string(path);
    parse(&text.map_err(|error| Failure::Other(format!("{path} cannot be read: {error}")))?)
}

/// Puts `counts` in the place of those of the same compiler.
pub(crate) fn write(path: &str, counts: &Counts) -> Result<(), Failure> {
    let (head, mut blocks) = read(path)?;
    blocks.retain(|block| block.compiler != counts.compiler);
    blocks.push(counts.clone());
    blocks.sort_by_key(|block| block.compiler);
    let blocks: Vec<String> = blocks.iter().map(Counts::to_string).collect();
    fs::write(path, format!("{head}\n{}", blocks.join("\n")))
        .map_err(|error| Failure::Other(format!("{path} cannot be written: {error}")))
}

/// Compares with the file.
pub(crate) fn compare(path: &str, counts: &Counts) -> Result<Verdict, Failure> {
    let (_, blocks) = read(path)?;
    let distance = |block: &&Counts| {
        let ((major, minor), (of, other)) = (counts.compiler, block.compiler);
        (major.abs_diff(of), minor.abs_diff(other))
    };
    let Some(nearest) = blocks.iter().min_by_key(distance) else {
        return Err(Failure::Other(format!("{path} has no counts")));
    };
    let is_same = nearest.compiler == counts.compiler;
    let lines = differences(nearest, counts, is_same);
    Ok(match (lines.is_empty(), is_same) {
        (false, _) => Verdict::Different(lines),
        (true, true) => Verdict::Same,
        (true, false) => {
            Verdict::NoLine(format!("rustc {}.{}", nearest.compiler.0, nearest.compiler.1))
        }
    })
}

/// What differs, a line for each. A count that has become smaller is written down, too: or else it could grow
/// back.
fn differences(known: &Counts, counts: &Counts, is_same: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, now) in &counts.rows {
        let Some(before) = known.get(name) else {
            lines.push(format!(
                "{name}: {} instructions, and no count is written down",
                Tenths(*now)
            ));
            continue;
        };
        let slack = match is_same && !operations::depends_on_libc(name) {
            true => 0,
            false => before / SLACK_PART + SLACK_TENTHS,
        };
        if now.abs_diff(before) > slack {
            let (before, now) = (Tenths(before), Tenths(*now));
            lines.push(format!("{name}: {now} instructions, and {before} are written down"));
        }
    }
    for (name, _) in &known.rows {
        if counts.get(name).is_none() {
            lines.push(format!("{name}: a count is written down, and there is no such operation"));
        }
    }
    lines
}
