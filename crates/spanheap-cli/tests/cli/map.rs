//! `spanheap map`: both drawings, for every workload.
//!
//! What a heap looks like depends on when it is looked at; what a drawing has in any case does not.

use std::path::PathBuf;

use super::{fail, succeed};

/// A picture taken when each thread has done a round.
#[track_caller]
fn once(arguments: &[&str]) -> String {
    succeed(&[&["map", "--once", "--seconds", "0"], arguments].concat())
}

#[test]
fn every_workload_has_a_picture() {
    // Trees have two classes; of the others' many, those with the most free are shown.
    for (workload, name) in [
        ("fragment", "  type\n"),
        ("phases", "  type\n"),
        ("trees", "Tree<'_>"),
        ("demo", "  type\n"),
    ] {
        let text = once(&["--workload", workload]);
        assert!(text.starts_with(&format!("{workload}  ")), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains(" cycles  a cell is "), "{text}");
        assert!(lines[1].starts_with("in use ") && lines[1].contains("; returned "), "{text}");
        assert!(lines[2].starts_with("arena 0x"), "{text}");
        assert!(lines[3].starts_with("   0 MiB  "), "{text}");
        for words in ["100 % of slots", "free slots", name] {
            assert!(text.contains(words), "{workload}: {words:?} is missing: {text}");
        }
        assert!(!text.contains('\x1b'), "colours in a pipe: {text:?}");
    }
}

#[test]
fn cells_are_as_large_as_was_asked_for() {
    // Eight rows of 8 MiB or fewer for an arena, and one for the rest.
    let text = once(&["--workload", "trees", "--cell", "16"]);
    assert!(text.contains("a cell is 16 pages, 128 KiB\n"), "{text}");
    let offsets = text.lines().filter_map(|line| line.trim_start().split_once(" MiB  "));
    for (offset, cells) in offsets {
        assert_eq!(offset.parse::<u32>().expect("a number") % 8, 0, "{text}");
        assert!(cells.chars().count() <= 64, "{text}");
    }
    let text = once(&["--workload", "trees", "--cell", "8192"]);
    assert!(text.contains("a cell is 8192 pages, 65536 KiB\n"), "{text}");
}

#[test]
fn pictures_follow_each_other() {
    let arguments = ["map", "--workload", "trees", "--seconds", "0.2", "--every", "0.05"];
    let text = succeed(&arguments);
    let pictures = text.lines().filter(|line| line.starts_with("trees  ")).count();
    // However slow the machine is: the first, and the last.
    assert!((2..=4).contains(&pictures), "{pictures}: {text}");
    assert_eq!(text.matches("100 % of slots").count(), pictures);
}

#[test]
fn colours_are_there_when_wanted() {
    assert!(once(&["--workload", "trees", "--colour", "always"]).contains("\x1b[38;5;35m█"));
    assert!(once(&["--workload", "trees", "--color", "always"]).contains("\x1b[0m"));
    assert!(!once(&["--workload", "trees", "--colour", "never"]).contains('\x1b'));
}

#[test]
fn the_svg_stands_by_itself() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("map.svg");
    let name = path.to_str().expect("UTF-8");
    let text = once(&["--workload", "demo", "--threads", "3", "--svg", name]);
    let svg = std::fs::read_to_string(&path).expect("it was written");
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" "), "{svg}");
    assert!(svg.ends_with("</svg>\n"), "{svg}");
    for words in [
        "<style>",
        "prefers-color-scheme: dark",
        "spanheap map: demo",
        "to 25 % of slots live",
        "never used",
        "<title>0x",
        " pages: small, up to ",
        "free slots",
        "Member&lt;'_&gt;",
    ] {
        assert!(svg.contains(words), "{words:?} is missing: {svg}");
    }
    // Every tag is closed, and nothing is fetched from elsewhere.
    for tag in ["text", "title", "style", "svg"] {
        let count = |start: &str| svg.matches(&format!("{start}{tag}")).count();
        assert_eq!(count("<"), count("</"), "{tag}");
    }
    assert_eq!(
        svg.matches("<rect").count(),
        svg.matches("</rect>").count() + svg.matches("/>").count()
    );
    assert!(!svg.contains("href") && !svg.contains("url("), "{svg}");
    // Both drawings are of the same moment.
    let arenas = |drawing: &str| drawing.matches("arena 0x").count();
    assert_eq!(arenas(&text), arenas(&svg));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (arguments, expected) in [
        (&["--threads", "0"][..], "--threads is 0, it must be 1 to 1024"),
        (&["--seconds", "-1"], "--seconds is -1, it must be 0 to 31622400"),
        (&["--every", "0"], "--every is 0, it must be 0.05 at least"),
        (&["--every", "inf"], "--every is inf, it must be 0 to 31622400"),
        (&["--cell", "0"], "--cell is 0, it must be 1 to 8192"),
        (&["--cell", "8193"], "--cell is 8193, it must be 1 to 8192"),
    ] {
        assert_eq!(fail(&[&["map"], arguments].concat()), expected);
    }
}

/// Whether the file can be written is known before the workload has run.
#[test]
fn a_file_that_cannot_be_written_is_an_error() {
    let directory = env!("CARGO_TARGET_TMPDIR");
    let error =
        fail(&["map", "--workload", "trees", "--once", "--seconds", "0", "--svg", directory]);
    assert!(error.contains(": cannot be written: "), "{error}");
}
