//! The program `spanheap`: what the library does, shown on real work and measured.
//!
//! - `spanheap demo` decodes real JSON documents into a shared heap from several threads, edits and
//!   queries them while the collector runs, and proves at the end that nothing was lost.
//! - `spanheap bench` runs one of the field's workloads and prints one result.
//! - `spanheap map` shows what each page of a heap is used for while a workload runs.
//!
//! Every failure that a user can cause is one line on standard error, `error: ...`, and exit code 1;
//! a command line that cannot be understood is exit code 2. Nothing a user types makes it panic.

#![deny(unsafe_code)]

mod bench;
mod demo;
mod failure;
mod live_data;
mod map;
mod options;
mod output;
mod process;
mod random;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "Examples:
  spanheap demo --seconds 10 --threads 4
  spanheap bench binary-trees --set depth=18
  spanheap bench phases --large 1GiB
  spanheap map --workload fragment --svg heap.svg
  SPANHEAP_DEBUG=gctrace=1 spanheap demo    a line for each cycle; also for `bench`";

/// A garbage-collected heap for Rust, at work.
#[derive(Parser)]
#[command(name = "spanheap", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Decode, edit, query and compare JSON documents that live in a shared heap.
    Demo(demo::Options),
    /// Run a workload and print what it cost.
    Bench(bench::Options),
    /// Show what each page of a heap is used for while a workload runs.
    Map(map::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Map(options) => map::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&format!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}
