//! What the figures were taken on and with: machine, system, compilers, commit, date.
//!
//! Everything is asked from the system, and what it does not tell is left out. Nothing here names the machine
//! itself or its folders: a report is meant to be shown.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::build::version;

/// Names and texts, in the order in which a reader wants them.
pub fn facts(root: &Path) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let mut add = |name: &str, text: Option<String>| {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            facts.push((name.to_owned(), text));
        }
    };
    add("commit", commit(root));
    add("processor", processor());
    add("memory", memory());
    add("system", read("/proc/sys/kernel/osrelease").map(|release| format!("Linux {release}")));
    add("huge pages", read("/sys/kernel/mm/transparent_hugepage/enabled"));
    add("governor", read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"));
    add("load at the start", read("/proc/loadavg").map(|text| first_words(&text, 3)));
    add("Rust", version("rustc", &["--version"]));
    add("flags of Rust", std::env::var("RUSTFLAGS").ok());
    add("Go", version("go", &["version"]));
    add("C", version("cc", &["--version"]).map(|text| first_line(&text)));
    add("libgc", version("pkg-config", &["--modversion", "bdw-gc"]));
    facts
}

fn commit(root: &Path) -> Option<String> {
    let root = root.to_str()?;
    let hash = version("git", &["-C", root, "rev-parse", "--short=12", "HEAD"])?;
    let changes = version("git", &["-C", root, "status", "--porcelain"])?;
    Some(if changes.is_empty() {
        hash
    } else {
        format!("{hash}, with changes that are not committed")
    })
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    let name = line.split_once(':')?.1.trim();
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    let virtual_machine = text.contains(" hypervisor ");
    let shared = if virtual_machine { ", of a virtual machine" } else { "" };
    Some(format!("{name}, {count} logical processors for this program{shared}"))
}

fn memory() -> Option<String> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes: f64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(format!("{:.1} GiB", kibibytes / (1 << 20) as f64))
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn first_words(text: &str, count: usize) -> String {
    text.split_ascii_whitespace().take(count).collect::<Vec<_>>().join(" ")
}

/// The present date and time in UTC, as `2026-01-31 12:00`.
pub fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    date(seconds)
}

/// The date and time of so many seconds after the beginning of 1970.
///
/// Days are counted from the first of March of the year 0, so that the leap day is the last of its year; then eras
/// of 400 years are equal.
fn date(seconds: u64) -> String {
    const DAYS_BEFORE_1970: u64 = 719_468;
    let (days, rest) = (seconds / 86_400 + DAYS_BEFORE_1970, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (era * 400 + year, month + 3),
        _ => (era * 400 + year + 1, month - 9),
    };
    format!("{year}-{month:02}-{of_month:02} {:02}:{:02}", rest / 3600, rest / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(951_782_400), "2000-02-29 00:00");
        assert_eq!(date(951_868_800), "2000-03-01 00:00");
        assert_eq!(date(1_798_761_599), "2026-12-31 23:59");
        assert_eq!(date(4_107_542_399), "2100-02-28 23:59");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00");
    }
}
