//! What the program is told.

use std::path::PathBuf;

use clap::Parser;

/// Compares spanheap with other memory managers, in turns on this machine, and writes a table and a page.
#[derive(Parser, Debug)]
#[command(name = "spanheap-bench", after_help = EXAMPLES)]
pub struct Options {
    /// Small sizes and few launches: some minutes for all, to see that everything works. No figures to be quoted.
    #[arg(long)]
    pub quick: bool,
    /// These alone: names from `--list`; the name of a workload that none of them has means all of its cases.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub workload: Vec<String>,
    /// These systems alone: names from `--list`.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub system: Vec<String>,
    /// How often each program is started; 10 unless given, 3 with --quick.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    pub launches: Option<u32>,
    /// Where results.json, table.md and report.html are put; bench/target/report of the source tree unless given.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// spanheap alone.
    #[arg(long, conflicts_with = "system")]
    pub no_peers: bool,
    /// No runs at 1.3, 1.5, 2 and 3 times the live memory.
    #[arg(long)]
    pub no_curves: bool,
    /// A run with more resident memory is killed, in MiB.
    #[arg(long, default_value_t = 6144, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..=1 << 30))]
    pub memory: u64,
    /// Build nothing: the programs are in this folder, each with the name of its system.
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// No runs: table and page anew from the results of earlier ones.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "workload", "system", "launches", "no_peers", "no_curves"])]
    pub from: Option<PathBuf>,
    /// Name the cases and the systems, and do nothing else.
    #[arg(long)]
    pub list: bool,
}

const EXAMPLES: &str = "Examples:
  spanheap-bench --quick
  spanheap-bench --workload binary-trees --system spanheap,go --launches 20
  spanheap-bench --no-peers --quick
  spanheap-bench --from bench/target/report/results.json

What differs between two equal programs is noise: spanheap takes part twice, and the page says how far apart the two were.
The exit code is 0 if all went well, 1 if a program failed or a checksum differed.";

impl Options {
    /// How often each program is started.
    pub fn launches(&self) -> usize {
        let usual = if self.quick { 3 } else { 10 };
        self.launches.map_or(usual, |launches| launches as usize)
    }

    /// How often for each point of a curve.
    pub fn curve_launches(&self) -> usize {
        match (self.no_curves, self.quick) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => self.launches().min(3),
        }
    }
}
