//! `spanheap map`: what each page of a heap is used for, while a workload runs.
//!
//! Threads work on a heap; the main thread takes a picture of it now and then, and draws it as text, and the
//! last one as SVG if it was asked to.
//!
//! - [`workload`]: what the threads do
//! - [`cells`]: pages in groups of some, which is what is drawn
//! - [`text`], [`svg`]: the two drawings; [`classes`]: the table that both have
//!
//! A picture is taken when every thread has done a round of its work, so the last one shows something however
//! short the run is.

mod cells;
mod classes;
mod svg;
mod text;
mod workload;

use std::fs::File;
use std::io::{self, IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use spanheap::{Heap, PageTotals, Picture, Stats};

use crate::failure::{Failure, Result};
use crate::options::{check_range, check_threads, seconds};
use crate::output;
use cells::Scale;
use workload::{Kind, Progress};

/// What `spanheap map` is told.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// What the heap is used for meanwhile.
    #[arg(long, value_enum, default_value_t = Kind::Fragment)]
    workload: Kind,
    /// How many threads work, 1 to 1024.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// How long, in seconds.
    #[arg(long, default_value_t = 5.0, allow_negative_numbers = true)]
    seconds: f64,
    /// How often a picture is drawn, in seconds; at least 0.05.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    every: f64,
    /// Draw one picture only, at the end.
    #[arg(long, conflicts_with = "every")]
    once: bool,
    /// Write the last picture to this file, as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// How many pages of 8 KiB a cell stands for, 1 to 8192. By default as many as fit a screen.
    #[arg(long, value_name = "PAGES")]
    cell: Option<usize>,
    /// When to use colours.
    #[arg(long, value_enum, alias = "color", default_value_t = Colour::Auto)]
    colour: Colour,
}

const EXAMPLES: &str = "Examples:
  spanheap map                                           a fragmented heap, drawn every second
  spanheap map --workload phases --seconds 20 --every 0.5
  spanheap map --workload demo --once --svg heap.svg
  spanheap map --once --colour always | less -R";

/// When to use colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    Always,
    Never,
}

/// What is drawn: a picture and what belongs to its moment.
struct Shot {
    workload: &'static str,
    elapsed: Duration,
    picture: Picture,
    totals: PageTotals,
    stats: Stats,
    scale: Scale,
}

impl Shot {
    /// What pages are used for, in two lines.
    fn figures(&self) -> [String; 2] {
        let totals = &self.totals;
        let [in_use, objects, free, returned, held, reserved, arena, quarantined] = [
            totals.small + totals.large,
            self.picture.object_bytes(),
            totals.free,
            totals.returned,
            totals.held,
            totals.reserved,
            totals.arena,
            totals.quarantined,
        ]
        .map(|size| output::bytes(size.get() as u64));
        let mut others = format!("returned {returned}; held {held}; reserved {reserved}");
        if self.has_arenas() {
            others.push_str(&format!("; user arenas {arena}; quarantined {quarantined}"));
        }
        [format!("in use {in_use}, of which objects {objects}; free {free}"), others]
    }

    /// Whether any page belongs to a user arena, or did.
    pub(super) fn has_arenas(&self) -> bool {
        self.totals.arena.get() + self.totals.quarantined.get() > 0
    }
}

/// Runs a workload and draws its heap.
pub(crate) fn run(options: &Options) -> Result<()> {
    let (duration, every) = check(options)?;
    let mut svg = options.svg.as_deref().map(SvgFile::create).transpose()?;
    let heap = Heap::builder().build()?;
    let progress = Progress::default();
    let started = Instant::now();
    workload::beside(options.workload, &heap, options.threads, &progress, || {
        let mut screen = Screen::new(options);
        let mut next = if options.once { duration } else { every.min(duration) };
        loop {
            wait(&progress, options.threads, started, next);
            if progress.is_stopped() {
                // The workload has failed; why is its result.
                return Ok(());
            }
            let shot = shoot(options, &heap, started);
            screen.show(&shot)?;
            if next >= duration {
                return svg.as_mut().map_or(Ok(()), |file| file.write(&shot));
            }
            // Drawing may have taken longer than the interval; what was missed is left out.
            next = (next + every).max(started.elapsed()).min(duration);
        }
    })
}

/// Refuses numbers that make no sense; returns the duration and the interval.
fn check(options: &Options) -> Result<(Duration, Duration)> {
    check_threads(options.threads)?;
    if let Some(pages) = options.cell {
        check_range("--cell", pages, 1..=8192)?;
    }
    let every = seconds("--every", options.every)?;
    if every < Duration::from_millis(50) {
        return Err(Failure::new(format!(
            "--every is {}, it must be 0.05 at least",
            options.every
        )));
    }
    Ok((seconds("--seconds", options.seconds)?, every))
}

/// Waits until so much time has passed since the start, and every thread has done a round.
fn wait(progress: &Progress, threads: usize, started: Instant, until: Duration) {
    loop {
        let rest = until.saturating_sub(started.elapsed());
        let ready = progress.rounds() >= threads as u64;
        if progress.is_stopped() || (rest.is_zero() && ready) {
            return;
        }
        thread::sleep(rest.clamp(Duration::from_millis(1), Duration::from_millis(20)));
    }
}

fn shoot(options: &Options, heap: &Heap, started: Instant) -> Shot {
    let picture = heap.picture();
    let scale = Scale::new(options.cell, &picture);
    Shot {
        workload: options.workload.name(),
        elapsed: started.elapsed(),
        totals: picture.totals(),
        picture,
        stats: heap.stats(),
        scale,
    }
}

/// Standard output: pictures one above the other, on a terminal one in the place of the other.
struct Screen {
    colour: bool,
    redraw: bool,
    drawn: bool,
}

impl Screen {
    fn new(options: &Options) -> Screen {
        let terminal = stdout().is_terminal();
        let colour = match options.colour {
            Colour::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
            Colour::Always => true,
            Colour::Never => false,
        };
        Screen { colour, redraw: terminal && !options.once, drawn: false }
    }

    fn show(&mut self, shot: &Shot) -> Result<()> {
        let text = text::draw(shot, self.colour);
        if self.redraw {
            // Home, the picture, and clear what an earlier one has left below it.
            let home = if self.drawn { "\x1b[H" } else { "\x1b[2J\x1b[H" };
            output::line(&format!("{home}{}\x1b[J", text.replace('\n', "\x1b[K\n")))?;
        } else if self.drawn {
            output::line(&format!("\n{text}"))?;
        } else {
            output::line(&text)?;
        }
        self.drawn = true;
        Ok(())
    }
}

/// The file that the last picture goes to. It is made before the workload runs: whoever has waited for a
/// picture should not learn then that it cannot be written.
struct SvgFile<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> SvgFile<'a> {
    fn create(path: &'a Path) -> Result<SvgFile<'a>> {
        let file = File::create(path).map_err(|error| cannot_write(path, &error))?;
        Ok(SvgFile { path, file })
    }

    fn write(&mut self, shot: &Shot) -> Result<()> {
        let written = self.file.write_all(svg::draw(shot).as_bytes());
        written.map_err(|error| cannot_write(self.path, &error))
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{}: cannot be written: {error}", path.display()))
}
